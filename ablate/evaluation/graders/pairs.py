"""Graders of pairs: which response scores higher."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.errors import StageError
from ablate.evaluation.calibration import calibration_error
from ablate.evaluation.formats.pair_scores import NO_VERDICT
from ablate.evaluation.grading import (
    OVERALL,
    Evidence,
    Example,
    Grades,
    Metric,
    bootstrap_stderr,
    mean_metrics,
)
from ablate.rewards.likelihood import Likelihood, log_likelihood, log_ratio

CALIBRATION_RESAMPLES = 200


def pairwise(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Share of pairs whose chosen response scores strictly higher (a tie is lost), by subset and over all pairs.

    Beside it what trivial rules reach on the same pairs: ``random`` (a seeded coin for each pair), ``longest`` and
    ``shortest`` (by characters; a tie is lost). A pair without a score (too long) is lost and counted; one with a
    verdict instead of scores counts as that says, half where it could not be read.
    ``calibration_error`` is that of sigma(margin) over all pairs that have one, its error bootstrapped.
    """
    return _pairwise(evidence.scores, options)


def implicit(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """As :func:`pairwise`, with a policy's implicit reward as the score: log pi - log ref of each response.

    Without ``reference`` it is log pi alone. With it, a model that was tuned against none has no such reward: as its
    own reference it would give every response 0.
    """
    rows = implicit_scores(evidence, options)
    return rows if isinstance(rows, Grades) else _pairwise(rows, options)


def implicit_scores(evidence: Evidence, options: Mapping[str, Any]) -> list[dict[str, Any]] | Grades:
    """Return the rows of likelihoods with implicit rewards in their place; empty grades where there is no reference.

    A side of a row is one response or a list of several. Raises ``StageError`` for a row without the reference's.
    """
    if options["reference"] and evidence.reference is None:
        return Grades([], [], {"reason": "without preference tuning there is no reference, and no implicit reward"})
    references = evidence.reference_likelihoods if options["reference"] else {}
    rows = evidence.pair_likelihoods
    if references and (absent := [row["id"] for row in rows if row["id"] not in references]):
        raise StageError(f"{len(absent)} pairs have no likelihoods under the reference, the first is {absent[0]}")

    def reward(own: Any, other: Any) -> Any:
        if isinstance(own, list):
            others = other if isinstance(other, list) else [None] * len(own)
            return [reward(one, another) for one, another in zip(own, others, strict=True)]
        if not options["reference"]:
            return log_likelihood(Likelihood.read(own), average=options["average"])
        return log_ratio(Likelihood.read(own), Likelihood.read(other), average=options["average"])

    return [
        {**row, **{side: reward(row[side], references.get(row["id"], {}).get(side)) for side in ("chosen", "rejected")}}
        for row in rows
    ]


def trivial_rules(chosen: int, rejected: int, coin: random.Random) -> dict[str, float]:
    """Return what rules that read nothing make of a pair with responses of these lengths; a tie is lost."""
    won = {"random": coin.random() < 0.5, "longest": chosen > rejected, "shortest": chosen < rejected}
    return {name: float(value) for name, value in won.items()}


def pair_value(row: Mapping[str, Any]) -> float:
    """Return what a pair counts: by its scores, or as a verdict says (``result``; None where it could not be read)."""
    if "result" in row:
        return NO_VERDICT if row["result"] is None else float(row["result"])
    chosen, rejected = row["chosen"], row["rejected"]
    return float(chosen is not None and rejected is not None and chosen > rejected)


def unparsable(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many pairs have a verdict that could not be read."""
    return sum("result" in row and row["result"] is None for row in rows)


def _pairwise(scores: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Grades:
    coin = random.Random(options["seed"])
    examples: list[Example] = []
    margins: list[float] = []
    too_long = 0
    for row in scores:
        if "result" not in row:
            chosen, rejected = row["chosen"], row["rejected"]
            scored = chosen is not None and rejected is not None
            too_long += not scored
            margins += [chosen - rejected] if scored else []
        won = {"accuracy": pair_value(row)}
        won |= trivial_rules(row["chosen_length"], row["rejected_length"], coin)
        subset = row["subset"] or row["task"]
        examples += [Example(row["id"], 0, subset, metric, value) for metric, value in won.items()]
    health = {
        "ties": margins.count(0.0),
        "too_long": too_long,
        "unparsable": unparsable(scores),
        "mean_margin": sum(margins) / len(margins) if margins else None,
    }
    pairs = [[margin] for margin in margins]
    spread = bootstrap_stderr(pairs, calibration_error, resamples=CALIBRATION_RESAMPLES, seed=options["seed"])
    calibration = Metric(OVERALL, "calibration_error", calibration_error(margins), len(margins), spread)
    return Grades(examples, [*mean_metrics(examples), calibration], health)
