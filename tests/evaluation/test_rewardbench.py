"""RewardBench's sections and scores: published tables, slow references, cases worked by hand."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.catalogs.rewardbench import (
    PAIRS,
    PROMPTS_2,
    RULES,
    SECTIONS,
    SECTIONS_2,
    SUBSETS,
    overall_weights,
    section_weights,
    subset_weights,
)
from ablate.data.json_lines import write_json_lines
from ablate.errors import StageError
from ablate.evaluation.best_of import Gaps, best_of, ties_parts, ties_score
from ablate.evaluation.formats.rewardbench import subset_name
from ablate.evaluation.graders import rewardbench, rewardbench_2
from ablate.evaluation.grading import Evidence, Example, Grades, Metric
from ablate.evaluation.items import Item, Response, user, write_items, write_responses

CURRENT = {"seed": 0, "rule": "current"}


def published(data_root: Path, name: str) -> list[dict[str, str]]:
    path = data_root.parent / "published" / name
    if not path.is_file():
        pytest.skip(f"no table {name} beside the data files")
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def value(grades: Grades, metric: str, task: str = "overall") -> float | None:
    return next(row.value for row in grades.metrics if (row.task, row.metric) == (task, metric))


def test_weights_are_those_of_rewardbench(data_root: Path) -> None:
    facts = json.loads((data_root / "reward_bench" / "subset_weights.json").read_text(encoding="utf-8"))
    core = {name: weights for name, weights in SECTIONS.items() if name != "prior-sets"}
    assert {subset: count for weights in core.values() for subset, count in weights.items()} == facts["EXAMPLE_COUNTS"]
    mapping = {name.lower().replace(" ", "-"): subsets for name, subsets in facts["SUBSET_MAPPING"].items()}
    assert {name: list(weights) for name, weights in core.items()} == mapping


def test_sections_follow_from_the_published_table_of_subsets(data_root: Path) -> None:
    rows = published(data_root, "rewardbench_subsets.csv")
    assert len(rows) == len(SUBSETS) == 27
    for row in rows:
        subset = subset_name(row["subset"])
        assert subset is not None and SUBSETS[subset] == row["section"].lower().replace(" ", "-"), row
        assert PAIRS[subset] == int(row["examples"]), row
    core = sum(count for subset, count in PAIRS.items() if SUBSETS[subset] != "prior-sets")
    assert core == 2985  # rows of the released set
    assert sum(PROMPTS_2.values()) == 1865 and tuple(PROMPTS_2) == SECTIONS_2


ROUNDED_TWICE = {"openbmb/UltraRM-13b": (71.24, 71.3), "HuggingFaceH4/zephyr-7b-beta": (70.76, 70.7)}
"""Models whose published average is 0.06 from the mean of their published sections.

Each section is rounded to 0.1, so the true mean lies within 0.05 of the mean of the printed ones, and the average is
rounded again. UltraRM-13b: (96.1 + 55.2 + 45.8 + 81.9 + 77.2) / 5 = 71.24, so the true mean is in [71.19, 71.29]; 71.3
was printed for one in [71.25, 71.35]: both hold for [71.25, 71.29]. zephyr-7b-beta: (95.3 + 62.6 + 54.1 + 89.6 + 52.2)
/ 5 = 70.76, [70.71, 70.81] and [70.65, 70.75] meet in [70.71, 70.75].
"""


def test_averages_of_the_launch_follow_from_their_sections(data_root: Path) -> None:
    rows = published(data_root, "rewardbench_launch_2024_03.csv")
    assert len(rows) == 21
    off = {}
    for row in rows:
        sections = {name: float(row[name.replace("-", "_")]) for name in SECTIONS}
        weights = overall_weights("launch", list(sections))
        assert weights is not None
        mean = sum(weights[name] * score for name, score in sections.items())
        printed = float(row["average"])
        if abs(mean - printed) > 0.05 + 1e-9:
            off[row["model"]] = (pytest.approx(mean), printed)
        low, high = max(mean - 0.05, printed - 0.05), min(mean + 0.05, printed + 0.05)
        assert low <= high + 1e-9, f"{row['model']}: no true mean is rounded to both"
    assert off == ROUNDED_TWICE
    current = {
        row["model"]: sum(
            weight * float(row[name.replace("-", "_")])
            for name, weight in (overall_weights("current", list(SECTIONS)) or {}).items()
        )
        for row in rows
    }
    near = [row["model"] for row in rows if abs(current[row["model"]] - float(row["average"])) <= 0.1]
    # Under the other rule a row is another number, but where the prior sets are what the rest is on average.
    assert near == ["OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5", "Random"]


def slow_score(accuracies: dict[str, float], rule: str) -> float | None:
    """Sections and score in plain loops, from the weights as algorithms describe them."""
    scores: dict[str, float] = {}
    for section, subsets in SECTIONS.items():
        total = weight = 0.0
        for subset in subsets:
            if subset in accuracies:
                count = 1 if section == "prior-sets" else 984 if subset == "math-prm" else PAIRS[subset]
                total, weight = total + count * accuracies[subset], weight + count
        if weight:
            scores[section] = total / weight
    if rule == "launch":
        return sum(scores.values()) / 5 if len(scores) == 5 else None
    total = weight = 0.0
    for section, score in scores.items():
        own = 0.5 if section == "prior-sets" else 1.0
        total, weight = total + own * score, weight + own
    return total / weight


@pytest.mark.parametrize("rule", list(RULES))
def test_scores_equal_a_slow_reference(rule: str) -> None:
    stream = random.Random(1)
    for missing in ((), ("hep-go", "shp"), tuple(SECTIONS["prior-sets"]), tuple(SECTIONS["chat"])):
        accuracies = {subset: stream.random() for subset in SUBSETS if subset not in missing}
        metrics = rewardbench.section_metrics([Metric(name, "accuracy", x, 3) for name, x in accuracies.items()], rule)
        expected = slow_score(accuracies, rule)
        assert metrics[0].value == (None if expected is None else pytest.approx(expected))
        weights = subset_weights(rule, list(accuracies))
        assert (weights is None) == (expected is None)
        if weights is not None:
            assert math.fsum(weights.values()) == pytest.approx(1.0)
    assert section_weights("reasoning", ["math-prm", "hep-go"]) == {"math-prm": 984 / 1148, "hep-go": 164 / 1148}
    assert section_weights("chat", ["shp"]) == {}


def scores_file(folder: Path, rows: list[dict[str, Any]]) -> Evidence:
    write_json_lines(folder / "scores.jsonl", rows)
    return Evidence(folder, folder, {}, folder / "scores.jsonl")


def test_pairs_by_hand(tmp_path: Path) -> None:
    """Chat: 2 of 3 of the easy subset; reasoning: math 1 of 2 counted as 984, code 0 of 1 as 164."""
    rows = [
        ("alpacaeval-easy", 2.0, 1.0, 9, 5),
        ("alpacaeval-easy", 1.0, 1.0, 9, 5),  # a tie is lost
        ("alpacaeval-easy", 1.0, 0.5, 5, 5),
        ("math-prm", 0.0, -1.0, 1, 2),
        ("math-prm", None, -1.0, 1, 2),  # without a score: lost
        ("hep-go", -2.0, -1.0, 3, 4),
    ]
    given = [
        {"id": str(n), "task": "rewardbench", "subset": subset, "chosen": c, "rejected": r}
        | {"chosen_length": lc, "rejected_length": lr}
        | ({"truncated": 2} if n == 3 else {})
        for n, (subset, c, r, lc, lr) in enumerate(rows)
    ]
    grades = rewardbench.scored(scores_file(tmp_path, given), CURRENT)
    chat, reasoning = 2 / 3, 984 / 1148 / 2
    assert value(grades, "accuracy", "chat") == value(grades, "accuracy", "alpacaeval-easy") == pytest.approx(chat)
    assert value(grades, "accuracy", "reasoning") == pytest.approx(reasoning)
    assert value(grades, "accuracy") == pytest.approx((chat + reasoning) / 2)
    assert value(grades, "longest", "chat") == pytest.approx(2 / 3)
    assert value(grades, "shortest", "reasoning") == pytest.approx(1.0)
    assert value(grades, "longest") == pytest.approx((2 / 3 + 0) / 2)
    health = grades.health
    assert (health["ties"], health["too_long"], health["truncated"], health["unparsable"]) == (1, 1, 2, 0)
    assert health["mean_margin"] == pytest.approx((1 + 0 + 0.5 + 1 - 1) / 5)
    assert health["missing_sections"] == "chat-hard, safety, prior-sets"
    assert "alpacaeval-hard" in health["missing_subsets"] and "donotanswer" not in health["missing_subsets"]
    # Independent subsets: the error of a section is that of a weighted mean.
    errors = {row.task: row.stderr for row in grades.metrics if row.metric == "accuracy"}
    assert errors["chat"] == errors["alpacaeval-easy"] == pytest.approx(math.sqrt((1 / 9 + 4 / 9 + 1 / 9) / 2 / 3))
    assert errors["reasoning"] is None  # of one pair of code there is none
    launch = rewardbench.scored(scores_file(tmp_path, given), {"seed": 0, "rule": "launch"})
    assert value(launch, "accuracy") is None
    assert launch.health["reason"] == "rule launch needs all five sections; missing: chat-hard, safety, prior-sets"
    with pytest.raises(StageError, match="'vibes' is no subset of RewardBench"):
        rewardbench.scored(scores_file(tmp_path, [{**given[0], "subset": "vibes"}]), CURRENT)


def test_the_score_is_the_weighted_mean_of_its_examples(tmp_path: Path) -> None:
    """What lets tables test it: weights of subsets, over the examples that are written."""
    stream = random.Random(2)
    given = [
        {"id": f"{subset}{n}", "task": "t", "subset": subset, "chosen": stream.random(), "rejected": 0.4}
        | {"chosen_length": 1, "rejected_length": 1}
        for subset in SUBSETS
        for n in range(5)
    ]
    grades = rewardbench.scored(scores_file(tmp_path, given), CURRENT)
    for row in grades.metrics:
        if row.weights is None:
            continue
        total = 0.0
        for task, weight in row.weights.items():
            own = [one.value for one in grades.examples if (one.task, one.metric) == (task, row.metric)]
            total += weight * sum(own) / len(own)
        assert row.value == pytest.approx(total), (row.task, row.metric)
        assert row.as_json()["weights"] == row.weights
    assert "weights" not in grades.metrics[-1].as_json()


@pytest.mark.parametrize(
    ("text", "won"),
    [
        ("I prefer A. [[A]]", 1.0),
        ("[[B]]", 0.0),
        ("[[B]] no, [[A]]", 1.0),  # as RewardBench reads it
        ("[A]", 0.5),
        ("[[C]]", 0.5),
        ("", 0.5),
    ],
)
def test_verdicts(tmp_path: Path, text: str, won: float) -> None:
    facts = {"subset": "hep-go", "chosen_length": 4, "rejected_length": 2, "better": "A"}
    write_items(tmp_path, [Item("0", "hep-go", user("?"), data=facts)])
    write_responses(tmp_path, [Response("0", "hep-go", 0, "", text, "eos", 3)])
    grades = rewardbench.judged(Evidence(tmp_path, tmp_path), CURRENT)
    assert value(grades, "accuracy") == won and grades.health["unparsable"] == (won == 0.5)


def test_a_judge_by_hand(tmp_path: Path) -> None:
    facts = {"subset": "llmbar-natural", "chosen_length": 4, "rejected_length": 2}
    items = [Item(str(n), "llmbar-natural", user("?"), data={**facts, "better": "AB"[n % 2]}) for n in range(4)]
    said = ["[[A]]", "[[A]]", "both are fine", "[[B]]"]
    write_items(tmp_path, items)
    write_responses(
        tmp_path, [Response(item.id, item.task, 0, "", text, "eos", 3) for item, text in zip(items, said, strict=True)]
    )
    grades = rewardbench.judged(Evidence(tmp_path, tmp_path), CURRENT)
    assert value(grades, "accuracy", "chat-hard") == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert (grades.health["unparsable"], grades.health["first_share"]) == (1, pytest.approx(2 / 3))
    assert value(grades, "longest") == 1.0


def test_best_of_several_by_hand() -> None:
    assert best_of([3.0], [1.0, 2.0, 0.0]) == 1.0
    assert best_of([3.0], [3.0, 2.0, 0.0]) == 0.5
    assert best_of([3.0], [3.0, 3.0, 3.0]) == 0.25
    assert best_of([2.0], [3.0, 1.0, 1.0]) == 0.0


def slow_ties(scores: dict[str, tuple[list[float], list[float]]]) -> float:
    """The published formula over arrays: accuracies, margins against the spread of right answers, NaN as 0."""

    def stats(kind: str) -> dict[str, tuple[bool, float, float]]:
        return {
            name.split(":")[1]: (
                min(correct) - max(incorrect) > 0,
                max(correct) - min(correct),
                min(correct) - max(incorrect),
            )
            for name, (correct, incorrect) in scores.items()
            if name.startswith(kind)
        }

    ref, tied = stats("ref"), stats("tied")
    both = sorted(set(ref) & set(tied))
    spread = np.array([tied[n][1] for n in both])
    gap_tied, gap_ref = np.array([tied[n][2] for n in both]), np.array([ref[n][2] for n in both])
    with np.errstate(divide="ignore", invalid="ignore"):
        margins = np.nan_to_num(np.tanh(np.minimum(gap_ref, gap_tied) / spread - 1), nan=0.0)
    return float(
        0.30 * np.mean([row[0] for row in tied.values()])
        + 0.30 * np.mean([row[0] for row in ref.values()])
        + 0.20 * np.mean(gap_tied > spread)
        + 0.20 * np.mean(np.minimum(gap_ref, gap_tied) > spread)
        + 0.01 * np.mean(margins)
    )


def test_ties_by_hand_and_against_a_slow_reference() -> None:
    """Right answers at 5 and 4, the best wrong one at 1: gap 3, spread 1; its twin's gap is 2."""
    ref, tied = Gaps.of([3.0], [1.0, 0.0]), Gaps.of([5.0, 4.0], [1.0, -2.0])
    assert (tied.gap, tied.spread, ref.gap, ref.spread) == (3.0, 1.0, 2.0, 0.0)
    assert ties_parts(ref, tied) == {"tied": 1, "ref": 1, "tied_gap": 1, "both_gaps": 1, "margin": math.tanh(2 - 1)}
    assert ties_score({"0": ref}, {"0": tied}) == pytest.approx(1.0 + 0.01 * math.tanh(1))
    flat = Gaps(0.0, 0.0)
    assert ties_parts(flat, flat)["margin"] == 0.0  # 0 / 0
    assert ties_parts(Gaps(1.0, 0.0), Gaps(2.0, 0.0))["margin"] == 1.0  # 1 / 0
    assert ties_parts(Gaps(-1.0, 0.0), Gaps(2.0, 0.0))["margin"] == -1.0
    assert ties_score({"0": flat}, {"1": flat}) is None
    stream = random.Random(3)
    for trial in range(50):
        scores = {
            f"{kind}:{n}": (
                [round(stream.gauss(1, 1), 1) for _ in range(stream.choice([1, 2, 5]) if kind == "tied" else 1)],
                [round(stream.gauss(0, 1), 1) for _ in range(3)],
            )
            for kind in ("ref", "tied")
            for n in range(6)
            if not (trial % 2 and (kind, n) == ("ref", 0))  # a prompt without its twin
        }
        gaps = {name: Gaps.of(*both) for name, both in scores.items()}
        kinds = [
            {name.split(":")[1]: g for name, g in gaps.items() if name.startswith(kind)} for kind in ("ref", "tied")
        ]
        assert ties_score(*kinds) == pytest.approx(slow_ties(scores))


def candidates(subset: str, name: str, correct: list[Any], incorrect: list[Any]) -> dict[str, Any]:
    lengths = {"chosen_length": [4] * len(correct), "rejected_length": [3, 2, 1][: len(incorrect)]}
    named = {"id": f"{subset}/{name}", "task": "t", "subset": subset, "source": name}
    return {**named, "chosen": correct, "rejected": incorrect, **lengths}


def test_version_2_by_hand(tmp_path: Path) -> None:
    rows = [candidates(subset, "0", [2.0], [1.0, 2.0, 0.0]) for subset in SECTIONS_2[:4]]  # one half each
    rows += [candidates("Focus", "0", [2.0], [1.0, 0.0, 0.0]), candidates("Focus", "1", [2.0], [None, 0.0, 0.0])]
    rows += [candidates("Ties", "ref:7", [3.0], [1.0, 0.0]), candidates("Ties", "tied:7", [5.0, 4.0], [1.0, -2.0])]
    grades = rewardbench_2.scored(scores_file(tmp_path, rows), {"seed": 0})
    ties = 1 + 0.01 * math.tanh(1)
    assert value(grades, "accuracy", "Math") == value(grades, "accuracy", "Focus") == 0.5
    assert value(grades, "accuracy", "Ties") == pytest.approx(ties)
    assert value(grades, "accuracy") == pytest.approx((5 * 0.5 + ties) / 6)
    assert value(grades, "longest", "Math") == 1.0 and value(grades, "shortest", "Math") == 0.0
    assert grades.health["too_long"] == 1
    assert [row.value for row in grades.examples if (row.task, row.metric) == ("Ties", "accuracy")] == [
        pytest.approx(ties)
    ]
    some = rewardbench_2.scored(scores_file(tmp_path, rows[:4]), {"seed": 0})
    assert value(some, "accuracy") is None
    assert some.health["reason"] == "all six subsets are needed; missing: Focus, Ties"
    with pytest.raises(StageError, match="ref:n or tied:n, found '7'"):
        rewardbench_2.scored(scores_file(tmp_path, [candidates("Ties", "7", [1.0], [0.0])]), {"seed": 0})
    with pytest.raises(StageError, match="'Chat' is no subset of RewardBench 2"):
        rewardbench_2.scored(scores_file(tmp_path, [candidates("Chat", "7", [1.0], [0.0])]), {"seed": 0})


def test_a_random_rule_scores_as_chance_says(tmp_path: Path) -> None:
    rows = [candidates("Math", str(n), [0.0], [1.0, 2.0, 3.0]) for n in range(600)]
    grades = rewardbench_2.scored(scores_file(tmp_path, rows), {"seed": 0})
    assert value(grades, "random", "Math") == pytest.approx(0.25, abs=0.05)
    assert all(isinstance(row, Example) for row in grades.examples)


def test_names_of_subsets_as_papers_write_them() -> None:
    assert subset_name("LLMBar Adver. GPTInst") == "llmbar-adver-GPTInst"
    assert subset_name("anthropic-helpful") == "anthropic_helpful"
    assert subset_name("precise if") == "Precise IF"
    assert subset_name("Chat Hard") is None
