"""What a table says of cells that were tuned: the values found, how they were found, and with which budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.results.long import Results, Subject
from ablate.results.tables.notes import Notes
from ablate.results.tables.rows import Group
from ablate.results.tables.table import Cell

NOTHING = "nothing to search"
"""State of a group whose cells read no searched key."""


def tuned_cell(results: Results, group: Group, notes: Notes) -> Cell:
    """Return the values that were found for a row, with a footnote that says of how many trials they are the best."""
    tuned = [subject for subject in group.members.values() if subject.tuned]
    texts = dict.fromkeys(_values(subject) for subject in tuned)
    about = dict.fromkeys(_how(results.plan["tuning"], _group(results, subject)) for subject in tuned)
    return Cell(text="; ".join(texts), notes=tuple(notes.key(text) for text in about if text))


def tuning_remarks(results: Results, rows: Sequence[Group]) -> list[str]:
    """Say how the cells of a table were tuned, where budgets differ, and which were not."""
    numbers = dict.fromkeys(subject.tuned["group"] for row in rows for subject in row.members.values() if subject.tuned)
    if not numbers:
        return []
    tuning = results.plan["tuning"]
    groups = [tuning["groups"][number] for number in numbers]
    found = [group for group in groups if group["state"] == "tuned"]
    remarks = []
    if found:
        budget = _budget(found[0]) if len({_budget(group) for group in found}) == 1 else "its trials"
        keys = dict.fromkeys(key for group in found for key in group["search"])
        remarks.append(
            f"Tuned apart for each {' and '.join(tuning['over'])} ({', '.join(keys)}): the best of {budget} on"
            f" {_result(tuning)} (seed {tuning['seed']}), whose examples no suite of this experiment has."
        )
    if len({_budget(group) for group in found}) > 1:
        listed = "; ".join(f"{group['label']}: {_budget(group)}" for group in found)
        remarks.append(f"Tuning budgets differ: {listed}.")
    untouched = [group["label"] for group in groups if group["state"] == NOTHING]
    if untouched:
        remarks.append(f"Not tuned, for they have no searched parameter: {'; '.join(untouched)}.")
    return [*remarks, *_without_results(groups)]


def _without_results(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    waiting = [f"{group['label']} ({group['cause']})" for group in groups if group.get("cause")]
    return [f"Without results: {'; '.join(waiting)}."] if waiting else []


def _group(results: Results, subject: Subject) -> Mapping[str, Any]:
    found: Mapping[str, Any] = results.plan["tuning"]["groups"][subject.tuned["group"]]
    return found


def _values(subject: Subject) -> str:
    """Return what was found for a cell, its own method's parameters without the method's name."""
    own = f"{subject.axes.get('algorithm')}."
    values = {key.removeprefix(own): value for key, value in subject.tuned["values"].items()}
    words = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()]
    return ", ".join(words) or ("–" if subject.tuned.get("waits") else "not tuned")


def _how(tuning: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    if group["state"] != "tuned":
        return str(group.get("cause", ""))
    text = f"the best of {_budget(group)} on {_result(tuning)} (seed {tuning['seed']})"
    ties = len(group["ties"])
    return text + (f"; the first of {ties + 1} that are equal" if ties else "")


def _result(tuning: Mapping[str, Any]) -> str:
    name = str(tuning["maximise"])
    bounds = [f"{key} {_bound(bound)}" for key, bound in tuning["subject_to"].items()]
    least = f"the least {name.removeprefix('-')}" if name.startswith("-") else name
    return least + (f" (with {' and '.join(bounds)})" if bounds else "")


def _bound(bound: Mapping[str, float]) -> str:
    words = {"at_least": "at least", "at_most": "at most"}
    return " and ".join(f"{words[name]} {value:g}" for name, value in bound.items())


def _budget(group: Mapping[str, Any]) -> str:
    """Return how many trials a group had, how many of them came to nothing, and what each trained."""
    ended = group["ended"]
    count = sum(ended.values())
    lost = [f"{ended[state]} {word}" for state, word in (("pruned", "pruned"), ("fail", "failed")) if ended.get(state)]
    trials = f"{count} trial{'s' * (count != 1)}"
    each = f" of {group['policies']} policies each" if group["policies"] > 1 else ""
    return trials + each + (f" ({', '.join(lost)})" if lost else "")
