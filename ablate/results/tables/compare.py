"""Paired tests between two rows of a table, over the examples that both answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.results.examples import ExampleReader, Measure, pair
from ablate.results.long import Results, Subject
from ablate.results.statistics.paired import PairedSuite, PairedTest, paired_test
from ablate.results.tables.columns import Measured, column_value
from ablate.results.tables.rows import start_units

Pairs = Sequence[tuple[Subject, Subject]]


@dataclass(frozen=True)
class Untested:
    """Both numbers are there, but no paired test can be made of them."""

    reason: str


@dataclass(frozen=True)
class PairedColumn:
    """The differences of a column's suites, and the weights of the suites in it."""

    suites: Mapping[str, PairedSuite]
    weights: Mapping[str, float]


class Comparer:
    """Tests columns of one experiment; reads each stage's examples once."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._reader = ExampleReader(results)
        self._suites: dict[tuple[tuple[tuple[str, str], ...], Measure], PairedSuite | str] = {}

    def test(self, pairs: Pairs, measured: Measured) -> PairedTest | Untested | None:
        """Test one column between paired runs; None where a number is missing, so that there is nothing to test."""
        found = self.suites(pairs, measured)
        return paired_test(found.suites, found.weights) if isinstance(found, PairedColumn) else found

    def suites(self, pairs: Pairs, measured: Measured) -> PairedColumn | Untested | None:
        """Return the differences that a test of one column is made of; None where a number is missing."""
        complete = [couple for couple in pairs if self._is_complete(couple, measured)]
        if not complete:
            return None
        key = tuple((first.stage, second.stage) for first, second in complete)
        suites: dict[str, PairedSuite] = {}
        weights: dict[str, float] = {}
        for measure, weight in measured.weights.items():
            name = repr(measure)
            found = self._paired(complete, key, measure)
            if isinstance(found, str):
                return Untested(found)
            suites[name], weights[name] = found, weight
        return PairedColumn(suites, weights)

    def _is_complete(self, couple: tuple[Subject, Subject], measured: Measured) -> bool:
        return all(column_value(self._results, subject, measured)[0] is not None for subject in couple)

    def _paired(self, pairs: Pairs, key: tuple[tuple[str, str], ...], measure: Measure) -> PairedSuite | str:
        if (key, measure) not in self._suites:
            self._suites[key, measure] = self._pair(pairs, measure)
        return self._suites[key, measure]

    def _pair(self, pairs: Pairs, measure: Measure) -> PairedSuite | str:
        sides = list(zip(*pairs, strict=True))
        read = self._reader.read([*sides[0], *sides[1]], measure)
        suite = read if isinstance(read, str) else pair(read[: len(pairs)], read[len(pairs) :])
        return suite if isinstance(suite, str) else suite.averaged(start_units([first for first, _ in pairs]))
