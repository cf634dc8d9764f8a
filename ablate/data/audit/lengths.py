"""Lengths of prompts and responses, turns of prompts, and whether the longer response wins."""

from __future__ import annotations

from array import array
from collections import Counter

from ablate.data.audit.findings import Bars, Finding, Share, histogram, not_checked, quantile_table, wilson
from ablate.data.audit.items import Audited, text_of
from ablate.data.audit.texts import dialogue

LEAST_BIAS = 0.6
MOST_BARS = 12


class LongerWins:
    """Pairs whose chosen response has more words than the rejected one."""

    def __init__(self) -> None:
        self._signs: Counter[int] = Counter()

    def add(self, item: Audited) -> None:
        """Compare the two sides of each pair."""
        for pair in item.pairs:
            chosen, rejected = len(text_of(pair.chosen).split()), len(text_of(pair.rejected).split())
            self._signs[(chosen > rejected) - (chosen < rejected)] += 1

    def finding(self) -> Finding:
        """Return the share with its interval; pairs of equal length are counted apart."""
        check, title = "longer-wins", "The longer response wins"
        low, high = 1 - LEAST_BIAS, LEAST_BIAS
        rule = f"look: the whole 95 % interval is above {100 * high:g} % or below {100 * low:g} %"
        longer = Share(self._signs[1], self._signs[1] + self._signs[-1])
        interval = wilson(longer.count, longer.total)
        if interval is None:
            return not_checked(
                check, title, rule, f"no two responses of different length in {self._signs.total():,} pairs"
            )
        ties = Share(self._signs[0], self._signs.total())
        text = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
        look: tuple[str, ...] = ()
        if interval[0] > high or interval[1] < low:
            look = (
                f"the {'longer' if interval[0] > high else 'shorter'} response wins in most pairs: longer in {longer}",
            )
        return Finding(
            check,
            title,
            f"the longer response (words) is chosen in {longer} pairs, 95 % interval {text}; equally long in {ties}",
            rule,
            look,
            numbers={"longer": longer.as_json(), "interval": list(interval), "equal": ties.as_json()},
        )


class Lengths:
    """Words and characters of prompts and of each side's responses."""

    def __init__(self) -> None:
        self._words: dict[str, array[int]] = {}
        self._characters: dict[str, array[int]] = {}

    def add(self, item: Audited) -> None:
        """Measure the prompt and the responses."""
        self._measure("prompt", dialogue(item.prompt))
        for side, text in item.sides():
            self._measure(side, text)

    def _measure(self, part: str, text: str) -> None:
        self._words.setdefault(part, array("L")).append(len(text.split()))
        self._characters.setdefault(part, array("L")).append(len(text))

    def finding(self) -> Finding:
        """Return quantiles of both measures."""
        in_words, word_numbers = quantile_table("Words (parted by white space)", self._words)
        in_characters, character_numbers = quantile_table("Characters", self._characters)
        medians = ", ".join(f"{part} {found['median']:g} (of {found['n']:,})" for part, found in word_numbers.items())
        drawn = histogram("Length", "words", self._words)
        return Finding(
            "lengths",
            "Lengths",
            f"median words: {medians}",
            "described, not judged",
            numbers={"words": word_numbers, "characters": character_numbers},
            tables=(in_words, in_characters),
            drawings=(drawn,) if drawn else (),
        )


class Turns:
    """Turns of the prompts, the last one the user's."""

    def __init__(self) -> None:
        self._turns: Counter[int] = Counter()
        self._system = 0

    def add(self, item: Audited) -> None:
        """Count the prompt's turns; a system prompt is counted apart."""
        system = sum(turn["role"] == "system" for turn in item.prompt)
        self._system += system > 0
        self._turns[len(item.prompt) - system] += 1

    def finding(self) -> Finding:
        """Return how many prompts have how many turns."""
        total = self._turns.total()
        one = Share(self._turns[1], total)
        counts = dict(sorted(self._turns.items()))
        labels = tuple(str(turns) for turns in list(counts)[:MOST_BARS])
        drawn = Bars(
            "Turns of a prompt", "prompts", labels, {"prompts": tuple(float(counts[int(one)]) for one in labels)}
        )
        return Finding(
            "turns",
            "Turns of the prompts",
            f"one turn in {one} prompts, {max(counts)} at most; a system prompt in {Share(self._system, total)}",
            "described, not judged",
            numbers={
                "prompts": total,
                "by_turns": {str(turns): count for turns, count in counts.items()},
                "with_system_prompt": Share(self._system, total).as_json(),
            },
            drawings=(drawn,) if len(counts) > 1 else (),
        )
