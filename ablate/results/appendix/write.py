"""The appendix as Markdown, as LaTeX to input, and as a document that compiles as it is."""

from __future__ import annotations

from pathlib import Path

from ablate.context import write_text
from ablate.results.appendix.compute import compute_table
from ablate.results.appendix.hyperparameters import hyperparameter_tables
from ablate.results.appendix.protocols import protocol_table
from ablate.results.appendix.software import seed_table, software_table
from ablate.results.appendix.stages import read_stages
from ablate.results.long import Results
from ablate.results.tables.data_table import build_data_table
from ablate.results.tables.latex import escape_latex, fragment
from ablate.results.tables.table import Table
from ablate.results.tables.text import escape_markdown, markdown

_PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[a3paper,landscape,margin=2cm]{geometry}
\usepackage{booktabs}
\usepackage{xcolor}
\begin{document}
"""


def build_appendix(results: Results) -> tuple[tuple[str, tuple[Table, ...]], ...]:
    """Return the appendix's sections, each a heading with its tables; one without rows has none."""
    stages = read_stages(results)
    data = (build_data_table(results),) if results.plan.get("data") else ()
    sections = (
        ("Hyperparameters", tuple(hyperparameter_tables(results, stages))),
        ("Data", data),
        ("Evaluation protocols", (protocol_table(results),)),
        ("Compute", (compute_table(results, stages),)),
        ("Software", (software_table(stages),)),
        ("Seeds", (seed_table(stages),)),
    )
    full = ((heading, tuple(table for table in tables if table.rows)) for heading, tables in sections)
    return tuple((heading, tables) for heading, tables in full if tables)


def write_appendix(results: Results, out: Path) -> list[Path]:
    """Write appendix.md, appendix.tex and appendix.standalone.tex to ``out``; returns their paths."""
    sections = build_appendix(results)
    heading = f"Appendix of {results.experiment}"
    tex = "\n".join(
        "\n".join((rf"\subsection*{{{escape_latex(title)}}}", *(fragment(table, floats=False) for table in tables)))
        for title, tables in sections
    )
    md = [f"# {escape_markdown(heading)}\n"]
    for title, tables in sections:
        md += [f"## {escape_markdown(title)}\n", *(markdown(table) for table in tables)]
    out.mkdir(parents=True, exist_ok=True)
    document = rf"{_PREAMBLE}\section*{{{escape_latex(heading)}}}" + f"\n{tex}\n" + "\\end{document}\n"
    return [
        write_text(out / "appendix.md", "\n".join(md)),
        write_text(out / "appendix.tex", tex),
        write_text(out / "appendix.standalone.tex", document),
    ]
