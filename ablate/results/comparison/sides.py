"""What is compared: an experiment of the store, or those of its models that have some values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablate.errors import UnknownNameError, UsageError
from ablate.results.layout import axis_names, baseline_name
from ablate.results.layout.grammar import BASELINE
from ablate.results.layout.names import SEED_AXES
from ablate.results.layout.selection import is_written
from ablate.results.long import Results, Subject, collect
from ablate.store import Store

_PAIR = re.compile(r"\s*([A-Za-z][\w.-]*)\s*=\s*(.*?)\s*")


@dataclass(frozen=True)
class Side:
    """An experiment, and the models of it that are compared; ``is_whole`` when all of them are."""

    text: str
    results: Results
    subjects: tuple[Subject, ...]
    is_whole: bool


def read_side(store: Store, text: str) -> Side:
    """Read ``NAME`` or ``NAME:axis=value,axis=value`` (``baseline=sft`` is one).

    Raises :class:`UsageError` for an experiment, axis or value that is not there, with the nearest that is.
    """
    name, colon, selection = text.partition(":")
    results = collect(store, name)
    if not colon:
        return Side(text, results, results.subjects, is_whole=True)
    chosen = list(results.subjects)
    where = dict(_pair(part, text) for part in selection.split(","))
    entries = results.plan["subjects"]
    axes = axis_names(entries)
    if BASELINE not in where:
        chosen = [item for item in chosen if item.role == "cell"]
    for key, value in where.items():
        if key == BASELINE:
            known = sorted({baseline_name(entry) for entry in entries} - {""})
            found = [item for item in chosen if item.baseline == value]
        elif key not in axes:
            raise UnknownNameError("axis", key, [*axes, BASELINE])
        else:
            known = sorted({str(item.axes.get(key)) for item in results.subjects if item.axes.get(key) is not None})
            found = [item for item in chosen if is_written(value, item.axes.get(key))]
        if not found and value not in known:
            raise UnknownNameError(f"value of {key}", value, known)
        chosen = found
    if not chosen:
        raise UsageError(f"no model of {name} has all of {selection}", hint="`ablate status NAME --all` lists them")
    return Side(text, results, tuple(chosen), is_whole=False)


def _pair(part: str, text: str) -> tuple[str, str]:
    found = _PAIR.fullmatch(part)
    if found is None:
        raise UsageError(f"{text!r}: {part!r} is not axis=value", hint="write NAME or NAME:axis=value,axis=value")
    return found[1], found[2]


def one_row(side: Side) -> tuple[Subject, ...]:
    """Return the distinct runs of a selection; raises :class:`UsageError` where more than seeds vary among them."""
    runs = tuple({item.stage: item for item in side.subjects}.values())
    kinds = sorted({item.subject for item in runs})
    if len(kinds) > 1:
        raise UsageError(
            f"{side.text!r} selects policies and reward models", hint="add algorithm=…, or reward_model.…=…"
        )
    for axis in dict.fromkeys(axis for item in runs for axis in item.axes if axis not in SEED_AXES):
        values = list(dict.fromkeys(str(item.axes.get(axis)) for item in runs))
        if len(values) > 1:
            raise UsageError(
                f"{side.text!r} selects models with {axis} {', '.join(values)}",
                hint=f"add one of them, e.g. {axis}={values[0]}: only seeds are averaged",
            )
    return runs


def together(first: Results, second: Results) -> tuple[Results, list[str]]:
    """Return two experiments' results as one, of the suites that both define alike, and what is left out in words."""
    keys = ("category", "unit", "primary", "subject", "higher_is_better")
    both = {name: about for name, about in first.suites.items() if name in second.suites}
    common = {name: about for name, about in both.items() if _same(about, second.suites[name], keys)}
    remarks = []
    if alone := sorted({*first.suites} ^ {*second.suites}):
        remarks.append(f"Suites of one of the two only, left out: {', '.join(alone)}.")
    if other := sorted(both.keys() - common.keys()):
        remarks.append(f"Suites that the two define differently, left out: {', '.join(other)}.")
    plan = {**first.plan, "suites": common, "subjects": [*first.plan["subjects"], *second.plan["subjects"]]}
    merged = replace(
        first,
        plan=plan,
        subjects=(*first.subjects, *second.subjects),
        evaluations={**first.evaluations, **second.evaluations},
        missing=(*first.missing, *second.missing),
    )
    return merged, remarks


def _same(one: Mapping[str, Any], other: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return all(one.get(key) == other.get(key) for key in keys)
