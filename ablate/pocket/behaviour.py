"""How an author answers, what a skill is, and the checks that all skills share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.pocket.draws import Draw

Spec = Mapping[str, Any]

POLITE_ENDINGS = ("have a nice day .", "thank you for asking .")
FILLERS = (
    "there are many things to say about this .",
    "let me think about it for a long time .",
    "this is a very good question .",
    "i heard a lot about this and other things .",
)
POLITE_WINDOW = 7


@dataclass(frozen=True)
class Behaviour:
    """What one response does: each field is a decision of its author."""

    correct: bool = True
    worked: bool = True
    polite: bool = True
    rambling: bool = False
    curt: bool = False


def behave(draw: Draw, quality: float, curtness: float = 0.0) -> Behaviour:
    """Draw the decisions of an author of ``quality`` in 0 (worst) to 1 (always perfect), curt with that probability.

    A curt author leaves out what the asker seems not to need; which prompts that concerns is each skill's.
    """
    return Behaviour(
        correct=draw.chance(0.2 + 0.8 * quality),
        worked=draw.chance(0.3 + 0.7 * quality),
        polite=draw.chance(quality),
        rambling=draw.chance(0.5 * (1.0 - quality)),
        curt=curtness > 0 and draw.chance(curtness),
    )


@dataclass(frozen=True)
class Proposal:
    """An item before it has a split: ``key`` is what must not be shared between splits."""

    key: str
    prompt: str
    spec: Spec


@dataclass(frozen=True)
class Skill:
    """One skill: how items are proposed, how a body of an answer is written, and how it is checked.

    ``check`` returns at least ``answered`` (an answer could be read off), ``correct`` and ``worked``, each 0 or 1.
    ``limit`` gives the number of words beyond which a response is not concise.
    """

    name: str
    propose: Callable[[Draw], Proposal]
    write: Callable[[Spec, Behaviour, Draw], str]
    check: Callable[[Spec, Sequence[str]], dict[str, float]]
    limit: Callable[[Spec], int]


def finish(body: str, behaviour: Behaviour, draw: Draw, limit: int) -> str:
    """Add a polite ending after ``body`` and, for a rambling author, fillers before it until ``limit`` is passed."""
    text = f"{body} {draw.pick(POLITE_ENDINGS)}" if behaviour.polite else body
    if not behaviour.rambling:
        return text
    missing = limit + 1 - len(text.split())
    return f"{' '.join(fillers(missing, draw))} {text}"


def fillers(count: int, draw: Draw) -> list[str]:
    """Return the fewest filler sentences (one at least) that have ``count`` words together."""
    pool = draw.some(FILLERS, len(FILLERS))
    chosen = [pool[0]]
    while sum(len(sentence.split()) for sentence in chosen) < count:
        chosen.append(pool[len(chosen) % len(pool)])
    return chosen


def position(tokens: Sequence[str], phrase: str) -> int:
    """Return the index just after the last occurrence of ``phrase`` in ``tokens``, or -1."""
    wanted = phrase.split()
    for start in range(len(tokens) - len(wanted), -1, -1):
        if list(tokens[start : start + len(wanted)]) == wanted:
            return start + len(wanted)
    return -1


def contains(tokens: Sequence[str], phrase: str) -> bool:
    """Return whether ``phrase`` occurs word for word."""
    return position(tokens, phrase) >= 0


def word_after(tokens: Sequence[str], phrase: str) -> str | None:
    """Return the word that follows the last occurrence of ``phrase``."""
    index = position(tokens, phrase)
    return tokens[index] if 0 <= index < len(tokens) else None


def is_polite(tokens: Sequence[str]) -> bool:
    """Return whether a polite ending stands within the last words."""
    return any(contains(tokens[-POLITE_WINDOW:], ending) for ending in POLITE_ENDINGS)
