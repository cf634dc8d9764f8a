"""RewardBench's own files: accuracies by subset, and scores or verdicts of all pairs as columns of one object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.catalogs.rewardbench import SECTIONS_2, SUBSETS, TIES, TIES_WEIGHTS
from ablate.errors import DataError, suggestion
from ablate.evaluation.formats.pair_scores import ACCURACIES
from ablate.evaluation.formats.rows import column, numbered_rows
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission, json_object

VALUES = ("accuracy", "acc", "score", "value")
"""Columns that hold a subset's accuracy in a table of subsets."""

SPOKEN = {
    "mt bench medium": "mt-bench-med",
    "do not answer": "donotanswer",
    "prm math": "math-prm",
    "humanevalpack javascript": "hep-js",
    **{f"humanevalpack {name}": f"hep-{name}" for name in ("cpp", "go", "java", "python", "rust")},
}
"""Names of subsets in papers and cards that are not theirs in the data."""

BEST_TIES = math.fsum(TIES_WEIGHTS.values()) + 1e-6
"""The best score of the Ties subset as a proportion, 1.01, and what rounding may add to it."""

OTHER_SETS = ("anthropic_harmless", "mtbench_gpt4", "mtbench_human", "pku_better", "pku_safer", "summarize_prompted")
"""Test sets of the results repository's ``pref-sets`` that no section has."""


def subset_name(written: str) -> str | None:
    """The subset that a name stands for, whatever its capitals and the marks between its words; None for none."""
    plain = _plain(written)
    if plain in SPOKEN:
        return SPOKEN[plain]
    return next((name for name in (*SUBSETS, *SECTIONS_2) if _plain(name) == plain), None)


def recognises(path: Path, first: Mapping[str, Any] | None) -> bool:
    """An object with accuracies under names of subsets or with equally long columns, or a table subset, accuracy."""
    if first is None:
        return False
    if json_object(path) is not None:
        return _is_columns(first) or any(_is_number(value) and subset_name(name) for name, value in first.items())
    return "subset" in first and set(first) <= {"subset", "n", *VALUES} and any(name in first for name in VALUES)


def read(path: Path, options: ReadOptions) -> Submission:
    """One row a subset with ``accuracy`` (a proportion), or one a pair of an object of columns.

    Accuracies above 1 (of Ties above ``BEST_TIES``) are percentages, then all of them are. Raises ``DataError`` for a
    number under a name that is no subset's, one that is no accuracy, two for one subset, and columns of different
    lengths.
    """
    whole = json_object(path)
    if whole is not None and _is_columns(whole):
        return _columns(path, whole, options)
    if whole is not None:
        numbers = {name: value for name, value in whole.items() if _is_number(value) and name not in OTHER_SETS}
        about = {name: value for name, value in whole.items() if isinstance(value, str)}
        return _accuracies(path, [(name, value, None) for name, value in numbers.items()], about)
    rows = []
    for number, row in numbered_rows(path):
        values = next((name for name in VALUES if row.get(name) not in (None, "")), None)
        if values is None:
            raise DataError(f"{path}, row {number}: no accuracy", hint=f"columns: subset, {' or '.join(VALUES)}")
        written = row.get("n")
        count = None if written in (None, "") else _count(path, number, written)
        rows.append((str(column(path, number, row, "subset")), row[values], count))
    return _accuracies(path, rows, {})


def _accuracies(path: Path, rows: list[tuple[str, Any, int | None]], about: Mapping[str, Any]) -> Submission:
    found: dict[str, tuple[float, int | None]] = {}
    for written, value, n in rows:
        name = subset_name(written)
        if name is None:
            known = (*SUBSETS, *SECTIONS_2)
            raise DataError(f"{path}: {written!r} is no subset of RewardBench", hint=suggestion(written, known))
        if name in found:
            raise DataError(f"{path}: two accuracies of {name}")
        found[name] = (_number(path, written, value), n)
    percent = any(value > _best(name) for name, (value, _) in found.items())
    outputs = tuple(
        Output(number, facts={"subset": name, "accuracy": value / 100 if percent else value, "n": n})
        for number, (name, (value, n)) in enumerate(found.items(), start=1)
    )
    return Submission(path, outputs, {**about, ACCURACIES: "percent" if percent else "proportions"})


def _count(path: Path, number: int, written: Any) -> int:
    try:
        count = int(written)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise DataError(f"{path}, row {number}: n is {written!r}", hint="n is how many pairs the subset has")
    return count


def _best(subset: str) -> float:
    return BEST_TIES if subset == TIES else 1.0


def _number(path: Path, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 100 * _best(name):
        raise DataError(f"{path}: {name} is {value!r}, which is no accuracy", hint="proportions, or percentages")
    return number


def _columns(path: Path, whole: Mapping[str, Any], options: ReadOptions) -> Submission:
    columns = {name: value for name, value in whole.items() if isinstance(value, list)}
    lengths = {name: len(value) for name, value in columns.items()}
    if len(set(lengths.values())) != 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{path}: its columns have different lengths: {shown}")
    names = options.id or "id"
    outputs = []
    for place in range(next(iter(lengths.values()))):
        row = {name: value[place] for name, value in columns.items()}
        source = row.pop(names, None)
        outputs.append(Output(place + 1, source=None if source is None else str(source), facts=row))
    about = {name: value for name, value in whole.items() if isinstance(value, str) and name != ACCURACIES}
    return Submission(path, tuple(outputs), about)


def _is_columns(whole: Mapping[str, Any]) -> bool:
    return isinstance(whole.get("subset"), list) and any(
        isinstance(whole.get(name), list) for name in ("results", "scores", "scores_chosen", "scores_rejected")
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(name: str) -> str:
    return " ".join(name.lower().replace(".", " ").replace("-", " ").replace("_", " ").split())
