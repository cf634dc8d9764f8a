"""The skill of instruction following: name so many members of a kind under constraints that can be verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ablate.pocket.behaviour import Behaviour, Proposal, Skill, Spec, finish
from ablate.pocket.draws import Draw
from ablate.pocket.vocabulary import END_WORDS, KINDS, PLURALS, START_WORDS

PHRASES = {
    "start": "start with {value} .",
    "end": "end with {value} .",
    "avoid": "do not use {value} .",
    "include": "use {value} .",
    "commas": "use {value} .",
}
COMMAS = {"no commas": False, "commas": True}


def propose_list(draw: Draw) -> Proposal:
    """Propose a list of two to four members of a kind under one or two constraints; the key is all of them."""
    kind, count = draw.pick(tuple(KINDS)), draw.between(2, 4)
    chosen = draw.some(tuple(PHRASES), 1 if draw.chance(0.6) else 2)
    avoided, included = draw.some(KINDS[kind], 2)
    values = {
        "start": draw.pick(START_WORDS),
        "end": draw.pick(END_WORDS),
        "avoid": avoided,
        "include": included,
        "commas": draw.pick(tuple(COMMAS)),
    }
    asked = {name: values[name] for name in PHRASES if name in chosen}
    demands = " ".join(PHRASES[name].format(value=value) for name, value in asked.items())
    prompt = f"name {count} {PLURALS[kind]} . {demands}"
    return Proposal(prompt, prompt, {"kind": kind, "count": count, "asked": asked})


def _spoil(spec: Spec, draw: Draw) -> dict[str, Any]:
    """Return another list of demands that breaks the original one."""
    asked, count = dict(spec["asked"]), spec["count"]
    broken = draw.pick((*asked, "count", "count"))
    if broken == "count":
        count = draw.pick([other for other in range(1, 7) if other != count])
    elif broken == "commas":
        asked["commas"] = next(value for value in COMMAS if value != asked["commas"])
    elif broken == "avoid":
        asked["include"] = asked.pop("avoid")
    elif broken == "include":
        asked["avoid"] = asked.pop("include")
    else:
        del asked[broken]
    return {"kind": spec["kind"], "count": count, "asked": asked}


def write_list(spec: Spec, behaviour: Behaviour, draw: Draw) -> str:
    """Write the list (worked: numbered); a wrong author breaks the count or one of the demands."""
    plan = dict(spec) if behaviour.correct else _spoil(spec, draw)
    asked, members = plan["asked"], KINDS[plan["kind"]]
    included = [asked["include"]] if "include" in asked else []
    others = [member for member in members if member != asked.get("avoid") and member not in included]
    names = sorted(draw.some(others, plan["count"] - len(included)) + included, key=members.index)
    numbered = [f"{index} {name}" for index, name in enumerate(names, 1)] if behaviour.worked else names
    commas = COMMAS[asked["commas"]] if "commas" in asked else draw.chance(0.5)
    listed = (" , " if commas else " ").join(numbered) + " ."
    if commas and len(names) == 1:
        listed = f"here , {listed}"
    text = finish(listed, behaviour, draw, CONSTRAINTS.limit(spec))
    return " ".join(part for part in (asked.get("start"), text, asked.get("end")) if part)


def satisfied(spec: Spec, tokens: Sequence[str]) -> dict[str, bool]:
    """Return for the count and for each constraint whether ``tokens`` keep it."""
    asked = spec["asked"]
    named = {token for token in tokens if token in KINDS[spec["kind"]]}
    tests: dict[str, Callable[[str], bool]] = {
        "start": lambda value: bool(tokens) and tokens[0] == value,
        "end": lambda value: bool(tokens) and tokens[-1] == value,
        "avoid": lambda value: value not in tokens,
        "include": lambda value: value in tokens,
        "commas": lambda value: ("," in tokens) == COMMAS[value],
    }
    return {"count": len(named) == spec["count"], **{name: tests[name](value) for name, value in asked.items()}}


def check_list(spec: Spec, tokens: Sequence[str]) -> dict[str, float]:
    """Check that every constraint is kept; worked: the members are numbered from 1 without a gap."""
    kept = satisfied(spec, tokens)
    members = KINDS[spec["kind"]]
    marks = [tokens[i - 1] if i else "" for i, token in enumerate(tokens) if token in members]
    return {
        "answered": bool(marks),
        "correct": all(kept.values()),
        "worked": bool(marks) and marks == [str(index) for index in range(1, len(marks) + 1)],
        "constraints_kept": sum(kept.values()) / len(kept),
    }


CONSTRAINTS = Skill("constraints", propose_list, write_list, check_list, limit=lambda spec: 10 + 3 * spec["count"])
