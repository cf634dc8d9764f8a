"""Stored judgements in a small data root: what is read of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.suites import Suite, load_suites
from ablate.data.json_lines import write_json_lines
from ablate.errors import DataError
from ablate.evaluation.grade import Request, grade
from ablate.shipped import shipped_folder

LONG, SHORT = "a long response of the baseline's", "short"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """AlpacaEval 2 with twelve instructions, MT-Bench with two questions."""
    folder = tmp_path / "data" / "alpaca_eval"
    folder.mkdir(parents=True)
    rows = [{"instruction": f"do {n}", "output_1": LONG if n % 2 else SHORT, "dataset": "x"} for n in range(12)]
    write_json_lines(folder / "eval_set.jsonl", rows)
    lines = "".join(f"{n / 4 - 1.5}\n" for n in range(12))
    (folder / "difficulty.csv").write_text("instruction_difficulty\n" + lines, encoding="utf-8")
    folder = tmp_path / "data" / "mt_bench"
    folder.mkdir()
    questions = [{"question_id": 81 + n, "category": "writing", "turns": [f"write {n}", "again"]} for n in range(2)]
    write_json_lines(folder / "question.jsonl", questions)
    answers = [{"question_id": row["question_id"], "choices": [{"turns": ["one", "two"]}]} for row in questions]
    write_json_lines(folder / "model_answer.jsonl", answers)
    return tmp_path / "data"


def suite(name: str) -> Suite:
    """A suite of the catalog over the files of :func:`root`."""
    own = load_suites([shipped_folder("evals")])[name]
    files = {
        "alpaca-eval-2": ("alpaca_eval/eval_set.jsonl", "alpaca_eval/difficulty.csv"),
        "mt-bench": ("mt_bench/question.jsonl",),
        "mt-bench-pairwise": ("mt_bench/question.jsonl", "mt_bench/model_answer.jsonl"),
    }[name]
    judging = own.judging
    if judging is not None and judging.file is not None:
        judging = judging.model_copy(update={"file": "mt_bench/question.jsonl"})
    data = own.data.model_copy(update={"files": files})
    own = own.model_copy(update={"data": data, "judging": judging})
    return own.with_options({"weights": None}) if name == "alpaca-eval-2" else own


def graded(name: str, root: Path, rows: list[dict[str, Any]], **how: Any) -> dict[str, Any]:
    write_json_lines(root.parent / "mine.jsonl", rows)
    return grade(Request(suite(name), root.parent / "mine.jsonl", root=root, **how))


def value(report: dict[str, Any], name: str) -> float | None:
    found: float | None = next(
        row["value"] for row in report["metrics"] if (row["task"], row["metric"]) == ("overall", name)
    )
    return found


def test_preferences_without_the_baselines_responses_take_the_datas(root: Path) -> None:
    """One and the same length-controlled win rate, whether a row repeats the baseline's response or not."""
    preferences = [1.2, 1.9, 1.4, 1.8, 1.1, 1.6, 1.3, 1.7, 1.5, 1.9, 1.2, 1.4]
    rows = [
        {"id": str(n), "response": "said " * (1 + n % 3), "preference": preference}
        for n, preference in enumerate(preferences)
    ]
    whole = [{**row, "output_1": LONG if n % 2 else SHORT} for n, row in enumerate(rows)]
    reports = [graded("alpaca-eval-2", root, own) for own in (rows, whole)]
    assert reports[0]["score"] == pytest.approx(reports[1]["score"])
    assert value(reports[0], "win_rate") == pytest.approx(sum(preferences) / 12 - 1)
    bare = [{"id": row["id"], "preference": row["preference"]} for row in rows]
    with pytest.raises(DataError, match="example 0 has a preference and no response, whose length counts"):
        graded("alpaca-eval-2", root, bare)
    uncontrolled = suite("alpaca-eval-2").with_options({"length_control": False})
    report = grade(
        Request(uncontrolled.model_copy(update={"primary": "win_rate"}), root.parent / "mine.jsonl", root=root)
    )
    assert report["score"] == pytest.approx(sum(preferences) / 12 - 1)


@pytest.mark.parametrize(
    ("own", "score", "unparsable"),
    [
        ({"judgment": "better: [[B]]"}, 1.0, 0),
        ({"judgment": "better: [[C]]"}, 0.5, 0),
        ({"winner": "model_1"}, 0.0, 0),
        ({"judgment": "Rating: [[8]]"}, None, 2),
        ({"judgment": "Rating: [[8]]", "score": 8}, None, 2),
    ],
)
def test_a_pair_is_not_rated(root: Path, own: dict[str, Any], score: float | None, unparsable: int) -> None:
    report = graded("mt-bench-pairwise", root, [{"question_id": 81 + n, **own} for n in range(2)])
    assert (report["score"], report["health"]["unparsable"]) == (score, unparsable)


@pytest.mark.parametrize(
    ("own", "score", "unparsable"),
    [
        ({"judgment": "Rating: [[8]]"}, 8.0, 0),
        ({"score": 3, "winner": "model_1"}, 3.0, 0),
        ({"score": -1}, None, 2),
        ({"judgment": "Rating: [[11]]", "score": 11}, None, 2),
        ({"judgment": "better: [[B]]"}, None, 2),
    ],
)
def test_a_rating_is_no_verdict(root: Path, own: dict[str, Any], score: float | None, unparsable: int) -> None:
    report = graded("mt-bench", root, [{"question_id": 81 + n, **own} for n in range(2)])
    assert (report["score"], report["health"]["unparsable"]) == (score, unparsable)


def test_judgements_of_the_other_kind_are_none(root: Path) -> None:
    for name, own, message in (
        ("mt-bench-pairwise", {"score": 8}, "columns preference, judgment or winner"),
        ("mt-bench", {"winner": "model_1"}, "columns judgment or score"),
        ("mt-bench", {"preference": 1.5}, "columns judgment or score"),
        ("mt-bench", {"score": 80}, "a score is 80; allowed: 1 to 10, negative for none"),
        ("mt-bench", {"score": 0.5}, "a score is 0.5; allowed: 1 to 10, negative for none"),
    ):
        with pytest.raises(DataError, match=message):
            graded(name, root, [{"question_id": 81 + n, **own} for n in range(2)])


def test_two_turns_of_a_question_are_two_rows(root: Path) -> None:
    """FastChat's files of pairs: (won, tied) and (lost, lost)."""
    games = {(81, 1): "mine", (81, 2): "tie", (82, 1): "base", (82, 2): "base"}
    rows = [
        {"question_id": n, "turn": turn, "model_1": "mine", "model_2": "base", "judge": ["gpt-4", "pair-v2"]}
        | {f"g{game}_winner": {"mine": "model_1", "base": "model_2"}.get(won, won) for game in (1, 2)}
        for (n, turn), won in games.items()
    ]
    report = graded("mt-bench-pairwise", root, rows)
    assert report["score"] == pytest.approx(1.5 / 4) and report["health"]["unparsable"] == 0
    with pytest.raises(DataError, match=r"several rows for 1 examples: '81' is in rows 1 and 5\n.*turn, judge"):
        graded("mt-bench-pairwise", root, [*rows, rows[0]])
    unmarked = [{"question_id": 81, "winner": "win"}, {"question_id": 81, "turn": 2, "winner": "win"}]
    with pytest.raises(DataError, match="'81' is in rows 1 and 2"):
        graded("mt-bench-pairwise", root, unmarked, partial=True)


def test_a_rating_that_is_there_twice_is_refused(root: Path) -> None:
    rows = [
        {"question_id": 81 + n, "turn": turn, "model": model, "judge": judge, "score": 4}
        for n in range(2)
        for turn in (1, 2)
        for model in "ab"
        for judge in "xy"
    ]
    assert graded("mt-bench", root, rows)["score"] == 4.0
    with pytest.raises(DataError, match="'81' is in rows 1 and 17"):
        graded("mt-bench", root, [*rows, {**rows[0], "score": 9}])
    answers = [{"question_id": 81, "model_id": name, "choices": [{"turns": ["one", "two"]}]} for name in "ab"]
    with pytest.raises(DataError, match=r"has the answers of a, b\n.*--model"):
        graded("mt-bench", root, answers, partial=True)


def test_weights_are_those_of_one_file(root: Path) -> None:
    rows = [{"id": str(n), "response": "said", "preference": 1.5} for n in range(12)]
    for part, count in (("weights", 0), ("c", 2)):
        own = suite("alpaca-eval-2").with_options({"weights": part})
        write_json_lines(root.parent / "mine.jsonl", rows)
        with pytest.raises(DataError, match=f"options.weights is '{part}', which is in the names of {count} of"):
            grade(Request(own, root.parent / "mine.jsonl", root=root))
