"""The base format: rows (JSON lines, JSON, CSV, Parquet) with an id or a prompt, and one or several responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablate.data.sources import DataFile, read_rows
from ablate.errors import DataError, suggestion
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission, json_object

IDS = ("id", "task_id", "key", "question_id", "example_id", "doc_id", "item_id", "uid", "idx", "index", "row")
"""Columns that hold an example's id, the likeliest first."""

TASKS = ("task", "subject", "category", "subset")
"""Columns that hold the task within which an example is numbered."""

PROMPTS = ("prompt", "question", "instruction", "input", "query", "goal", "Question")
"""Columns that hold an example's prompt."""

RESPONSES = (
    "responses",
    "response",
    "completions",
    "completion",
    "outputs",
    "output",
    "generations",
    "generation",
    "generated_text",
    "model_outputs",
    "model_output",
    "model_response",
    "solutions",
    "solution",
    "samples",
    "text",
    "answers",
    "answer",
)
"""Columns that hold what a model said: a text, or a list of texts (samples)."""


def recognises(path: Path, first: Mapping[str, Any] | None) -> bool:
    """Any file of rows."""
    return True


def read(path: Path, options: ReadOptions) -> Submission:
    """Rows with the columns of ``IDS``, ``PROMPTS`` and ``RESPONSES`` (or those of ``options``); the rest are facts."""
    if path.is_dir():
        raise DataError(
            f"{path} is a folder that no format knows", hint="name a file of outputs, or the format: --read"
        )
    return Submission(path, tuple(output(path, number, row, options) for number, row in numbered_rows(path)))


def numbered_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Row number (from 1) and row, at least one; an object from ids to responses is as many rows."""
    number = 0
    for number, row in _numbered(path):
        yield number, row
    if not number:
        raise DataError(f"{path} has no rows")


def _numbered(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    whole = json_object(path)
    if whole is not None and all(isinstance(value, str | list) for value in whole.values()):
        for number, (name, value) in enumerate(whole.items(), start=1):
            yield number, {"id": name, "response": value}
    elif whole is not None:
        yield 1, whole
    else:
        yield from read_rows(DataFile(path.name, path))


def texts_of(value: Any) -> tuple[str, ...] | None:
    """Responses as texts: a text, a list of texts, a message or a list of messages; null for anything else.

    A missing response (null) is an empty one. Of a dialogue the assistant's last turn is the response.
    """
    if value is None:
        return ("",)
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping):
        return texts_of(value["content"]) if "content" in value else None
    if not isinstance(value, list):
        return None
    if value and all(isinstance(turn, Mapping) and "role" in turn for turn in value):
        return texts_of(value[-1])
    each = [texts_of(entry) for entry in value]
    return None if None in each else tuple(text for texts in each if texts is not None for text in texts)


def output(path: Path, number: int, row: Mapping[str, Any], options: ReadOptions) -> Output:
    """What one row holds; raises ``DataError`` for an id or a response of another kind than text."""
    id_name = options.id or next((name for name in IDS if row.get(name) not in (None, "")), None)
    said_name = options.response or next((name for name in RESPONSES if name in row), None)
    prompt_name = next((name for name in PROMPTS if isinstance(row.get(name), str) and name != said_name), None)
    texts = None
    if said_name is not None:
        texts = texts_of(column(path, number, row, said_name))
        if texts is None or not texts:
            raise DataError(f"{path}, row {number}: {said_name!r} is neither a text nor a list of texts")
    used = {id_name, said_name, prompt_name}
    return Output(
        row=number,
        source=None if id_name is None else _identity(path, number, column(path, number, row, id_name), id_name),
        prompt=row[prompt_name] if prompt_name else None,
        texts=texts,
        facts={name: value for name, value in row.items() if name not in used},
    )


def column(path: Path, number: int, row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a dotted path below one; raises ``DataError`` that names the row without it."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(f"{path}, row {number} has no column {name!r}", hint=suggestion(name, row))
        value = value[part]
    return value


def _identity(path: Path, number: int, value: Any, name: str) -> str:
    """An id as text: 7 and "7" are one, and so is 7.0, which some writers make of it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{path}, row {number}: {name!r} is {value!r}; an id is a text or a whole number")
    return str(value).strip()
