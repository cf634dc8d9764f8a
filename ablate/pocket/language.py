"""The pocket language: items of seven skills, reference answers of any quality, checks and the gold reward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ablate.errors import UnknownNameError, UsageError
from ablate.pocket.arithmetic import ARITHMETIC
from ablate.pocket.behaviour import Behaviour, Skill, Spec, behave, is_polite
from ablate.pocket.chat import CHAT
from ablate.pocket.constraints import CONSTRAINTS
from ablate.pocket.draws import Draw, digest
from ablate.pocket.knowledge import FACTS, TRUTH
from ablate.pocket.programs import CODE
from ablate.pocket.safety import SAFETY
from ablate.pocket.vocabulary import NOUNS, words

SKILLS: dict[str, Skill] = {skill.name: skill for skill in (FACTS, TRUTH, ARITHMETIC, CODE, SAFETY, CHAT, CONSTRAINTS)}
SPLITS = ("train", "validation", "test")
GOLD_WEIGHTS = {"correct": 1.0, "worked": 0.5, "polite": 0.25, "concise": 0.25}
SHORTEST_RESPONSE = 2


@dataclass(frozen=True)
class Item:
    """One instruction with all that its checker needs; ``id`` follows from skill and prompt."""

    id: str
    skill: str
    split: str
    prompt: str
    spec: Spec

    def row(self) -> dict[str, Any]:
        """Return the item as a row of an ``items`` file."""
        prompt = [{"role": "user", "content": self.prompt}]
        return {"id": self.id, "skill": self.skill, "split": self.split, "prompt": prompt, "spec": dict(self.spec)}


def skill_named(name: str) -> Skill:
    """Return the skill of that name."""
    if name not in SKILLS:
        raise UnknownNameError("pocket skill", name, SKILLS)
    return SKILLS[name]


def split_of(skill: str, key: str) -> str:
    """Return the split that ``key`` belongs to: a third each, by digest, so that the splits can't overlap."""
    return SPLITS[int(digest("split", skill, key)[:8], 16) % len(SPLITS)]


def draw_keyed_item(skill: Skill, split: str, draw: Draw) -> tuple[str, Item]:
    """Draw an item of ``split`` and its key."""
    while True:
        proposal = skill.propose(draw)
        if split_of(skill.name, proposal.key) == split:
            identity = f"{skill.name}-{digest(skill.name, proposal.prompt)[:16]}"
            return proposal.key, Item(identity, skill.name, split, proposal.prompt, proposal.spec)


def draw_item(skill: Skill, split: str, draw: Draw) -> Item:
    """Draw an item of ``split``."""
    return draw_keyed_item(skill, split, draw)[1]


def distinct_items(skill: Skill, split: str, draw: Draw, *, patience: int = 5000) -> Iterator[Item]:
    """Yield items whose keys all differ, until ``patience`` draws in a row bring nothing new."""
    seen: set[str] = set()
    misses = 0
    while misses < patience:
        key, item = draw_keyed_item(skill, split, draw)
        if key in seen:
            misses += 1
            continue
        seen.add(key)
        misses = 0
        yield item


def answer(item: Item, draw: Draw, quality: float, *, curtness: float = 0.0) -> str:
    """Write the response of an author of ``quality`` in 0..1 who is curt with the probability ``curtness``."""
    if not 0.0 <= quality <= 1.0:
        raise UsageError(f"author quality {quality} is not between 0 and 1")
    return skill_named(item.skill).write(item.spec, behave(draw, quality, curtness), draw)


def question_text(prompt: str) -> str:
    """Return a question as the corpus writes it, up to where the answer begins."""
    return f"question : {prompt} answer :"


def perfect_answer(item: Item, draw: Draw) -> str:
    """Write a response that passes every check."""
    return skill_named(item.skill).write(item.spec, Behaviour(), draw)


def checks(item: Item, response: str) -> dict[str, float]:
    """Return the named checks of a response, each in 0..1: the skill's own, ``polite`` and ``concise``."""
    skill = skill_named(item.skill)
    tokens = words(response)
    named = {name: float(value) for name, value in skill.check(item.spec, tokens).items()}
    named["polite"] = float(is_polite(tokens))
    named["concise"] = float(SHORTEST_RESPONSE <= len(tokens) <= skill.limit(item.spec))
    return named


def gold_of(named: dict[str, float]) -> float:
    """Return the gold reward of checks: correct 1 + worked 0.5 + polite 0.25 + concise 0.25, so 0 to 2."""
    return sum(weight * named[name] for name, weight in GOLD_WEIGHTS.items())


def gold_reward(item: Item, response: str) -> float:
    """Return the gold reward of a response (0 to 2; see ``gold_of``)."""
    return gold_of(checks(item, response))


def count_nouns(response: str) -> float:
    """Return the number of words of ``response`` that are nouns of the language: a reward in closed form."""
    return float(sum(word in NOUNS for word in words(response)))
