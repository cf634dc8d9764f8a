"""Responses that say nothing, seem cut off, or refuse: by rules on their text, which are guesses."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from ablate.data.audit.findings import Cell, Finding, Share, Table, not_checked
from ablate.data.audit.items import Audited
from ablate.data.audit.texts import excerpt, words
from ablate.data.refusals import refuses

MOST_CUT = 0.02
MOST_AT_LONGEST = 0.01
ENOUGH_AT_LONGEST = 5
MOST_REFUSALS = 0.05
LAST_LINE = 8  # words
_MANY = 5  # examples

_FENCE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
_GOES_ON = re.compile(r"[^\W_]$|[,;(\[{—–-]$")


def cut_off(text: str) -> str | None:
    """Return why a response looks cut off, None where it does not.

    ``open-code-block``: an odd number of lines begin with a fence. ``mid-sentence``: the last line has eight words or
    more and ends in a letter, a digit, a comma, a dash or an opening bracket. Shorter last lines are left alone:
    titles, list items, names and numbers end like that.
    """
    if len(_FENCE.findall(text)) % 2:
        return "open-code-block"
    last = text.rstrip().rsplit("\n", 1)[-1].rstrip()
    return "mid-sentence" if len(last.split()) >= LAST_LINE and _GOES_ON.search(last) else None


class Endings:
    """Responses without a word, and those that seem cut off."""

    def __init__(self) -> None:
        self._responses: Counter[str] = Counter()
        self._wordless: Counter[str] = Counter()
        self._cut: dict[str, Counter[str]] = defaultdict(Counter)
        self._lengths: Counter[int] = Counter()
        self._examples: list[str] = []

    def add(self, item: Audited) -> None:
        """Judge the record's responses."""
        for side, text in item.sides():
            self._responses[side] += 1
            self._lengths[len(text)] += 1
            if not words(text):
                self._wordless[side] += 1
                self._show(item, f"no word, {side}: {excerpt(text)!a}")
                continue
            reason = cut_off(text)
            if reason is not None:
                self._cut[reason][side] += 1
                self._show(item, f"{reason}, {side}: “…{excerpt(text[-120:])}”")

    def _show(self, item: Audited, example: str) -> None:
        if len(self._examples) < _MANY:
            self._examples.append(f"row {item.row}, {example}")

    def finding(self) -> Finding:
        """Return the counts for each side."""
        check, title = "endings", "Empty and truncated responses"
        rule = (
            f"look: a response has no word, more than {100 * MOST_CUT:g} % of a side's seem cut off (a guess), or more "
            f"than {100 * MOST_AT_LONGEST:g} % ({ENOUGH_AT_LONGEST} or more) have as many characters as the longest"
        )
        total = self._responses.total()
        if not total:
            return not_checked(check, title, rule, "the set has no responses")
        wordless = Share(self._wordless.total(), total)
        cut = {
            side: Share(sum(self._cut[reason][side] for reason in self._cut), n) for side, n in self._responses.items()
        }
        longest = max(self._lengths)
        at_longest = Share(self._lengths[longest], total)
        look = [f"{wordless} responses have no word"] if wordless.count else []
        look += [f"{share} {side} responses seem cut off" for side, share in cut.items() if share.above(MOST_CUT)]
        if at_longest.above(MOST_AT_LONGEST) and at_longest.count >= ENOUGH_AT_LONGEST:
            look.append(
                f"{at_longest} responses have exactly {longest:,} characters, the most there are: cut at a limit?"
            )
        reasons = sorted(self._cut)
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (
                side,
                count,
                Share(self._wordless[side], count),
                *(Share(self._cut[reason][side], count) for reason in reasons),
            )
            for side, count in self._responses.items()
        )
        seem = ", ".join(f"{side} {share}" for side, share in cut.items())
        return Finding(
            check,
            title,
            f"without a word: {wordless} responses; seem cut off: {seem}; "
            f"of the longest length, {longest:,} characters: {at_longest}",
            rule,
            tuple(look),
            numbers={
                "without_a_word": wordless.as_json(),
                "seem_cut_off": {side: share.as_json() for side, share in cut.items()},
                "by_reason": {reason: dict(self._cut[reason]) for reason in reasons},
                "longest_characters": longest,
                "at_longest": at_longest.as_json(),
            },
            tables=(Table("By side", ("", "responses", "no word", *reasons), rows),),
            examples=tuple(self._examples),
        )


class Refusals:
    """Responses that refuse, on each side."""

    def __init__(self) -> None:
        self._responses: Counter[str] = Counter()
        self._refusing: Counter[str] = Counter()
        self._only: Counter[str] = Counter()
        self._pairs = 0

    def add(self, item: Audited) -> None:
        """Match the record's responses."""
        verdicts = [(side, refuses(text)) for side, text in item.sides()]
        for side, refusing in verdicts:
            self._responses[side] += 1
            self._refusing[side] += refusing
        for (_, chosen), (_, rejected) in zip(verdicts[::2], verdicts[1::2], strict=False) if item.pairs else ():
            self._pairs += 1
            if chosen != rejected:
                self._only["chosen" if chosen else "rejected"] += 1

    def finding(self) -> Finding:
        """Return the share of each side, and in how many pairs one side alone refuses."""
        check, title = "refusals", "Refusals and disclaimers"
        rule = (
            f"look: more than {100 * MOST_REFUSALS:g} % of a side's responses begin with the words of a refusal or "
            "disclaimer"
        )
        if not self._responses:
            return not_checked(check, title, rule, "the set has no responses")
        shares = {side: Share(self._refusing[side], count) for side, count in self._responses.items()}
        summary = "by their first words: " + ", ".join(f"{side} {share}" for side, share in shares.items())
        numbers = {"by_side": {side: share.as_json() for side, share in shares.items()}}
        if self._pairs:
            only = {side: Share(self._only[side], self._pairs) for side in ("chosen", "rejected")}
            summary += f"; one side alone: chosen in {only['chosen']} pairs, rejected in {only['rejected']}"
            numbers["one_side_alone"] = {side: share.as_json() for side, share in only.items()}
        look = tuple(
            f"{share} {side} responses refuse or disclaim"
            for side, share in shares.items()
            if share.above(MOST_REFUSALS)
        )
        return Finding(check, title, summary, rule, look, numbers=numbers)
