"""Rows of what rules that read nothing reach on a table's pairs: a coin, the longest and the shortest response."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.results.examples import Measure
from ablate.results.layout import RULES, TableLayout
from ablate.results.long import Results, find_metric
from ablate.results.tables.columns import Measured
from ablate.results.tables.table import Cell, Column, Row


def rule_rows(
    results: Results, layout: TableLayout, columns: Sequence[Column], measured: Sequence[Measured], offset: int
) -> list[Row]:
    """Return a row for every rule of the layout that some column's suite has a value of, for the table's start.

    A rule's number is the same whatever model is evaluated; where evaluations disagree (best of n from several
    policies) the cell is empty, as it is for metrics that are not the suite's own.
    """
    rows = []
    for rule in layout.shown_rules:
        values = [_value(results, layout, item, rule) for item in measured]
        if all(value is None for value in values):
            continue
        cells = [Cell(text=RULES[rule] if place == 0 else "") for place in range(len(columns))]
        for place, value in enumerate(values):
            if value is not None:
                cells[offset + place] = Cell(value=value, n=1)
        rows.append(Row("baseline", tuple(cells)))
    return rows


def _value(results: Results, layout: TableLayout, measured: Measured, rule: str) -> float | None:
    if measured.minus is not None:
        return None
    total = 0.0
    for measure, weight in measured.weights.items():
        value = _of_suite(results, layout, measure, rule)
        if value is None:
            return None
        total += weight * value
    return total


def _of_suite(results: Results, layout: TableLayout, measure: Measure, rule: str) -> float | None:
    task, _, primary = str(results.suites[measure.suite].get("primary", "")).rpartition("/")
    if measure.metric not in (None, primary):
        return None
    task = task if measure.metric is None else measure.task or ""
    found: set[float] = set()
    for subject in results.subjects:
        evaluation = results.evaluation(subject, measure.suite) if subject.subject == layout.subject else None
        entry = None if evaluation is None else find_metric(evaluation, rule, task or None)
        if entry is not None and entry.get("value") is not None:
            found.add(round(float(entry["value"]), 9))
    return found.pop() if len(found) == 1 else None
