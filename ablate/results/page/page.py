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

from ablate.results.tables.table import Row, Table, cell_text


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
    heads = "".join(f"<th scope='col' class='{column.kind}'>{escape(column.label)}</th>" for column in table.columns)
    rows = "\n".join(_row(table, row, number) for number, row in enumerate(table.rows))
    notes = [f"<li><sup>{escape(key)}</sup> {escape(text)}</li>" for key, text in table.notes]
    notes += [f"<li>{escape(text)}</li>" for text in table.remarks]
    ranked = " class='ranked'" if table.is_ranked else ""
    footer = f"<ul class='notes'>{''.join(notes)}</ul>" if notes else ""
    return (
        f"<div class='wide'><table id='{escape(table.name)}'{ranked}>\n<caption>{escape(table.title)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n{footer}"
    )


def _row(table: Table, row: Row, number: int) -> str:
    if row.kind == "heading":
        text = escape(row.cells[0].text or "")
        heading = f"<th scope='rowgroup' colspan='{len(table.columns)}'>{text}</th>"
        return f"<tr class='heading' data-row='{number}'>{heading}</tr>"
    cells = "".join(_cell(table, row, index) for index in range(len(table.columns)))
    return f"<tr class='{row.kind}' data-row='{number}'>{cells}</tr>"


def _cell(table: Table, row: Row, index: int) -> str:
    text, cell = cell_text(table, row, index), row.cells[index]
    notes = f"<sup class='spread'>{escape(','.join(text.notes))}</sup>" if text.notes else ""
    if table.columns[index].kind == "label":
        return f"<th scope='row' class='label'>{escape(text.value)}{notes}</th>"
    value = escape(text.value)
    if text.rank is not None:
        value = {"best": f"<b>{value}</b>", "second": f"<u>{value}</u>"}[text.rank]
    if text.mark is not None:
        sign = {"better": "▲", "worse": "▼"}[text.mark]
        value = f"<span class='{text.mark}'>{value}<span aria-label='{text.mark}'>{sign}</span></span>"
    if cell.missing is not None:
        value = f"<span class='gap'>{value}</span>"
    spread = f" <span class='spread'>±{escape(text.spread)}</span>" if text.spread else ""
    if row.runs and table.columns[index].kind == "number":
        value = f"<button type='button' class='number'>{value}</button>"
    number = "" if cell.value is None else f" data-value='{cell.value!r}'"
    return f"<td{number}{_hint(table, row, index)}>{value}{spread}{notes}</td>"


def _hint(table: Table, row: Row, index: int) -> str:
    """A tooltip with n, the corrected p, or why there is nothing."""
    cell = row.cells[index]
    parts = []
    if cell.missing is not None:
        parts.append(cell.missing)
    if table.columns[index].kind == "number" and cell.n and row.kind != "detectable":
        parts.append(f"n = {cell.n}")
    if cell.p is not None:
        parts.append(f"p = {cell.p:.2g} (corrected)")
    return f" title='{escape('; '.join(parts))}'" if parts else ""
