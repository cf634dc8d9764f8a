"""Numbers of a table: means over the runs of a row, differences of paired runs, gaps with their reasons."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.results.layout import TableLayout
from ablate.results.long import Results, Subject
from ablate.results.statistics.paired import mean_sd
from ablate.results.tables.columns import Measured, column_value
from ablate.results.tables.notes import Notes
from ablate.results.tables.rows import Group, paired_members, run_words
from ablate.results.tables.sides import Sides
from ablate.results.tables.table import Cell


def number_cell(results: Results, layout: TableLayout, sides: Sides, measured: Measured, notes: Notes) -> Cell:
    """Return a row's number in a column: a mean over its runs, or over paired runs where the column subtracts some."""
    if sides.second is not None:
        stages = [{item.stage for item in side.members.values()} for side in (sides.first, sides.second)]
        if stages[0] == stages[1]:
            return Cell(text="")
        return difference_cell(results, sides.first, sides.second, measured, notes)
    group = sides.first
    if not group.members and measured.where:
        return Cell(text="")
    values, absent = [], []
    for key, subject in group.members.items():
        value, gaps = run_value(results, subject, measured)
        if value is None:
            absent.append((key, _gap_text(gaps, len(measured.weights))))
        else:
            values.append(value)
    if not values:
        reason = "; ".join(dict.fromkeys(text for _, text in absent)) or "no run"
        return Cell(missing=reason, notes=(notes.key(reason),))
    mean, sd = mean_sd(values)
    if not absent:
        return Cell(value=mean, sd=sd, n=len(values))
    which = "; ".join(f"{run_words(layout, key)}: {text}" for key, text in absent)
    note = notes.key(f"mean over {len(values)} of {len(group.members)} runs ({which})")
    return Cell(value=mean, sd=sd, n=len(values), notes=(note,))


def _gap_text(gaps: Sequence[str], parts: int) -> str:
    """Why a number is missing: the reason alone when all its parts share it, else the parts that lack."""
    reasons = dict.fromkeys(gap.partition(": ")[2] for gap in gaps)
    if len(gaps) == parts and len(reasons) == 1:
        return next(iter(reasons))
    return "no partial average; missing " + "; ".join(gaps)


def run_value(results: Results, subject: Subject, measured: Measured) -> tuple[float | None, list[str]]:
    """Return one run's number in a column, less its other number where the column subtracts one."""
    value, gaps = column_value(results, subject, measured)
    minus = measured.minus
    if minus is None or minus.weights == measured.weights:
        return value, gaps
    other, more = column_value(results, subject, Measured(measured.column, minus.weights))
    return (None, gaps + more) if value is None or other is None else (value - other, [])


def difference_cell(results: Results, first: Group, second: Group, measured: Measured, notes: Notes) -> Cell:
    """Return the mean difference of the runs of two groups that agree on their seeds."""
    pairs = paired_members(first, second)
    differences = _differences(results, pairs, measured)
    if differences:
        mean, sd = mean_sd(differences)
        texts = _pairs_texts(first, second, len(pairs), len(differences))
        return Cell(value=mean, sd=sd, n=len(differences), notes=tuple(notes.key(text) for text in texts))
    if not (first.members and second.members):
        reason = "no difference: one side has no run"
    else:
        reason = "no difference: one side is missing" if pairs else "no difference: the two rows have no seed in common"
    return Cell(missing=reason, notes=(notes.key(reason),))


def mean_difference(results: Results, pairs: Sequence[tuple[Subject, Subject]], measured: Measured) -> float | None:
    """Return the mean difference of paired runs, over the pairs that have both numbers; None without one."""
    differences = _differences(results, pairs, measured)
    return mean_sd(differences)[0] if differences else None


def _differences(results: Results, pairs: Sequence[tuple[Subject, Subject]], measured: Measured) -> list[float]:
    numbers = [tuple(column_value(results, run, measured)[0] for run in pair) for pair in pairs]
    return [one - other for one, other in numbers if one is not None and other is not None]


def _pairs_texts(first: Group, second: Group, pairs: int, present: int) -> list[str]:
    """What a reader must know of a difference that is not over all runs of both rows, each once."""
    texts = []
    counts = len(first.members), len(second.members)
    if {pairs, *counts} != {pairs}:
        texts.append(
            f"the two rows have {counts[0]} and {counts[1]} runs: mean difference of the {pairs}"
            f" pair{'s' * (pairs > 1)} of runs that agree on their seeds, not the difference of the rows"
        )
    if present < pairs:
        texts.append(f"difference over {present} of {pairs} pairs of runs; the others lack a number")
    return texts


def tested_pairs(first: Group, second: Group) -> list[tuple[Subject, Subject]] | str:
    """The runs to test a difference with; a run in several pairs would be taken for several."""
    pairs = paired_members(first, second)
    if any(len({item.stage for item in side}) < len(pairs) for side in zip(*pairs, strict=True)):
        return "one run would be paired with several"
    return pairs
