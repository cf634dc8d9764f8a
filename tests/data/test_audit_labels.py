"""Label direction, score gaps and agreement, on records worked by hand."""

from __future__ import annotations

import math

import pytest
from scipy.stats import kendalltau

from ablate.catalogs.datasets import Pairing
from ablate.data.audit.items import Audited
from ablate.data.audit.labels import MEAN, Agreement, Direction, Margins
from ablate.data.pairing import pairs
from ablate.data.records import PreferenceRecord, Response, message


def response(text: str, score: float | None = None, rank: int | None = None, **aspects: float) -> Response:
    return Response((message("assistant", text),), score=score, rank=rank, aspects=aspects or None)


def record(*responses: Response, source: str = "s", row: int = 1) -> Audited:
    made = PreferenceRecord((message("user", "q"),), responses, source, "id")
    drawn = pairs(made, Pairing(policy="best-vs-worst", ties="keep"))
    assert isinstance(drawn, tuple)
    return Audited(row, source, made.prompt, responses, drawn, None)


def ranked(chosen: float | None, rejected: float | None, source: str = "s") -> Audited:
    return record(response("a", chosen, 1), response("b", rejected, 2), source=source)


def test_direction_counts_reversed_pairs_by_source() -> None:
    check = Direction()
    for item in [ranked(3, 1)] * 18 + [ranked(1, 3)] * 2 + [ranked(1, 2, "small")] * 19 + [ranked(None, None)] * 5:
        check.add(item)
    found = check.finding()
    # 39 of 44 pairs have scores; 2 + 19 are reversed. The small source has one pair too few to be judged.
    assert found.numbers["chosen_lower"] == {"count": 21, "of": 39, "share": 21 / 39}
    assert found.numbers["by_source"]["s"] == {"count": 2, "of": 20, "share": 0.1}
    assert (found.verdict, found.look) == ("look", ("s: chosen scores lower in 2 of 20 (10.0 %)",))
    assert found.examples[0] == "row 1: chosen 1, rejected 3"
    assert "21 of 39 (53.8 %)" in found.summary


def test_direction_says_when_it_cannot_fail_and_when_there_is_nothing_to_check() -> None:
    check = Direction()
    check.add(record(response("a", 2.0), response("b", 5.0)))
    assert check.finding().verdict == "ok" and "by construction" in check.finding().summary
    empty = Direction()
    empty.add(ranked(None, None))
    assert empty.finding().verdict == "not checked"
    assert empty.finding().unchecked == "none of 1 pairs has scores on both sides"


def test_margins_and_ties() -> None:
    check = Margins()
    for chosen, rejected in [(5, 1), (4, 4), (3, 2), (2, 3)]:
        check.add(ranked(chosen, rejected))
    check.add(ranked(None, None))
    found = check.finding()
    # Gaps 4, 0, 1, -1: mean 1, median 0.5.
    assert found.numbers["ties"] == {"count": 1, "of": 4, "share": 0.25}
    gap = found.numbers["gap"]
    assert (gap["n"], gap["mean"], gap["median"], gap["min"], gap["max"]) == (4, 1.0, 0.5, -1.0, 4.0)
    assert (found.numbers["pairs"], found.numbers["scored"], found.verdict) == (5, 4, "look")
    scores = found.drawings[1]
    assert scores.labels == ("1", "2", "3", "4", "5")  # type: ignore[union-attr]
    assert scores.values == {"chosen": (0, 1, 1, 1, 1), "rejected": (1, 1, 1, 1, 0)}  # type: ignore[union-attr]


def test_agreement_of_one_record_is_kendalls_tau() -> None:
    check = Agreement()
    check.add(record(response("a", 5, 1), response("b", 7, 2), response("c", 7, 3)))
    (found,) = check.finding().numbers["compared"]
    # By score both others beat the first (two opposite), and they tie where the ranks do not.
    assert [found[name] for name in ("alike", "opposite", "label_ties", "other_ties", "both_tie")] == [0, 2, 0, 1, 0]
    assert found["tau_b"] == pytest.approx(-2 / math.sqrt(6))
    assert found["tau_b"] == pytest.approx(kendalltau([-1, -2, -3], [5, 7, 7]).statistic)
    assert check.finding().look == ("score and rank order only 0 of 2 (0.0 %) response pairs alike",)


def test_agreement_pools_pairs_within_records_and_judges_the_mean_of_aspects() -> None:
    check = Agreement()
    check.add(record(response("a", 4, helpful=5, honest=1), response("b", 2, helpful=1, honest=3)))
    check.add(record(response("a", 9, helpful=1, honest=1), response("b", 8, helpful=3, honest=1)))
    found = {row["other"]: row for row in check.finding().numbers["compared"]}
    # Means 3 against 2 and 1 against 2; helpful +4, -2; honest -2, 0. The scores prefer the first both times.
    assert [(found[name]["alike"], found[name]["opposite"]) for name in (MEAN, "helpful", "honest")] == [
        (1, 1),
        (1, 1),
        (0, 1),
    ]
    assert found["honest"]["other_ties"] == 1
    assert check.finding().look == ("mean of aspects and score order only 1 of 2 (50.0 %) response pairs alike",)


def test_agreement_needs_a_second_label() -> None:
    check = Agreement()
    check.add(record(response("a", None, 1), response("b", None, 2)))
    assert check.finding().unchecked == "no second label in any of 1 records"
