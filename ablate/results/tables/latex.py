"""Tables as LaTeX: a fragment for a paper (booktabs, xcolor) and a document that compiles as it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from ablate.results.tables.grid import Entry, Grid, Head, Line, printed
from ablate.results.tables.table import CellText, Table

BETTER, WORSE = "1F5FBF", "C65A00"
"""Blue and orange of about equal lightness, told apart in the common kinds of colour blindness."""

_MARKS = {"better": r"$^\uparrow$", "worse": r"$^\downarrow$"}
"""Beside the colour, so that a mark survives print in grey."""

_SIUNITX = "mode=text,reset-text-series=false,retain-explicit-plus"
"""Numbers of S columns take the weight and colour of their cell (siunitx 3)."""

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "\n": " ", "\t": " ",
    "−": r"$-$", "–": r"--", "—": r"---", "±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$", "α": r"$\alpha$",
    "β": r"$\beta$", "γ": r"$\gamma$", "λ": r"$\lambda$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\rightarrow$",
    "η": r"$\eta$", "τ": r"$\tau$", "ω": r"$\omega$", "²": r"$^2$",
    "▲": r"$\uparrow$", "▼": r"$\downarrow$", "…": r"\dots{}", "’": "'", "‘": "`", "“": "``", "”": "''",
    "\u00a0": "~", "\u202f": r"\,",
}  # fmt: skip

# Combining marks (grave, acute, circumflex, tilde, macron, breve, dot, diaeresis, ring, double acute, caron, cedilla)
# that every font encoding can put on a letter.
_ACCENTS = {"0300", "0301", "0302", "0303", "0304", "0306", "0307", "0308", "030A", "030B", "030C", "0327"}


def escape_latex(text: str) -> str:
    """Escape LaTeX's special characters; what pdfLaTeX has no glyph for becomes its code point."""
    return "".join(_escape_character(character) for character in text)


def _escape_character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character if character.isprintable() else ""
    letter, _, accent = unicodedata.decomposition(character).partition(" ")
    is_accented = accent in _ACCENTS and chr(int(letter, 16)).isascii()
    return character if is_accented or character in "ßæøåœłÆØÅŒŁ" else f"[U+{ord(character):04X}]"


_UNBROKEN = (r"\noindent", r"\begin{minipage}{\linewidth}", r"\centering")
_CAPTIONS_OF_TABLES = r"\expandafter\def\csname @captype\endcsname{table}"


def fragment(table: Table, *, floats: bool = True) -> str:
    r"""Return a ``table`` environment for a document that loads booktabs and xcolor (and siunitx, if the table asks).

    Colours are provided, so that a document may define ``ablatebetter`` and ``ablateworse`` its own way. A table that
    does not float stands where it is written, below its heading.
    """
    grid = printed(table)
    align = "".join(_alignment(table, grid, index) for index in range(grid.width))
    lines = [
        r"\providecolor{ablatebetter}{HTML}{" + BETTER + "}",
        r"\providecolor{ablateworse}{HTML}{" + WORSE + "}",
        *((r"\begin{table}[htbp]", r"\centering") if floats else (*_UNBROKEN, _CAPTIONS_OF_TABLES)),
        r"\setlength{\belowcaptionskip}{6pt}",
        r"\caption{" + escape_latex(table.title) + "}",
        r"\label{tab:" + table.name + "}",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        r"\sbox0{\begin{tabular}{@{}" + align + "@{}}",
        r"\toprule",
        *(text for heads in grid.header[:-1] for text in _shared_headings(heads)),
        " & ".join(_heading(table, grid, index) for index in range(grid.width)) + r" \\",
        r"\midrule",
    ]
    previous: Line | None = None
    for line in grid.lines:
        if previous is not None and _rule_between(previous, line):
            lines.append(r"\addlinespace" if line.kind == "delta" else r"\midrule")
        previous = line
        lines.append(_line(table, grid, line))
    lines += [
        r"\bottomrule",
        r"\end{tabular}}",
        *_boxed(table),
        r"\end{table}" if floats else r"\end{minipage}\par\bigskip",
    ]
    return "\n".join(lines) + "\n"


def standalone(table: Table) -> str:
    """Return a document with this table alone, on paper that is wide enough for it."""
    grid = printed(table)
    widest = sum(_column_width(grid, index) for index in range(grid.width))
    width = max(14.0, 3.0 + 0.17 * widest + 0.3 * grid.width)
    height = 5.0 + 0.5 * (len(grid.header) + len(grid.lines)) + 0.45 * (len(table.notes) + 3 * len(table.remarks))
    return "\n".join((
        r"\documentclass[10pt]{article}",
        r"\usepackage[utf8]{inputenc}",
        rf"\usepackage[paperwidth={width:.1f}cm,paperheight={height:.1f}cm,margin=1cm]{{geometry}}",
        r"\usepackage{booktabs}",
        r"\usepackage{xcolor}",
        *([r"\usepackage{siunitx}"] if table.siunitx else []),
        r"\pagestyle{empty}",
        r"\begin{document}",
        fragment(table) + r"\end{document}",
    )) + "\n"  # fmt: skip


def _column_width(grid: Grid, index: int) -> int:
    texts = [entry.text.plain() for entry in grid.column(index)]
    return max(len(text) for text in (grid.header[-1][index].text.plain(), *texts))


def _shared_headings(heads: Sequence[Head]) -> list[str]:
    """A line of headings over several columns, and the rules below them."""
    texts, rules = [], []
    first = 1
    for index, head in enumerate(heads):
        align = "l" if index == 0 else "c"
        text = _cell(head.text)
        texts.append(rf"\multicolumn{{{head.width}}}{{{align}}}{{{text}}}" if text else " & ".join([""] * head.width))
        if text and index > 0:
            rules.append(rf"\cmidrule(lr){{{first}-{first + head.width - 1}}}")
        first += head.width
    return [" & ".join(texts) + r" \\", *rules]


def _heading(table: Table, grid: Grid, index: int) -> str:
    text = _cell(grid.header[-1][index].text)
    return f"{{{text}}}" if _is_aligned(table, grid, index) else text


def _is_aligned(table: Table, grid: Grid, index: int) -> bool:
    return table.siunitx and grid.kinds[index] != "label"


def _alignment(table: Table, grid: Grid, index: int) -> str:
    """The column's letter; with siunitx an S with the places that its numbers need and room for what follows them."""
    if not _is_aligned(table, grid, index):
        return "l" if grid.kinds[index] == "label" else "r"
    texts = [entry.text for entry in grid.column(index) if entry.is_number]
    numbers = [_plain_number(text) for text in texts]
    whole = max((len(number.lstrip("+-").partition(".")[0]) for number in numbers), default=1)
    places = max((len(number.partition(".")[2]) for number in numbers), default=0)
    sign = "+" if any(number[0] in "+-" for number in numbers) else ""
    after = max((_after(text) for text in texts), key=len, default="")
    room = f",table-space-text-post={{{after}}}" if after else ""
    return f"S[{_SIUNITX},table-format={sign}{whole}{f'.{places}' if places else ''}{room}]"


def _plain_number(cell: CellText) -> str:
    """A number as siunitx reads it: it groups digits itself."""
    return cell.value.replace("−", "-").replace("\u202f", "").replace("\u00a0", "").replace(" ", "")


def _rule_between(previous: Line, line: Line) -> bool:
    if line.kind == "heading":
        return previous.kind != "heading"
    return line.kind != previous.kind and bool({line.kind, previous.kind} & {"baseline", "delta", "detectable"})


def _line(table: Table, grid: Grid, line: Line) -> str:
    if line.kind == "heading":
        return rf"\multicolumn{{{grid.width}}}{{@{{}}l}}{{\textit{{{escape_latex(line.heading)}}}}} \\"
    cells = [_in_column(entry, _is_aligned(table, grid, index)) for index, entry in enumerate(line.entries)]
    return " & ".join(cells) + r" \\"


def _in_column(entry: Entry, is_aligned: bool) -> str:
    cell = entry.text
    style = {"detectable": r"\textit{%s}", "published": r"\textit{%s}"}.get(entry.kind, "%s")
    if is_aligned and entry.is_number and cell.rank != "second":
        before = rf"\color{{ablate{cell.mark}}}" if cell.mark else ""
        before += r"\bfseries " if cell.rank == "best" else ""
        after = _after(cell)
        return before + _plain_number(cell) + (f"{{{after}}}" if after else "")
    text = _cell(cell)
    text = style % text if text else ""
    return f"{{{text}}}" if is_aligned and text else text


def _after(cell: CellText) -> str:
    """What stands behind a number: the sign of its mark, its spread, its footnotes."""
    mark = _MARKS[cell.mark] if cell.mark else ""
    spread = rf"{{\tiny$\pm${escape_latex(cell.spread)}}}" if cell.spread else ""
    notes = rf"\textsuperscript{{{','.join(cell.notes)}}}" if cell.notes else ""
    plain = r"\normalcolor\mdseries " if (cell.mark or cell.rank) and (spread or notes) else ""
    return mark + plain + spread + notes


def _cell(cell: CellText) -> str:
    value = escape_latex(cell.value)
    if cell.rank is not None:
        value = rf"\textbf{{{value}}}" if cell.rank == "best" else rf"\underline{{{value}}}"
    if cell.mark is not None:
        value = rf"\textcolor{{ablate{cell.mark}}}{{{value}{_MARKS[cell.mark]}}}"
    return value + _after(replace(cell, mark=None, rank=None))


def _boxed(table: Table) -> list[str]:
    """The table in box 0 with its notes below it: both begin at the same edge, notes of a narrow table run wider."""
    notes = [rf"\textsuperscript{{{key}}} {escape_latex(text)}" for key, text in table.notes]
    texts = [*notes, *(escape_latex(text) for text in table.remarks)]
    if not texts:
        return [r"\usebox0"]
    return [
        r"\dimen0=\wd0",
        r"\ifdim\dimen0<0.7\linewidth\dimen0=0.7\linewidth\fi",
        r"\begin{minipage}{\dimen0}\raggedright",
        r"\usebox0\par\smallskip",
        r"\footnotesize " + r"\\".join(texts),
        r"\end{minipage}",
    ]
