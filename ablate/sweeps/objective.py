"""What a trial reached: declared results as numbers, the mean over the trial's cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.catalogs.suites import trained_field
from ablate.errors import Location, SpecError, suggestion
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sweep import Sweep
from ablate.results.layout import Column, averaged_categories, named_column
from ablate.results.layout.names import refuse_unknown
from ablate.results.long import Results, Subject
from ablate.results.tables.columns import column_value, named_measured


@dataclass(frozen=True)
class Reached:
    """Results of one trial, in the order asked for; ``excess`` is what bounded ones are beyond their bounds."""

    values: tuple[float, ...]
    excess: tuple[float, ...]


class MissingResult(Exception):
    """A trial has no number where one was asked for."""


@dataclass(frozen=True)
class Objective:
    """The results that a sweep compares its trials by; ``suites`` are those that they read, None: all of them."""

    sweep: Sweep
    suites: frozenset[str] | None

    @classmethod
    def read(cls, loaded: LoadedExperiment, sweep: Sweep, suites: Mapping[str, Mapping[str, Any]]) -> Objective:
        """Find the results that the sweep names; raises SpecError for one that no trial has."""
        about = {name: facts for name, facts in suites.items() if facts["subject"] == "policy"}
        several = len(sweep.maximise) > 1
        places = {
            name.removeprefix("-"): loaded.origins.locate(sweep.section, "maximise", *([index] if several else []))
            for index, name in enumerate(sweep.maximise)
        }
        places |= {name: loaded.origins.locate(sweep.section, "subject_to", name) for name in sweep.subject_to}
        read: set[str] | None = set()
        for name, place in places.items():
            if trained_field(name, about) is None:
                suite = _column(name, about, place).suite
                read = None if read is None or suite is None else read | {suite}
        return cls(sweep, None if read is None else frozenset(read))

    def reached(self, results: Results, stages: Collection[str]) -> Reached:
        """Return what the cells made by ``stages`` reached on average; raises MissingResult with the gaps."""
        cells = [item for item in results.subjects if item.subject == "policy" and item.stage in stages]
        values = tuple(_mean(results, cells, name.removeprefix("-")) for name in self.sweep.maximise)
        excess: list[float] = []
        for name, bound in self.sweep.subject_to.items():
            value = _mean(results, cells, name)
            excess += [bound.at_least - value] if bound.at_least is not None else []
            excess += [value - bound.at_most] if bound.at_most is not None else []
        return Reached(values, tuple(excess))


def _column(name: str, suites: Mapping[str, Mapping[str, Any]], place: Location) -> Column:
    column = named_column(name, suites)
    if column is None:
        known = ["average", *{facts["category"] for facts in suites.values()}, *suites, "training/kl"]
        raise SpecError(f"no trial has a result {name!r}", location=place, hint=suggestion(name, known))
    if column.suite is None:
        _check_mean(name, column, suites, place)
        return column
    metrics = suites[column.suite].get("metrics")
    if column.metric is not None and metrics is not None:
        refuse_unknown(f"metric of suite {column.suite}", column.metric, metrics, place)
    return column


def _check_mean(name: str, column: Column, suites: Mapping[str, Mapping[str, Any]], place: Location) -> None:
    """Raise SpecError for a mean over suites of which there is none, or that have different units."""
    categories = averaged_categories(suites) if column.category is None else [column.category]
    units = {facts["unit"] for facts in suites.values() if facts["category"] in categories}
    if len(units) != 1:
        found = f"suites of different units: {', '.join(sorted(units))}" if units else "no suite"
        raise SpecError(f"{name} is a mean over {found}", location=place, hint=f"name a suite: {', '.join(suites)}")


def _mean(results: Results, cells: Sequence[Subject], name: str) -> float:
    measured = named_measured(name, results)
    assert measured is not None
    values, gaps = [], []
    for cell in cells:
        value, absent = column_value(results, cell, measured)
        if value is None:
            gaps += absent
        else:
            values.append(value)
    if gaps or not values:
        raise MissingResult("; ".join(dict.fromkeys(gaps)) or "no cell")
    return sum(values) / len(values)


def events_value(events: Iterable[Mapping[str, Any]], field: str) -> dict[int, float]:
    """Return the values of a field of training events by step."""
    return {
        int(event["step"]): float(event[field])
        for event in events
        if event.get("step") is not None and isinstance(event.get(field), int | float)
    }


def events_fields(events: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the fields that have a number in some training event of a step."""
    steps = [event for event in events if event.get("step") is not None]
    numbers = {name for event in steps for name, value in event.items() if isinstance(value, int | float)}
    return numbers - {"step", "time"}
