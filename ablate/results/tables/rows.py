"""Which subjects make a row of a declared table, in which order, and which rows a difference is between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from ablate.errors import UsageError
from ablate.results.layout import Delta, RowAxis, TableLayout, axis_names, is_wanted, refuse_hidden_axis, row_key
from ablate.results.long import Results, Subject
from ablate.results.tables.table import MINUS

OTHER = "Other"
"""Heading of rows that belong under none of the declared ones."""

BASE_AXES = ("policy", "pretrain.")
SFT_AXES = ("sft.",)
"""First letters of the axes that shape the model a run starts from."""

_DIGITS = 4
"""Significant digits of a number that names a row, where they tell the table's values apart."""


@dataclass(frozen=True)
class Group:
    """The subjects of one row: ``members`` maps the values of the table's run axes to a subject, distinct runs only.

    ``labels`` has a text for each row axis. ``heading`` is the group heading that the row stands under, or "".
    """

    labels: tuple[str, ...]
    axes: Mapping[str, Any]
    members: Mapping[tuple[Any, ...], Subject]
    is_baseline: bool = False
    heading: str = ""


@dataclass(frozen=True)
class DeltaRow:
    """The difference ``name`` of two rows that agree on ``match_on``, shown after row ``after``."""

    name: str
    match_on: tuple[str, ...]
    labels: tuple[str, ...]
    first: Group
    second: Group
    after: int


def baseline_groups(results: Results, table: TableLayout) -> list[Group]:
    """Return the baseline rows in the order declared: averaged as the cells are, one for each other setting."""
    groups = []
    for name in table.baselines:
        own = [item for item in _of_subject(results, table) if item.baseline == name]
        own = [item for item in own if is_wanted(table, item.axes, is_baseline=True)]
        names = [axis for axis in axis_names([{"axes": item.axes} for item in own]) if axis not in table.averaged]
        varying = [axis for axis in names if len({repr(item.axes.get(axis)) for item in own}) > 1]
        grouped: dict[tuple[str, ...], list[Subject]] = {}
        for item in own:
            grouped.setdefault(tuple(repr(item.axes.get(axis)) for axis in varying), []).append(item)
        for members in grouped.values():
            label = _baseline_label(results, table, name, {axis: members[0].axes.get(axis) for axis in varying})
            labels = (label, *("",) * (len(table.rows) - 1))
            groups.append(Group(labels, members[0].axes, _distinct(table, members), is_baseline=True))
    return groups


def cell_groups(results: Results, table: TableLayout) -> list[Group]:
    """Return the rows of the grid's cells in table order.

    Raises :class:`ablate.errors.SpecError` when an axis that is neither a row nor averaged over varies inside a row.
    """
    cells = [item for item in _of_subject(results, table) if item.role == "cell" and is_wanted(table, item.axes)]
    grouped: dict[tuple[str, ...], list[Subject]] = {}
    for cell in cells:
        grouped.setdefault(row_key(table, cell.axes), []).append(cell)
    names = {row.axis: value_labels(results, row, (cell.axes.get(row.axis) for cell in cells)) for row in table.rows}
    groups = [_group(table, members, names) for members in grouped.values()]
    return sorted(groups, key=_sort_key(table, cells))


def delta_rows(table: TableLayout, groups: Sequence[Group]) -> list[DeltaRow]:
    """Return the declared differences between rows of ``groups``, each placed after the rows that it matches."""
    rows = []
    for delta in table.deltas:
        axes = [group.axes for group in groups]
        last = {match_key(own, delta.match_on): index for index, own in enumerate(axes)}
        for i, j in match_rows(axes, delta.axis, (delta.values[0], delta.values[1]), delta.match_on):
            name, labels = _delta_labels(table, delta, groups[i], groups[j])
            after = last[match_key(axes[i], delta.match_on)]
            rows.append(DeltaRow(name, delta.match_on, labels, groups[i], groups[j], after))
    return rows


def run_words(table: TableLayout, key: Sequence[Any]) -> str:
    """Return which run of a row a key of its members is: the axes that tell runs apart, ``axis=value``."""
    return " ".join(f"{axis}={value}" for axis, value in zip(table.run_axes, key, strict=True) if value is not None)


def paired_members(first: Group, second: Group) -> list[tuple[Subject, Subject]]:
    """Pair the runs of two rows that agree on every run axis that both read; two single runs are a pair."""
    alone = len(first.members) == len(second.members) == 1
    return [
        (one, other)
        for key, one in first.members.items()
        for match, other in second.members.items()
        if alone or all(a == b or a is None or b is None for a, b in zip(key, match, strict=True))
    ]


def baseline_pairs(results: Results, table: TableLayout, group: Group) -> list[tuple[Subject, Subject]] | str:
    """Pair every run of a row with the compared baseline of its own policy, pretraining and SFT, or say why not."""
    known = [item for item in _of_subject(results, table) if item.baseline == table.compare.to]
    pairs = []
    for subject in group.members.values():
        own = {item.stage: item for item in known if _starts_alike(subject, item)}
        if len(own) != 1:
            return f"{len(own) or 'no'} {table.compare.to} baseline{'s' * (len(own) > 1)} with the same base and SFT"
        pairs.append((subject, next(iter(own.values()))))
    return pairs


def start_units(subjects: Sequence[Subject]) -> list[int]:
    """Number what varies at the top between runs: their base models, else their SFT models, else the runs."""
    for prefixes in (BASE_AXES, SFT_AXES):
        keys = [
            repr([value for axis, value in item.start_axes.items() if axis.startswith(prefixes)]) for item in subjects
        ]
        units = list(dict.fromkeys(keys))
        if len(units) > 1:
            return [units.index(key) for key in keys]
    return list(range(len(subjects)))


def _starts_alike(subject: Subject, baseline: Subject) -> bool:
    shaping = (axis for axis in baseline.axes if axis.startswith((*BASE_AXES, *SFT_AXES)))
    return all(subject.start_axes.get(axis) == baseline.axes[axis] for axis in shaping)


def value_label(results: Results, row: RowAxis, value: Any, digits: int | None = None) -> str:
    """Write one axis value: as declared, else the title of a dataset or a method, the value itself.

    ``digits`` are the significant ones of a number that is no whole one; its integer part is never rounded.
    """
    if value is None:
        return row.values.get("null", "")
    text = str(value)
    if text in row.values:
        return row.values[text]
    if row.axis.rpartition(".")[2] == "dataset":
        return str(results.plan.get("datasets", {}).get(text, {}).get("title") or text)
    if isinstance(value, float):
        number = Decimal(text)
        if digits is not None and number.is_finite():
            number = Context(prec=max(digits, number.adjusted() + 1)).plus(number)
        return f"{number:f}"  # 0.00003 beside 0.0001: never an exponent
    titles = {"algorithm": "algorithms", "policy": "policies"}.get(row.axis, "")
    return str(results.plan.get(titles, {}).get(text, text))


def kind_label(kind: str | None) -> str:
    """Write who labelled a set."""
    return "AI" if kind == "ai" else kind or ""


def _baseline_label(results: Results, table: TableLayout, name: str, axes: Mapping[str, Any]) -> str:
    text = table.labels.get(name, {"sft": "SFT", "base": "Base model"}.get(name, name))
    rows = {row.axis: row for row in table.rows}
    words = [
        f"{axis}={value_label(results, rows.get(axis, RowAxis(axis=axis)), value)}"
        for axis, value in axes.items()
        if value is not None
    ]
    return f"{text} ({', '.join(words)})" if words else text


def _of_subject(results: Results, table: TableLayout) -> list[Subject]:
    return [item for item in results.subjects if item.subject == table.subject]


def value_labels(results: Results, row: RowAxis, values: Iterable[Any]) -> dict[str, str]:
    """Write the values that an axis has in a table, by their repr; numbers short, where no two are then alike."""
    distinct = {repr(value): value for value in values}
    full = {key: value_label(results, row, value) for key, value in distinct.items()}
    short = {key: value_label(results, row, value, digits=_DIGITS) for key, value in distinct.items()}
    return short if len(set(short.values())) == len(set(full.values())) else full


def _group(table: TableLayout, members: Sequence[Subject], names: Mapping[str, Mapping[str, str]]) -> Group:
    if table.run_axes == table.averaged:
        refuse_hidden_axis(table, [member.axes for member in members])
    first = members[0]
    labels = tuple(names[row.axis][repr(first.axes.get(row.axis))] for row in table.rows)
    return Group(labels, first.axes, _distinct(table, members), heading=_heading(table, first.axes))


def _distinct(table: TableLayout, members: Sequence[Subject]) -> dict[tuple[Any, ...], Subject]:
    """Map the run axes' values to a subject, once for every stage; two models that share them are an error."""
    distinct: dict[str, Subject] = {}
    for member in members:
        distinct.setdefault(member.stage, member)
    found: dict[tuple[Any, ...], Subject] = {}
    for member in distinct.values():
        other = found.setdefault(tuple(member.axes.get(axis) for axis in table.run_axes), member)
        if other is not member:
            raise UsageError(
                f"table {table.name!r}: {member.label!r} is {other.stage} and {member.stage}: no axis tells them apart",
                hint="its plan is of an older ablate: `ablate run` records it anew, with what tells its models apart",
            )
    return found


def _heading(table: TableLayout, axes: Mapping[str, Any]) -> str:
    if table.groups is None or table.groups.axis is None:
        return ""
    value = axes.get(table.groups.axis)
    return next((name for name, values in table.groups.headings.items() if value in values), OTHER)


def _sort_key(table: TableLayout, cells: Sequence[Subject]) -> Any:
    headings = list(table.groups.headings) if table.groups else []
    orders: list[dict[str, int]] = []
    for row in table.rows:
        grouped = list(table.groups.headings.values()) if table.groups and table.groups.axis == row.axis else []
        declared = [*row.order, *(value for values in grouped for value in values)]
        seen = [*declared, *(cell.axes.get(row.axis) for cell in cells)]
        orders.append({name: index for index, name in enumerate(dict.fromkeys(repr(value) for value in seen))})

    def key(group: Group) -> tuple[int, ...]:
        heading = headings.index(group.heading) if group.heading in headings else len(headings)
        places = zip(table.rows, orders, strict=True)
        return (heading, *(order[repr(group.axes.get(row.axis))] for row, order in places))

    return key


def _delta_labels(table: TableLayout, delta: Delta, first: Group, second: Group) -> tuple[str, tuple[str, ...]]:
    names = [row.axis for row in table.rows]
    place = names.index(delta.axis) if delta.axis in names else len(names) - 1
    own = dict(zip(names, first.labels, strict=True)).get(delta.axis, str(delta.values[0]))
    other = dict(zip(names, second.labels, strict=True)).get(delta.axis, str(delta.values[1]))
    text = delta.label or f"Δ {own} {MINUS} {other}"
    return text, tuple(text if index == place else label for index, label in enumerate(first.labels))


def match_rows(
    rows: Sequence[Mapping[str, Any]], axis: str, values: tuple[Any, Any], match_on: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the pairs (i, j) of rows with ``axis`` at the first and second value that agree on ``match_on``.

    Pairs are ordered by i, then j. A null on a ``match_on`` axis agrees with null only.
    """
    second: dict[tuple[str, ...], list[int]] = {}
    for j, row in enumerate(rows):
        if row.get(axis) == values[1]:
            second.setdefault(match_key(row, match_on), []).append(j)
    first = [(i, row) for i, row in enumerate(rows) if row.get(axis) == values[0]]
    return [(i, j) for i, row in first for j in second.get(match_key(row, match_on), ())]


def match_key(row: Mapping[str, Any], match_on: Sequence[str]) -> tuple[str, ...]:
    """Return what two rows must share to be matched."""
    return tuple(str(row.get(name)) for name in match_on)
