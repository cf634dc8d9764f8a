"""Footnotes of numbers that were measured under another protocol than their column's others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ablate.results.dotted import dotted
from ablate.results.long import Results
from ablate.results.tables.columns import Measured
from ablate.results.tables.notes import Notes
from ablate.results.tables.rows import Group
from ablate.results.tables.table import Row

FOREIGN = "not the protocol of the column's other rows"
"""How the footnote of a number under another protocol begins."""

_DIFFERENCES = {"made.chat": "use of a chat template"}
"""How a table calls keys of a protocol; others are called by themselves."""


def protocol_notes(
    results: Results,
    rows: Sequence[Row],
    entries: Sequence[object],
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
                    note = notes.key(f"{FOREIGN}; different: {different}")
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
    model = dotted(next(item.protocol for stage, item in present.items() if digests[stage] == usual))
    others = {stage: dotted(item.protocol) for stage, item in present.items() if digests[stage] != usual}
    return usual, {
        stage: tuple(key for key in sorted({*model, *own}) if model.get(key) != own.get(key))
        for stage, own in others.items()
    }
