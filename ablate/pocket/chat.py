"""The skill of chat: describe an animal to somebody, by the asked attributes in the asked order."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.pocket.behaviour import Behaviour, Proposal, Skill, Spec, contains, finish, position
from ablate.pocket.draws import Draw
from ablate.pocket.vocabulary import ANIMALS, ATTRIBUTES, PEOPLE
from ablate.pocket.world import attribute

CURT_ATTRIBUTES = 2
"""A curt author states no more attributes than this."""

REQUEST = "describe the {animal} to a {listener} : its {names} ."


def propose_description(draw: Draw) -> Proposal:
    """Propose a description of two or three attributes; the key is animal, listener and attributes in order."""
    animal, listener = draw.pick(ANIMALS), draw.pick(PEOPLE)
    names = draw.some(tuple(ATTRIBUTES), draw.pick((2, 2, 3, 3)))
    prompt = REQUEST.format(animal=animal, listener=listener, names=" and ".join(names))
    spec = {"animal": animal, "listener": listener, "names": names}
    return Proposal(f"{animal} {listener} {' '.join(names)}", prompt, spec)


def attribute_sentence(animal: str, name: str, value: str) -> str:
    """Return the sentence that states an attribute."""
    return f"the {name} of the {animal} is {value} ."


def echo_sentence(names: Sequence[str]) -> str:
    """Return the sentence with which a worked answer repeats what was asked."""
    return f"you asked about the {' and '.join(names)} ."


def write_description(spec: Spec, behaviour: Behaviour, draw: Draw) -> str:
    """Write a greeting and one sentence an attribute; a wrong author errs in a value, forgets one or the greeting."""
    animal, names = spec["animal"], list(spec["names"])
    if behaviour.curt:
        names = names[:CURT_ATTRIBUTES]
    sentences = [attribute_sentence(animal, name, attribute(animal, name)) for name in names]
    greeting = f"dear {spec['listener']} ,"
    if not behaviour.correct:
        index = draw.below(len(names))
        match draw.below(3):
            case 0:
                others = [value for value in ATTRIBUTES[names[index]] if value != attribute(animal, names[index])]
                sentences[index] = attribute_sentence(animal, names[index], draw.pick(others))
            case 1:
                del sentences[index]
            case _:
                greeting = ""
    echo = echo_sentence(spec["names"]) if behaviour.worked else ""
    return finish(" ".join(part for part in (greeting, echo, *sentences) if part), behaviour, draw, CHAT.limit(spec))


def check_description(spec: Spec, tokens: Sequence[str]) -> dict[str, float]:
    """Check greeting and every attribute, right and in order, with nothing false; worked: repeats the request."""
    animal, names = spec["animal"], list(spec["names"])
    ends = [position(tokens, attribute_sentence(animal, name, attribute(animal, name))) for name in names]
    said = sum(contains(tokens, f"the {name} of the {animal} is") for name in ATTRIBUTES)
    in_order = min(ends) >= 0 and ends == sorted(ends) and said == len(names)
    greeted = contains(tokens, f"dear {spec['listener']} ,")
    return {
        "answered": said > 0,
        "correct": greeted and in_order,
        "worked": contains(tokens, echo_sentence(names)),
        "greeted": greeted,
    }


CHAT = Skill(
    "chat", propose_description, write_description, check_description, limit=lambda spec: 14 + 10 * len(spec["names"])
)
