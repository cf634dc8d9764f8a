"""Columns of a table that are no scores: facts about a row's runs and data, and health fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablate.context import read_json
from ablate.results.layout import Attribute, Health
from ablate.results.long import Results, Subject
from ablate.results.tables.columns import Measured
from ablate.results.tables.effort import read_effort
from ablate.results.tables.notes import Notes
from ablate.results.tables.rows import Group, kind_label
from ablate.results.tables.table import Cell
from ablate.results.tables.tuning import tuned_cell

EFFORTS = ("trained_pairs", "steps", "policy_samples", "gpu_hours", "cpu_hours")
"""Attributes that say what training took."""


def attribute_cell(results: Results, group: Group, attribute: Attribute, notes: Notes) -> Cell:
    """Return a fact about a row: its runs, what tuning found, its dataset's pairs, or a field of that one's entry."""
    if attribute.name == "runs":
        return Cell(value=float(len(group.members)), n=1)
    if attribute.name in EFFORTS:
        found = [getattr(read_effort(results, subject), attribute.name) for subject in group.members.values()]
        known = [value for value in found if value is not None]
        return Cell(value=float(np.mean(known)), n=len(known)) if known else Cell(missing="not recorded")
    if group.is_baseline:
        return Cell(text="")
    if attribute.name == "tuned":
        return tuned_cell(results, group, notes)
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


def label_notes(results: Results, group: Group, expected: int) -> list[str]:
    """Return what a reader must know of a row as a whole: that it has fewer runs than others, or data that was cut."""
    texts = []
    if 0 < len(group.members) < expected:
        texts.append(f"n = {len(group.members)}; other rows have {expected} runs")
    efforts = [read_effort(results, subject) for subject in group.members.values()]
    for cut, out, pairs in dict.fromkeys((item.cut, item.left_out, item.trained_pairs) for item in efforts):
        parts = [f"{cut} were cut to the maximum length"] if cut else []
        parts += [f"{out} more were left out"] if out else []
        texts += [f"of its {pairs} training examples {' and '.join(parts)}"] if parts else []
    return texts


def health_cell(results: Results, group: Group, measured: Sequence[Measured], health: Health) -> Cell:
    """Return a health field, averaged over the row's runs and the suites of its columns."""
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
