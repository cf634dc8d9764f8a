"""Annotation files of AlpacaEval: a judge's preference between a baseline's response and a model's, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.errors import DataError
from ablate.evaluation.formats.rows import column, numbered_rows
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission

COLUMNS = ("instruction", "output_1", "output_2", "preference")


def recognises(path: Path, first: Mapping[str, Any] | None) -> bool:
    """A row with an instruction, two outputs and a preference."""
    return first is not None and all(name in first for name in COLUMNS)


def read(path: Path, options: ReadOptions) -> Submission:
    """The model's response is ``output_2``; all else are facts. Of several models ``options.model`` names one."""
    found = list(numbered_rows(path))
    for number, row in found:
        said = {name: column(path, number, row, name) for name in COLUMNS}
        if texts := [name for name in COLUMNS[:3] if not isinstance(said[name], str)]:
            raise DataError(
                f"{path}, row {number} has no text in {texts[0]!r}",
                hint=f"annotations of AlpacaEval have {', '.join(COLUMNS)}",
            )
    models = list(dict.fromkeys(str(row.get("generator_2", "")) for _, row in found))
    wanted = options.model or models[0]
    if wanted not in models or (len(models) > 1 and options.model is None):
        raise DataError(f"{path} has annotations of {', '.join(models)}", hint="name one of them: --model")
    own = [(number, row) for number, row in found if str(row.get("generator_2", "")) == wanted]
    about = {
        "model": wanted,
        "baseline": str(own[0][1].get("generator_1", "")),
        "judge": str(own[0][1].get("annotator", "")),
    }
    return Submission(path, tuple(_output(number, row) for number, row in own), about)


def _output(number: int, row: Mapping[str, Any]) -> Output:
    facts = {name: value for name, value in row.items() if name not in ("instruction", "output_2", "raw_completion")}
    return Output(number, prompt=row["instruction"], texts=(row["output_2"],), facts=facts)
