"""Readers of outputs from elsewhere: which kinds of files ``ablate grade`` knows, asked in this order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ablate.errors import UnknownNameError
from ablate.evaluation.formats import (
    alpaca_annotations,
    evalplus,
    fastchat,
    lm_eval_samples,
    rewardbench,
    rows,
    several_models,
    verdict_lines,
)
from ablate.evaluation.formats.submission import Format, ReadOptions, Submission, first_row

FORMATS: dict[str, Format] = {
    "alpaca-annotations": alpaca_annotations,
    "fastchat": fastchat,
    "verdict-lines": verdict_lines,
    "evalplus": evalplus,
    "lm-eval-samples": lm_eval_samples,
    "several-models": several_models,
    "rewardbench": rewardbench,
    "rows": rows,
}
"""Formats by name; the first that recognises a file reads it, so the ones with the clearest marks come first."""


def find_format(path: Path, name: str | None = None) -> str:
    """The name of the format that reads ``path``: the one given, else the first that recognises its content."""
    if name is not None and name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    first = first_row(path)
    return name or next(known for known, form in FORMATS.items() if form.recognises(path, first))


def read_submission(path: Path, name: str | None = None, options: ReadOptions | None = None) -> Submission:
    """Read a file of outputs; raises ``DataError`` with the row that can't be read."""
    found = find_format(path, name)
    submission = FORMATS[found].read(path, options or ReadOptions())
    return replace(submission, about={"read": found, **submission.about})
