"""Languages of prompts and responses: a guess by py3langid on a seeded sample, beside what the source says."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

import py3langid

from ablate.data.audit.findings import Bars, Cell, Finding, Share, Table
from ablate.data.audit.items import Audited, text_of
from ablate.data.audit.texts import excerpt
from ablate.data.records import draw

SAMPLE = 2000  # records
SEED = 0
LEAST_CHARACTERS = 60
MOST_OTHERS = 0.05
_MOST_ROWS = 8
_MANY = 3  # examples of each kind


class Languages:
    """The last user turn and the first response of a sample of records, drawn by content."""

    def __init__(self, cap: int = SAMPLE) -> None:
        self._cap = cap
        self._sample: list[tuple[int, int, str, str]] = []
        """A heap of the records with the smallest draws: (-draw, -row, prompt, response)."""
        self._records = 0
        self._responses = False
        self._stated: Counter[str] = Counter()

    def add(self, item: Audited) -> None:
        """Draw the record or leave it."""
        self._records += 1
        if item.language is not None:
            self._stated[item.language] += 1
        first = item.pairs[0].chosen if item.pairs else next(iter(item.responses), None)
        self._responses = self._responses or first is not None
        prompt, response = item.prompt[-1]["content"], text_of(first) if first else ""
        entry = (-draw(SEED, "language", prompt, response), -item.row, prompt, response)
        if len(self._sample) < self._cap:
            heapq.heappush(self._sample, entry)
        else:
            heapq.heappushpop(self._sample, entry)

    def finding(self) -> Finding:
        """Return the languages guessed, most frequent first."""
        entries = sorted(self._sample, key=lambda entry: -entry[1])
        guesses = [_Guesses("prompts", [(-row, prompt) for _, row, prompt, _ in entries])]
        if self._responses:
            guesses.append(_Guesses("responses", [(-row, response) for _, row, _, response in entries]))
        drawn = f"a sample of {len(entries):,}" if self._records > self._cap else "all"
        parts = [f"{one.main} in {one.share} {one.kind}" for one in guesses if one.counts]
        stated = tuple(_ordered(self._stated))
        tables = [
            Table(
                "Guessed by py3langid", ("", "language", "texts"), tuple(row for one in guesses for row in one.rows())
            )
        ]
        if stated:
            tables.append(Table("As the source says", ("language", "records"), stated))
        drawings = _bars(guesses)
        return Finding(
            "languages",
            "Languages",
            f"{', '.join(parts) or 'every text is too short to tell'} ({drawn} of {self._records:,} records)",
            f"look: more than {100 * MOST_OTHERS:g} % of the guessed prompts or responses are not in the commonest "
            "language",
            tuple(
                f"{one.others} {one.kind} are in another language than {one.main}"
                for one in guesses
                if one.others.above(MOST_OTHERS)
            ),
            numbers={
                "records": self._records,
                "sampled": len(entries),
                "seed": SEED,
                "guessed": {one.kind: dict(sorted(one.counts.items())) for one in guesses},
                "not_guessed": {one.kind: one.short.as_json() for one in guesses},
                "stated_by_source": dict(stated),
            },
            tables=tuple(tables),
            drawings=drawings,
            examples=tuple(example for one in guesses for example in one.examples()),
        )


class _Guesses:
    """The languages of texts of one kind; texts below the least length are not guessed."""

    def __init__(self, kind: str, texts: Sequence[tuple[int, str]]) -> None:
        self.kind = kind
        self._guessed = [
            (row, text, str(py3langid.classify(text)[0])) for row, text in texts if len(text) >= LEAST_CHARACTERS
        ]
        self.counts = Counter(language for _, _, language in self._guessed)
        self.short = Share(len(texts) - len(self._guessed), len(texts))
        self.main = _ordered(self.counts)[0][0] if self.counts else None
        most = self.counts[self.main] if self.main else 0
        self.share = Share(most, len(self._guessed))
        self.others = Share(len(self._guessed) - most, len(self._guessed))

    def rows(self) -> list[tuple[Cell, ...]]:
        """Return the commonest languages, the rest, and what was too short."""
        ordered = _ordered(self.counts)
        rows: list[tuple[Cell, ...]] = [
            (self.kind, language, Share(count, len(self._guessed))) for language, count in ordered[:_MOST_ROWS]
        ]
        if rest := sum(count for _, count in ordered[_MOST_ROWS:]):
            rows.append((self.kind, f"{len(ordered) - _MOST_ROWS} others", Share(rest, len(self._guessed))))
        return [*rows, (self.kind, f"shorter than {LEAST_CHARACTERS} characters, not guessed", self.short)]

    def examples(self) -> list[str]:
        """Return the first few texts in other languages than the commonest one."""
        others = [
            f"row {row}, {language}: “{excerpt(text, 100)}”"
            for row, text, language in self._guessed
            if language != self.main
        ]
        return others[:_MANY]


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


def _bars(guesses: Sequence[_Guesses]) -> tuple[Bars, ...]:
    totals: Counter[str] = sum((one.counts for one in guesses), Counter())
    labels = tuple(language for language, _ in _ordered(totals)[:_MOST_ROWS])
    values = {one.kind: tuple(float(one.counts[language]) for language in labels) for one in guesses}
    return (Bars("Languages", "texts", labels, values),) if len(labels) > 1 else ()
