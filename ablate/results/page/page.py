"""The page: one self-contained HTML file with the report's tables and figures; every value is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from ablate.results.tables.table import Row, Table, cell_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #666; --paper: #fff; --rule: #ccc;
        --better: #1f5fbf; --worse: #b85000; --row: #f5f7fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a0a0a0; --paper: #16181c; --rule: #444; --better: #7db3ff; --worse: #ffab5e;
          --row: #1f2329; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       width: fit-content; max-width: calc(100vw - 4rem); min-width: min(60rem, 100vw - 4rem); }
p, .notes { max-width: 76rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
thead th { border-top: 2px solid var(--ink); border-bottom: 1px solid var(--ink); }
tbody tr:last-child > * { border-bottom: 2px solid var(--ink); }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; font-weight: 400; }
thead th { font-weight: 600; vertical-align: bottom; white-space: normal; }
th.label { text-align: left; }
tr.baseline > * { border-bottom: 1px solid var(--rule); }
tr.delta > * { font-style: italic; border-bottom: 1px solid var(--rule); background: var(--row); }
tr.detectable > * { color: var(--soft); }
tr.heading th { text-align: left; font-weight: 600; padding-top: .7rem; }
td b { font-weight: 700; }
.better { color: var(--better); font-weight: 600; }
.worse { color: var(--worse); font-weight: 600; }
.ranked .better, .ranked .worse { font-weight: 400; }
.spread, .notes, .gap { color: var(--soft); font-size: .8em; }
.notes { margin: 0 0 2rem; padding-left: 1.2rem; }
figure { margin: 1.5rem 0; }
figure img { max-width: min(100%, 60rem); background: #fff; }
figcaption { color: var(--soft); }
"""


def page(
    title: str,
    question: str,
    tables: Sequence[Table],
    figures: Sequence[tuple[str, bytes]],
    facts: Sequence[str] = (),
) -> str:
    """Return the whole page; ``figures`` are (caption, PNG bytes), ``facts`` are sentences put at the end."""
    body = [f"<h1>{escape(title)}</h1>"]
    if question and question != title:
        body.append(f"<p>{escape(question)}</p>")
    body += [table_html(table) for table in tables]
    body += [_figure(caption, data) for caption, data in figures]
    body += [f"<p class='spread'>{escape(fact)}</p>" for fact in facts]
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:;"
        " style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def table_html(table: Table) -> str:
    """Return one table with its footnotes."""
    heads = "".join(f"<th scope='col' class='{column.kind}'>{escape(column.label)}</th>" for column in table.columns)
    rows = "\n".join(_row(table, row) for row in table.rows)
    notes = [f"<li><sup>{escape(key)}</sup> {escape(text)}</li>" for key, text in table.notes]
    notes += [f"<li>{escape(text)}</li>" for text in table.remarks]
    ranked = " class='ranked'" if table.is_ranked else ""
    footer = f"<ul class='notes'>{''.join(notes)}</ul>" if notes else ""
    return (
        f"<div class='wide'><table id='{escape(table.name)}'{ranked}>\n<caption>{escape(table.title)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n{footer}"
    )


def _row(table: Table, row: Row) -> str:
    if row.kind == "heading":
        text = escape(row.cells[0].text or "")
        return f"<tr class='heading'><th scope='rowgroup' colspan='{len(table.columns)}'>{text}</th></tr>"
    cells = "".join(_cell(table, row, index) for index in range(len(table.columns)))
    return f"<tr class='{row.kind}'>{cells}</tr>"


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
        value = f"<span class='{text.mark}'>{value}<span aria-label='significantly {text.mark}'>{sign}</span></span>"
    if cell.missing is not None:
        value = f"<span class='gap'>{value}</span>"
    spread = f" <span class='spread'>±{escape(text.spread)}</span>" if text.spread else ""
    hint = _hint(table, row, index)
    return f"<td{hint}>{value}{spread}{notes}</td>"


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


def _figure(caption: str, data: bytes) -> str:
    encoded = base64.b64encode(data).decode("ascii")
    text = escape(caption)
    return f"<figure><img alt='{text}' src='data:image/png;base64,{encoded}'><figcaption>{text}</figcaption></figure>"
