"""From declared columns to what they measure: weighted sums of suites, with their unit and direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ablate.catalogs.suites import trained_field
from ablate.errors import UsageError, suggestion
from ablate.results import layout as declared
from ablate.results.examples import Measure, measure_value
from ablate.results.long import Evaluation, Results, Subject, find_metric
from ablate.results.tables.table import Column
from ablate.results.training import logged_last

_ACRONYMS = {name: name.upper() for name in ("dpo", "ipo", "ppo", "sft", "kl", "gae", "lora", "eos")}

_TITLES = {
    "samples": "# pairs", "runs": "n", "trained_pairs": "# trained on", "steps": "Steps",
    "policy_samples": "Policy samples", "tuned": "Tuned", "gpu_hours": "GPU-hours", "cpu_hours": "CPU-hours",
}  # fmt: skip


@dataclass(frozen=True)
class Subtracted:
    """What a column of differences subtracts: a weighted sum of other measures, or of other runs.

    ``match_on`` are the axes on which those runs agree with the row's; null: they are the row's own.
    """

    weights: Mapping[Measure, float]
    where: Mapping[str, Any]
    match_on: tuple[str, ...] | None


@dataclass(frozen=True)
class Measured:
    """A column of numbers: the weighted sum of its measures (weights sum to 1) over the runs with ``where``.

    ``logged`` is a field that training logs; the column then is that, and has no measures.
    """

    column: Column
    weights: Mapping[Measure, float]
    where: Mapping[str, Any] = field(default_factory=dict)
    minus: Subtracted | None = None
    logged: str | None = None


def expand_columns(table: declared.TableLayout, results: Results) -> list[Measured]:
    """Return the table's number columns in order, ``categories`` and ``suites`` written out, each once."""
    return measured_columns(table.columns, table.subject, results, table.format)


def measured_columns(
    written: Sequence[declared.Column],
    subject: str,
    results: Results,
    number: declared.NumberFormat | None = None,
) -> list[Measured]:
    """Return what columns of numbers about ``subject`` measure, each once."""
    suites = {name: about for name, about in results.suites.items() if about["subject"] == subject}
    cells = [item.axes for item in results.subjects if item.subject == subject and item.role == "cell"]
    columns: dict[str, Measured] = {}
    for column in written:
        for single in column.written_out(suites, cells):
            for measured in _measured(single, suites, number or declared.NumberFormat(), results):
                columns.setdefault(single.key, _chosen(measured, single, suites, results))
    return list(columns.values())


def named_measured(name: str, results: Results, number: declared.NumberFormat | None = None) -> Measured | None:
    """Return what a result of policies measures that is named as in a sweep: a column, or ``training/FIELD``.

    None where the experiment has no such result.
    """
    column = declared.named_column(name, results.suites)
    if column is not None:
        return measured_columns([column], "policy", results, number)[0]
    logged = trained_field(name, results.suites)
    if logged is None:
        return None
    digits = (number or declared.NumberFormat()).other_digits
    return Measured(Column(name, f"{key_title(logged)} (training)", "number", digits=digits), {}, logged=logged)


def _chosen(measured: Measured, column: declared.Column, suites: Mapping[str, Any], results: Results) -> Measured:
    """Add which runs a column is over, what it subtracts, and its headings."""
    minus = None
    if column.minus is not None:
        other = {name: getattr(column.minus, name) or getattr(column, name) for name in ("suite", "task", "metric")}
        source = column.model_copy(update={**other, "minus": None})
        (subtracted,) = _measured(source, suites, declared.NumberFormat(), results)
        minus = Subtracted(subtracted.weights, {**column.where, **column.minus.where}, column.match_on)
    return replace(
        measured,
        column=replace(_headed(measured.column, column, results), is_difference=minus is not None),
        where=column.where,
        minus=minus,
    )


def _headed(measured: Column, column: declared.Column, results: Results) -> Column:
    """Write a column's headings; the default says what the heading over it does not."""
    name = f"Δ {measured.label}" if column.minus is not None else measured.label
    value = ", ".join(_value_words(results, axis, value) for axis, value in column.where.items())
    heading, label = column.heading or "", column.label
    if label is None and "{name}" in heading and value:
        label = "{value}"
    if label is None:
        is_said = not value or column.minus is not None or "{value}" in heading
        label = "{name}" if is_said else "{name} ({value})"
    heading, label = (text.replace("{name}", name).replace("{value}", value) for text in (heading, label))
    return replace(measured, label=label).under(heading)


def _value_words(results: Results, axis: str, value: Any) -> str:
    return str(results.plan.get("algorithms", {}).get(value, value) if axis == "algorithm" else value)


def _measured(
    column: declared.Column, suites: Mapping[str, Any], number: declared.NumberFormat, results: Results
) -> list[Measured]:
    if column.suite is not None:
        return [_suite(column, column.suite, suites, number, results)]
    if column.category is not None:
        return [_category(column, column.category, suites, number)]
    names = list(column.average or declared.averaged_categories(suites))
    return [_average(column, names, suites, number)] if names else []


def _members(category: str, suites: Mapping[str, Any]) -> list[str]:
    return [name for name, about in suites.items() if about["category"] == category]


def _suite(
    column: declared.Column, name: str, suites: Mapping[str, Any], number: declared.NumberFormat, results: Results
) -> Measured:
    about = suites[name]
    unit = about["unit"]
    if column.metric is not None:
        stages = {item.evaluations.get(name, "") for item in results.subjects}
        found = [results.evaluations[stage] for stage in stages if stage in results.evaluations]
        entries = [find_metric(item, column.metric, column.task) for item in found]
        units = {entry.get("unit") for entry in entries if entry is not None}
        unit = units.pop() if len(units) == 1 else unit
    label = str(about.get("title") or name) if column.metric is None else column.metric
    higher = bool(about.get("higher_is_better", True)) if column.metric is None else None
    return Measured(_column(label, unit, higher, column, number), {Measure(name, column.metric, column.task): 1.0})


def _category(
    column: declared.Column, category: str, suites: Mapping[str, Any], number: declared.NumberFormat
) -> Measured:
    members = _members(category, suites)
    weights = {Measure(name): 1.0 / len(members) for name in members}
    return _combined(category_title(category), weights, column, suites, number)


def key_title(key: str) -> str:
    """Return the heading of a column of this key's values, where none is declared."""
    if key in _TITLES:
        return _TITLES[key]
    words = " ".join(_ACRONYMS.get(word, word) for word in key.replace("_", " ").replace(".", " ").split())
    return words[:1].upper() + words[1:]


def category_title(category: str) -> str:
    """Return how tables call a category."""
    return category.replace("-", " ").capitalize()


def _average(
    column: declared.Column, categories: Sequence[str], suites: Mapping[str, Any], number: declared.NumberFormat
) -> Measured:
    weights: dict[Measure, float] = {}
    for category in categories:
        members = _members(category, suites)
        weights |= {Measure(name): 1.0 / len(members) / len(categories) for name in members}
    return _combined("Average", weights, column, suites, number)


def _combined(
    label: str,
    weights: Mapping[Measure, float],
    column: declared.Column,
    suites: Mapping[str, Any],
    number: declared.NumberFormat,
) -> Measured:
    units = {suites[measure.suite]["unit"] for measure in weights}
    if len(units) > 1:
        raise UsageError(
            f"column {column.key!r} would average numbers of different units: {', '.join(sorted(units))}",
            hint="name the categories of the average, or give a suite a category of its own",
        )
    directions = {bool(suites[measure.suite].get("higher_is_better", True)) for measure in weights}
    higher = directions.pop() if len(directions) == 1 else None
    return Measured(_column(label, units.pop(), higher, column, number), weights)


def _column(
    label: str, unit: str, higher: bool | None, column: declared.Column, number: declared.NumberFormat
) -> Column:
    is_proportion = unit == "proportion"
    digits = number.digits if is_proportion else number.other_digits
    return Column(
        key=column.key,
        label=label,
        kind="number",
        unit=unit,
        scale=100.0 if is_proportion and number.percent else 1.0,
        digits=digits if column.digits is None else column.digits,
        higher_is_better=higher,
    )


def column_value(results: Results, subject: Subject, measured: Measured) -> tuple[float | None, list[str]]:
    """Return a subject's number in a column, or None and every missing part with why: no partial averages."""
    if measured.logged is not None:
        return logged_last(results, subject.stage, measured.logged)
    total, gaps = 0.0, []
    for measure, weight in measured.weights.items():
        value = measure_value(results, subject, measure)
        if value is None:
            found = results.evaluation(subject, measure.suite)
            is_absent = found is not None and measure.metric is not None
            reason = _absent_metric(found, measure) if is_absent else results.reason(subject, measure.suite)
            gaps.append(f"{measure.suite}: {reason}")
        else:
            total += weight * value
    return (None, gaps) if gaps else (total, [])


def _absent_metric(found: Evaluation | None, measure: Measure) -> str:
    """Why an evaluation has no value of a metric: which metric (or task with it) it has instead."""
    entries = found.metrics if found is not None else ()
    tasks = {str(entry.get("task")) for entry in entries if entry["metric"] == measure.metric}
    if measure.task is not None and tasks:
        return f"no value of {measure.metric} of task {measure.task!r} ({suggestion(measure.task, tasks)})"
    return f"no value of {measure.metric} ({suggestion(str(measure.metric), {entry['metric'] for entry in entries})})"
