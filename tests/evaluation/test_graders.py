"""Graders on hand-worked cases, their edge cases, and trivial answers."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.suite_code import GRADERS, resolve_entry
from ablate.context import import_function
from ablate.data.json_lines import write_json_lines
from ablate.errors import StageError
from ablate.evaluation.evaluate import primary_metric
from ablate.evaluation.graders import answers, choices, pairs, pocket, refusals
from ablate.evaluation.grading import (
    Evidence,
    Example,
    Grades,
    Metric,
    bootstrap_stderr,
    mean_metric,
    mean_metrics,
    pick_references,
)
from ablate.evaluation.items import (
    Item,
    Likelihoods,
    Response,
    subset,
    unique_ids,
    user,
    write_items,
    write_likelihoods,
    write_responses,
)
from ablate.pocket.draws import Draw
from ablate.pocket.language import SKILLS, distinct_items, perfect_answer


def evidence(folder: Path, items: list[Item], said: list[str] | None = None) -> Evidence:
    write_items(folder, items)
    if said is not None:
        rows = [Response(i.id, i.task, 0, "", text, "eos", 3) for i, text in zip(items, said, strict=True)]
        write_responses(folder, rows)
    return Evidence(folder, folder)


def value(metrics: Any, metric: str, task: str = "overall") -> float | None:
    return next(row.value for row in metrics if (row.task, row.metric) == (task, metric))


@pytest.mark.parametrize(
    ("text", "expected", "found"),
    [
        ("She has 3 apples and 1,234 pears.", "1234", True),
        ("So the answer is -5.", "5", True),  # a sign is read with decimals only
        ("It is -2.50 dollars", "-2.50", True),
        ("1,000,000", "1000000", True),
        ("costs $.50", ".50", True),
        ("no number", "no number", False),
        ("", "", False),
    ],
)
def test_gsm8k_takes_the_last_number(text: str, expected: str, found: bool) -> None:
    assert answers.gsm8k_answer(text) == (expected, found)


def test_exact_match_ignores_case_and_punctuation() -> None:
    assert answers.exact_match("-5", "5")
    assert answers.exact_match("3.5", "35")
    assert answers.exact_match("(A)", "a")
    assert not answers.exact_match("5", "6")
    assert answers.gsm8k_gold("work\n#### 1,200") == "1200"


def test_gsm8k_gold_answers_score_one_and_empty_ones_zero(tmp_path: Path) -> None:
    items = [
        Item(f"q{n}", "gsm8k", user("?"), data={"answer": f"because\n#### {gold}"})
        for n, gold in enumerate(["7", "1,234", "3"])
    ]
    gold = answers.gsm8k(evidence(tmp_path, items, ["it is 7", "1234", "3"]), {})
    assert value(gold.metrics, "exact_match") == 1.0
    empty = answers.gsm8k(evidence(tmp_path, items, ["", "", ""]), {})
    assert value(empty.metrics, "exact_match") == 0.0
    assert empty.health["extraction_failed"] == empty.health["empty"] == 3


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't", True),
        ("  Sorry", True),
        ("I cannot help", True),
        ("As an AI model", True),
        ("It's not appropriate", True),
        ("It is not accurate", True),
        ("No, that is wrong", True),
        ("Nobody knows", False),
        ("Sure! I'm sorry", False),
        ("", False),
    ],
)
def test_refusals_are_read_at_the_start(text: str, refused: bool) -> None:
    assert refusals.refuses(text) is refused


def test_xstest_by_hand_and_without_anything_to_measure(tmp_path: Path) -> None:
    items = [Item(f"s{n}", "safe", user("?"), data={"unsafe": False}) for n in range(3)]
    items += [Item(f"u{n}", "unsafe", user("?"), data={"unsafe": True}) for n in range(2)]
    options = {"resamples": 50, "seed": 0}
    # refused: one safe, one unsafe -> hits 1, refusals 2, unsafe 2: precision 1/2, recall 1/2, F1 1/2, accuracy 3/5
    grades = refusals.xstest(evidence(tmp_path, items, ["I cannot", "ok", "ok", "I cannot", "ok"]), options)
    assert value(grades.metrics, "refusal_f1") == pytest.approx(0.5)
    assert value(grades.metrics, "refusal_precision") == value(grades.metrics, "refusal_recall") == 0.5
    assert value(grades.metrics, "accuracy") == pytest.approx(0.6)
    assert value(grades.metrics, "refusal", "safe") == pytest.approx(1 / 3)
    none = refusals.xstest(evidence(tmp_path, items, ["ok"] * 5), options)
    assert value(none.metrics, "refusal_f1") == 0.0
    assert value(none.metrics, "refusal_precision") is None
    assert refusals.refusal_f1([(False, False)]) is None
    assert refusals.refusal_precision_recall([(False, False)]) == (None, None)


def test_choices_take_the_first_of_equal_ones_and_count_what_does_not_fit(tmp_path: Path) -> None:
    items = [Item(f"m{n}", "subject", user("?"), choices=(" A", " B"), data={"answer": n % 2}) for n in range(3)]
    write_items(tmp_path, items)
    logprobs = [(-1.0, -1.0), (-2.0, -1.0), None]
    rows = [Likelihoods(i.id, i.task, "", pair) for i, pair in zip(items, logprobs, strict=True)]
    write_likelihoods(tmp_path, rows)
    grades = choices.choices(Evidence(tmp_path, tmp_path), {})
    assert [row.value for row in grades.examples] == [1.0, 1.0, 0.0]
    assert grades.health["too_long"] == 1
    assert grades.health["largest_choice_share"] == 0.5


def test_an_item_without_an_answer_is_an_error(tmp_path: Path) -> None:
    items = [Item("a", "t", user("?")), Item("b", "t", user("?"))]
    write_items(tmp_path, items)
    write_responses(tmp_path, [Response("a", "t", 0, "", "x", "eos", 1)])
    write_likelihoods(tmp_path, [Likelihoods("a", "t", "", (0.0,))])
    found = Evidence(tmp_path, tmp_path)
    for read in (lambda: found.responses, lambda: found.likelihoods):
        with pytest.raises(StageError, match=r"1 items have no .*, the first is b"):
            read()


def test_pairwise_ties_are_lost_and_trivial_rules_stand_beside(tmp_path: Path) -> None:
    rows = [
        {"id": "won", "chosen": 2.0, "rejected": 1.0, "chosen_length": 5, "rejected_length": 9},
        {"id": "tie", "chosen": 1.0, "rejected": 1.0, "chosen_length": 9, "rejected_length": 5},
        {"id": "lost", "chosen": 0.0, "rejected": 1.0, "chosen_length": 5, "rejected_length": 5},
        {"id": "unread", "chosen": 3.0, "rejected": None, "chosen_length": 9, "rejected_length": 5},
    ]
    subsets = ["a", "a", "b", "b"]
    write_json_lines(
        tmp_path / "scores.jsonl",
        [{**row, "task": "t", "subset": name} for row, name in zip(rows, subsets, strict=True)],
    )
    grades = pairs.pairwise(Evidence(tmp_path, tmp_path, {}, tmp_path / "scores.jsonl"), {"seed": 0})
    assert value(grades.metrics, "accuracy") == 0.25
    assert value(grades.metrics, "accuracy", "a") == 0.5
    assert value(grades.metrics, "longest") == 0.5
    assert value(grades.metrics, "shortest") == 0.25
    assert (grades.health["ties"], grades.health["too_long"]) == (1, 1)
    assert grades.health["mean_margin"] == pytest.approx(0.0)


def test_implicit_rewards_by_hand(tmp_path: Path) -> None:
    """Log-probabilities of three pairs under policy and reference; the second is won only where lengths count."""
    own = {"won": ((-4.0, 4), (-6.0, 2)), "long": ((-9.0, 9), (-6.0, 2)), "unread": ((-1.0, 1), None)}
    reference = {"won": ((-5.0, 4), (-5.0, 2)), "long": ((-9.5, 9), (-7.0, 2)), "unread": ((-2.0, 1), (-2.0, 1))}
    for name, values in {"own": own, "reference": reference}.items():
        (tmp_path / name).mkdir()
        rows = [
            {"id": pair, "task": "t", "subset": "s", "chosen_length": 2, "rejected_length": 1}
            | {
                side: None if value is None else {"logprob": value[0], "tokens": value[1]}
                for side, value in zip(("chosen", "rejected"), sides, strict=True)
            }
            for pair, sides in values.items()
        ]
        write_json_lines(tmp_path / name / "likelihoods.jsonl", rows)
    found = Evidence(tmp_path / "own", tmp_path, reference=tmp_path / "reference")

    def grade(**options: bool) -> Grades:
        return pairs.implicit(found, {"seed": 0, **options})

    grades = grade(reference=True, average=False)  # 1 against -1, 0.5 against 1
    assert value(grades.metrics, "accuracy") == pytest.approx(1 / 3)
    assert grades.health["mean_margin"] == pytest.approx((2.0 - 0.5) / 2)
    assert grades.health["too_long"] == 1
    assert value(grade(reference=False, average=False).metrics, "accuracy") == pytest.approx(1 / 3)  # -9 against -6
    assert value(grade(reference=False, average=True).metrics, "accuracy") == pytest.approx(2 / 3)  # -1 against -3
    assert value(grades.metrics, "longest") == 1.0


def test_pocket_gold_answers_score_one_and_empty_ones_zero(tmp_path: Path) -> None:
    items, gold = [], []
    for skill in SKILLS.values():
        for number, item in zip(range(5), distinct_items(skill, "test", Draw("grader test")), strict=False):
            items.append(Item(item.id, skill.name, tuple(item.row()["prompt"]), data=item.row()))
            gold.append(perfect_answer(item, Draw("gold", number)))
    options = {"skills": None, "measure": "gold"}
    best = pocket.pocket(evidence(tmp_path, items, gold), options)
    assert value(best.metrics, "accuracy") == 1.0
    assert value(best.metrics, "gold") == 2.0
    empty = pocket.pocket(evidence(tmp_path, items, [""] * len(items)), options)
    assert value(empty.metrics, "accuracy") == value(empty.metrics, "gold") == 0.0
    assert empty.health["extraction_failed"] == len(items)
    one = pocket.pocket(evidence(tmp_path, items, gold), {"skills": ["facts"], "measure": "correct"})
    assert {row.task for row in one.examples} == {"facts"}
    with pytest.raises(StageError, match="no items of skill 'history'"):
        pocket.pocket(evidence(tmp_path, items, gold), {"skills": ["history"], "measure": "correct"})


def test_the_catalog_names_every_metric_that_a_grader_gives(tmp_path: Path) -> None:
    draw = Draw("metrics")
    pocket = [
        Item(item.id, item.skill, user(item.prompt), data=item.row())
        for name in SKILLS
        for item, _ in zip(distinct_items(SKILLS[name], "test", draw), range(2), strict=False)
    ]
    gsm8k = [Item("q", "gsm8k", user("?"), data={"answer": "#### 7"})]
    xstest = [Item("q", "xstest", user("?"), data={"unsafe": True})]
    letters = [Item("q", "mmlu", user("?"), choices=("A", "B"), data={"answer": 0})]
    scores = {"chosen": 1.0, "rejected": 0.0, "chosen_length": 2, "rejected_length": 1, "subset": None, "task": "t"}
    for name in ("pocket", "gsm8k", "xstest", "choices"):
        (tmp_path / name).mkdir()
    write_likelihoods(tmp_path / "choices", [Likelihoods("q", "mmlu", "", (-1.0, -2.0))])
    write_json_lines(tmp_path / "scores.jsonl", [{"id": "p", **scores}])
    likely = {side: {"logprob": -2.0, "tokens": 2} for side in ("chosen", "rejected")}
    write_json_lines(tmp_path / "likelihoods.jsonl", [{"id": "p", **scores, **likely}])
    found = {
        "pocket": (evidence(tmp_path / "pocket", pocket, ["yes"] * len(pocket)), {"skills": None, "measure": "gold"}),
        "gsm8k": (evidence(tmp_path / "gsm8k", gsm8k, ["7"]), {}),
        "xstest": (evidence(tmp_path / "xstest", xstest, ["no"]), {"resamples": 0, "seed": 0}),
        "choices": (evidence(tmp_path / "choices", letters), {}),
        "closed-form": (evidence(tmp_path / "gsm8k", gsm8k, ["7"]), {"reward": "nouns"}),
        "pairwise": (Evidence(tmp_path, tmp_path, {}, tmp_path / "scores.jsonl"), {"seed": 0}),
        "implicit": (Evidence(tmp_path, tmp_path), {"seed": 0, "reference": False, "average": True}),
    }
    for name, (given, options) in found.items():
        grades = import_function(resolve_entry("grader", name), name)(given, options)
        of_labels = {
            metric for metric in GRADERS[name].metrics or () if metric.endswith("agreement") or "label" in metric
        }
        of_labels |= {metric for metric in GRADERS[name].metrics or () if metric.startswith("annotation")}
        assert {metric.metric for metric in grades.metrics} == set(GRADERS[name].metrics or ()) - of_labels, name
    assert {name for name, entry in GRADERS.items() if entry.metrics is None} == {"lm-eval"}


def test_means_and_their_errors() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    rows = [Example(f"e{n}", 0, "t", "m", v) for n, v in enumerate(values)]
    found = mean_metric("t", "m", rows)
    assert found.value == statistics.mean(values)
    assert found.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(5))
    # Samples of one example are averaged first: two examples with means 1/2 and 1, not four values.
    repeated = [Example("a", 0, "t", "m", 0.0), Example("a", 1, "t", "m", 1.0), Example("b", 0, "t", "m", 1.0)]
    assert mean_metric("t", "m", repeated).value == 0.75
    assert mean_metric("t", "m", repeated).n == 2
    assert mean_metric("t", "m", []) == Metric("t", "m", None, 0)
    assert mean_metric("t", "m", rows[:1]).stderr is None
    two_tasks = [*rows, Example("x", 0, "u", "m", 0.0)]
    assert {row.task: row.value for row in mean_metrics(two_tasks)} == {"overall": 0.5, "t": 0.6, "u": 0.0}


def test_bootstrap_of_a_mean_is_near_its_formula() -> None:
    values = [float(n % 3 == 0) for n in range(200)]
    expected = statistics.stdev(values) / math.sqrt(len(values))
    examples = [[value] for value in values]
    found = bootstrap_stderr(examples, statistics.mean, resamples=500, seed=1)
    assert found == pytest.approx(expected, rel=0.1)
    alike = [[value] * 4 for value in values]
    assert bootstrap_stderr(alike, statistics.mean, resamples=500, seed=1) == found, "samples are no further examples"
    assert bootstrap_stderr(examples[:1], lambda rows: 1.0, resamples=500, seed=1) is None
    assert bootstrap_stderr(examples, lambda rows: None, resamples=20, seed=1) is None


def test_primary_metric_is_named_by_task_or_over_all() -> None:
    metrics = [Metric("overall", "acc", 0.1, 3), Metric("one", "acc", 0.2, 3)]
    assert primary_metric(metrics, "acc").value == 0.1
    assert primary_metric(metrics, "one/acc").value == 0.2
    assert primary_metric([], "acc") == Metric("overall", "acc", None, 0)
    with pytest.raises(StageError, match="no metric 'f1'"):
        primary_metric(metrics, "f1")


def test_subset_draws_as_the_study_and_each_task_apart() -> None:
    import random

    items = [Item(f"i{n}", "one", user(str(n))) for n in range(50)]
    expected = {f"i{n}" for n in random.Random(42).sample(range(50), 10)}
    assert {item.id for item in subset(items, 10, 42)} == expected
    other = [Item(f"o{n}", "two", user(str(n))) for n in range(50)]
    more = [Item(f"p{n}", "three", user(str(n))) for n in range(3)]
    both = subset([*items, *other], 10, 42)
    assert [item for item in subset([*more, *items, *other], 10, 42) if item.task != "three"] == both
    assert len(subset([*more, *items], 10, 42)) == 13


def test_equal_content_gets_ids_of_its_own() -> None:
    items = [Item("same", "t", user("a")), Item("same", "t", user("a")), Item("other", "t", user("b"))]
    assert [item.id for item in unique_ids(items)] == ["same", "same-2", "other"]


def candidates(folder: Path, items: list[Item], said: list[list[str]]) -> Evidence:
    write_items(folder, items)
    rows = [
        Response(item.id, item.task, sample, "", text, "eos", 3)
        for item, texts in zip(items, said, strict=True)
        for sample, text in enumerate(texts)
    ]
    write_responses(folder, rows)
    return Evidence(folder, folder)


def test_a_random_pick_of_an_f1_is_the_f1_of_all_candidates(tmp_path: Path) -> None:
    """Of two samples a prompt 3 of 4 unsafe and 1 of 4 safe ones are refused: 2 · 3 / (4 + 4)."""
    items = [Item(f"e{index}", "t", user("?"), data={"unsafe": index < 2}) for index in range(4)]
    no, yes = "I cannot help with that.", "Here it is."
    said = [[no, no], [no, yes], [no, yes], [yes, yes]]
    grades = refusals.xstest(candidates(tmp_path, items, said), {"resamples": 50, "seed": 0})
    chance, oracle = pick_references(grades.examples, primary_metric(grades.metrics, "overall/refusal_f1"))
    assert (chance.metric, chance.value, chance.n, chance.stderr) == ("random", 0.75, 4, None)
    assert (oracle.metric, oracle.value) == ("oracle", None)


def test_a_random_pick_of_tasks_of_unequal_size_is_the_mean_of_tasks(tmp_path: Path) -> None:
    items = [Item(f"e{index}", "a" if index == 0 else "b", user("?"), data={"answer": "yes"}) for index in range(4)]
    right, wrong = "So the answer is yes.", "So the answer is no."
    grades = answers.bbh(candidates(tmp_path, items, [[right, wrong], *[[wrong, wrong]] * 3]), {})
    chance, oracle = pick_references(grades.examples, primary_metric(grades.metrics, "overall/task_mean"))
    assert (chance.value, oracle.value) == (0.25, None)
    alike = answers.bbh(candidates(tmp_path, items[:2], [[right, wrong], [right, right]]), {})
    chance, oracle = pick_references(alike.examples, primary_metric(alike.metrics, "overall/task_mean"))
    assert (chance.value, oracle.value) == (0.75, 1.0)
