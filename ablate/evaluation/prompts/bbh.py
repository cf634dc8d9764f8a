"""Prompts of BIG-Bench Hard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ablate.data.suite_files import Source, tar_members
from ablate.errors import DataError
from ablate.evaluation.items import Item, content_id, unique_ids, user

SHOTS = 3
"""Exemplars of each task."""


def bbh(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """The task's chain-of-thought exemplars and the question in one user turn, as open-instruct asks it; the task is
    the file. ``shots`` of 0 leaves the exemplars out and keeps the task's description."""
    file = source.file("bbh")
    heads = {_stem(name): _head(text, options["shots"], name) for name, text in tar_members(file, ".txt")}
    items = []
    for name, text in tar_members(file, ".json"):
        task = _stem(name)
        if task not in heads:
            raise DataError(f"{file.path} has no exemplars for {task}", hint=f"expected cot-prompts/{task}.txt in it")
        for number, row in enumerate(json.loads(text)["examples"]):
            asked = f"{heads[task]}\n\nQ: {row['input']}"
            items.append(
                Item(
                    content_id(task, row["input"], row["target"]),
                    task,
                    user(asked),
                    prefix="A:",
                    plain=f"{asked}\nA:",
                    data={"answer": row["target"], "question": row["input"]},
                    source=f"{task}/{number}",
                )
            )
    if not items:
        raise DataError(f"no tasks (*.json) in {file.path}")
    return unique_ids(items)


def _head(text: str, shots: int, name: str) -> str:
    """Description and first exemplars of a task, without the file's warning and the line below it."""
    parts = "".join(text.splitlines(keepends=True)[2:]).strip().split("\n\nQ: ")
    if len(parts) != SHOTS + 1:
        raise DataError(f"{name} has {len(parts) - 1} exemplars, expected {SHOTS}")
    return "\n\nQ: ".join(parts[: shots + 1])


def _stem(member: str) -> str:
    return member.rsplit("/", 1)[-1].rsplit(".", 1)[0]
