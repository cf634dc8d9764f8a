"""An audit as files: Markdown, one HTML page that needs nothing else, and JSON with every number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.context import write_json, write_text
from ablate.data.audit.audit import Audit
from ablate.data.audit.findings import Finding, Table, cell_text
from ablate.data.audit.page import page

FILES = ("audit.json", "audit.md", "audit.html")


def write(audit: Audit, folder: Path) -> list[Path]:
    """Write the three files into ``folder`` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, text, html = (folder / name for name in FILES)
    rendered = page(audit, facts(audit))
    write_json(numbers, audit.as_json())
    write_text(text, markdown(audit))
    write_text(html, rendered)
    return [numbers, text, html]


def facts(audit: Audit) -> Iterator[tuple[str, str]]:
    """Yield what is known of the set, as words."""
    for name, value in audit.facts.items():
        if value not in (None, {}, []):
            yield name.replace("_", " "), _words(value)


def markdown(audit: Audit) -> str:
    """Return the audit as Markdown."""
    lines = [f"# Audit of {audit.name}", "", audit.title, "", *_facts_lines(audit), "", *_summary_lines(audit)]
    for finding in audit.findings:
        lines += ["", *_finding_lines(finding)]
    return "\n".join(lines) + "\n"


def _facts_lines(audit: Audit) -> list[str]:
    return [f"- {name}: {text}" for name, text in facts(audit)]


def _summary_lines(audit: Audit) -> list[str]:
    rows = [f"| {finding.verdict} | {finding.title} | {_cell(finding.summary)} |" for finding in audit.findings]
    return ["| verdict | check | finding |", "|---|---|---|", *rows]


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"## {finding.title}: {finding.verdict}", "", f"{finding.summary}.", ""]
    lines += [f"- **look:** {why}" for why in finding.look]
    lines += [*([""] if finding.look else []), f"*{finding.rule}.*"]
    for table in finding.tables:
        lines += ["", *_table_lines(table)]
    if finding.examples:
        lines += ["", "Examples:", "", *(f"    {example}" for example in finding.examples)]
    return lines


def _table_lines(table: Table) -> list[str]:
    head = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    rows = ["| " + " | ".join(_cell(cell_text(cell)) for cell in row) + " |" for row in table.rows]
    return [f"{table.title}:", "", *head, *rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(item)}" for name, item in value.items() if item is not None)
    return ", ".join(map(_words, value)) if isinstance(value, list) else str(value)
