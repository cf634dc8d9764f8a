"""Trivial outputs of a suite, between which a model's must lie: a broken grader shows in them."""

from __future__ import annotations

import random
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from ablate.catalogs.suite_code import find_entry
from ablate.catalogs.suites import Suite
from ablate.context import import_function
from ablate.errors import UsageError
from ablate.evaluation.formats.submission import Output, Submission
from ablate.evaluation.items import Item
from ablate.rewards.pairs import Candidates, Pair

Baseline = Literal["random", "majority", "echo", "gold"]

SEED = 0
"""Of the random baseline."""


def baseline_outputs(
    suite: Suite, asked: Sequence[Item] | Sequence[Pair] | Sequence[Candidates], baseline: Baseline
) -> Submission:
    """One output for each item or pair, as often as the suite draws samples.

    ``gold`` is the right answer, ``majority`` the one that is right most often among the items of a task, ``random`` a
    letter where there are choices and else the right answer to a random item of the task, ``echo`` the prompt. Pairs
    have random scores, or 1 and 0. Raises ``UsageError`` for a baseline that the suite does not have.
    """
    pairs = [one for one in asked if isinstance(one, Pair | Candidates)]
    items = [one for one in asked if isinstance(one, Item)]
    if pairs:
        outputs = _of_pairs(suite, pairs, baseline)
    else:
        said = _SAYING[baseline](suite, items)
        rows = enumerate(zip(items, said, strict=True), start=1)
        outputs = [Output(row, item.id, texts=(text,) * suite.decoding.samples) for row, (item, text) in rows]
    return Submission(Path(f"baseline {baseline}"), tuple(outputs), {"baseline": baseline})


def _of_pairs(suite: Suite, pairs: Sequence[Pair | Candidates], baseline: Baseline) -> list[Output]:
    if baseline not in ("random", "gold"):
        raise _has_none(suite, baseline, ("random", "gold"))
    coin = random.Random(SEED)
    outputs = []
    for row, one in enumerate(pairs, start=1):
        scores = {}
        for side, texts, gold in (("chosen", one.chosen, 1.0), ("rejected", one.rejected, 0.0)):
            count = 1 if isinstance(texts, str) else len(texts)
            scores[side] = [coin.random() if baseline == "random" else gold for _ in range(count)]
        outputs.append(Output(row, one.id, facts=scores))
    return outputs


def _gold(suite: Suite, items: Sequence[Item], baseline: Baseline = "gold") -> list[str]:
    """The right answers, which ``baseline`` is made of."""
    entry = find_entry("grader", suite.grader).gold
    if entry is None:
        raise _has_none(suite, baseline, ("echo",))
    right: Callable[[Item], str] = import_function(entry, "the right answers of this suite")
    return [right(item) for item in items]


def _majority(suite: Suite, items: Sequence[Item]) -> list[str]:
    pools = _pools(items, _gold(suite, items, "majority"))
    most = {id(pool): Counter(pool).most_common(1)[0][0] for pool in pools}
    return [most[id(pool)] for pool in pools]


def _random(suite: Suite, items: Sequence[Item]) -> list[str]:
    stream = random.Random(SEED)
    if all(item.choices for item in items):
        return [stream.choice(string.ascii_uppercase[: len(item.choices)]) for item in items]
    return [stream.choice(pool) for pool in _pools(items, _gold(suite, items, "random"))]


def _echo(suite: Suite, items: Sequence[Item]) -> list[str]:
    return [item.plain_text() or str(item.data.get("prompt", item.data.get("question", ""))) for item in items]


def _pools(items: Sequence[Item], gold: Sequence[str]) -> list[list[str]]:
    """For each item the right answers of its task; of the suite where a task has one right answer (refuse, or not)."""
    of_task: dict[str, list[str]] = defaultdict(list)
    for item, right in zip(items, gold, strict=True):
        of_task[item.task].append(right)
    if all(len(set(answers)) == 1 for answers in of_task.values()):
        everything = list(gold)
        return [everything for _ in items]
    return [of_task[item.task] for item in items]


def _has_none(suite: Suite, baseline: str, known: Sequence[str]) -> UsageError:
    return UsageError(
        f"suite {suite.name!r} has no baseline {baseline!r}", hint=f"it has {' and '.join(known)}: see docs/grading.md"
    )


_SAYING: dict[Baseline, Callable[[Suite, Sequence[Item]], list[str]]] = {
    "random": _random,
    "majority": _majority,
    "echo": _echo,
    "gold": _gold,
}
