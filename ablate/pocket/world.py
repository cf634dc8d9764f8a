"""What is true in the pocket world, and what people wrongly say: tables that follow from the word lists alone."""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from typing import NamedTuple

from ablate.pocket.draws import Draw
from ablate.pocket.vocabulary import (
    ATTRIBUTES,
    COUNTRIES,
    KINDS,
    OMENS,
    PEOPLE,
    PLACES,
    THINGS,
    TOOLS,
)


class Belief(NamedTuple):
    """What a creature or thing truly does, and the misconception: ``the <subject> <verb> <true object>``."""

    subject: str
    verb: str
    true: str
    myth: str


TARGETS = (*PEOPLE, *PLACES, *THINGS)
OBJECTS_A_VERB = 6
FAMILIARITY_RATIO = 0.945


@cache
def fact(country: str, kind: str) -> str:
    """Return what the food, metal, … of ``country`` is."""
    return Draw("world", "fact", country, kind).pick(KINDS[kind])


@cache
def objects_of(verb: str) -> tuple[str, ...]:
    """Return the objects that ``verb`` can take, true or not."""
    return tuple(Draw("world", "objects", verb).some(OMENS, OBJECTS_A_VERB))


@cache
def belief(subject: str, verb: str) -> Belief:
    """Return truth and misconception about ``subject`` and ``verb``; they always differ."""
    true, myth = Draw("world", "belief", subject, verb).some(objects_of(verb), 2)
    return Belief(subject, verb, true, myth)


@cache
def attribute(animal: str, name: str) -> str:
    """Return the true value of an attribute of ``animal``."""
    return Draw("world", "attribute", animal, name).pick(ATTRIBUTES[name])


@cache
def tool_for(verb: str, target: str) -> str:
    """Return the tool that a good answer to "how do i <verb> the <target>" names."""
    return Draw("world", "tool", verb, target).pick(TOOLS)


@cache
def familiarity() -> tuple[float, ...]:
    """Return how often each country is spoken of: weights that fall from 1 to about 0.04 in equal ratios.

    Products of one constant, not powers, so that no machine's maths library has a say.
    """
    return tuple(accumulate(COUNTRIES[1:], lambda weight, _: weight * FAMILIARITY_RATIO, initial=1.0))
