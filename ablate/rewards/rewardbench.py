"""RewardBench's rows, in the columns of the hub's sets, as pairs and as candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeVar

from ablate.catalogs.rewardbench import SECTIONS, SECTIONS_2, SUBSETS
from ablate.data.sources import DataFile, read_rows
from ablate.data.suite_files import Source
from ablate.errors import DataError, suggestion
from ablate.models.chat import Message, Messages
from ablate.rewards.pairs import Candidates, Pair, unique_pairs

PRIOR_SETS = tuple(SECTIONS["prior-sets"])
"""Files of the set of earlier test sets that the section of prior sets is made of, by the start of their name."""

CORE = tuple(subset for subset in SUBSETS if subset not in PRIOR_SETS)
"""Subsets that the column ``subset`` of the core set may name."""

Asked = TypeVar("Asked", Pair, Candidates)


def pairs(source: Source, options: Mapping[str, Any]) -> list[Pair]:
    """Pairs of the core set (``prompt``, ``chosen``, ``rejected``, ``subset``, ``id``) and of the prior sets.

    A file whose name begins with a prior set's is that subset; its prompts are conversations. Raises ``DataError`` for
    a row without one of these columns, or of an unknown subset.
    """
    found = []
    for file in source.files:
        prior = next((name for name in PRIOR_SETS if PurePosixPath(file.name).name.startswith(name)), None)
        for number, row in _rows(file, ("prompt", "chosen", "rejected")):
            subset = prior or _subset(file, number, row, CORE)
            prompt, own = _prompt(file, number, row), str(row.get("id", number))
            chosen, rejected = (_text(file, number, row, side) for side in ("chosen", "rejected"))
            found.append(Pair(f"{subset}/{own}", "rewardbench", subset, prompt, chosen, rejected, source=own))
    return unique_pairs(found)


def candidates(source: Source, options: Mapping[str, Any]) -> list[Candidates]:
    """Prompts of version 2 with their right (``chosen``) and wrong (``rejected``) responses.

    Raises ``DataError`` for a row without these columns, of an unknown subset, or whose counts are not those it has.
    """
    found = []
    for file in source.files:
        for number, row in _rows(file, ("id", "prompt", "chosen", "rejected", "subset")):
            subset, own = _subset(file, number, row, SECTIONS_2), str(row["id"])
            correct, incorrect = (_texts(file, number, row, side) for side in ("chosen", "rejected"))
            for name, count in (("num_correct", len(correct)), ("num_incorrect", len(incorrect))):
                if row.get(name) not in (None, count):
                    raise DataError(f"{file.path}, row {number}: {name} is {row[name]}, and the row has {count}")
            prompt = _prompt(file, number, row)
            found.append(Candidates(f"{subset}/{own}", "rewardbench-2", subset, prompt, correct, incorrect, source=own))
    return unique_pairs(found)


def _rows(file: DataFile, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, row in read_rows(file):
        if missing := [name for name in columns if name not in row]:
            raise DataError(
                f"{file.path}, row {number}: no column {missing[0]!r}",
                hint=f"needed: {', '.join(columns)}; found: {', '.join(row)}",
            )
        yield number, row


def _subset(file: DataFile, number: int, row: Mapping[str, Any], known: Sequence[str]) -> str:
    name = row.get("subset")
    if name not in known:
        raise DataError(f"{file.path}, row {number}: unknown subset {name!r}", hint=suggestion(str(name), known))
    return str(name)


def _prompt(file: DataFile, number: int, row: Mapping[str, Any]) -> Messages:
    """Return the prompt as turns: a text is one of the user's; turns alternate, whatever their roles are called."""
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    texts = [turn.get("content") if isinstance(turn, Mapping) else None for turn in prompt or ()]
    if len(texts) % 2 == 0 or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{file.path}, row {number}: a prompt is text, or turns that begin and end with the user's")
    return tuple(
        Message(role="assistant" if place % 2 else "user", content=str(text)) for place, text in enumerate(texts)
    )


def _text(file: DataFile, number: int, row: Mapping[str, Any], side: str) -> str:
    if not isinstance(row[side], str):
        raise DataError(f"{file.path}, row {number}: {side} is a {type(row[side]).__name__}, not text")
    return str(row[side])


def _texts(file: DataFile, number: int, row: Mapping[str, Any], side: str) -> tuple[str, ...]:
    texts = row[side]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{file.path}, row {number}: {side} is not a list of texts, at least one")
    return tuple(texts)
