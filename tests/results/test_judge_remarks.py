"""What a table says of its judges: who, when, how often they could not be read, for whom they stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.results.long import Evaluation, Results, Subject
from ablate.results.tables.remarks import judges_remarks
from ablate.store import Store


def results(tmp_path: Path, about: dict[str, Any], *healths: dict[str, Any], **plan: Any) -> Results:
    subjects = tuple(
        Subject("policy", "cell", f"s{n}", {}, f"train-{n}", {"talk": f"evaluate-{n}"}) for n in range(len(healths))
    )
    evaluations = {
        f"evaluate-{n}": Evaluation(f"evaluate-{n}", 0.5, (), health, {}) for n, health in enumerate(healths)
    }
    return Results(Store(tmp_path), "x", {"suites": {"talk": about}, **plan}, subjects, evaluations, ())


def test_a_judge_is_named_and_dated(tmp_path: Path) -> None:
    first = {
        "judge": "m-1",
        "judged_from": "2026-01-02",
        "judged_to": "2026-01-03",
        "judge_answers": 10,
        "unparsable": 1,
    }
    second = {**first, "judged_from": "2026-01-05", "judged_to": "2026-01-05", "unparsable": 0}
    about = {"title": "Talk", "judge_stands_in_for": "m-0"}
    shared = ["m-1 judges the evaluation and gave the labels"]
    found = judges_remarks(results(tmp_path, about, first, second, shared_judges=shared), ["talk", "talk"])
    assert found == [
        "Talk: judged by m-1 in place of m-0, 2026-01-02 to 2026-01-05; 1 of 20 answers could not be read.",
        "M-1 judges the evaluation and gave the labels.",
    ]


def test_a_table_without_judges_says_nothing(tmp_path: Path) -> None:
    plain = results(tmp_path, {"title": "Talk"}, {"n": 3}, shared_judges=["m-1 judges"])
    assert judges_remarks(plain, ["talk", "talk"]) == []
