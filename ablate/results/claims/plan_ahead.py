"""What a comparison can find with the runs there are, and what it would take to find a difference of a given size."""

from __future__ import annotations

import math

from ablate.catalogs.origins import Origins
from ablate.errors import UsageError
from ablate.results.claims.contrast import Contrast, ContrastReader
from ablate.results.layout.claims import check_claim
from ablate.results.layout.grammar import ClaimError, parse_sum
from ablate.results.long import Results
from ablate.results.statistics.power import (
    examples_needed,
    minimum_detectable_difference,
    power_of,
    seeds_needed,
)
from ablate.results.tables.notes import Notes
from ablate.results.tables.table import Cell, Column, Row, Table

_NEVER = "no number of them alone is enough"


def build_power(
    results: Results,
    sentence: str,
    difference: float,
    *,
    over: tuple[str, ...] = (),
    each: tuple[str, ...] = (),
    alpha: float = 0.05,
    power: float = 0.8,
) -> Table:
    """Return for every value of ``each`` what a sum of columns can find; ``difference`` is in the unit of tables.

    Raises :class:`UsageError` for a sentence that can't be read or names what is not there.
    """
    try:
        claim = parse_sum(sentence)
    except ClaimError as error:
        raise UsageError(f"{sentence}: {error}", hint="e.g. average[algorithm=ppo] - average[algorithm=dpo]") from error
    check_claim(claim, (*over, *each), results.plan, Origins())
    notes = Notes()
    found = ContrastReader(results).read(claim, over, each)
    rows = tuple(_row(item, difference, alpha, power, notes) for item in found)
    remark = (
        f"Two-sided t-test at α = {alpha:g}, not corrected. Detectable: the true difference that is found with"
        f" {power:.0%} power. Seeds: with these examples; examples: with these seeds, so many times those there are."
        " All by the variances that these runs show; those of few seeds are themselves uncertain."
    )
    return Table("power", f"{sentence}: power at {difference:g}", _columns(difference), rows, notes.all(), (remark,))


def _columns(difference: float) -> tuple[Column, ...]:
    def number(key: str, label: str, digits: int = 2, scale: float = 1.0) -> Column:
        return Column(key, label, "number", scale=scale, digits=digits, higher_is_better=None)

    return (
        Column("where", "", "label"),
        Column("seeds", "Seeds", "attribute", digits=0),
        number("estimate", "Estimate"),
        number("stderr", "Standard error"),
        number("detectable", "Detectable"),
        number("power", f"Power at {difference:g} (%)", digits=0, scale=100.0),
        number("seeds_needed", "Seeds needed", digits=0),
        number("examples_needed", "Examples needed (×)", digits=1),
    )


def _row(item: Contrast, difference: float, alpha: float, power: float, notes: Notes) -> Row:
    label = Cell(text=", ".join(f"{axis}={value}" for axis, value in item.where.items()))
    test, parts = item.test, item.parts
    if test is None or parts is None:
        gap = Cell(missing=item.gap, notes=(notes.key(item.gap),))
        return Row("cell", (label, *(gap,) * 7))
    if test.seeds > 1:
        seeds = seeds_needed(difference, parts, alpha=alpha, power=power)
        of_seeds = _needed(notes, _NEVER, seeds)
    else:
        of_seeds = _needed(notes, "one run: what seeds change is not known", None)
    units = examples_needed(difference, parts, test.seeds, alpha=alpha, power=power)
    return Row("cell", (
        label,
        Cell(value=float(test.seeds)),
        *(
            Cell(value=value, n=test.seeds)
            for value in (
                test.estimate,
                test.stderr,
                minimum_detectable_difference(test.stderr, test.df, alpha=alpha, power=power),
                power_of(difference, test.stderr, test.df, alpha=alpha),
            )
        ),
        of_seeds,
        _needed(notes, _NEVER, None if units is None else math.ceil(10 * units / test.units) / 10),
    ))  # fmt: skip


def _needed(notes: Notes, reason: str, value: float | None) -> Cell:
    return Cell(missing=reason, notes=(notes.key(reason),)) if value is None else Cell(value=float(value))
