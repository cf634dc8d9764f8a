"""The page of an audit: one HTML file with its tables and figures; every value is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ablate.data.audit.audit import Audit
from ablate.data.audit.figures import svg
from ablate.data.audit.findings import Finding, Table, cell_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #666; --paper: #fff; --rule: #ccc; --look: #b85000; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a0a0a0; --paper: #16181c; --rule: #444; --look: #ffab5e; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       max-width: 64rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
section { border-top: 1px solid var(--rule); margin-top: 2rem; }
.look { color: var(--look); font-weight: 600; }
.rule, .facts { color: var(--soft); font-size: .85em; }
ul.examples { font-size: .85em; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; background: #fff; }
"""


def page(audit: Audit, facts: Iterable[tuple[str, str]]) -> str:
    """Return the whole page."""
    rows = "".join(
        f"<tr><td>{_verdict(finding)}</td><td><a href='#{finding.check}'>{escape(finding.title)}</a></td>"
        f"<td>{escape(finding.summary)}</td></tr>\n"
        for finding in audit.findings
    )
    known = "".join(f"<li>{escape(name)}: {escape(text)}</li>" for name, text in facts)
    sections = "\n".join(_section(finding) for finding in audit.findings)
    title = escape(f"Audit of {audit.name}")
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"<p>{escape(audit.title)}</p>\n<ul class='facts'>{known}</ul>\n"
        f"<table><tr><th>verdict</th><th>check</th><th>finding</th></tr>\n{rows}</table>\n"
        f"{sections}\n</body>\n</html>\n"
    )


def _verdict(finding: Finding) -> str:
    css = " class='look'" if finding.look else ""
    return f"<span{css}>{finding.verdict}</span>"


def _section(finding: Finding) -> str:
    parts = [f"<h2>{escape(finding.title)}: {_verdict(finding)}</h2>", f"<p>{escape(finding.summary)}.</p>"]
    parts += [f"<p class='look'>{escape(why)}</p>" for why in finding.look]
    parts.append(f"<p class='rule'>{escape(finding.rule)}.</p>")
    parts += [f"<figure>{svg(one, f'{finding.check}-{place}')}</figure>" for place, one in enumerate(finding.drawings)]
    parts += [_table(table) for table in finding.tables]
    if finding.examples:
        items = "".join(f"<li>{escape(example)}</li>" for example in finding.examples)
        parts.append(f"<ul class='examples'>{items}</ul>")
    return f"<section id='{finding.check}'>\n" + "\n".join(parts) + "\n</section>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell_text(cell))}</td>" for cell in row) + "</tr>\n" for row in table.rows
    )
    return f"<div class='wide'><table><caption>{escape(table.title)}</caption>\n<tr>{head}</tr>\n{rows}</table></div>"
