"""Pairing policies on records whose pairs were worked by hand."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from ablate.catalogs.datasets import Pairing
from ablate.data.pairing import pairs
from ablate.data.records import Dropped, PreferenceRecord, Response, message


def record(scores: dict[str, float | None], ranks: dict[str, int] | None = None, prompt: str = "q") -> PreferenceRecord:
    responses = tuple(
        Response((message("assistant", text),), score=score, rank=(ranks or {}).get(text))
        for text, score in scores.items()
    )
    return PreferenceRecord((message("user", prompt),), responses, source="s", row_id="r")


def drawn(item: PreferenceRecord, policy: str, **options: Any) -> set[str] | str:
    result = pairs(item, Pairing.model_validate({"policy": policy, **options}))
    if isinstance(result, Dropped):
        return result.reason
    found = [f"{pair.chosen.messages[0]['content']}>{pair.rejected.messages[0]['content']}" for pair in result]
    assert len(set(found)) == len(found)
    return set(found)


FOUR = record({"b": 3.0, "d": 1.0, "a": 4.0, "c": 3.0})


def test_each_policy() -> None:
    assert drawn(FOUR, "best-vs-worst") == {"a>d"}
    assert drawn(FOUR, "all-pairs") == {"a>b", "a>c", "a>d", "b>d", "c>d"}
    kept = drawn(FOUR, "all-pairs", ties="keep")
    assert isinstance(kept, set) and kept - {"b>c", "c>b"} == {"a>b", "a>c", "a>d", "b>d", "c>d"} and len(kept) == 6
    adjacent = drawn(FOUR, "adjacent")
    assert adjacent in ({"a>b", "c>d"}, {"a>c", "b>d"})
    assert drawn(FOUR, "best-vs-random") in ({"a>b"}, {"a>c"}, {"a>d"})
    assert drawn(FOUR, "random") in ({"a>b"}, {"a>c"}, {"a>d"}, {"b>d"}, {"c>d"})


def test_margin_is_the_score_gap() -> None:
    (pair,) = pairs(FOUR, Pairing(policy="best-vs-worst"))  # type: ignore[misc]
    assert pair.margin == 3.0
    (pair,) = pairs(record({"a": None, "b": None}, {"a": 2, "b": 1}), Pairing())  # type: ignore[misc]
    assert pair.margin is None and pair.chosen.messages[0]["content"] == "b"


def test_minimum_gap_in_scores_and_in_ranks() -> None:
    assert drawn(FOUR, "all-pairs", minimum_gap=2.0) == {"a>d", "b>d", "c>d"}
    assert drawn(FOUR, "best-vs-random", minimum_gap=3.0) == {"a>d"}
    assert drawn(FOUR, "all-pairs", minimum_gap=3.1) == "gap-below-minimum"
    ranked = record(dict.fromkeys("abc"), {"a": 1, "b": 2, "c": 3})
    assert drawn(ranked, "all-pairs", minimum_gap=2) == {"a>c"}
    # Means of three ratings that are equal on paper differ in the last bit.
    assert drawn(record({"a": 4.3, "b": 4.0}), "all-pairs", minimum_gap=0.3) == {"a>b"}


def test_ties_and_equal_texts() -> None:
    tied = record({"a": 2.0, "b": 2.0})
    assert drawn(tied, "best-vs-random") == "tied"
    assert drawn(tied, "best-vs-random", ties="keep") in ({"a>b"}, {"b>a"})
    same = PreferenceRecord(
        tied.prompt,
        (Response((message("assistant", "x"),), score=2.0), Response((message("assistant", "x"),), score=1.0)),
        source="s",
        row_id="r",
    )
    assert drawn(same, "all-pairs") == "identical-responses"


def test_a_stated_choice_counts_where_scores_tie_or_contradict() -> None:
    stated = record({"a": 8.0, "b": 8.0}, {"a": 2, "b": 1})
    assert drawn(stated, "best-vs-random", ties="keep") == {"b>a"}
    assert drawn(stated, "best-vs-random", ties="drop") == "tied"
    contradicted = record({"a": 9.0, "b": 8.0}, {"a": 2, "b": 1})
    (pair,) = pairs(contradicted, Pairing())  # type: ignore[misc]
    assert (pair.chosen.score, pair.margin) == (8.0, -1.0)


@pytest.mark.parametrize("policy", ["best-vs-random", "best-vs-worst", "all-pairs", "adjacent", "random"])
def test_choices_do_not_depend_on_the_order_of_responses(policy: str) -> None:
    scores = {"b": 3.0, "d": 1.0, "a": 4.0, "c": 3.0, "e": 4.0}
    expected = drawn(record(scores), policy)
    for seed in range(10):
        items = list(scores.items())
        random.Random(seed).shuffle(items)
        assert drawn(record(dict(items)), policy) == expected


def test_random_choices_are_uniform_over_rows_and_change_with_the_seed() -> None:
    n = 3000
    ranks = {"a": 1, "b": 2, "c": 3, "d": 4}
    rows = [record(dict.fromkeys("abcd"), ranks, prompt=f"q{index}") for index in range(n)]
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(drawn(row, "best-vs-random"))
    assert set(counts) == {"a>b", "a>c", "a>d"}
    assert all(abs(count - n / 3) < 4 * (n * 2 / 9) ** 0.5 for count in counts.values()), counts
    changed = sum(drawn(row, "best-vs-random") != drawn(row, "best-vs-random", seed=1) for row in rows[:300])
    assert 150 < changed < 250  # 2/3 of 300, sd 8


def test_labels_leave_the_random_choice_where_they_can() -> None:
    before = record({"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0})
    after = record({"a": 4.0, "b": 1.0, "c": 2.0, "d": 3.0})
    assert drawn(before, "best-vs-random") == drawn(after, "best-vs-random")
