"""Tables for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ablate.results.tables.grid import Entry, Grid, Line, printed
from ablate.results.tables.table import Row, Table

_ROOM = 180
"""Characters of a line that a table is folded to, as far as words allow."""
_LABEL = 40
_STYLES = {"better": "dodger_blue1", "worse": "dark_orange"}
_RANK_STYLES = {"best": "bold", "second": "underline"}
_ROW_STYLES = {"delta": "italic", "published": "italic dim", "detectable": "dim", "baseline": "bold"}


def terminal(table: Table) -> RenderableType:
    """Return the table for a rich console, its footnotes below."""
    grid = printed(table)
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    levels = [[head.text.plain() for head in line for _ in range(head.width)] for line in grid.header]
    headings = ["\n".join(texts) for texts in zip(*levels, strict=True)]
    widths = _widths(grid, headings, table.is_ranked)
    for kind, heading, width in zip(grid.kinds, headings, widths, strict=True):
        rich.add_column(Text(heading), justify="left" if kind == "label" else "right", width=width)
    previous: Line | None = None
    for line in grid.lines:
        if previous is not None and _rule_between(previous, line):
            rich.add_section()
        previous = line
        if line.kind == "heading":
            rich.add_row(Text(line.heading, style="bold underline"))
        else:
            rich.add_row(*(_rich_cell(entry, table.is_ranked) for entry in line.entries))
    notes = [Text(f"[{key}] {text}", style="dim") for key, text in table.notes]
    remarks = [Text(text, style="dim") for text in table.remarks]
    return Group(Text(table.title, style="bold"), rich, *notes, *remarks)


def _widths(grid: Grid, headings: Sequence[str], is_ranked: bool) -> list[int]:
    """Return columns' widths, at which no number loses a digit; where they are too wide, words are wrapped."""
    entries = [line.entries for line in grid.lines if line.kind != "heading"]
    cells = [[_rich_cell(entry, is_ranked).cell_len for entry in column] for column in zip(*entries, strict=True)]
    longest = [max(lengths, default=0) for lengths in cells or [[] for _ in headings]]
    whole = [max(cell, *map(cell_len, text.split("\n"))) for cell, text in zip(longest, headings, strict=True)]
    if sum(whole) + 3 * len(whole) <= _ROOM:
        return whole
    words = [max(map(cell_len, text.split()), default=0) for text in headings]
    numbers = [kind != "label" for kind in grid.kinds]
    return [
        max(cell if is_number else min(cell, _LABEL), word)
        for cell, word, is_number in zip(longest, words, numbers, strict=True)
    ]


def _rule_between(previous: Line, line: Line) -> bool:
    changed = {previous.kind, line.kind}
    return line.kind in ("heading", "detectable") or (len(changed) == 2 and changed & {"baseline", "delta"} != set())


def _rich_cell(entry: Entry, is_ranked: bool) -> Text:
    cell = entry.text
    weight = _RANK_STYLES[cell.rank] if cell.rank else "bold" if cell.mark and not is_ranked else ""
    # Where bold is the best of a column, a row that is bold as a whole would hide it.
    row = "" if is_ranked and entry.kind == "baseline" else _ROW_STYLES.get(entry.kind, "")
    text = Text(style=row)
    text.append(cell.value, style=f"{_STYLES.get(cell.mark or '', '')} {weight}".strip())
    if cell.mark is not None:
        text.append({"better": "▲", "worse": "▼"}[cell.mark], style=f"{_STYLES[cell.mark]} {weight}".strip())
    if cell.spread:
        text.append(f" ±{cell.spread}", style="dim")
    if cell.notes:
        text.append(f" [{','.join(cell.notes)}]", style="dim")
    return text


_MARKDOWN_SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_|[]"} | {"<": "&lt;", ">": "&gt;", "\n": " "}
)


def escape_markdown(text: str) -> str:
    """Escape what Markdown (and the HTML in it) would read as markup."""
    return text.translate(_MARKDOWN_SPECIAL)


def markdown(table: Table) -> str:
    """Return the table as GitHub-flavoured Markdown; ▲ and ▼ stand for the colours."""
    lines = [f"### {escape_markdown(table.title)}", ""] if table.title else []
    grid = printed(table)
    lines.append("| " + " | ".join(escape_markdown(text) for text in grid.flat_header()) + " |")
    lines.append("|" + "|".join(":---" if kind == "label" else "---:" for kind in grid.kinds) + "|")
    for line in grid.lines:
        if line.kind == "heading":
            cells = [f"**{escape_markdown(line.heading)}**", *[""] * (grid.width - 1)]
        else:
            cells = [_markdown_cell(entry, table.is_ranked) for entry in line.entries]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"- <sup>{key}</sup> {escape_markdown(text)}" for key, text in table.notes]
    lines += [f"- {escape_markdown(text)}" for text in table.remarks]
    return "\n".join(lines) + "\n"


def _markdown_cell(entry: Entry, is_ranked: bool) -> str:
    cell = entry.text
    value = escape_markdown(cell.value)
    if cell.rank == "second":
        value = f"<u>{value}</u>"
    elif cell.rank == "best" or (cell.mark is not None and not is_ranked):
        value = f"**{value}**"
    elif entry.kind in ("delta", "published") and value:
        value = f"*{value}*"
    if cell.mark is not None:
        value += {"better": " ▲", "worse": " ▼"}[cell.mark]
    spread = f" ± {cell.spread}" if cell.spread else ""
    return f"{value}{spread}" + (f" <sup>{','.join(cell.notes)}</sup>" if cell.notes else "")


_CSV_DETAILS = ("sd", "n", "p", "mark", "rank")


def to_csv(table: Table) -> str:
    """Return the table as CSV with unrounded numbers as they are displayed in scale (percent stays percent).

    Column ``row`` is the kind of row. Every number column is followed by ``<key>_sd``, ``_n`` (distinct runs), ``_p``
    (corrected), ``_mark`` and ``_rank``; a gap is an empty field, its reason is in the last column, ``missing``.
    """
    header = ["row"]
    for column in table.columns:
        header.append(column.key)
        if column.kind == "number":
            header += [f"{column.key}_{detail}" for detail in _CSV_DETAILS]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*header, "missing"])
    for row in table.rows:
        if row.kind != "heading":
            writer.writerow(_csv_row(table, row))
    return buffer.getvalue()


def _csv_row(table: Table, row: Row) -> list[str]:
    fields: list[str] = [row.kind]
    gaps = []
    for column, cell in zip(table.columns, row.cells, strict=True):
        value = cell.text if cell.value is None else _number(cell.value * column.scale)
        fields.append(value or "")
        if column.kind == "number":
            sd = "" if cell.sd is None else _number(cell.sd * column.scale)
            fields += [
                sd,
                str(cell.n or ""),
                "" if cell.p is None else _number(cell.p),
                cell.mark or "",
                cell.rank or "",
            ]
        if cell.missing is not None:
            gaps.append(f"{column.key}: {cell.missing}")
    return [*fields, "; ".join(gaps)]


def _number(value: float) -> str:
    return f"{value:.10g}"
