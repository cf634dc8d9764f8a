"""What the two sides of a comparison have in common, and in what else than the asked axis they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablate.results.long import Results
from ablate.results.tables.effort import Effort, read_effort
from ablate.results.tables.rows import Group

_FACTS: tuple[tuple[str, Callable[[Effort], float | None], int], ...] = (
    ("pairs after truncation", lambda effort: effort.trained_pairs, 0),
    ("optimiser steps", lambda effort: effort.steps, 0),
    ("policy samples", lambda effort: effort.policy_samples, 0),
    ("GPU-hours with the reward model's", lambda effort: effort.gpu_hours, 3),
    ("CPU-hours with the reward model's", lambda effort: effort.cpu_hours, 3),
)


@dataclass(frozen=True)
class Comparison:
    """Two groups of runs whose difference a table shows under ``label``; they agree on the axes ``match_on``."""

    label: str
    first: Group
    second: Group
    match_on: tuple[str, ...]


def matched_remarks(results: Results, comparisons: Sequence[Comparison]) -> list[str]:
    """Say for each kind of difference what is equal on both sides and what is not, over all of its rows."""
    remarks = []
    for label in dict.fromkeys(item.label for item in comparisons):
        own = [item for item in comparisons if item.label == label]
        sides = [(_efforts(results, item.first), _efforts(results, item.second)) for item in own]
        equal, other = [], []
        for name, fact, digits in _FACTS:
            means = [(_mean(first, fact), _mean(second, fact)) for first, second in sides]
            known = [(one, two) for one, two in means if one is not None and two is not None]
            if not known or all(one == two == 0 for one, two in known):
                continue
            firsts, seconds = ([pair[side] for pair in known] for side in (0, 1))
            if all(one == two for one, two in known):
                equal.append(f"{name} ({_range(firsts, digits)})")
            else:
                other.append(f"{name} ({_range(firsts, digits)} against {_range(seconds, digits)})")
        axes = " and ".join(own[0].match_on) or "nothing"
        text = f"{label}: matched on {axes}"
        text += f"; equal: {', '.join(equal)}" if equal else ""
        text += f"; not matched: {', '.join(other)}" if other else ""
        text += "" if equal or other else "; what training took is not recorded"
        remarks.append(f"{text}.")
    return remarks


def _efforts(results: Results, group: Group) -> list[Effort]:
    return [read_effort(results, subject) for subject in group.members.values()]


def _mean(efforts: Sequence[Effort], fact: Callable[[Effort], float | None]) -> float | None:
    values = [value for effort in efforts if (value := fact(effort)) is not None]
    return sum(values) / len(values) if values and len(values) == len(efforts) else None


def _range(values: Sequence[float], digits: int) -> str:
    texts = [_text(value, digits) for value in (min(values), max(values))]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def _text(value: float, digits: int) -> str:
    least = 10.0**-digits
    if 0 < value < least / 2:
        return f"below {least:.{digits}f}"
    return f"{value:,.{digits}f}".replace(",", " ")
