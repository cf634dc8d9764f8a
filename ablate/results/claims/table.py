"""The claims of a report as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.results.claims.verdicts import ALPHA, Finding, judge_claims
from ablate.results.layout.claims import ClaimLayout
from ablate.results.long import Results
from ablate.results.tables.notes import Notes
from ablate.results.tables.table import Cell, Column, Row, Table, p_cell

NAME = "claims"

_COLUMNS = (
    Column("claim", "Claim", "label"),
    Column("verdict", "Verdict", "label"),
    *(
        Column(key, label, "number", unit="difference", digits=2, higher_is_better=None)
        for key, label in (("estimate", "Estimate"), ("low", "from"), ("high", "to"))
    ),
    Column("p", "p", "number", unit="p", digits=4, higher_is_better=None),
    Column("seeds", "Seeds", "attribute", digits=0),
)


def build_claims(results: Results, claims: Sequence[ClaimLayout]) -> Table:
    """Return a row for every claim, and for every value of the axes that it is made for each of."""
    notes = Notes()
    findings = judge_claims(results, claims)
    rows = tuple(_row(finding, notes) for finding in findings)
    tests = sum(finding.p is not None for finding in findings)
    remarks = (
        "Estimates in the unit of the tables (points for proportions), with their 95 % intervals, which are not"
        f" corrected; p two-sided, Holm-corrected over {tests} tests. Supported: the claim's opposite is rejected at"
        f" α = {ALPHA:g}; not supported: the claim is; undecided: neither.",
        "Paired by seed and example, both random; the variance between seeds is the larger of the claim's own and that"
        " of the values it is averaged over or made for. With one seed the verdict is about these runs.",
    )
    return Table(NAME, "Claims", _COLUMNS, rows, notes.all(), remarks)


def _row(finding: Finding, notes: Notes) -> Row:
    claim, contrast = finding.claim, finding.contrast
    where = ", ".join(f"{axis}={value}" for axis, value in contrast.where.items())
    sentence = notes.key(claim.claim + (f", mean over {', '.join(claim.over)}" if claim.over else ""))
    texts = [finding.needs] if finding.needs else []
    if contrast.left_out:
        texts.append(f"without {', '.join(contrast.left_out)}: not all columns of the claim are there")
    seeds = contrast.test.seeds if contrast.test is not None else 0
    gap = Cell(missing=finding.needs)
    cells = [
        Cell(text=(claim.title or claim.name.replace("_", " ")) + (f": {where}" if where else ""), notes=(sentence,)),
        Cell(text=finding.verdict, notes=tuple(notes.key(text) for text in texts)),
        gap if contrast.value is None else Cell(value=contrast.value, n=seeds),
        *(gap, gap, gap, gap),
    ]
    if finding.interval is not None and finding.p is not None:
        interval = (finding.interval.estimate, finding.interval.low, finding.interval.high)
        cells[2:] = [*(Cell(value=value, n=seeds) for value in interval), p_cell(finding.p, seeds), Cell(value=seeds)]
    return Row("cell", tuple(cells))
