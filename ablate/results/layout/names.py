"""What a plan has that a layout may name: axes, baselines, categories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import Location, SpecError, suggestion
from ablate.shipped import search_folders

NOT_AVERAGED = frozenset({"gold", "reward"})
"""Categories whose suites are no proportions of right answers: never part of an unnamed average."""

Scalar = str | int | float | bool | None

SEED_AXES = ("seed", "pretrain.seed", "sft.seed")
"""Axes that are averaged over where a table doesn't say otherwise."""


CATEGORY_ORDER = ("factuality", "reasoning", "coding", "truthfulness", "safety", "instruction-following", "chat")


PUBLISHED = "published"
"""Folder of published tables below a folder of reports."""


TRIALS = "trials"
"""Name of the table of a sweep's trials, and thus of its files."""


def averaged_categories(suites: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the categories of these suites that an unnamed average takes, the study's first and in its order."""
    averaged = (about for about in suites.values() if not about.get("of_axis"))
    found = dict.fromkeys(about["category"] for about in averaged if about["category"] not in NOT_AVERAGED)
    return sorted(found, key=lambda name: CATEGORY_ORDER.index(name) if name in CATEGORY_ORDER else 99)


def baseline_name(entry: Mapping[str, Any]) -> str:
    """Return the name of a subject of the plan that is a baseline (its label where the plan gives none), else ""."""
    return str(entry.get("baseline") or entry["label"]) if entry["role"] == "baseline" else ""


def axis_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the axes that any of the plan's subjects has, in first-seen order."""
    return list(dict.fromkeys(key for entry in entries for key in entry["axes"]))


def varying_axes(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the axes with more than one value among the cells, in first-seen order."""
    cells = [entry["axes"] for entry in entries if entry["role"] == "cell"]
    names = dict.fromkeys(key for axes in cells for key in axes)
    return [name for name in names if len({repr(axes.get(name)) for axes in cells}) > 1]


def refuse_unknown(kind: str, name: str, known: Iterable[str], location: Location) -> None:
    """Raise :class:`SpecError` for a name that is none of ``known``, with the nearest that is."""
    names = list(known)
    if name not in names:
        raise SpecError(f"unknown {kind} {name!r}", location=location, hint=suggestion(name, names))


def published_file(name: str) -> str:
    """Return what the files of a published table are called in a report."""
    return name.replace("/", "-")


def published_names(start: Path) -> list[str]:
    """Return the names of all published tables that are found from ``start``."""
    folders = [folder / PUBLISHED for folder in search_folders("reports", start)]
    found = [file.relative_to(folder).with_suffix("") for folder in folders for file in folder.rglob("*.yaml")]
    return sorted({path.as_posix() for path in found})
