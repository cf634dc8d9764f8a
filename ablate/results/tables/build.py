"""From results and a declared table to a finished one: numbers, tests, marks, footnotes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ablate.context import read_json
from ablate.results.layout import Attribute, Health, TableLayout
from ablate.results.long import Results, Subject
from ablate.results.statistics.paired import mean_sd
from ablate.results.tables.columns import Measured, column_value, expand_columns
from ablate.results.tables.marks import TableTests, detectable_row, mark_rows
from ablate.results.tables.notes import Notes
from ablate.results.tables.remarks import judges_remarks, seeds_remark, starts_remark, tests_remarks
from ablate.results.tables.rows import (
    DeltaRow,
    Group,
    baseline_groups,
    baseline_pairs,
    cell_groups,
    delta_rows,
    kind_label,
    paired_members,
    run_words,
)
from ablate.results.tables.rules import rule_rows
from ablate.results.tables.table import Cell, Column, Row, RowKind, Table

_ACRONYMS = {name: name.upper() for name in ("dpo", "ipo", "ppo", "sft", "kl", "gae", "lora", "eos")}

_DIFFERENCES = {"made.chat": "use of a chat template"}
"""How a table calls keys of a protocol; others are called by themselves."""


def build_table(results: Results, layout: TableLayout) -> Table:
    """Return the finished table; what is missing is marked in its cells and explained in its footnotes."""
    measured = expand_columns(layout, results)
    baselines, cells = baseline_groups(results, layout), cell_groups(results, layout)
    notes = Notes()
    entries = _entries(layout, baselines, cells)
    is_compared = layout.compare.to in {item.baseline for group in baselines for item in group.members.values()}
    tests = TableTests(results, layout, measured)
    offset = _offset(layout)
    rows: list[Row] = []
    for entry in entries:
        if isinstance(entry, str):
            rows.append(Row("heading", (Cell(text=entry),)))
            continue
        if isinstance(entry, DeltaRow):
            tests.add(len(rows), _delta_pairs(entry), ("delta", f"{_method(entry.first)} {_method(entry.second)}"))
            rows.append(_delta_row(results, layout, entry, measured, notes))
            continue
        if is_compared and not entry.is_baseline:
            tests.add(len(rows), baseline_pairs(results, layout, entry), ("cell", _method(entry)))
        rows.append(_group_row(results, layout, entry, measured, notes))
    columns = _columns(layout, measured)
    tested = tests.finish()
    rows = mark_rows(rows, columns, tested, layout.compare, offset)
    rows = _protocol_notes(results, rows, entries, measured, notes, offset)
    detectable = detectable_row(columns, tested, layout.compare, rows, offset) if layout.detectable else None
    rows = [*rule_rows(results, layout, columns, measured, offset), *rows, *([detectable] if detectable else [])]
    outcomes = [(columns[offset + item.column].label, item.outcome) for item in tested]
    remarks = [
        *seeds_remark(cells, layout),
        *tests_remarks(outcomes, layout, measured, has_detectable=bool(detectable)),
    ]
    remarks += starts_remark(baselines, cells, layout) if tested else []
    remarks += judges_remarks(results, measured)
    return Table(layout.name, layout.title, tuple(columns), tuple(rows), notes.all(), tuple(remarks))


def _method(group: Group) -> str:
    return str(group.axes.get("algorithm"))


Entry = str | Group | DeltaRow


def _entries(layout: TableLayout, baselines: Sequence[Group], cells: Sequence[Group]) -> list[Entry]:
    """Rows in table order: baselines, then cells under their headings, differences after what they compare."""
    entries: list[Entry] = list(baselines)
    deltas: dict[int, list[DeltaRow]] = {}
    for delta in delta_rows(layout, cells):
        deltas.setdefault(delta.after, []).append(delta)
    heading = ""
    for index, group in enumerate(cells):
        if group.heading != heading:
            heading = group.heading
            entries.append(heading)
        entries.append(group)
        entries.extend(deltas.get(index, ()))
    return entries


def _columns(layout: TableLayout, measured: Sequence[Measured]) -> list[Column]:
    columns = [Column(row.axis, row.label or _title(row.axis), "label") for row in layout.rows]
    for attribute in layout.attributes:
        columns.append(Column(attribute.name, attribute.label or _title(attribute.name), "attribute", digits=0))
    columns += [item.column for item in measured]
    for health in layout.health:
        label = health.label or _title(health.field)
        columns.append(Column(health.key, label, "health", digits=health.digits))
    return columns


def _offset(layout: TableLayout) -> int:
    return len(layout.rows) + len(layout.attributes)


def _title(key: str) -> str:
    if key == "samples":
        return "# pairs"
    words = " ".join(_ACRONYMS.get(word, word) for word in key.replace("_", " ").replace(".", " ").split())
    return words[:1].upper() + words[1:]


def _group_row(results: Results, layout: TableLayout, group: Group, measured: Sequence[Measured], notes: Notes) -> Row:
    cells = [Cell(text=label) for label in group.labels]
    cells += [_attribute_cell(results, group, attribute) for attribute in layout.attributes]
    cells += [_number_cell(results, layout, group, item, notes) for item in measured]
    cells += [_health_cell(results, layout, group, measured, health) for health in layout.health]
    kind: RowKind = "baseline" if group.is_baseline else "cell"
    return Row(kind, tuple(cells), _shared_axes(layout, group), _stages(group))


def _number_cell(results: Results, layout: TableLayout, group: Group, measured: Measured, notes: Notes) -> Cell:
    values, absent = [], []
    for key, subject in group.members.items():
        value, gaps = column_value(results, subject, measured)
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


def _delta_row(
    results: Results, layout: TableLayout, delta: DeltaRow, measured: Sequence[Measured], notes: Notes
) -> Row:
    cells = [Cell(text=label) for label in delta.labels]
    cells += [Cell(text="") for _ in layout.attributes]
    cells += [_difference_cell(results, delta, item, notes) for item in measured]
    cells += [Cell(text="") for _ in layout.health]
    axes = _shared_axes(layout, delta.first)
    return Row("delta", tuple(cells), axes, _stages(delta.first), _stages(delta.second))


def _stages(group: Group) -> tuple[str, ...]:
    return tuple(subject.stage for subject in group.members.values())


def _shared_axes(layout: TableLayout, group: Group) -> dict[str, Any]:
    axes = {axis: value for axis, value in group.axes.items() if axis not in layout.averaged and value is not None}
    name = next(iter(group.members.values())).baseline
    return axes | ({"baseline": name} if name else {})


def _difference_cell(results: Results, delta: DeltaRow, measured: Measured, notes: Notes) -> Cell:
    pairs = paired_members(delta.first, delta.second)
    differences = []
    for first, second in pairs:
        one, other = column_value(results, first, measured)[0], column_value(results, second, measured)[0]
        if one is not None and other is not None:
            differences.append(one - other)
    if differences:
        mean, sd = mean_sd(differences)
        texts = _pairs_texts(delta, len(pairs), len(differences))
        return Cell(value=mean, sd=sd, n=len(differences), notes=tuple(notes.key(text) for text in texts))
    reason = "no difference: one side is missing" if pairs else "no difference: the two rows have no seed in common"
    return Cell(missing=reason, notes=(notes.key(reason),))


def _pairs_texts(delta: DeltaRow, pairs: int, present: int) -> list[str]:
    """What a reader must know of a difference that is not over all runs of both rows, each once."""
    texts = []
    counts = len(delta.first.members), len(delta.second.members)
    if {pairs, *counts} != {pairs}:
        texts.append(
            f"the two rows have {counts[0]} and {counts[1]} runs: mean difference of the {pairs}"
            f" pair{'s' * (pairs > 1)} of runs that agree on their seeds, not the difference of the rows"
        )
    if present < pairs:
        texts.append(f"difference over {present} of {pairs} pairs of runs; the others lack a number")
    return texts


def _delta_pairs(delta: DeltaRow) -> list[tuple[Subject, Subject]] | str:
    """The runs to test a difference with; a run in several pairs would be taken for several."""
    pairs = paired_members(delta.first, delta.second)
    if any(len({item.stage for item in side}) < len(pairs) for side in zip(*pairs, strict=True)):
        return "one run would be paired with several"
    return pairs


def _attribute_cell(results: Results, group: Group, attribute: Attribute) -> Cell:
    if group.is_baseline:
        return Cell(text="")
    subject = next(iter(group.members.values()))
    if attribute.name == "samples":
        written = {_written_pairs(results, member) for member in group.members.values()}
        count = written.pop() if len(written) == 1 else None
        return Cell(missing="not known yet") if count is None else Cell(value=float(count), n=1)
    name = str(subject.axes.get("dataset", subject.axes.get("reward_model.dataset")))
    value = results.plan.get("datasets", {}).get(name, {}).get(attribute.name)
    return Cell(text=kind_label(value) if attribute.name == "label_kind" else str(value or ""))


def _written_pairs(results: Results, subject: Subject) -> int | None:
    """Pairs that the subject's dataset stage wrote (a row can give several), or None while it isn't done."""
    stage = subject.inputs.get("dataset")
    path = results.store.stage(stage).artifact("report.json") if stage else None
    if path is None or not path.exists():
        return None
    return int(read_json(path)["examples"]["written"])


def _health_cell(
    results: Results, layout: TableLayout, group: Group, measured: Sequence[Measured], health: Health
) -> Cell:
    suites = [health.suite] if health.suite else list(dict.fromkeys(m.suite for item in measured for m in item.weights))
    means = []
    for subject in group.members.values():
        found = [evaluation for suite in suites if (evaluation := results.evaluation(subject, suite)) is not None]
        values = [item.health[health.field] for item in found if item.health.get(health.field) is not None]
        if values and len(found) == len(suites):
            means.append(float(np.mean(values)))
    if not means:
        return Cell(missing="not reported")
    return Cell(value=float(np.mean(means)), n=len(means))


def _protocol_notes(
    results: Results,
    rows: Sequence[Row],
    entries: Sequence[Entry],
    measured: Sequence[Measured],
    notes: Notes,
    offset: int,
) -> list[Row]:
    """Footnote every number whose protocol is not its column's most common one."""
    changed = [list(row.cells) for row in rows]
    groups = [(index, entry) for index, entry in enumerate(entries) if isinstance(entry, Group)]
    for position, item in enumerate(measured):
        for suite in dict.fromkeys(measure.suite for measure in item.weights):
            usual, others = _unusual_protocols(results, [group for _, group in groups], suite)
            for index, group in groups:
                keys = sorted({key for subject in group.members.values() for key in others.get(subject.stage, ())})
                cell = changed[index][offset + position]
                if keys and usual and cell.value is not None:
                    different = ", ".join(map(_in_words, keys))
                    note = notes.key(f"not the protocol of the column's other rows; different: {different}")
                    if note not in cell.notes:
                        changed[index][offset + position] = replace(cell, notes=(*cell.notes, note))
    return [replace(row, cells=tuple(cells)) for row, cells in zip(rows, changed, strict=True)]


def _in_words(key: str) -> str:
    return _DIFFERENCES.get(key, key.removeprefix("made."))


def _unusual_protocols(
    results: Results, groups: Sequence[Group], suite: str
) -> tuple[str, Mapping[str, tuple[str, ...]]]:
    """The most common protocol of a suite, and for each subject under another one the keys that differ."""
    subjects = [subject for group in groups for subject in group.members.values()]
    found = {subject.stage: results.evaluation(subject, suite) for subject in subjects}
    present = {stage: item for stage, item in found.items() if item is not None}
    digests = {stage: item.protocol_digest for stage, item in present.items()}
    if len(set(digests.values())) < 2:
        return "", {}
    usual = Counter(digests.values()).most_common(1)[0][0]
    model = _flat(next(item.protocol for stage, item in present.items() if digests[stage] == usual))
    others = {stage: _flat(item.protocol) for stage, item in present.items() if digests[stage] != usual}
    return usual, {
        stage: tuple(key for key in sorted({*model, *own}) if model.get(key) != own.get(key))
        for stage, own in others.items()
    }


def _flat(protocol: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested protocol with dotted keys, so that a difference is named where it is."""
    flat: dict[str, Any] = {}
    for key, value in protocol.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
