"""Which of a plan's subjects a claim is about: what each column selects, and the points at which all are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablate.results.layout.grammar import BASELINE, Quantity
from ablate.results.layout.names import SEED_AXES, baseline_name

Entries = Sequence[Mapping[str, Any]]
Terms = Sequence[tuple[float, Quantity]]


def select(entries: Entries, quantity: Quantity, kind: str) -> list[int]:
    """Return the places of the subjects of a kind that a quantity selects: cells, or baselines where it names one."""
    where = dict(quantity.where)
    baseline = where.pop(BASELINE, None)
    return [
        place
        for place, entry in enumerate(entries)
        if entry["subject"] == kind
        and (entry["role"] == "cell" if baseline is None else baseline_name(entry) == baseline)
        and all(is_written(value, entry["axes"].get(key)) for key, value in where.items())
    ]


def is_written(text: str, value: Any) -> bool:
    """Whether a text means a value of an axis: ``null``, ``true``, a number in any spelling, or the text itself."""
    if value is None or isinstance(value, bool):
        return text == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return str(value) == text


def shared_values(entries: Entries, terms: Terms, chosen: Sequence[Sequence[int]], axis: str) -> list[Any]:
    """Return the values of an axis that all columns have which read it and don't fix it, in the plan's order."""
    values: list[list[Any]] = []
    for (_, quantity), places in zip(terms, chosen, strict=True):
        if axis not in dict(quantity.where):
            found = dict.fromkeys(entries[place]["axes"].get(axis) for place in places)
            values.append([value for value in found if value is not None])
    read = [found for found in values if found]
    return [value for value in read[0] if all(value in found for found in read)] if read else []


def at_point(entries: Entries, quantity: Quantity, places: Sequence[int], point: Mapping[str, Any]) -> list[int]:
    """Return what a quantity selects at one point; an axis that it fixes, or that is not read, is no condition."""
    fixed = dict(quantity.where)
    return [
        place
        for place in places
        if all(axis in fixed or entries[place]["axes"].get(axis) in (value, None) for axis, value in point.items())
    ]


def hidden_axis(
    entries: Entries, quantity: Quantity, places: Sequence[int], axes: Sequence[str]
) -> tuple[str, list[str]] | None:
    """Return an axis that varies within a quantity's selection where ``axes`` and seeds don't; None without one."""
    named = [*axes, *SEED_AXES, *dict(quantity.where)]
    points: dict[str, list[Mapping[str, Any]]] = {}
    for own in (entries[place]["axes"] for place in places):
        points.setdefault(repr([own.get(axis) for axis in named]), []).append(own)
    for members in points.values():
        for axis in dict.fromkeys(axis for own in members for axis in own):
            values = list(dict.fromkeys(str(own.get(axis)) for own in members))
            if len(values) > 1:
                return axis, values
    return None


def match_runs(entries: Entries, sides: Sequence[Sequence[int]]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Return the runs that agree on their seeds, by these; a seed that is not read agrees with every one.

    Single runs on all sides belong together whatever their seeds.
    """
    if all(len(side) == 1 for side in sides):
        return {(): tuple(side[0] for side in sides)}
    matched: dict[tuple[Any, ...], tuple[int, ...]] = {(None,) * len(SEED_AXES): ()}
    for side in sides:
        wider: dict[tuple[Any, ...], tuple[int, ...]] = {}
        for key, places in matched.items():
            for place in side:
                own = tuple(entries[place]["axes"].get(axis) for axis in SEED_AXES)
                if all(one is None or other is None or one == other for one, other in zip(key, own, strict=True)):
                    merged = tuple(other if one is None else one for one, other in zip(key, own, strict=True))
                    wider.setdefault(merged, (*places, place))
        matched = wider
    return matched
