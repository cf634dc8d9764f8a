"""Prompts whose responses a judge compares with a baseline's, or rates: AlpacaEval, MT-Bench, Arena-Hard, pocket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablate.data.suite_files import Source
from ablate.errors import DataError
from ablate.evaluation.items import Item, content_id, unique_ids, user
from ablate.evaluation.prompts.pocket import pocket as pocket_items
from ablate.pocket import language
from ablate.pocket.draws import Draw


def alpaca_eval(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Instructions with the baseline's response to each: rows with ``instruction``, ``output_1`` and ``dataset``.

    ``difficulty`` names a file of rows in the same order; the task is the set that an instruction is from.
    """
    name = options["difficulty"]
    rows = _rows(source, "annotations" if name is None else "eval_set")
    difficulties: list[float | None] = [None] * len(rows)
    if name is not None:
        difficulties = [float(row["instruction_difficulty"]) for row in source.rows(name)]
        if len(difficulties) != len(rows):
            raise DataError(f"{len(rows)} instructions, and the difficulties of {len(difficulties)}")
    items = [
        Item(
            content_id("alpaca-eval", row["instruction"]),
            str(row.get("dataset", "alpaca-eval")),
            user(_text(row, "instruction")),
            data={
                "baseline": [_text(row, "output_1")],
                **({} if difficulty is None else {"difficulty": difficulty}),
            },
            source=str(number),
        )
        for number, (row, difficulty) in enumerate(zip(rows, difficulties, strict=True))
    ]
    return unique_ids(items)


def _rows(source: Source, part: str) -> list[dict[str, Any]]:
    """Rows of the one file of instructions, whose name has ``part`` in it or which is the only one."""
    if len(source.files) == 1:
        return source.rows()
    return source.rows(source.file(part).name)


def mt_bench(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Two-turn questions by category, with reference answers where there are some and a baseline's on request."""
    references = _answers(source, "reference_answer")
    part = options["baseline"]
    baseline = {} if part is None else _answers(source, part)
    items = []
    for row in source.rows("question"):
        name, category = str(row["question_id"]), str(row["category"])
        first, *followups = row["turns"]
        facts: dict[str, Any] = {"category": category}
        if name in references:
            facts["reference"] = references[name]
        if part is not None:
            if name not in baseline:
                raise DataError(f"the file with {part!r} in its name has no answer to question {name}")
            facts["baseline"] = baseline[name]
        items.append(
            Item(
                content_id("mt-bench", *row["turns"]),
                category,
                user(first),
                data=facts,
                source=name,
                followups=tuple(followups),
                temperature=options["temperatures"].get(category),
            )
        )
    return unique_ids(items)


def vicuna_80(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Vicuna's questions with a baseline's answers, in FairEval's files: rows with ``question_id`` and ``text``."""
    baseline = {str(row["question_id"]): _text(row, "text") for row in source.rows(options["baseline"])}
    items = []
    for row in source.rows("question"):
        name, text = str(row["question_id"]), _text(row, "text")
        if name not in baseline:
            raise DataError(f"the file with {options['baseline']!r} in its name has no answer to question {name}")
        data = {"baseline": [baseline[name]]}
        items.append(Item(content_id("vicuna", text), str(row["category"]), user(text), data=data, source=name))
    return unique_ids(items)


def arena_hard(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Arena-Hard's prompts (v0.1 has one turn); prompts of one topic are a cluster."""
    baseline = _answers(source, options["baseline"])
    items = []
    for row in source.rows("question"):
        name = str(row.get("uid") or row.get("question_id"))
        if name not in baseline:
            raise DataError(f"the file with {options['baseline']!r} in its name has no answer to prompt {name}")
        text = row["prompt"] if "prompt" in row else row["turns"][0]["content"]
        items.append(
            Item(
                content_id("arena-hard", text),
                "arena-hard",
                user(text),
                cluster=row.get("cluster"),
                data={"baseline": baseline[name]},
                source=name,
            )
        )
    return unique_ids(items)


def pocket(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """Items of the pocket world, with the answer of an author of middling quality as the baseline's."""
    items = []
    for item in pocket_items(source, options):
        row = item.data
        made = language.Item(row["id"], row["skill"], row["split"], row["prompt"][0]["content"], row["spec"])
        answer = language.answer(made, Draw("baseline", row["id"]), _MIDDLING)
        items.append(replace(item, data={**row, "baseline": [answer]}))
    return items


_MIDDLING = 0.5


def _answers(source: Source, part: str) -> dict[str, list[str]]:
    """Answers to each question, one a turn, from a file in FastChat's or Arena-Hard's form; none without a file."""
    found: dict[str, list[str]] = {}
    if not any(part in file.name for file in source.files):
        return found
    for row in source.rows(source.file(part).name):
        name = str(row.get("question_id") or row.get("uid"))
        try:
            found[name] = _turns(row)
        except (KeyError, IndexError, TypeError) as error:
            raise DataError(f"the answer to {name} in the file with {part!r} in its name has no turns") from error
    return found


def _turns(row: Mapping[str, Any]) -> list[str]:
    """Turns of FastChat's ``choices``, or of the ``messages`` of later Arena-Hard files."""
    if "messages" in row:
        said: Sequence[Any] = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
    else:
        said = row["choices"][0]["turns"]
    return [turn if isinstance(turn, str) else _content(turn["content"]) for turn in said]


def _content(value: Any) -> str:
    return str(value["answer"]) if isinstance(value, Mapping) else str(value)


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row.get(name), str):
        raise DataError(f"a row has no text {name!r}; it has: {', '.join(row)}")
    return str(row[name])
