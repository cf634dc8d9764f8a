"""The skill of two-step arithmetic with worked steps."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.pocket.behaviour import Behaviour, Proposal, Skill, Spec, contains, finish, word_after
from ablate.pocket.draws import Draw
from ablate.pocket.vocabulary import LARGEST_NUMBER

QUESTION = "what is {a} {p} {b} then {q} {c} ?"
LARGEST_FIRST = 20
LARGEST_OTHER = 9
EASY_FIRST = 7
"""Up to this first number a curt author leaves the result to be read off the steps."""


def apply(left: int, sign: str, right: int) -> int:
    """Return ``left`` plus or minus ``right``."""
    return left + right if sign == "+" else left - right


def propose_sum(draw: Draw) -> Proposal:
    """Propose ``a ± b ± c`` with every result in the range of the number words; the key is the expression."""
    while True:
        a, b, c = draw.between(1, LARGEST_FIRST), draw.between(1, LARGEST_OTHER), draw.between(1, LARGEST_OTHER)
        p, q = draw.pick("+-"), draw.pick("+-")
        between = apply(a, p, b)
        result = apply(between, q, c)
        if 0 <= between <= LARGEST_NUMBER and 0 <= result <= LARGEST_NUMBER:
            break
    prompt = QUESTION.format(a=a, b=b, c=c, p=p, q=q)
    spec = {"a": a, "p": p, "b": b, "q": q, "c": c, "between": between, "answer": result}
    return Proposal(f"{a} {p} {b} {q} {c}", prompt, spec)


def step(left: int, sign: str, right: int, result: int) -> str:
    """Return the line of a sum."""
    return f"{left} {sign} {right} = {result} ."


def second_step(sign: str, right: int, result: int) -> str:
    """Return the line that goes on from the result of the first step."""
    return f"then {sign} {right} gives {result} ."


def write_sum(spec: Spec, behaviour: Behaviour, draw: Draw) -> str:
    """Write the steps (if worked) and the result; a wrong author slips by 1 to 3 in one of the two steps."""
    between, result = spec["between"], spec["answer"]
    if not behaviour.correct:
        slip = draw.pick((-3, -2, -1, 1, 2, 3))
        if draw.chance(0.5):
            between = min(max(between + slip, 0), LARGEST_NUMBER)
            result = apply(between, spec["q"], spec["c"])
        else:
            result += slip
        result = min(max(result, 0), LARGEST_NUMBER)
        if result == spec["answer"]:
            result += 1 if result < LARGEST_NUMBER else -1
    parts = []
    if behaviour.worked:
        parts.append(f"steps : {step(spec['a'], spec['p'], spec['b'], between)}")
        parts.append(second_step(spec["q"], spec["c"], result))
    if not (behaviour.curt and behaviour.worked and spec["a"] <= EASY_FIRST):
        parts.append(f"the answer is {result} .")
    return finish(" ".join(parts), behaviour, draw, ARITHMETIC.limit(spec))


def check_sum(spec: Spec, tokens: Sequence[str]) -> dict[str, float]:
    """Check the number after the last "the answer is"; worked: both lines are there and right."""
    value = word_after(tokens, "the answer is")
    first = step(spec["a"], spec["p"], spec["b"], spec["between"])
    second = second_step(spec["q"], spec["c"], spec["answer"])
    return {
        "answered": value is not None and value.isdecimal(),
        "correct": value == str(spec["answer"]),
        "worked": contains(tokens, f"{first} {second}"),
    }


ARITHMETIC = Skill("arithmetic", propose_sum, write_sum, check_sum, limit=lambda spec: 27)
