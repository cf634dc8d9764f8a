"""What the runs say of a claim: supported, not supported or undecided, and what more data would decide it.

A claim is supported where its opposite is rejected, not supported where it is rejected itself, both at alpha after
Holm's correction over all claims of a report; else it is undecided. p is two-sided: twice the smaller of the two
one-sided ones. A claim of size (``abs(a - b) < d``) is supported where both ends are rejected (two one-sided tests,
Schuirmann 1987).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtr

from ablate.results.claims.contrast import Contrast, ContrastReader
from ablate.results.layout.claims import ClaimLayout
from ablate.results.layout.grammar import Claim
from ablate.results.long import Results
from ablate.results.statistics.corrections import holm
from ablate.results.statistics.effect_size import Interval, difference_interval
from ablate.results.statistics.paired import PairedTest
from ablate.results.statistics.power import examples_needed, seeds_needed

Verdict = Literal["supported", "not supported", "undecided"]

ALPHA, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Finding:
    """What was found of one claim; ``interval`` and ``p`` are null where nothing was tested, ``p`` is corrected.

    ``needs`` says what would decide an undecided claim, or what is missing.
    """

    claim: ClaimLayout
    contrast: Contrast
    verdict: Verdict
    interval: Interval | None = None
    p: float | None = None
    needs: str = ""


def judge_claims(results: Results, claims: Sequence[ClaimLayout]) -> list[Finding]:
    """Return a finding for every claim and every value of its ``each`` axes, corrected together."""
    reader = ContrastReader(results)
    read = [(item, found) for item in claims for found in reader.read(item.parsed, item.over, item.each)]
    tested = [(item, found, found.test) for item, found in read if found.test is not None]
    judged = [one_sided(item.parsed, test) for item, _, test in tested]
    corrected = iter(holm([min(1.0, 2 * min(pair)) for pair in judged]))
    sides = iter(judged)
    findings = []
    for item, found in read:
        if found.test is None:
            findings.append(Finding(item, found, "undecided", needs=found.gap))
            continue
        p, (against, support) = next(corrected), next(sides)
        verdict: Verdict = "undecided"
        if p < ALPHA:
            verdict = "supported" if against < support else "not supported"
        needs = more_data(item.parsed, found, ALPHA / len(tested)) if verdict == "undecided" else ""
        findings.append(Finding(item, found, verdict, difference_interval(found.test), p, needs))
    return findings


def one_sided(claim: Claim, test: PairedTest) -> tuple[float, float]:
    """Return the one-sided p-values of the hypotheses that the claim is wrong, and that it is right."""
    if claim.is_size:
        below, above = _tails(test, -claim.bound), _tails(test, claim.bound)
        # wrong: at or beyond either end; right: within both
        return max(below[1], above[0]), min(1.0, 2 * min(below[0], above[1]))
    lower, upper = _tails(test, claim.bound)
    return (upper, lower) if claim.sign > 0 else (lower, upper)


def _tails(test: PairedTest, bound: float) -> tuple[float, float]:
    """Return p of "the true difference is at least ``bound``" and of "it is at most ``bound``"."""
    distance = test.estimate - bound
    if bound == 0.0 and test.seeds == 1:  # the exact test needs no variance; two-sided, so half of it on its side
        lower = test.p / 2 if distance < 0 else 1 - test.p / 2
        return lower, 1 - lower
    if test.stderr == 0.0:
        lower = 0.0 if distance < 0 else 1.0 if distance > 0 else 0.5
        return lower, 1 - lower
    t = distance / test.stderr
    lower, upper = (float(stdtr(min(test.df, 1e9), side)) for side in (t, -t))
    least = 2.0**-test.units if test.units < 64 else 0.0
    return max(lower, least), max(upper, least)


def more_data(claim: Claim, contrast: Contrast, alpha: float) -> str:
    """Say how many seeds or examples would decide a claim if the estimate were the truth."""
    test, parts = contrast.test, contrast.parts
    assert test is not None and parts is not None
    size = abs(test.estimate)
    distance = abs(claim.bound - size) if claim.is_size else abs(test.estimate - claim.bound)
    if distance == 0.0:
        return "the estimate is the bound itself: no amount of data decides that"
    more = []
    seeds = seeds_needed(distance, parts, alpha=alpha, power=POWER) if test.seeds > 1 else None
    if seeds is not None:
        more.append(f"{max(seeds, test.seeds + 1)} seeds")
    examples = examples_needed(distance, parts, test.seeds, alpha=alpha, power=POWER)
    if examples is not None:
        more.append(f"{_times(examples / test.units)} the examples")
    alone = "; seeds are not varied, and what they change is not known" if test.seeds == 1 else ""
    if not more:
        return f"at the estimate neither more seeds nor more examples alone would decide it{alone}"
    return f"at the estimate it takes {' or '.join(more)} ({POWER:.0%} power){alone}"


def _times(factor: float) -> str:
    return f"{math.ceil(10 * max(factor, 1.1)) / 10:g} times" if factor < 10 else f"{math.ceil(factor)} times"
