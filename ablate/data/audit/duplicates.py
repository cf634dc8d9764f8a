"""Prompts and pairs that occur more than once: exactly, and nearly (see :mod:`ablate.data.audit.similar`)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ablate.data.audit.findings import Finding, Share, Table, not_checked
from ablate.data.audit.items import Audited, text_of
from ablate.data.audit.similar import METHOD, Near, Similar
from ablate.data.audit.texts import dialogue, excerpt
from ablate.data.pairing import Pair
from ablate.data.records import digest

MOST_PROMPTS = 0.05
MOST_PAIRS = 0.01
_MANY = 5  # examples


class PromptDuplicates:
    """Prompts that occur in several records."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._similar = Similar()
        self._most: dict[str, str] = {}

    def add(self, item: Audited) -> None:
        """Take the record's prompt."""
        key = digest(item.prompt)
        self._seen[key] += 1
        if self._seen[key] == 1:
            self._similar.add(_shown(item), dialogue(item.prompt))
        elif self._seen[key] == 2:
            self._most[key] = _shown(item)

    def finding(self) -> Finding:
        """Return exact and near duplicates with their denominators."""
        check, title = "prompt-duplicates", "Duplicate prompts"
        rule = (
            f"look: more than {100 * MOST_PROMPTS:g} % of the records repeat an earlier prompt, or more than "
            f"{100 * MOST_PROMPTS:g} % of the distinct prompts have a near-duplicate"
        )
        repeats = Share(self._seen.total() - len(self._seen), self._seen.total())
        near = self._similar.near()
        look = [f"{repeats} records repeat an earlier prompt"] if repeats.above(MOST_PROMPTS) else []
        look += [f"{near.texts} distinct prompts have a near-duplicate"] if near.texts.above(MOST_PROMPTS) else []
        summary = (
            f"{repeats} records repeat an earlier prompt exactly; {near.texts} distinct prompts have a near-duplicate "
            f"({near.groups:,} groups)"
        )
        often = sorted(self._most, key=lambda key: (-self._seen[key], key))[:_MANY]
        table = Table(
            "Most repeated prompts", ("times", "prompt"), tuple((self._seen[key], self._most[key]) for key in often)
        )
        numbers = {**_numbers(repeats, near), "distinct": len(self._seen)}
        tables = (table,) if often else ()
        return Finding(check, title, summary, rule, tuple(look), numbers=numbers, tables=tables, examples=near.examples)


class PairDuplicates:
    """Pairs that occur several times, pairs whose preference is contradicted by another, and records nearly alike."""

    def __init__(self) -> None:
        self._directions: dict[str, Counter[str]] = {}
        self._similar = Similar()
        self._contradicted: list[str] = []

    def add(self, item: Audited) -> None:
        """Take the record's pairs."""
        if item.pairs and sum([self._count(item, pair) for pair in item.pairs]):
            self._similar.add(_shown(item), dialogue(item.prompt), "\n\n".join(map(text_of, item.responses)))

    def _count(self, item: Audited, pair: Pair) -> bool:
        """Count one pair; returns whether its two responses to this prompt are new."""
        sides = [digest(side.messages) for side in (pair.chosen, pair.rejected)]
        directions = self._directions.setdefault(digest(item.prompt, sorted(sides)), Counter())
        new = not directions
        if not new and sides[0] not in directions:
            self._contradicted.append(_shown(item))
        directions[sides[0]] += 1
        return new

    def finding(self) -> Finding:
        """Return exact, contradicting and near duplicates with their denominators."""
        check, title = "pair-duplicates", "Duplicate pairs"
        rule = (
            f"look: more than {100 * MOST_PAIRS:g} % of the pairs repeat an earlier one, more than "
            f"{100 * MOST_PROMPTS:g} % of the distinct records have a near-duplicate, or a pair is there both ways"
        )
        total = sum(count.total() for count in self._directions.values())
        if not total:
            return not_checked(check, title, rule, "the set has no pairs")
        repeats = Share(sum(count.total() - len(count) for count in self._directions.values()), total)
        both = Share(sum(len(count) > 1 for count in self._directions.values()), len(self._directions))
        near = self._similar.near()
        look = [f"{repeats} pairs repeat an earlier one"] if repeats.above(MOST_PAIRS) else []
        look += [f"{both} pairs of responses are there in both directions"] if both.count else []
        look += [f"{near.texts} distinct records have a near-duplicate"] if near.texts.above(MOST_PROMPTS) else []
        summary = (
            f"{repeats} pairs repeat an earlier one exactly; both directions of {both} distinct pairs; {near.texts} "
            f"distinct records have a near-duplicate, prompt and responses ({near.groups:,} groups)"
        )
        numbers = {**_numbers(repeats, near), "both_directions": both.as_json()}
        examples = (*(f"both directions: {shown}" for shown in self._contradicted[:_MANY]), *near.examples)
        return Finding(check, title, summary, rule, tuple(look), numbers=numbers, examples=examples)


def _numbers(repeats: Share, near: Near) -> dict[str, Any]:
    return {"exact": repeats.as_json(), "near": near.texts.as_json(), "near_groups": near.groups, "method": METHOD}


def _shown(item: Audited) -> str:
    return f"row {item.row} “{excerpt(dialogue(item.prompt), 100)}”"
