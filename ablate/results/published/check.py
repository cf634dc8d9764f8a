"""Whether a published table agrees with itself: means, differences, and what its caption claims.

Printed numbers are rounded, so that a mean of printed parts may differ from a printed mean without either being wrong:
each printed number is off by half its last decimal at most. What lies within that is told apart from what does not.
Arithmetic is exact (decimals), and nothing is ever corrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from ablate.results.published.declared import Claim, Selection
from ablate.results.published.read import Published, PublishedRow
from ablate.results.tables.table import MINUS

Verdict = Literal["agrees", "rounding", "disagrees"]


@dataclass(frozen=True)
class Finding:
    """One check: what was printed (or claimed), what follows from the parts, and whether rounding explains the gap.

    ``agrees``: equal at the printed decimals. ``rounding``: the parts' unprinted decimals allow it. ``disagrees``:
    they do not.
    """

    kind: Literal["mean", "difference", "claim"]
    what: str
    printed: str
    found: Decimal
    verdict: Verdict


def check(published: Published) -> tuple[Finding, ...]:
    """Return all checks of a table in reading order."""
    return (*_means(published), *_differences(published), *_claims(published))


def _means(published: Published) -> Iterator[Finding]:
    differences = {(item.column, item.value) for item in published.declared.differences}
    for column, about in published.declared.columns.items():
        for row in published.rows if about.mean_of else ():
            parts = [row.numbers[part] for part in about.mean_of]
            known = [part for part in parts if part is not None]
            printed = row.numbers[column]
            # A difference of averages is checked as a difference: its parts carry the rounding of four numbers.
            if printed is None or len(known) < len(parts) or differences & row.labels.items():
                continue
            found = sum(known, Decimal(0)) / len(known)
            reach = sum((published.unit(part) for part in about.mean_of), Decimal(0)) / len(known)
            verdict = _verdict(printed, found, published.unit(column), reach)
            yield Finding("mean", f"{row_name(published, row)}, {about.heading}", str(printed), found, verdict)


def _differences(published: Published) -> Iterator[Finding]:
    for difference in published.declared.differences:
        for row in published.select({difference.column: difference.value}):
            other = {column: value for column, value in row.labels.items() if column != difference.column}
            sides = [
                published.select({**other, difference.column: side}) for side in (difference.first, difference.second)
            ]
            for column, about in published.declared.columns.items():
                numbers = [side[0].numbers[column] if len(side) == 1 else None for side in sides]
                printed, (first, second) = row.numbers[column], numbers
                if printed is None or first is None or second is None:
                    continue
                unit = published.unit(column)
                verdict = _verdict(printed, first - second, unit, 2 * unit)
                what = f"{row_name(published, row)}, {about.heading}"
                yield Finding("difference", what, str(printed), first - second, verdict)


def _claims(published: Published) -> Iterator[Finding]:
    for claim in published.declared.claims:
        found, reach = _statistic(published, claim, claim.of)
        if claim.minus is not None:
            other, more = _statistic(published, claim, claim.minus)
            found, reach = found - other, reach + more
        yield Finding("claim", claim.text, *_judged(claim, found, reach))


def _judged(claim: Claim, found: Decimal, reach: Decimal) -> tuple[str, Decimal, Verdict]:
    if claim.equals is not None:
        wanted = Decimal(str(claim.equals))
        place = Decimal(1).scaleb(min(0, int(wanted.as_tuple().exponent)))
        unit = place if claim.precision is None else Decimal(str(claim.precision))
        return f"{wanted}", found, _verdict(wanted, found, unit, reach)
    bound, sign, word = (claim.above, 1, "above") if claim.above is not None else (claim.below, -1, "below")
    gap = sign * (found - Decimal(str(bound)))
    verdict: Verdict = "agrees" if gap > 0 else "rounding" if gap > -reach / 2 else "disagrees"
    return f"{word} {bound:g}", found, verdict


def _statistic(published: Published, claim: Claim, selection: Selection) -> tuple[Decimal, Decimal]:
    """Return the number over the selected rows, and the width of the interval that its parts' rounding leaves."""
    numbers = [number for row in published.select(selection) if (number := row.numbers[claim.column]) is not None]
    total, unit = sum(numbers, Decimal(0)), published.unit(claim.column)
    # A count is no rounded number.
    width = unit if published.digits(claim.column) else Decimal(0)
    return (total, width * len(numbers)) if claim.statistic == "sum" else (total / max(1, len(numbers)), width)


def _verdict(printed: Decimal, found: Decimal, unit: Decimal, reach: Decimal) -> Verdict:
    """Compare a printed number with one found from parts whose rounding leaves an interval ``reach`` wide."""
    gap = abs(printed - found)
    if gap <= unit / 2:
        return "agrees"
    return "rounding" if gap <= (unit + reach) / 2 else "disagrees"


def row_name(published: Published, row: PublishedRow) -> str:
    """Return how a row is called in sentences: its labels as written in the table."""
    labels = ((about.values, row.labels[column]) for column, about in published.declared.labels.items())
    return " ".join(filter(None, (values.get(value, value) for values, value in labels)))


_REASONS: dict[Verdict, str] = {
    "rounding": "Explained by rounding (parts are printed rounded, the published number is of unrounded ones)",
    "disagrees": "DISAGREEMENT that rounding does not explain",
}


def sentences(findings: Sequence[Finding]) -> list[str]:
    """Say what was checked and list all that does not agree at the printed decimals, with why it may not."""
    texts = []
    for kind, name in (("mean", "averages"), ("difference", "differences"), ("claim", "claims of the caption")):
        own = [finding for finding in findings if finding.kind == kind]
        if not own:
            continue
        agree = sum(finding.verdict == "agrees" for finding in own)
        texts.append(f"Checked: {agree} of {len(own)} {name} follow from the printed numbers.")
        for verdict, reason in _REASONS.items():
            listed = [_in_words(finding) for finding in own if finding.verdict == verdict]
            texts += [f"{reason}: {'; '.join(listed)}."] if listed else []
    return texts


def _in_words(finding: Finding) -> str:
    verb = "claimed" if finding.kind == "claim" else "printed"
    text = f"{finding.what} ({verb} {finding.printed}, the printed numbers give {finding.found:.2f})"
    return text.replace(" -", f" {MINUS}")
