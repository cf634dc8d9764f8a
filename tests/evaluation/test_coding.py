"""pass@k of programs: the estimator, the program in a response, the grader, the files it reads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.suite_code import complete_options
from ablate.catalogs.suite_code.coding import GRADERS
from ablate.catalogs.suites import load_suites
from ablate.context import Resources
from ablate.errors import DataError, SpecError, StageError
from ablate.evaluation.formats import find_format, read_submission
from ablate.evaluation.formats.submission import ReadOptions
from ablate.evaluation.graders.coding import pass_at_k, unit_tests
from ablate.evaluation.grading import Grades, HeldEvidence
from ablate.evaluation.items import Item, Response
from ablate.evaluation.programs import code_of, needed_by
from ablate.sandbox.judge import Group, UnitTests


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_pass_at_k_is_the_share_of_draws_with_a_passing_sample(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            drawn = 1 - math.comb(n - c, k) / math.comb(n, k)
            assert pass_at_k(n, c, k) == pytest.approx(drawn, abs=1e-12)
        assert pass_at_k(n, c, 1) == pytest.approx(c / n)
    assert pass_at_k(n, 1, n) == 1.0


LEAD = 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """Sum of xs."""\n'
WHOLE = "def total(xs):\n    return helper(xs)\n\n\ndef helper(xs):\n    return sum(xs)\n"


def ran(code: str) -> Any:
    names: dict[str, Any] = {}
    exec(code, names)
    return names["total"]([1, 2, 3])


@pytest.mark.parametrize(
    "response",
    [
        f"Here you are:\n\n```python\n{WHOLE}```\n\nIt sums with `helper`.",
        f"```\n{WHOLE}```",
        f"Sure.\n```python\n{WHOLE}",  # never closed
        f"```python\r\n{WHOLE}```".replace("\n", "\r\n"),
        f"First a test:\n```python\nassert total([]) == 0\n```\nand then\n```python\n{WHOLE}```",
        WHOLE,
        f"I would write\n{WHOLE}\nwhich is short.",
        f"```python\n{WHOLE}\nprint(total([1, 2, 3\n",  # cut in the middle of a line
        "    return sum(xs)\n",
        "    s = 0\n    for x in xs:\n        s += x\n    return s\n\nThat is all.",
        "```python\n    return sum(xs)\n```",
        f"```python\n{LEAD}    return sum(xs)\n\n\nraise SystemExit\n```",
        f"```python\n{WHOLE}\nif __name__ == '__main__':\n    exit(1)\n```",
    ],
)
def test_the_program_in_a_response_is_found(response: str) -> None:
    code, found = code_of(response, LEAD, "total")
    assert found and ran(code) == 6


@pytest.mark.parametrize("response", ["", "I can't do that.", "```\n```", "def total(xs:\n"])
def test_a_response_without_code_is_said_to_have_none(response: str) -> None:
    assert code_of(response, LEAD, "total")[1] is False


def test_of_a_program_stays_what_the_entry_point_needs() -> None:
    code = (
        "import math\nfrom os import sep\nLIMIT = 3\nUNUSED = math.inf\n\n@staticmethod\ndef total(xs):\n"
        "    return LIMIT + Box(xs).size\n\n\n"
        "class Box:\n    def __init__(self, xs):\n        self.size = len(xs)\n\n\n"
        "def other():\n    return UNUSED\n\n\ndef total(xs):\n    return 0\n\n\nprint(total([]))\n"
    )
    kept = needed_by(code, "total")
    assert kept == (
        "import math\nfrom os import sep\nLIMIT = 3\n@staticmethod\ndef total(xs):\n    return LIMIT + Box(xs).size\n"
        "class Box:\n    def __init__(self, xs):\n        self.size = len(xs)\n"
    )


def test_without_an_entry_point_the_blocks_are_one_program() -> None:
    code, found = code_of(
        "```python\ndef a():\n    return 1\n```\nand\n```python\ndef b():\n    return a()\n```", "", None
    )
    assert found and "def a" in code and "def b" in code


BASE = Group("base", cases=[[[1, 2]], [[]]])
PLUS = Group("plus", cases=[[[-1]]])
REFERENCE = LEAD + "    return sum(xs)\n"
ONLY_BASE = "    return sum(xs) if not xs or xs[0] > 0 else 0\n"


def item(name: str, groups: Sequence[Group]) -> Item:
    tests = UnitTests(tuple(groups), REFERENCE, "total", family="humaneval")
    return Item(name, "sums", (), data={"lead": LEAD, "tests": tests.as_json()}, source=f"HumanEval/{name}")


def graded(
    items: Sequence[Item], said: Sequence[Sequence[str]], *, stored: Any = None, unsafe: bool = False, **options: Any
) -> Grades:
    responses = [
        Response(item.id, item.task, sample, "", text, "eos", 1)
        for item, texts in zip(items, said, strict=True)
        for sample, text in enumerate(texts)
    ]
    evidence = HeldEvidence(
        Path(),
        Path(),
        resources=Resources(threads=2, unsafe_code=unsafe),
        held_items={item.id: item for item in items},
        held_responses=responses,
        held_stored=stored or {},
    )
    return unit_tests(evidence, complete_options("unit-tests", options, GRADERS))


RIGHT, WRONG = "    return sum(xs)\n", "    return 0\n"


@pytest.mark.bubblewrap
def test_base_and_plus_are_told_apart_and_plus_means_both() -> None:
    items = [item("0", [BASE, PLUS]), item("1", [BASE, PLUS])]
    only_plus = "    return sum(xs) if xs and xs[0] < 0 else 7\n"
    found = graded(items, [[RIGHT, ONLY_BASE, WRONG, only_plus], [ONLY_BASE] * 4], k=[1, 2])
    metrics = {(row.task, row.metric): row for row in found.metrics}
    # base: 2 and 4 of 4; plus: 1 and 0 of 4.
    assert metrics["base", "pass@1"].value == pytest.approx((0.5 + 1.0) / 2)
    assert metrics["plus", "pass@1"].value == pytest.approx((0.25 + 0.0) / 2)
    assert metrics["base", "pass@2"].value == pytest.approx((1 - 1 / 6 + 1.0) / 2)
    assert metrics["plus", "pass@2"].value == pytest.approx((1 - 3 / 6 + 0.0) / 2)
    assert metrics["plus", "pass@1"].stderr == pytest.approx(0.125)
    assert metrics["plus", "pass@1"].n == 2
    assert {row.metric for row in found.examples} == {"pass@1", "pass@2"}
    assert sum(row.metric == "pass@1" for row in found.examples) == 16
    assert found.health["wrong"] == 7
    assert found.protocol["sandbox"].startswith("bubblewrap")


@pytest.mark.bubblewrap
def test_one_group_of_tests_is_the_score_over_all() -> None:
    tests = UnitTests((Group("base", code="def check(f):\n    assert f([1]) == 1\n\ncheck(candidate)\n"),), "", "total")
    only = Item("0", "humaneval", (), data={"lead": LEAD, "tests": tests.as_json()})
    found = graded([only], [[RIGHT, WRONG, "    import time\n    time.sleep(30)\n"]], seconds=1.0, k=[1, 5])
    metrics = {(row.task, row.metric): row for row in found.metrics}
    assert metrics["overall", "pass@1"].value == pytest.approx(1 / 3)
    assert metrics["overall", "pass@5"].value is None  # three samples
    assert (found.health["wrong"], found.health["timed_out"]) == (1, 1)
    assert {row.task for row in found.examples} == {"humaneval"}


@pytest.mark.bubblewrap
def test_rows_from_elsewhere_say_what_their_text_is() -> None:
    said = [[REFERENCE, RIGHT, f"Here:\n```python\n{REFERENCE}```", f"Here:\n```python\n{REFERENCE}```"]]
    stored = {"0": [{"form": "program"}, {"form": "completion"}, {"form": "response"}, {"form": "completion"}]}
    found = graded([item("0", [BASE])], said, stored=stored)
    assert [row.value for row in found.examples] == [1.0, 1.0, 1.0, 0.0]
    assert [row.value for row in graded([item("0", [BASE])], said, extraction="response").examples] == [1.0] * 4


@pytest.mark.bubblewrap
def test_a_reference_that_fails_is_an_error_and_no_score() -> None:
    broken = UnitTests((BASE,), "def total(xs):\n    return xs[99]\n", "total", family="humaneval")
    only = Item("0", "sums", (), data={"lead": "", "tests": broken.as_json()}, source="HumanEval/0")
    with pytest.raises(StageError, match=r"tests of HumanEval/0 can't be used: IndexError"):
        graded([only], [[WHOLE]])


def test_without_a_sandbox_programs_are_refused_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StageError, match=r"bwrap is not on PATH\n  install bubblewrap .* --unsafe-code"):
        graded([item("0", [BASE])], [[RIGHT]])
    found = graded([item("0", [BASE, PLUS])], [[RIGHT, WRONG, "    import os\n    os.kill(1, 9)\n"]], unsafe=True)
    assert [row.value for row in found.examples if row.task == "plus"] == [1.0, 0.0, 0.0]
    assert found.health["unsafe_code"] == 3
    assert found.protocol["sandbox"].startswith("none")


def test_a_sandbox_that_does_not_start_is_an_error_and_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match=r"does not start: bwrap: No permissions to create a new namespace"):
        graded([item("0", [BASE])], [[RIGHT]])


SUITE = """
name: mine
title: Mine
category: coding
subject: policy
engine: items
data: {files: [HumanEval.jsonl]}
prompts: humaneval
decoding: {temperature: 0.8, samples: 4}
grader: unit-tests
options: {k: [1]}
primary: pass@1
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("k: [1]", "k: [1, 5]", r"asks for pass@5, and decoding.samples is 4"),
        ("primary: pass@1", "primary: pass@2", "primary is pass@2, and options.k does not ask for it"),
        ("primary: pass@1", "primary: pass@3", "unknown metric of grader unit-tests 'pass@3'"),
        ("k: [1]", "k: [3]", r"options.k"),
        ("k: [1]", "k: []", r"options.k"),
        ("k: [1]", "k: [1], seconds: 0", r"options.seconds"),
        ("k: [1]", "k: [1], extraction: fenced", "allowed: completion, response"),
        (
            "prompts: humaneval",
            "prompts: {name: humaneval, options: {instructions: hep}}",
            "allowed: complete, humanevalpack",
        ),
        ("grader: unit-tests", "grader: unit-test", "did you mean 'unit-tests'"),
    ],
)
def test_wrong_suites_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE)
    assert load_suites([tmp_path])["mine"].metrics
    (tmp_path / "mine.yaml").write_text(SUITE.replace(old, new))
    with pytest.raises(SpecError, match=message):
        load_suites([tmp_path])


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_of_evalplus_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "samples.jsonl",
        {"task_id": "HumanEval/0", "solution": "a", "model": "m"},
        {"task_id": "HumanEval/0", "completion": "b"},
        {"task_id": "Mbpp/2", "response": ["c", "d"]},
    )
    assert find_format(path) == "evalplus"
    outputs = read_submission(path).outputs
    assert [(row.source, row.texts, row.facts["form"]) for row in outputs] == [
        ("HumanEval/0", ("a",), "program"),
        ("HumanEval/0", ("b",), "completion"),
        ("Mbpp/2", ("c",), "response"),
        ("Mbpp/2", ("d",), "response"),
    ]
    assert outputs[0].facts["model"] == "m"


def test_folders_of_evalplus_are_read(tmp_path: Path) -> None:
    for name, text in {"HumanEval_0/10": "c", "HumanEval_0/2": "b", "HumanEval_12/0": "a"}.items():
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    (tmp_path / "eval_results.json").write_text("{}")
    assert find_format(tmp_path) == "evalplus"
    found = [(row.source, row.texts) for row in read_submission(tmp_path).outputs]
    assert found == [("HumanEval/0", ("b",)), ("HumanEval/0", ("c",)), ("HumanEval/12", ("a",))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"task_id": "HumanEval/1"}, r"row 2 has no column 'solution'"),
        ({"task_id": 3, "solution": "a"}, r"row 2: 'task_id' is 3, not a task's id"),
        ({"solution": "a"}, r"row 2: 'task_id' is None"),
        ({"task_id": "HumanEval/1", "solution": 5}, r"row 2: 'solution' is neither a text nor a list of texts"),
    ],
)
def test_rows_that_are_no_samples_are_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "samples.jsonl", {"task_id": "HumanEval/0", "solution": "a"}, row)
    with pytest.raises(DataError, match=message):
        read_submission(path)
    with pytest.raises(DataError, match=r"no column 'program'"):
        read_submission(path, options=ReadOptions(response="program"))
