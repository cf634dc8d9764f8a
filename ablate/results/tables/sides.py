"""The runs behind one cell of a table: a row's runs with a column's values of axes, and those that it subtracts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablate.errors import UsageError
from ablate.results.layout import TableLayout, fits
from ablate.results.long import Subject
from ablate.results.tables.columns import Measured
from ablate.results.tables.rows import Group, match_key


@dataclass(frozen=True)
class Sides:
    """A row's runs of one column; ``second`` are those that the column subtracts, None where it subtracts no runs."""

    first: Group
    second: Group | None = None


def column_sides(table: TableLayout, groups: Sequence[Group], group: Group, measured: Measured) -> Sides:
    """Return the runs of ``group`` that a column is over, and those of ``groups`` that it subtracts."""
    first = _restricted(table, [group], group, measured.where)
    minus = measured.minus
    if minus is None or (minus.match_on is None and minus.where == measured.where):
        return Sides(first)
    if minus.match_on is None or group.is_baseline:
        return Sides(first, _restricted(table, [group], group, minus.where))
    key = match_key(group.axes, minus.match_on)
    matching = [other for other in groups if match_key(other.axes, minus.match_on) == key]
    return Sides(first, _restricted(table, matching, group, minus.where))


def _restricted(table: TableLayout, groups: Sequence[Group], like: Group, where: Mapping[str, Any]) -> Group:
    """Return ``like`` with the runs of ``groups`` that have ``where``, told apart by the averaged axes alone."""
    if not where and len(groups) == 1 and len(table.run_axes) == len(table.averaged):
        return groups[0]
    members: dict[tuple[Any, ...], Subject] = {}
    padding = (None,) * (len(table.run_axes) - len(table.averaged))
    for group in groups:
        for key, subject in group.members.items():
            if fits(subject.axes, where, is_baseline=group.is_baseline):
                own = (*key[: len(table.averaged)], *padding)
                if members.setdefault(own, subject) is not subject:
                    raise UsageError(
                        f"table {table.name!r}: {members[own].label!r} and {subject.label!r} would be one run",
                        hint="name the axis that tells them apart in the column's `where`, `match_on` or the rows",
                    )
    axes = next(iter(members.values())).axes if members else like.axes
    return replace(like, members=members, axes=axes)
