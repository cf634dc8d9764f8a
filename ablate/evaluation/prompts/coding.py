"""Prompts of HumanEval(+) and MBPP+, with the tests that their programs are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.data.suite_files import Source
from ablate.errors import DataError
from ablate.evaluation.items import Item, content_id, unique_ids, user
from ablate.evaluation.prompts.mbpp_inputs import python_inputs
from ablate.sandbox.judge import Group, UnitTests
from ablate.sandbox.wire import encode

_COMPLETE = "Complete the following python function.\n\n\n"
_SCRIPT = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
_BELOW = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:"
)


def humaneval(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """A function to complete. The program is the prompt and what follows it, in chat mode too (open-instruct).

    In chat mode the user turn is HumanEvalPack's instruction and the prompt starts the assistant's turn inside a code
    block; without its file, the user turn asks to complete the prompt. The tests are HumanEval's ``check``, or
    (``plus``) the base and plus inputs of EvalPlus with the reference's outputs.
    """
    packed = options["instructions"] == "humanevalpack"
    instructions = _instructions(source) if packed else {}
    items = []
    for row in _rows(source, "HumanEval", _HUMANEVAL_COLUMNS + (_CASE_COLUMNS if options["plus"] else ())):
        name, prompt = row["task_id"], row["prompt"]
        if packed and name not in instructions:
            raise DataError(f"HumanEvalPack has no instruction for {name}")
        begun = f"Here is the function:\n\n```python\n{prompt}" if packed else "Here is the completed function:\n\n\n"
        items.append(
            Item(
                content_id("humaneval", prompt),
                "humaneval",
                user(instructions[name] if packed else _COMPLETE + prompt),
                prefix=begun,
                plain=prompt,
                data={"lead": prompt, "tests": _humaneval_tests(row, plus=options["plus"]).as_json()},
                source=name,
            )
        )
    return unique_ids(items)


def mbpp_plus(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """A task in words; the program is the response. Tests are EvalPlus' base and plus inputs.

    ``study``: the task and the reference's signature up to its first colon, to complete (open-instruct); needs the
    human-eval form of the set beside it, whose texts these are. ``evalplus``: the task with its first test.
    """
    study = options["style"] == "study"
    texts = {f"Mbpp/{row['task_id']}": row for row in source.rows("OriginFmt")} if study else {}
    rows = [row for row in _rows(source, "MbppPlus", ("task_id", "prompt", *_CASE_COLUMNS)) if "source_file" not in row]
    items = []
    for row in rows:
        name, prompt = row["task_id"], row["prompt"]
        if study and name not in texts:
            raise DataError(f"the human-eval form of MBPP+ has no task {name}", hint="take both from one release")
        if study:
            signature = texts[name]["code"].split(":")[0]
            plain, leads = texts[name]["prompt"] + signature, {"lead": "", "plain_lead": signature}
            asked, begun = _COMPLETE + plain, "Here is the completed function:\n\n\n```python\n"
        else:
            plain, leads = prompt, {"lead": prompt}
            asked, begun = f"{_SCRIPT}\n```\n{prompt.strip()}\n```\n", f"{_BELOW}\n```python\n"
        items.append(
            Item(
                content_id("mbpp-plus", name, prompt),
                "mbpp-plus",
                user(asked),
                prefix=begun,
                plain=plain,
                data={**leads, "tests": _plus_tests(row, "mbpp").as_json()},
                source=name,
            )
        )
    return unique_ids(items[options["held_out"] :])


_HUMANEVAL_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
_CASE_COLUMNS = ("entry_point", "canonical_solution", "base_input", "plus_input", "atol")


def _rows(source: Source, part: str, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of the set; DataError for a row that lacks a column (the human-eval form of MBPP+ is passed over)."""
    rows = source.rows(part)
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in columns if name not in row and "source_file" not in row]:
            raise DataError(
                f"row {number} of {part} has no {missing[0]!r}",
                hint="HumanEval+ and MBPP+ are read from EvalPlus' own files (HumanEvalPlus.jsonl, MbppPlus.jsonl)",
            )
    return rows


def _instructions(source: Source) -> dict[str, str]:
    rows = source.rows("humanevalpack")
    return {row["task_id"].replace("Python", "HumanEval"): row["instruction"] for row in rows}


def _humaneval_tests(row: Mapping[str, Any], *, plus: bool) -> UnitTests:
    if plus:
        return _plus_tests(row, "humaneval")
    setup = row["prompt"] + row["canonical_solution"]
    return UnitTests((Group("base", code=f"{row['test']}\ncheck(candidate)\n"),), setup=setup, entry=row["entry_point"])


def _plus_tests(row: Mapping[str, Any], family: str) -> UnitTests:
    """Base and plus inputs; what is expected follows from the reference."""
    number = int(row["task_id"].rpartition("/")[2])
    groups = []
    for name in ("base", "plus"):
        inputs = row[f"{name}_input"] or []  # one task of MBPP+ has no plus inputs
        inputs = python_inputs(number, inputs) if family == "mbpp" else inputs
        groups.append(Group(name, cases=[encode(arguments, _unplain) for arguments in inputs]))
    setup = row["prompt"] + row["canonical_solution"]
    return UnitTests(tuple(groups), setup, row["entry_point"], family=family, tolerance=float(row["atol"]))


def _unplain(value: Any) -> Any:
    raise DataError(f"an input of a test is a {type(value).__name__}, which can't be handed to a program")
