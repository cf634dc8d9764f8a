"""Compare two experiments or two cells: their configuration, their numbers, and tests of the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ablate.errors import UsageError
from ablate.results.comparison.config import Difference, made_differences, spec_differences
from ablate.results.comparison.sides import Side, one_row, read_side, together
from ablate.results.layout import default_layout
from ablate.results.layout.names import SEED_AXES
from ablate.results.layout.selection import match_runs
from ablate.results.long import Results, Subject
from ablate.results.statistics.bootstrap import hierarchical_bootstrap
from ablate.results.statistics.corrections import holm
from ablate.results.statistics.effect_size import (
    Interval,
    difference_interval,
    matched_odds,
    standardised_difference,
)
from ablate.results.statistics.paired import PairedSuite, mean_sd, paired_test
from ablate.results.statistics.permutation import mcnemar_p
from ablate.results.tables.as_json import finite
from ablate.results.tables.columns import Measured, column_value, measured_columns
from ablate.results.tables.compare import Comparer, Untested
from ablate.store import Store

TestName = Literal["paired", "mcnemar", "bootstrap"]
TESTS: tuple[TestName, ...] = ("paired", "mcnemar", "bootstrap")
"""``paired``: exact sign flips with one run, seeds and examples as random effects with several."""


@dataclass(frozen=True)
class Compared:
    """One number of two models; in the unit of tables. ``p`` is corrected over the comparison, null if untested.

    ``size`` is Cohen's d_z of a single suite's differences, with McNemar's test the odds of a changed answer.
    """

    row: str
    measured: Measured
    first: tuple[float, float | None]
    second: tuple[float, float | None]
    pairs: int
    difference: Interval | None = None
    p: float | None = None
    size: Interval | None = None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """What differs between two sides, and the numbers of the rows that both have."""

    first: str
    second: str
    config: tuple[Difference, ...]
    numbers: tuple[Compared, ...]
    remarks: tuple[str, ...]


def compare(store: Store, first: str, second: str, test: TestName = "paired") -> Comparison:
    """Compare two experiments (rows with equal axes), or two selections of models (``NAME:axis=value,…``).

    Raises :class:`UsageError` for names that are not there and where an experiment is held against some models.
    """
    one, other = read_side(store, first), read_side(store, second)
    if one.is_whole != other.is_whole:
        raise UsageError(
            "an experiment is compared with an experiment, models with models",
            hint=f"name the models of {(one if one.is_whole else other).text}, too: NAME:axis=value,…",
        )
    merged, remarks = together(one.results, other.results)
    if one.is_whole:
        config = spec_differences(one, other)
        rows, alone = _matched(one, other)
        remarks += alone
    else:
        rows = {"": (one_row(one), one_row(other))}
        config = made_differences(store, rows[""][0][0], rows[""][1][0])
    numbers = [
        found
        for label, (ours, theirs) in rows.items()
        for found in _numbers(merged, Comparer(merged), label, ours, theirs, test)
    ]
    return Comparison(first, second, tuple(config), tuple(_corrected(numbers)), tuple(remarks))


Rows = dict[str, tuple[tuple[Subject, ...], tuple[Subject, ...]]]


def _matched(one: Side, other: Side) -> tuple[Rows, list[str]]:
    """Models of two experiments that agree on all axes that both have, and what has no counterpart in words."""
    axes = [axis for axis in _axes(one) if axis in _axes(other) and axis not in SEED_AXES]
    sides = [_rows(side, axes) for side in (one, other)]
    rows: Rows = {}
    remarks = []
    for key, (label, ours) in sides[0].items():
        if key not in sides[1]:
            remarks.append(f"Only in {one.text}: {label}.")
            continue
        theirs = sides[1][key][1]
        try:
            rows[label] = one_row(replace(one, subjects=ours)), one_row(replace(other, subjects=theirs))
        except UsageError as error:
            remarks.append(f"Not compared, {label}: {error.message}.")
    remarks += [f"Only in {other.text}: {label}." for key, (label, _) in sides[1].items() if key not in sides[0]]
    return rows, remarks


def _axes(side: Side) -> list[str]:
    return list(dict.fromkeys(axis for item in side.subjects for axis in item.axes))


def _rows(side: Side, axes: Sequence[str]) -> dict[str, tuple[str, tuple[Subject, ...]]]:
    rows: dict[str, tuple[str, tuple[Subject, ...]]] = {}
    kinds: dict[tuple[str, str], list[Subject]] = {}
    for item in side.subjects:
        kinds.setdefault((item.subject, item.role), []).append(item)
    varying = [
        axis for axis in axes if any(len({repr(item.axes.get(axis)) for item in kind}) > 1 for kind in kinds.values())
    ]
    for item in side.subjects:
        key = repr([item.subject, item.baseline, *(item.axes.get(axis) for axis in axes)])
        words = [f"{axis}={item.axes[axis]}" for axis in varying if item.axes.get(axis) is not None]
        label = " ".join(filter(None, (item.baseline, *words))) or item.label
        rows[key] = label, (*rows.get(key, ("", ()))[1], item)
    return rows


def _numbers(
    results: Results,
    comparer: Comparer,
    label: str,
    ours: Sequence[Subject],
    theirs: Sequence[Subject],
    test: TestName,
) -> list[Compared]:
    tables = default_layout(results.plan).tables if results.suites else ()
    columns = next((table.columns for table in tables if table.subject == ours[0].subject), ())
    found = []
    for measured in measured_columns(columns, ours[0].subject, results):
        sides = [[column_value(results, item, measured) for item in side] for side in (ours, theirs)]
        gaps = [gap for side in sides for value, gap in side if value is None]
        if gaps:
            continue
        scale = measured.column.scale
        values = [mean_sd([scale * value for value, _ in side if value is not None]) for side in sides]
        pairs = _pairs(ours, theirs)
        blank = Compared(label, measured, values[0], values[1], len(pairs))
        found.append(_tested(comparer, blank, pairs, test) if pairs else replace(blank, reason="no seed in common"))
    return found


def _pairs(ours: Sequence[Subject], theirs: Sequence[Subject]) -> list[tuple[Subject, Subject]]:
    everything = [*ours, *theirs]
    places = range(len(ours)), range(len(ours), len(everything))
    matched = match_runs([{"axes": item.axes} for item in everything], places)
    return [(everything[one], everything[other]) for one, other in matched.values()]


def _tested(comparer: Comparer, blank: Compared, pairs: Sequence[tuple[Subject, Subject]], test: TestName) -> Compared:
    if all(first.stage == second.stage for first, second in pairs):
        return replace(blank, reason="the same model")
    suites = comparer.suites(pairs, blank.measured)
    if isinstance(suites, Untested) or suites is None:
        return replace(blank, reason=suites.reason if suites else "a number is missing")
    scale = blank.measured.column.scale
    weights = {name: scale * weight for name, weight in suites.weights.items()}
    only = next(iter(suites.suites.values())) if len(suites.suites) == 1 else None
    if test == "bootstrap":
        drawn = hierarchical_bootstrap(suites.suites, weights)
        found = replace(blank, difference=Interval(drawn.estimate, drawn.low, drawn.high), p=drawn.p)
    else:
        outcome = paired_test(suites.suites, weights)
        found = replace(blank, difference=difference_interval(outcome), p=outcome.p)
    if test == "mcnemar":
        counts = None if only is None else changed_answers(only)
        if counts is None:
            return replace(found, p=None, reason="McNemar's test is of one run's right and wrong answers on one suite")
        return replace(found, p=mcnemar_p(*counts), size=matched_odds(*counts))
    return replace(found, size=None if only is None else standardised_difference(only))


def changed_answers(suite: PairedSuite) -> tuple[int, int] | None:
    """Return how many answers the first has right and the second wrong, and the other way; None if they are others.

    They are where there are several seeds, clusters, weights, or values beside right and wrong.
    """
    difference_E = suite.difference_SE[0]
    is_plain = suite.seeds == 1 and len(set(suite.cluster_E)) == difference_E.size and suite.weight_E.std() < 1e-12
    if not is_plain or not set(difference_E) <= {-1.0, 0.0, 1.0}:
        return None
    return int((difference_E > 0).sum()), int((difference_E < 0).sum())


def _corrected(numbers: Sequence[Compared]) -> list[Compared]:
    corrected = iter(holm([item.p for item in numbers if item.p is not None]))
    return [item if item.p is None else replace(item, p=next(corrected)) for item in numbers]


def as_json(found: Comparison, test: TestName) -> Mapping[str, Any]:
    """Return a comparison as JSON values; an end of an interval that is infinite is null."""

    def interval(one: Interval | None) -> dict[str, float | None] | None:
        return None if one is None else {name: finite(value) for name, value in vars(one).items()}

    return {
        "first": found.first,
        "second": found.second,
        "test": test,
        "config": [{"key": item.key, "first": item.first, "second": item.second} for item in found.config],
        "results": [
            {
                "row": item.row,
                "column": item.measured.column.key,
                "first": {"mean": item.first[0], "sd": item.first[1]},
                "second": {"mean": item.second[0], "sd": item.second[1]},
                "pairs": item.pairs,
                "difference": interval(item.difference),
                "p": item.p,
                "effect_size": interval(item.size),
                "untested": item.reason or None,
            }
            for item in found.numbers
        ],
        "remarks": list(found.remarks),
    }
