"""Verdicts as lines of text, one an example in the data's order, as FairEval publishes those of people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.errors import DataError
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission, read_text

WORDS = {"CHATGPT": "loss", "VICUNA13B": "win", "WIN": "win", "TIE": "tie", "LOSS": "loss"}
"""Words of a line, with how it ended for the model that is graded: FairEval compares Vicuna 13B with ChatGPT."""


def recognises(path: Path, first: Mapping[str, Any] | None) -> bool:
    """A text file."""
    return path.suffix == ".txt"


def read(path: Path, options: ReadOptions) -> Submission:
    """One verdict a line; empty lines are left out. Raises ``DataError`` for another word."""
    outputs = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        word = line.strip().upper()
        if not word:
            continue
        if word not in WORDS:
            raise DataError(
                f"{path}, line {number}: {line.strip()!r} is no verdict", hint=f"allowed: {', '.join(WORDS)}"
            )
        outputs.append(Output(number, facts={"winner": WORDS[word], "judge": "people"}))
    if not outputs:
        raise DataError(f"{path} has no verdicts")
    return Submission(path, tuple(outputs))
