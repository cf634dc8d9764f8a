"""The page: one self-contained HTML file with a report's tables, figures and all that its numbers lead to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps

from ablate.results.tables.grid import Entry, Grid, Head, Line, printed
from ablate.results.tables.table import CellText, Table


def page(
    title: str,
    question: str,
    tables: Sequence[Table],
    figures: Sequence[tuple[str, str]],
    facts: Sequence[str] = (),
    content: Mapping[str, Any] | None = None,
) -> str:
    """Return the whole page.

    ``figures`` are (caption, SVG element), ``facts`` are sentences put at the start; ``content`` is what numbers lead
    to, as :func:`ablate.results.page.content.page_content` makes it. The file needs no other and no network, and its
    policy lets nothing run but its own script.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    script = _shipped("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(_shipped("page.html.j2")).render(
        title=title,
        question=question,
        facts=facts,
        tables=[table_html(table) for table in tables],
        figures=figures,
        content=htmlsafe_json_dumps(content or {"tables": {}}, separators=(",", ":")),
        style=_shipped("page.css"),
        script=script,
        script_hash=f"sha256-{digest}",
    )


def _shipped(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def table_html(table: Table) -> str:
    """Return one table with its footnotes."""
    grid = printed(table)
    heads = "".join(f"<tr>{_heads(grid, line)}</tr>" for line in grid.header)
    rows = "\n".join(_line(table, grid, line) for line in grid.lines)
    notes = [f"<li><sup>{escape(key)}</sup> {escape(text)}</li>" for key, text in table.notes]
    notes += [f"<li>{escape(text)}</li>" for text in table.remarks]
    classes = " ".join(["ranked"] * table.is_ranked + ["transposed"] * table.transpose)
    kind = f" class='{classes}'" if classes else ""
    footer = f"<ul class='notes'>{''.join(notes)}</ul>" if notes else ""
    return (
        f"<div class='wide'><table id='{escape(table.name)}'{kind}>\n<caption>{escape(table.title)}</caption>\n"
        f"<thead>{heads}</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n{footer}"
    )


def _heads(grid: Grid, line: Sequence[Head]) -> str:
    cells, column = [], 0
    for head in line:
        span = f" colspan='{head.width}'" if head.width > 1 else ""
        scope = "colgroup" if span else "col"
        text = escape(head.text.value) + _notes(head.text)
        kind = grid.kinds[column]
        cells.append(f"<th scope='{scope}'{span} class='{kind}'>{text}</th>" if text else f"<td{span}></td>")
        column += head.width
    return "".join(cells)


def _line(table: Table, grid: Grid, line: Line) -> str:
    if line.kind == "heading":
        heading = f"<th scope='rowgroup' colspan='{grid.width}'>{escape(line.heading)}</th>"
        return f"<tr class='heading'>{heading}</tr>"
    cells = "".join(_cell(table, entry, kind) for entry, kind in zip(line.entries, grid.kinds, strict=True))
    return f"<tr class='{line.kind}'>{cells}</tr>"


def _cell(table: Table, entry: Entry, kind: str) -> str:
    text, row = entry.text, table.rows[entry.row]
    if kind == "label":
        return f"<th scope='row' class='label'>{escape(text.value)}{_notes(text)}</th>"
    cell = row.cells[entry.column]
    value = escape(text.value)
    if text.rank is not None:
        value = {"best": f"<b>{value}</b>", "second": f"<u>{value}</u>"}[text.rank]
    if text.mark is not None:
        sign = {"better": "▲", "worse": "▼"}[text.mark]
        value = f"<span class='{text.mark}'>{value}<span aria-label='{text.mark}'>{sign}</span></span>"
    if cell.missing is not None:
        value = f"<span class='gap'>{value}</span>"
    spread = f" <span class='spread'>±{escape(text.spread)}</span>" if text.spread else ""
    if row.runs and table.columns[entry.column].kind == "number":
        value = f"<button type='button' class='number' data-at='{entry.row},{entry.column}'>{value}</button>"
    number = "" if cell.value is None else f" data-value='{cell.value!r}'"
    own = f" class='{entry.kind}'" if table.transpose else ""
    return f"<td{own}{number}{_hint(table, entry)}>{value}{spread}{_notes(text)}</td>"


def _notes(text: CellText) -> str:
    return f"<sup class='spread'>{escape(','.join(text.notes))}</sup>" if text.notes else ""


def _hint(table: Table, entry: Entry) -> str:
    """A tooltip with n, the corrected p, or why there is nothing."""
    cell = table.rows[entry.row].cells[entry.column]
    parts = []
    if cell.missing is not None:
        parts.append(cell.missing)
    if table.columns[entry.column].kind == "number" and cell.n and entry.kind != "detectable":
        parts.append(f"n = {cell.n}")
    if cell.p is not None:
        parts.append(f"p = {cell.p:.2g} (corrected)")
    return f" title='{escape('; '.join(parts))}'" if parts else ""
