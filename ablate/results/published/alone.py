"""Published tables alone, in every format of a report; no experiment is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ablate.context import write_text
from ablate.results.folder import keep_only, written_before
from ablate.results.page.page import page
from ablate.results.published.read import read_published
from ablate.results.published.render import published_table
from ablate.results.report import Report, report_markdown, write_table


def render_published(names: Sequence[str], out: Path) -> Report:
    """Write report.md, report.html and tables/*.{tex,csv} of published tables to ``out``.

    Raises :class:`ablate.errors.UnknownNameError` for a name that is no published table, SpecError and DataError for
    bad files, and what :func:`ablate.results.report.render_report` does for the folder.
    """
    tables = tuple(published_table(read_published(name)) for name in dict.fromkeys(names))
    owner = "published tables"
    before = written_before(out, owner)
    report = Report(owner, "Published tables", "", tables, ())
    out.mkdir(parents=True, exist_ok=True)
    files = [file for table in tables for file in write_table(table, out / "tables")]
    files.append(write_text(out / "report.html", page(report.title, "", tables, ())))
    files.append(write_text(out / "report.md", report_markdown(report)))
    keep_only(out, owner, files, before)
    return Report(owner, report.title, "", tables, (), tuple(files))
