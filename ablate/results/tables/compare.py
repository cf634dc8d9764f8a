"""Paired tests between two rows of a table, over the examples that both answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.results.examples import ExampleReader, Examples, Measure, pair
from ablate.results.long import OVERALL, Results, Subject
from ablate.results.statistics.paired import PairedSuite, PairedTest, paired_test
from ablate.results.tables.columns import Measured, column_value, measure_value
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
        self._reader = ExampleReader(results.store)
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
        sides: tuple[list[Examples], list[Examples]] = ([], [])
        protocols = set()
        for couple in pairs:
            for subject, side in zip(couple, sides, strict=True):
                evaluation = self._results.evaluation(subject, measure.suite)
                value = measure_value(self._results, subject, measure)
                assert evaluation is not None and value is not None  # complete pairs only
                protocols.add(evaluation.protocol_digest)
                task, metric = metric_of(self._results, measure)
                examples = self._reader.read(evaluation, value, metric, task)
                if isinstance(examples, str):
                    return examples
                side.append(examples)
        if len(protocols) > 1:
            return "measured under different protocols"
        suite = pair(*sides)
        return suite if isinstance(suite, str) else suite.averaged(start_units([first for first, _ in pairs]))


def metric_of(results: Results, measure: Measure) -> tuple[str | None, str]:
    """Return the task (None: all) and the metric that a measure reads; without a metric those of the suite's score."""
    task, metric = measure.task or "", measure.metric
    if metric is None:
        task, _, metric = str(results.suites[measure.suite]["primary"]).rpartition("/")
    return (None if task in ("", OVERALL) else task), metric
