"""A sum of columns of cells and its test: which runs belong together, their examples, the variance between seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ablate.errors import UsageError
from ablate.results.examples import ExampleReader, Examples, Measure
from ablate.results.layout.claims import column_of
from ablate.results.layout.grammar import Claim, Quantity
from ablate.results.layout.selection import at_point, match_runs, select, shared_values
from ablate.results.long import Results, Subject
from ablate.results.statistics.paired import PairedSuite, PairedTest, assume_spread, paired_test
from ablate.results.statistics.permutation import Floats
from ablate.results.statistics.power import Components, components
from ablate.results.tables.columns import Measured, column_value, measured_columns
from ablate.results.tables.rows import start_units
from ablate.results.tables.table import Column

Runs = tuple[Subject, ...]
"""A run of every term of a sum, in its order."""


@dataclass(frozen=True)
class Contrast:
    """A sum at one value of its ``each`` axes, averaged over ``points`` of its ``over`` axes; in the unit of tables.

    ``test`` is null where a number is missing or can't be tested, and ``gap`` says why; ``value`` is null where a
    number is missing. ``left_out`` are values of ``over`` axes that not all columns have.
    """

    where: Mapping[str, Any]
    column: Column
    points: int
    value: float | None
    test: PairedTest | None = None
    parts: Components | None = None
    gap: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Made:
    """A contrast before the variance between seeds is pooled: ``spread`` and ``df`` are those of its points.

    Where several contrasts share their base models, which are then the units, they are no independent estimates.
    """

    contrast: Contrast
    spread: float = 0.0
    df: int = 0
    is_shared: bool = False


class ContrastReader:
    """Reads sums of one experiment; each stage's examples once."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._reader = ExampleReader(results)
        self._entries = results.plan["subjects"]

    def read(self, claim: Claim, over: Sequence[str] = (), each: Sequence[str] = ()) -> list[Contrast]:
        """Return a claim's sum for each value of ``each`` axes; the variance between seeds is pooled over these.

        It is the larger of a contrast's own and the pooled one, as in tables (``pool_seeds``).
        """
        measured = [self._measured(quantity) for _, quantity in claim.terms]
        units = sorted({item.column.unit for item in measured})
        if len(units) > 1:
            raise UsageError(f"a sum of numbers of different units: {', '.join(units)}")
        kinds = [column_of(quantity, self._results.plan)[1] for _, quantity in claim.terms]
        chosen = [select(self._entries, quantity, kind) for (_, quantity), kind in zip(claim.terms, kinds, strict=True)]
        values = {axis: shared_values(self._entries, claim.terms, chosen, axis) for axis in (*each, *over)}
        made = []
        for named in product(*(values[axis] for axis in each)):
            where = dict(zip(each, named, strict=True))
            sides = [
                at_point(self._entries, quantity, places, where)
                for (_, quantity), places in zip(claim.terms, chosen, strict=True)
            ]
            if all(sides):
                made.append(self._contrast(claim, measured, sides, where, {axis: values[axis] for axis in over}))
        return _pooled(made)

    def _measured(self, quantity: Quantity) -> Measured:
        column, kind = column_of(quantity, self._results.plan)
        assert column is not None  # checked when the claim was read
        (found,) = measured_columns([column], kind, self._results)
        return found

    def _contrast(
        self,
        claim: Claim,
        measured: Sequence[Measured],
        sides: Sequence[Sequence[int]],
        where: Mapping[str, Any],
        over: Mapping[str, Sequence[Any]],
    ) -> _Made:
        column = measured[0].column
        points, left_out = self._points(claim, sides, over)
        if not points:
            return _Made(Contrast(where, column, 0, None, gap="no cells that all columns have"))
        keys = [key for key in points[0] if all(key in runs for runs in points)]
        if not keys:
            return _Made(Contrast(where, column, len(points), None, gap="no seed that all columns have"))
        runs = [[point[key] for key in keys] for point in points]
        value, gap = self._value(claim, measured, runs)
        suites = gap if gap else self._suites(claim, measured, runs)
        if isinstance(suites, str):
            return _Made(Contrast(where, column, len(points), value, gap=suites, left_out=left_out))
        units = start_units([one[0] for one in runs[0]])
        averaged = {name: _averaged(parts).averaged(units) for name, parts in suites.items()}
        weights = dict.fromkeys(averaged, column.scale)
        test = paired_test(averaged, weights)
        contrast = Contrast(where, column, len(points), value, test, left_out=left_out)
        if test.seeds == 1 or len(set(units)) < len(units):
            return _Made(contrast, test.spread, test.seeds - 1, is_shared=True)
        mean_PS = column.scale * np.sum(
            [np.stack([part.mean_S for part in parts]) for parts in suites.values()], axis=0
        )
        blocks = independent_points([_made_by_seed(point) for point in runs])
        block_BS = [mean_PS[block].sum(axis=0) / len(points) for block in blocks]
        spread = float(sum(block_S.var(ddof=1) for block_S in block_BS))
        return _Made(contrast, spread, len(blocks) * (test.seeds - 1))

    def _points(
        self, claim: Claim, sides: Sequence[Sequence[int]], over: Mapping[str, Sequence[Any]]
    ) -> tuple[list[dict[tuple[Any, ...], Runs]], tuple[str, ...]]:
        """The matched runs of every point of the ``over`` axes, and the points that not all columns have."""
        points, left_out = [], []
        for values in product(*over.values()):
            point = dict(zip(over, values, strict=True))
            here = [
                _distinct(self._entries, at_point(self._entries, quantity, places, point))
                for (_, quantity), places in zip(claim.terms, sides, strict=True)
            ]
            if all(here):
                matched = match_runs(self._entries, here)
                points.append({key: tuple(self._results.subjects[i] for i in run) for key, run in matched.items()})
            else:
                left_out.append(" ".join(f"{axis}={value}" for axis, value in point.items()))
        return points, tuple(left_out)

    def _value(
        self, claim: Claim, measured: Sequence[Measured], runs: Sequence[Sequence[Runs]]
    ) -> tuple[float | None, str]:
        """The mean of the sum over points and seeds in the unit of tables, or why it is missing."""
        sums = []
        for run in (run for point in runs for run in point):
            total = 0.0
            for (factor, _), item, subject in zip(claim.terms, measured, run, strict=True):
                value, gaps = column_value(self._results, subject, item)
                if value is None:
                    return None, f"{subject.label}: {gaps[0]}"
                total += factor * item.column.scale * value
            sums.append(total)
        return math.fsum(sums) / len(sums), ""

    def _suites(
        self, claim: Claim, measured: Sequence[Measured], runs: Sequence[Sequence[Runs]]
    ) -> dict[str, list[PairedSuite]] | str:
        """For every measure its part of the sum at each point, by seed and example; or why there is none."""
        found: dict[str, list[PairedSuite]] = {}
        for measure in dict.fromkeys(measure for item in measured for measure in item.weights):
            factors = [
                factor * item.weights.get(measure, 0.0) for (factor, _), item in zip(claim.terms, measured, strict=True)
            ]
            suites = self._suite(measure, factors, runs)
            if isinstance(suites, str):
                return f"{measure.suite}: {suites}"
            found[repr(measure)] = suites
        return found

    def _suite(
        self, measure: Measure, factors: Sequence[float], runs: Sequence[Sequence[Runs]]
    ) -> list[PairedSuite] | str:
        def parts(run: Runs) -> list[tuple[float, Subject]]:
            return [(factor, subject) for factor, subject in zip(factors, run, strict=True) if factor]

        subjects = [subject for point in runs for run in point for _, subject in parts(run)]
        found = self._reader.read(subjects, measure)
        if isinstance(found, str):
            return found
        read = {subject.stage: examples for subject, examples in zip(subjects, found, strict=True)}
        return combine(
            [[[(factor, read[subject.stage]) for factor, subject in parts(run)] for run in point] for point in runs]
        )


def independent_points(shared: Sequence[set[str]]) -> list[list[int]]:
    """Group points that have stages in common, directly or through others: their runs vary together."""
    blocks: list[tuple[set[str], list[int]]] = []
    for place, stages in enumerate(shared):
        met = [block for block in blocks if block[0] & stages]
        apart = [block for block in blocks if not block[0] & stages]
        joined = set(stages).union(*(block[0] for block in met))
        blocks = [*apart, (joined, sorted([place, *(other for block in met for other in block[1])]))]
    return [places for _, places in blocks]


def _made_by_seed(runs: Sequence[Runs]) -> set[str]:
    """The stages of a point's runs, and what went into them, that are others for another seed."""
    varying: set[str] = set()
    for side in zip(*runs, strict=True):
        for stages in zip(*([item.stage, *item.inputs.values()] for item in side), strict=False):
            found = {stage for stage in stages if stage}
            varying |= found if len(found) > 1 else set()
    return varying


def combine(points: Sequence[Sequence[Sequence[tuple[float, Examples]]]]) -> list[PairedSuite] | str:
    """Return sums of factor times examples, by point, seed and example; or in words why they can't be taken.

    All hold the same examples; one that is undefined anywhere is left out.
    """
    _, first = points[0][0][0]
    sum_PSE: Floats = np.array(
        [[np.sum([factor * examples.value_E for factor, examples in run], axis=0) for run in point] for point in points]
    )
    defined_E = ~np.isnan(sum_PSE).any(axis=(0, 1))
    weight_E = np.where(first.weight_E > 0, first.weight_E, 0.0)[defined_E]
    if weight_E.sum() == 0:
        return "no example is defined for all"
    _, cluster_E = np.unique(first.cluster_E[defined_E].astype(str), return_inverse=True)
    return [
        PairedSuite(sum_SE[:, defined_E], weight_E / weight_E.sum(), cluster_E.astype(np.int64)) for sum_SE in sum_PSE
    ]


def _averaged(parts: Sequence[PairedSuite]) -> PairedSuite:
    mean_SE = np.mean([part.difference_SE for part in parts], axis=0)
    return PairedSuite(mean_SE, parts[0].weight_E, parts[0].cluster_E)


def _distinct(entries: Sequence[Mapping[str, Any]], places: Sequence[int]) -> list[int]:
    """Leave out places whose model an earlier one has."""
    return list({entries[place]["stage"]: place for place in reversed(places)}.values())[::-1]


def _pooled(made: Sequence[_Made]) -> list[Contrast]:
    """Give every test the larger of its own variance between seeds and that pooled over all, with its df."""
    together = [item for item in made if item.contrast.test is not None and not item.is_shared]
    df = sum(item.df for item in together)
    mean = sum(item.df * item.spread for item in together) / df if df else 0.0
    return [_tested(item, mean, df) for item in made]


def _tested(made: _Made, pooled: float, df: int) -> Contrast:
    test = made.contrast.test
    if test is None:
        return made.contrast
    if test.seeds == 1:
        return replace(made.contrast, parts=components(test))
    if made.is_shared:
        pooled, df = 0.0, made.df
    spread = max(pooled, made.spread, test.spread)
    parts = components(test, spread=spread, alike=df // (test.seeds - 1))
    return replace(made.contrast, test=assume_spread(test, spread, df), parts=parts)
