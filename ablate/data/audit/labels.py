"""Do the labels say what the source's own numbers say: direction, score gaps, agreement between label sources."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ablate.data.audit.findings import (
    Bars,
    Cell,
    Drawing,
    Finding,
    Share,
    Table,
    cell_text,
    histogram,
    not_checked,
    quantile_table,
)
from ablate.data.audit.items import Audited
from ablate.data.pairing import TOLERANCE
from ablate.data.records import Response

MOST_REVERSED = 0.01
MOST_TIES = 0.05
LEAST_ALIKE = 0.9
ENOUGH_PAIRS = 20
MOST_LEVELS = 25
"""Distinct scores up to which a figure has a bar for each."""


class Direction:
    """Pairs whose chosen response has a lower score than the rejected one, by source."""

    def __init__(self) -> None:
        self._pairs: Counter[str] = Counter()
        self._scored: Counter[str] = Counter()
        self._lower: Counter[str] = Counter()
        self._by_score = True
        self._examples: list[str] = []

    def add(self, item: Audited) -> None:
        """Count the record's pairs."""
        ranked = all(response.rank is not None for response in item.responses)
        for pair in item.pairs:
            self._pairs[item.source] += 1
            if pair.margin is None:
                continue
            self._by_score = self._by_score and not ranked
            self._scored[item.source] += 1
            if pair.margin < -TOLERANCE:
                self._lower[item.source] += 1
                if len(self._examples) < 5:
                    self._examples.append(
                        f"row {item.row}: chosen {pair.chosen.score:g}, rejected {pair.rejected.score:g}"
                    )

    def finding(self) -> Finding:
        """Return the shares, in all and by source."""
        check, title = "label-direction", "Label direction"
        rule = (
            f"look: in a source with {ENOUGH_PAIRS} scored pairs or more, the chosen response scores lower in more "
            f"than {100 * MOST_REVERSED:g} % of them"
        )
        scored = self._scored.total()
        if not scored:
            return not_checked(check, title, rule, f"none of {self._pairs.total():,} pairs has scores on both sides")
        found = Share(self._lower.total(), scored)
        shares = {source: Share(self._lower[source], count) for source, count in sorted(self._scored.items())}
        look = tuple(
            f"{source}: chosen scores lower in {share}"
            for source, share in shares.items()
            if share.total >= ENOUGH_PAIRS and share.above(MOST_REVERSED)
        )
        summary = f"chosen scores lower than rejected in {found} scored pairs"
        if self._by_score:
            summary += "; pairs are drawn by these scores, so that the two agree by construction"
        rows = tuple((source, self._pairs[source], share) for source, share in shares.items())
        return Finding(
            check,
            title,
            summary,
            rule,
            look,
            numbers={
                "pairs": self._pairs.total(),
                "chosen_lower": found.as_json(),
                "drawn_by_score": self._by_score,
                "by_source": {source: share.as_json() for source, share in shares.items()},
            },
            tables=(Table("By source", ("source", "pairs", "chosen scores lower"), rows),),
            examples=tuple(self._examples),
        )


class Margins:
    """Score gaps of the pairs, ties among them, and the scores of both sides."""

    def __init__(self) -> None:
        self._margins: list[float] = []
        self._scores: dict[str, list[float]] = {"chosen": [], "rejected": []}
        self._pairs = 0

    def add(self, item: Audited) -> None:
        """Keep the record's margins and scores."""
        for pair in item.pairs:
            self._pairs += 1
            if pair.margin is not None and pair.chosen.score is not None and pair.rejected.score is not None:
                self._margins.append(pair.margin)
                self._scores["chosen"].append(pair.chosen.score)
                self._scores["rejected"].append(pair.rejected.score)

    def finding(self) -> Finding:
        """Return the distribution of the gaps."""
        check, title = "score-gaps", "Score gaps and ties"
        rule = f"look: more than {100 * MOST_TIES:g} % of the scored pairs have equal scores"
        if not self._margins:
            return not_checked(check, title, rule, f"none of {self._pairs:,} pairs has scores on both sides")
        ties = Share(sum(abs(margin) < TOLERANCE for margin in self._margins), len(self._margins))
        table, numbers = quantile_table("Scores, and chosen minus rejected", {**self._scores, "gap": self._margins})
        gap = numbers["gap"]
        summary = (
            f"gap of {ties.total:,} scored pairs (of {self._pairs:,}): mean {gap['mean']:.3g}, "
            f"median {gap['median']:.3g}, {gap['min']:.3g} to {gap['max']:.3g}; equal scores in {ties}"
        )
        look = (f"equal scores in {ties} scored pairs",) if ties.above(MOST_TIES) else ()
        drawn = (
            _distribution("Score gap, chosen minus rejected", "pairs", {"pairs": self._margins}),
            _distribution("Scores", "responses", self._scores),
        )
        return Finding(
            check,
            title,
            summary,
            rule,
            look,
            numbers={"pairs": self._pairs, "scored": ties.total, "ties": ties.as_json(), **numbers},
            tables=(table,),
            drawings=tuple(drawing for drawing in drawn if drawing),
        )


def _distribution(title: str, unit: str, series: Mapping[str, Sequence[float]]) -> Drawing | None:
    """Return a bar for each value where there are few, else a histogram."""
    levels = sorted({value for values in series.values() for value in values})
    if len(levels) > MOST_LEVELS:
        return histogram(title, "score", series)
    counts = {name: Counter(values) for name, values in series.items()}
    heights = {name: tuple(float(count[level]) for level in levels) for name, count in counts.items()}
    return Bars(title, unit, tuple(f"{level:g}" for level in levels), heights)


@dataclass
class _Orders:
    """How two label sources order pairs of responses: the same way, the other way, or with a tie in one or both."""

    alike: int = 0
    opposite: int = 0
    label_ties: int = 0
    other_ties: int = 0
    both_tie: int = 0

    def count(self, label: float, other: float) -> None:
        """Take one pair of responses into account; both are differences in which positive prefers the first."""
        tied = abs(label) < TOLERANCE, abs(other) < TOLERANCE
        if all(tied):
            self.both_tie += 1
        elif tied[0]:
            self.label_ties += 1
        elif tied[1]:
            self.other_ties += 1
        elif (label > 0) == (other > 0):
            self.alike += 1
        else:
            self.opposite += 1

    @property
    def share(self) -> Share:
        """Pairs ordered alike among those that neither source ties."""
        return Share(self.alike, self.alike + self.opposite)

    @property
    def total(self) -> int:
        """Pairs of responses compared."""
        return self.alike + self.opposite + self.label_ties + self.other_ties + self.both_tie

    def cells(self) -> tuple[Cell, ...]:
        """Return the counts and tau-b as the cells of a table."""
        return self.total, self.share, self.label_ties, self.other_ties, self.both_tie, self.tau_b()

    def tau_b(self) -> float | None:
        """Kendall's tau-b over the pairs of all records together; undefined where one source has only ties."""
        untied = self.alike + self.opposite
        below = math.sqrt((untied + self.label_ties) * (untied + self.other_ties))
        return (self.alike - self.opposite) / below if below else None


class Agreement:
    """The label that draws the pairs against every other label of the same responses."""

    def __init__(self) -> None:
        self._orders: dict[tuple[str, str], _Orders] = defaultdict(_Orders)
        self._records = 0

    def add(self, item: Audited) -> None:
        """Compare the orders of every pair of the record's responses."""
        if not item.pairs:
            return
        self._records += 1
        by_rank = all(response.rank is not None for response in item.responses)
        label = "rank" if by_rank else "score"
        for one, other in itertools.combinations(item.responses, 2):
            first, second = dict(_labels(one)), dict(_labels(other))
            if label not in first or label not in second:
                continue
            for name in first.keys() & second.keys() - {label}:
                self._orders[label, name].count(first[label] - second[label], first[name] - second[name])

    def finding(self) -> Finding:
        """Return the share of response pairs ordered alike and tau-b, for each other label."""
        check, title = "label-agreement", "Agreement between label sources"
        rule = (
            f"look: a score, or the mean of the aspects, orders less than {100 * LEAST_ALIKE:g} % of the response "
            "pairs as the label does (pairs tied in either are left out)"
        )
        if not self._orders:
            return not_checked(check, title, rule, f"no second label in any of {self._records:,} records")
        compared = sorted(self._orders.items())
        look = [
            f"{name} and {label} order only {orders.share} response pairs alike"
            for (label, name), orders in compared
            if name in ("score", MEAN) and orders.share.total and not orders.share.above(LEAST_ALIKE)
        ]
        columns = ("label", "other", "response pairs", "alike", "label ties", "other ties", "both tie", "tau-b")
        rows = tuple((label, name, *orders.cells()) for (label, name), orders in compared)
        parts = [f"{name} {orders.share}, tau-b {cell_text(orders.tau_b())}" for (_, name), orders in compared]
        return Finding(
            check,
            title,
            f"untied response pairs ordered as the label does: {'; '.join(parts)}",
            rule,
            tuple(look),
            numbers={
                "compared": [
                    {
                        "label": label,
                        "other": name,
                        **vars(orders),
                        "alike_share": orders.share.value,
                        "tau_b": orders.tau_b(),
                    }
                    for (label, name), orders in compared
                ]
            },
            tables=(Table("Label against other labels", columns, rows),),
        )


MEAN = "mean of aspects"


def _labels(response: Response) -> Iterator[tuple[str, float]]:
    """Yield what is said of a response, larger is better."""
    if response.rank is not None:
        yield "rank", -float(response.rank)
    if response.score is not None:
        yield "score", response.score
    if response.aspects:
        yield MEAN, math.fsum(response.aspects.values()) / len(response.aspects)
        yield from response.aspects.items()
