"""The appendix's table of data: the sets an experiment reads, what they are used for, and what became of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.context import read_json
from ablate.errors import UsageError
from ablate.results.long import Results, reason_not_done
from ablate.results.tables.notes import Notes
from ablate.results.tables.rows import kind_label
from ablate.results.tables.table import Cell, Column, Row, Table, number_text

NAME = "data"
"""Name of the table, and thus of its files."""

_COLUMNS = (
    Column("set", "Set", "label"),
    Column("role", "Used for", "label"),
    Column("label_kind", "Labels", "label"),
    Column("licence", "Licence", "label"),
    Column("revision", "Revision", "label"),
    Column("rows", "Rows", "attribute", digits=0),
    Column("used", "Used", "attribute", digits=0),
    Column("prompt", "Prompt", "attribute", unit="words"),
    Column("chosen", "Chosen", "attribute", unit="words"),
    Column("rejected", "Rejected", "attribute", unit="words"),
)
_REMARKS = (
    "Rows are those of the files, or what the sets hand on that a set is made of or cut from; Used are the pairs, "
    "conversations or prompts made of them.",
    "The last three columns are mean lengths in words; a conversation's Chosen is its last turn, Prompt all before it.",
)
_OF_PROMPTS = ("prompts", "selection")
_ROLES = ("preferences", "reward model", "SFT", "prompts", "selection", "pretraining")


def build_data_table(results: Results) -> Table:
    """Return the table; a set that is not made yet has gaps with the reason, dropped rows are footnotes.

    Raises UsageError for a plan that an earlier version recorded, which does not say what is read.
    """
    sets = results.plan.get("data")
    if sets is None:
        raise UsageError(
            f"the plan of {results.experiment!r} was recorded by an earlier version, which did not say what it reads",
            hint="plan it again with `ablate run`: nothing that is done runs again",
        )
    notes = Notes()
    rows = [_row(results, about, notes) for about in sorted(sets, key=_position)]
    title = f"Data of {results.experiment}"
    return Table(NAME, title, _COLUMNS, tuple(rows), notes.all(), _REMARKS)


def _position(about: Mapping[str, Any]) -> int:
    return min((_ROLES.index(role) for role in about["roles"] if role in _ROLES), default=len(_ROLES))


def _row(results: Results, about: Mapping[str, Any], notes: Notes) -> Row:
    note, revision = about["licence_note"], about["revision"]
    facts = (
        Cell(text=about["title"]),
        Cell(text=", ".join(about["roles"])),
        Cell(text=kind_label(about["label_kind"])),
        Cell(text=", ".join(about["licence"]), notes=(notes.key(f"licence: {note}"),) if note else ()),
        Cell(text=revision[:8] if len(revision) == 40 else revision),
    )
    return Row("cell", (*facts, *_numbers(results, about, notes)))


def _numbers(results: Results, about: Mapping[str, Any], notes: Notes) -> list[Cell]:
    """Return the cells of rows, used and the three lengths."""
    path = results.store.stage(about["stage"]).artifact("report.json")
    if not path.exists():
        reason = reason_not_done(results.store, about["stage"])
        return [_gap(reason, notes)] * 5
    report = read_json(path)
    is_prompts = about["roles"][0] in _OF_PROMPTS
    used = report["prompts"] if is_prompts else report["examples"]["written"]
    why = _account(report)
    cells = [Cell(value=float(report["in"]), n=1), Cell(value=float(used), n=1, notes=(notes.key(why),) if why else ())]
    words = report.get("mean_words")
    if words is None:
        return cells + [_gap("made by a version that counted no words", notes)] * 3
    parts = ("distinct_prompts",) if is_prompts else ("prompt", "chosen", "rejected")
    means = [words.get(part, words.get("response") if part == "chosen" else None) for part in parts]
    return cells + [Cell(text="") if mean is None else Cell(value=mean, n=1) for mean in (*means, None, None)[:3]]


def _gap(reason: str, notes: Notes) -> Cell:
    return Cell(missing=reason, notes=(notes.key(reason),))


def _account(report: Mapping[str, Any]) -> str:
    """Say why the examples are not as many as the rows; empty when each row gave one."""
    parts = []
    if report["dropped"]:
        dropped = sorted(report["dropped"].items(), key=lambda item: (-item[1], item[0]))
        parts.append("rows dropped: " + ", ".join(f"{reason} {_count(count)}" for reason, count in dropped))
    made, unsampled = report["examples"]["made"], report["examples"]["not_sampled"]
    rows = report["in"] - sum(count for reason, count in report["dropped"].items() if reason != "not-sampled")
    if made != rows:
        parts.append(f"{_count(made)} examples of {_count(rows)} rows")
    if unsampled and made != rows:
        parts.append(f"{_count(unsampled)} of them not sampled")
    return "; ".join(parts)


def _count(number: int) -> str:
    return number_text(float(number), _COLUMNS[5])
