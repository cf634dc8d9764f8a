"""What a check returns: a sentence, a verdict with its reasons, and every number with its denominator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from ablate.data.audit.items import Audited

Verdict = Literal["ok", "look", "not checked"]
Z_95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


@dataclass(frozen=True, slots=True)
class Share:
    """A count of a total; its value is undefined where there is nothing to count."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """The share, between 0 and 1."""
        return self.count / self.total if self.total else None

    def above(self, limit: float) -> bool:
        """Whether the share is defined and larger than ``limit``."""
        return self.value is not None and self.value > limit

    def as_json(self) -> dict[str, Any]:
        """Return count, denominator and share."""
        return {"count": self.count, "of": self.total, "share": self.value}

    def __str__(self) -> str:
        text = f"{self.count:,} of {self.total:,}"
        if self.value is None:
            return text
        percent = f"{100 * self.value:.1f} %"
        if self.count and percent == "0.0 %":
            percent = "under 0.1 %"
        elif self.count < self.total and percent == "100.0 %":
            percent = "over 99.9 %"
        return f"{text} ({percent})"


Cell: TypeAlias = str | int | float | Share | None


def cell_text(cell: Cell) -> str:
    """Return a cell as it is shown; a fraction has three significant digits."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.3g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under named columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the table with a share's count and denominator in its cell."""
        rows = [[cell.as_json() if isinstance(cell, Share) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "columns": list(self.columns), "rows": rows}


@dataclass(frozen=True, slots=True)
class Histogram:
    """Values of one or more series over common bins; ``counts`` has one entry fewer than ``edges``."""

    title: str
    unit: str
    edges: tuple[float, ...]
    counts: Mapping[str, tuple[int, ...]]
    beyond: int = 0
    """Values above the last edge, which the figure does not show."""


@dataclass(frozen=True, slots=True)
class Bars:
    """One bar for each label and series."""

    title: str
    unit: str
    labels: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]


Drawing: TypeAlias = Histogram | Bars


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``look`` holds the reasons to look closer, ``unchecked`` why there was nothing to check.

    ``rule`` says when a finding becomes ``look``; ``numbers`` go to ``audit.json`` as they are.
    """

    check: str
    title: str
    summary: str
    rule: str
    look: tuple[str, ...] = ()
    unchecked: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """``look`` where there is a reason to, ``not checked`` where nothing could be said, else ``ok``."""
        if self.unchecked is not None:
            return "not checked"
        return "look" if self.look else "ok"

    def as_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {
            "check": self.check,
            "title": self.title,
            "verdict": self.verdict,
            "summary": self.summary,
            "rule": self.rule,
            "look": list(self.look),
            "not_checked": self.unchecked,
            "numbers": dict(self.numbers),
            "tables": [table.as_json() for table in self.tables],
            "examples": list(self.examples),
        }


class Check(Protocol):
    """Reads every record once and then says what it found."""

    def add(self, item: Audited) -> None:
        """Take one record into account."""

    def finding(self) -> Finding:
        """Return what all records showed."""


def not_checked(check: str, title: str, rule: str, why: str) -> Finding:
    """Return the finding of a check that had nothing to look at."""
    return Finding(check, title, summary=why, rule=rule, unchecked=why)


def wilson(count: int, total: int, z: float = Z_95) -> tuple[float, float] | None:
    """Return Wilson's score interval of a proportion (95 % by default), None where there is nothing to count."""
    if total == 0:
        return None
    share, z2 = count / total, z * z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def histogram(title: str, unit: str, series: Mapping[str, Sequence[float]], bins: int = 40) -> Histogram | None:
    """Bin several series alike, from the smallest value to the 99th percentile of all; None without a value."""
    filled = {name: np.asarray(values, dtype=np.float64) for name, values in series.items() if len(values)}
    if not filled:
        return None
    every = np.concatenate(list(filled.values()))
    low, high = float(every.min()), float(np.percentile(every, 99))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = {name: tuple(int(count) for count in np.histogram(values, edges)[0]) for name, values in filled.items()}
    return Histogram(title, unit, tuple(edges.tolist()), counts, int((every > edges[-1]).sum()))


def quantiles(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return n, mean and the usual quantiles (linear interpolation), null without values."""
    names = ("min", "p5", "p25", "median", "p75", "p95", "max")
    if not len(values):
        return {"n": 0, "mean": None, **dict.fromkeys(names)}
    array = np.asarray(values, dtype=np.float64)
    found = np.percentile(array, (0, 5, 25, 50, 75, 95, 100)).tolist()
    return {"n": len(array), "mean": float(array.mean()), **dict(zip(names, found, strict=True))}


def quantile_table(title: str, series: Mapping[str, Sequence[float]]) -> tuple[Table, dict[str, Any]]:
    """Return the quantiles of several series as a table and as JSON values."""
    numbers = {name: quantiles(values) for name, values in series.items()}
    columns = ("n", "mean", "min", "p5", "p25", "median", "p75", "p95", "max")
    rows = tuple((name, *(found[column] for column in columns)) for name, found in numbers.items())
    return Table(title, ("", *columns), rows), numbers
