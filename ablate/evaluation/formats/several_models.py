"""Published files with the outputs of several models in one row: Do-Not-Answer's and GSM8K's example solutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablate.errors import DataError, UnknownNameError
from ablate.evaluation.formats import rows
from ablate.evaluation.formats.submission import ReadOptions, Submission

_RESPONSE = "_response"
_PARTS = ("response", "harmful", "action")


def recognises(path: Path, first: Mapping[str, Any] | None) -> bool:
    """Columns ``MODEL_response`` beside ``MODEL_harmful``; or columns that hold ``solution`` and ``is_correct``."""
    return first is not None and bool(_models(first))


def read(path: Path, options: ReadOptions) -> Submission:
    """One model's responses and labels, under the columns ``response``, ``harmful``, ``action`` or ``is_correct``."""
    found = list(rows.numbered_rows(path))
    models = _models(found[0][1])
    if options.model is None:
        raise DataError(
            f"{path} has the outputs of {len(models)} models", hint=f"name one with --model: {', '.join(models)}"
        )
    if options.model not in models:
        raise UnknownNameError("model of this file", options.model, models)
    outputs = tuple(
        rows.output(path, number, _of_model(path, number, row, options.model), replace(options, model=None))
        for number, row in found
    )
    return Submission(path, outputs, {"model": options.model})


def _models(row: Mapping[str, Any]) -> dict[str, Any]:
    """Models by name, in the file's order."""
    flat = [name.removesuffix(_RESPONSE) for name in row if name.endswith(_RESPONSE)]
    marks = {"solution", "is_correct"}
    nested = [name for name, value in row.items() if isinstance(value, Mapping) and marks <= value.keys()]
    return dict.fromkeys([name for name in flat if f"{name}_harmful" in row] or nested)


def _of_model(path: Path, number: int, row: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The row as if there were no other model."""
    others = tuple(f"{name}_" for name in _models(row))
    own: dict[str, Any] = {name: value for name, value in row.items() if not name.startswith(others)}
    own = {name: value for name, value in own.items() if name not in _models(row)}
    if isinstance(row.get(model), Mapping):
        return {**own, **row[model]}
    if f"{model}{_RESPONSE}" not in row:
        raise DataError(f"{path}, row {number} has no outputs of {model}")
    return {**own, **{part: row[f"{model}_{part}"] for part in _PARTS if f"{model}_{part}" in row}}
