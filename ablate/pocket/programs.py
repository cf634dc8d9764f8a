"""The skill of mini-programs: compositions of list operations, executed by an interpreter of our own.

A program is ``program : double ; add 3 ; sort ; end``: operations on a list of integers, applied from left to
right; those that take a number are followed by it. It is correct when it computes what was asked on the
probe lists, however it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from ablate.pocket.behaviour import Behaviour, Proposal, Skill, Spec, contains, finish, position
from ablate.pocket.draws import Draw
from ablate.pocket.vocabulary import LARGEST_NUMBER


class Operation(NamedTuple):
    """One operation: whether it takes a number, what it computes, and how English asks for it."""

    takes_number: bool
    compute: Callable[[list[int], int], list[int]]
    phrase: str


OPERATIONS: dict[str, Operation] = {
    "double": Operation(False, lambda v, _: [x * 2 for x in v], "double each number"),
    "add": Operation(True, lambda v, k: [x + k for x in v], "add {k} to each number"),
    "sort": Operation(False, lambda v, _: sorted(v), "sort the list"),
    "reverse": Operation(False, lambda v, _: v[::-1], "reverse the list"),
    "take": Operation(True, lambda v, k: v[:k], "take the first {k} numbers"),
    "skip": Operation(True, lambda v, k: v[k:], "skip the first {k} numbers"),
    "evens": Operation(False, lambda v, _: [x for x in v if x % 2 == 0], "keep the even numbers"),
    "odds": Operation(False, lambda v, _: [x for x in v if x % 2], "keep the odd numbers"),
    "unique": Operation(False, lambda v, _: list(dict.fromkeys(v)), "drop the duplicates"),
    "largest": Operation(False, lambda v, _: [max(v)] if v else [], "find the largest number"),
    "over": Operation(True, lambda v, k: [x for x in v if x > k], "keep what is over {k}"),
}
LARGEST_ARGUMENT = 4
INVERTED_SHARE = 0.25
PROBE_COUNT, LONGEST_PROBE, LARGEST_PROBED = 40, 9, 12

Call = tuple[str, int | None]


@cache
def probes() -> tuple[tuple[int, ...], ...]:
    """Return the lists that programs are tried on: the empty one, and seeded ones of every length up to nine."""
    draw = Draw("world", "probes")
    lengths = (index % (LONGEST_PROBE + 1) for index in range(PROBE_COUNT))
    return tuple(tuple(draw.between(0, LARGEST_PROBED) for _ in range(length)) for length in lengths)


def run_program(calls: Sequence[Call], values: Sequence[int]) -> list[int]:
    """Apply ``calls`` to ``values`` from left to right."""
    result = list(values)
    for name, number in calls:
        result = OPERATIONS[name].compute(result, number if number is not None else 0)
    return result


def parse_program(tokens: Sequence[str]) -> list[Call] | None:
    """Read the last ``program : … end`` of a text; None where it is not well-formed."""
    start = position(tokens, "program :")
    rest = list(tokens[start:])
    if start < 0 or "end" not in rest:
        return None
    calls: list[Call] = []
    for call in " ".join(rest[: rest.index("end")]).split(";")[:-1]:
        match call.split():
            case [name] if name in OPERATIONS and not OPERATIONS[name].takes_number:
                calls.append((name, None))
            case [name, number] if name in OPERATIONS and OPERATIONS[name].takes_number and number.isdecimal():
                calls.append((name, int(number)))
            case _:
                return None
    return calls or None


def spell(call: Call) -> str:
    """Return a call as it is written in a program."""
    name, number = call
    return name if number is None else f"{name} {number}"


def spell_program(calls: Sequence[Call]) -> str:
    """Return the whole program."""
    return "program : " + " ".join(f"{spell(call)} ;" for call in calls) + " end"


def spell_plan(calls: Sequence[Call]) -> str:
    """Return the plan that a worked answer states before its program."""
    return "plan : " + " then ".join(spell(call) for call in calls) + " ."


def draw_call(draw: Draw, names: Sequence[str]) -> Call:
    """Draw one call of one of ``names``."""
    name = draw.pick(names)
    return name, draw.between(1, LARGEST_ARGUMENT) if OPERATIONS[name].takes_number else None


def ask(calls: Sequence[Call], draw: Draw) -> str:
    """Say in English what a program of two or three calls must do; some requests name the last call first."""
    phrases = [OPERATIONS[name].phrase.format(k=number) for name, number in calls]
    if draw.chance(INVERTED_SHARE):
        return f"{phrases[-1]} after you {' and then '.join(phrases[:-1])}"
    return " and then ".join(phrases)


def propose_program(draw: Draw) -> Proposal:
    """Propose a request for two or three different operations that all matter; the key is the sequence of calls."""
    while True:
        names = draw.some(tuple(OPERATIONS), draw.between(2, 3))
        calls = tuple(draw_call(draw, (name,)) for name in names)
        if is_demanding(calls):
            break
    prompt = f"write a program : {ask(calls, draw)} ."
    return Proposal(spell_program(calls), prompt, {"calls": [list(call) for call in calls]})


def _spoil(calls: list[Call], draw: Draw) -> list[Call]:
    wrong = list(calls)
    index = draw.below(len(wrong))
    match draw.below(3):
        case 0:
            wrong[index] = draw_call(draw, [name for name in OPERATIONS if name != wrong[index][0]])
        case 1:
            wrong = wrong[1:] + wrong[:1]
        case _:
            del wrong[index]
    return wrong


def agrees(calls: Sequence[Call] | None, wanted: Sequence[Call]) -> bool:
    """Return whether two programs give equal results on every probe list."""
    return calls is not None and all(run_program(calls, probe) == run_program(wanted, probe) for probe in probes())


@cache
def is_demanding(calls: tuple[Call, ...]) -> bool:
    """Return whether no operation could be left out, so that neither a shorter nor an emptying program passes."""
    shorter = [calls[:index] + calls[index + 1 :] for index in range(len(calls))]
    return not any(agrees(program, calls) for program in (*shorter, (("over", LARGEST_NUMBER),)))


def write_program(spec: Spec, behaviour: Behaviour, draw: Draw) -> str:
    """Write a plan (if worked) and a program; a wrong author swaps, replaces or forgets an operation."""
    wanted: list[Call] = [(name, number) for name, number in spec["calls"]]
    calls = wanted
    while not behaviour.correct and agrees(calls, wanted):
        calls = _spoil(wanted, draw)
    parts = [spell_plan(calls)] if behaviour.worked else []
    return finish(" ".join([*parts, spell_program(calls), "."]), behaviour, draw, CODE.limit(spec))


def check_program(spec: Spec, tokens: Sequence[str]) -> dict[str, float]:
    """Execute the program on the probe lists; worked: the plan names the asked calls in order."""
    wanted: list[Call] = [(name, number) for name, number in spec["calls"]]
    calls = parse_program(tokens)
    return {
        "answered": calls is not None,
        "correct": agrees(calls, wanted),
        "worked": contains(tokens, spell_plan(wanted)),
    }


CODE = Skill("code", propose_program, write_program, check_program, limit=lambda spec: 12 + 6 * len(spec["calls"]))
