"""Every suite's score on every model, a row for each: what models as they are get, however many suites there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ablate.results.long import Results, Subject, primary_metric
from ablate.results.tables.notes import Notes
from ablate.results.tables.remarks import NO_ROOM, judges_remarks
from ablate.results.tables.table import Cell, Column, Row, Table, number_text

NAME = "scores"
"""Name of the table, and thus of its files."""

_COLUMNS = (
    Column("model", "Model", "label"),
    Column("suite", "Suite", "label"),
    Column("category", "Category", "label"),
    Column("metric", "Metric", "label"),
    Column("score", "Score", "attribute", digits=2),
    Column("stderr", "Std. error", "attribute", digits=2),
    Column("n", "n", "attribute", digits=0),
    Column("unit", "Unit", "label"),
)
_EXPLAINED = "n are the examples that a score is over, of which the standard error is."


def build_scores(results: Results) -> Table:
    """Return the table; a score that is not there is a gap with the reason. One model's column is left out."""
    notes = Notes()
    rows = tuple(_rows(results, notes))
    first = 1 if len({row.cells[0].text for row in rows}) == 1 else 0
    rows = tuple(replace(row, cells=row.cells[first:]) for row in rows)
    remarks = (_EXPLAINED, *judges_remarks(results, results.suites))
    return Table(NAME, f"Scores of {results.experiment}", _COLUMNS[first:], rows, notes.all(), remarks)


def _rows(results: Results, notes: Notes) -> Iterator[Row]:
    for subject in results.subjects:
        for suite, about in results.suites.items():
            if about["subject"] == subject.subject:
                model = Cell(text=subject.label.removeprefix("policy=").removeprefix("reward_model.init="))
                cells = (model, *_cells(results, subject, suite, about, notes))
                yield Row("cell", cells, subject.axes, (subject.stage,))


def _cells(results: Results, subject: Subject, suite: str, about: Mapping[str, Any], notes: Notes) -> tuple[Cell, ...]:
    is_share = about["unit"] == "proportion"
    unit = "%" if is_share else about["unit"]
    task, _, metric = about["primary"].rpartition("/")
    what = (suite, about["category"], metric if task in ("", "overall") else about["primary"])
    facts = tuple(Cell(text=text) for text in what)
    found = results.evaluation(subject, suite)
    if found is None or found.score is None:
        reason = results.reason(subject, suite)
        gap = Cell(missing=reason, notes=(notes.key(reason),))
        return (*facts, gap, Cell(text=""), Cell(text=""), Cell(text=unit))
    measured = primary_metric(found, about["primary"]) or {}
    digits = Column("", "", "number", digits=1 if is_share else 2)
    score, stderr = (
        Cell(text="") if value is None else Cell(text=number_text(value, digits), value=value, n=1)
        for value in (_scaled(found.score, is_share), _scaled(measured.get("stderr"), is_share))
    )
    if unasked := found.health.get(NO_ROOM):
        asked = found.health.get("responses") or found.health.get("n")
        why = f"{unasked} of {asked} responses have a prompt without room in the model's context"
        score = replace(score, notes=(notes.key(why),))
    n = measured.get("n") or found.health.get("n")
    return (*facts, score, stderr, Cell(text="") if n is None else Cell(value=float(n), n=1), Cell(text=unit))


def _scaled(value: float | None, is_share: bool) -> float | None:
    return value * 100 if value is not None and is_share else value
