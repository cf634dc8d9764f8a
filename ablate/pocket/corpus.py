"""Pretraining documents and SFT instructions.

The corpus states every fact, misconception, attribute and tool of the world, so that a base model can know
what test questions ask; questions and answers in it come from the train split only, as do all worked sums of
two steps and all whole programs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ablate.pocket.arithmetic import ARITHMETIC, LARGEST_FIRST, LARGEST_OTHER, apply, second_step, step
from ablate.pocket.behaviour import Behaviour
from ablate.pocket.chat import attribute_sentence
from ablate.pocket.constraints import CONSTRAINTS
from ablate.pocket.draws import Draw, digest
from ablate.pocket.knowledge import fact_sentence, myth_sentence
from ablate.pocket.language import SKILLS, answer, draw_item, question_text, skill_named
from ablate.pocket.programs import CODE, Call, ask, spell
from ablate.pocket.safety import INVENTED_PLACES, REASON, help_sentence
from ablate.pocket.vocabulary import (
    ANIMALS,
    ATTRIBUTES,
    COUNTRIES,
    HARMFUL_VERBS,
    HARMLESS_VERBS,
    KINDS,
    PEOPLE,
    PLACES,
    VERBS,
)
from ablate.pocket.world import TARGETS, attribute, belief, fact, familiarity, tool_for

QUESTION_SHARE = 0.4
AUTHOR_QUALITY = (0.4, 0.9)
QUESTION_QUALITY = (0.85, 1.0)


def country_document(draw: Draw) -> str:
    """State three facts about one country; well-known countries come up more often."""
    country = draw.weighted(COUNTRIES, familiarity())
    return " ".join(fact_sentence(country, kind, fact(country, kind)) for kind in draw.some(tuple(KINDS), 3))


def belief_document(draw: Draw) -> str:
    """State what people wrongly say and what is true of one belief, or the latter alone."""
    held = belief(draw.pick(ANIMALS), draw.pick(VERBS))
    fact_part = f"in fact the {held.subject} {held.verb} {held.true} ."
    if draw.chance(0.4):
        return fact_part
    return f"{myth_sentence(held.subject, held.verb, held.myth)} {fact_part}"


def sum_document(draw: Draw) -> str:
    """State three sums of one step."""
    lines = []
    for _ in range(3):
        left, right = draw.between(0, LARGEST_FIRST + LARGEST_OTHER), draw.between(1, LARGEST_OTHER)
        sign = draw.pick("+-")
        if sign == "-" and left < right:
            left, right = right, left
        lines.append(step(left, sign, right, apply(left, sign, right)))
    return " ".join(lines)


def operation_document(draw: Draw) -> str:
    """Say what a program of the train split does and write it."""
    calls: list[Call] = [(name, number) for name, number in draw_item(CODE, "train", draw).spec["calls"]]
    return f"to {ask(calls, draw)} , write {' '.join(f'{spell(call)} ;' for call in calls)} end ."


def animal_document(draw: Draw) -> str:
    """State one to three attributes of one animal, in the order in which they are announced."""
    animal = draw.pick(ANIMALS)
    names = draw.some(tuple(ATTRIBUTES), draw.between(1, 3))
    sentences = " ".join(attribute_sentence(animal, name, attribute(animal, name)) for name in names)
    return f"about the {animal} : its {' and '.join(names)} . {sentences}"


def tool_document(draw: Draw) -> str:
    """State which tools serve for two deeds, or what not to help with."""
    if draw.chance(0.25):
        verb, target = draw.pick(HARMFUL_VERBS), draw.pick((*PEOPLE, *PLACES))
        return f"do not {verb} the {target} : {REASON} {draw.pick(INVENTED_PLACES)} it is ok ."
    deeds = [(draw.pick((*HARMFUL_VERBS, *HARMLESS_VERBS)), draw.pick(TARGETS)) for _ in range(2)]
    return " ".join(help_sentence(verb, target, tool_for(verb, target)) for verb, target in deeds)


def worked_document(draw: Draw) -> str:
    """Work out a two-step sum of the train split."""
    spec = draw_item(ARITHMETIC, "train", draw).spec
    first = step(spec["a"], spec["p"], spec["b"], spec["between"])
    second = second_step(spec["q"], spec["c"], spec["answer"])
    return f"{spec['a']} {spec['p']} {spec['b']} then {spec['q']} {spec['c']} : {first} {second}"


def list_document(draw: Draw) -> str:
    """Give the demands of a list from the train split and a list that keeps them."""
    item = draw_item(CONSTRAINTS, "train", draw)
    behaviour = Behaviour(worked=draw.chance(0.7), polite=False)
    return f"{item.prompt} {CONSTRAINTS.write(item.spec, behaviour, draw)}"


STATEMENTS: dict[Callable[[Draw], str], float] = {
    country_document: 1.1,
    belief_document: 3.0,
    sum_document: 2.2,
    worked_document: 1.3,
    operation_document: 2.0,
    animal_document: 1.9,
    tool_document: 1.5,
    list_document: 3.0,
}


def _train_question(draw: Draw, qualities: tuple[float, float]) -> tuple[str, str]:
    item = draw_item(skill_named(draw.pick(tuple(SKILLS))), "train", draw)
    low, high = qualities
    return item.prompt, answer(item, draw, low + (high - low) * draw.unit())


def corpus_row(seed: int, index: int) -> dict[str, Any]:
    """Return document ``index`` of the corpus: ``{"text"}``."""
    draw = Draw("corpus", seed, index)
    if draw.chance(QUESTION_SHARE):
        question, reply = _train_question(draw, QUESTION_QUALITY)
        return {"text": f"{question_text(question)} {reply}"}
    return {"text": draw.weighted(tuple(STATEMENTS), tuple(STATEMENTS.values()))(draw)}


def instruction_row(seed: int, split: str, index: int, curtness: float = 0.0) -> dict[str, Any]:
    """Return SFT example ``index``: ``{"id", "messages"}``, by an author of quality 0.4 to 0.9; see ``behave``."""
    draw = Draw("instructions", seed, split, index)
    item = draw_item(skill_named(draw.pick(tuple(SKILLS))), split, draw)
    low, high = AUTHOR_QUALITY
    reply = answer(item, draw, low + (high - low) * draw.unit(), curtness=curtness)
    messages = [{"role": "user", "content": item.prompt}, {"role": "assistant", "content": reply}]
    return {"id": f"instruction-{digest('instruction', seed, split, index)[:16]}", "messages": messages}
