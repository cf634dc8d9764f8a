"""Graders of pairs: which response scores higher."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.errors import StageError
from ablate.evaluation.calibration import calibration_error
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
    ``shortest`` (by characters; a tie is lost). A pair without a score (too long) is lost and counted.
    ``calibration_error`` is that of sigma(margin) over all pairs that have one, its error bootstrapped.
    """
    return _pairwise(evidence.scores, options)


def implicit(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """As :func:`pairwise`, with a policy's implicit reward as the score: log pi - log ref of each response.

    Without ``reference`` it is log pi alone. With it, a model that was tuned against none has no such reward: as its
    own reference it would give every response 0.
    """
    if options["reference"] and evidence.reference is None:
        return Grades([], [], {"reason": "without preference tuning there is no reference, and no implicit reward"})
    references = evidence.reference_likelihoods if options["reference"] else {}
    rows = evidence.pair_likelihoods
    if references and (absent := [row["id"] for row in rows if row["id"] not in references]):
        raise StageError(f"{len(absent)} pairs have no likelihoods under the reference, the first is {absent[0]}")

    def reward(row: Mapping[str, Any], side: str) -> float | None:
        own, average = Likelihood.read(row[side]), options["average"]
        if not options["reference"]:
            return log_likelihood(own, average=average)
        return log_ratio(own, Likelihood.read(references[row["id"]][side]), average=average)

    return _pairwise([{**row, **{side: reward(row, side) for side in ("chosen", "rejected")}} for row in rows], options)


def _pairwise(scores: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Grades:
    coin = random.Random(options["seed"])
    examples: list[Example] = []
    margins: list[float] = []
    ties = too_long = 0
    for row in scores:
        chosen, rejected = row["chosen"], row["rejected"]
        scored = chosen is not None and rejected is not None
        too_long += not scored
        ties += scored and chosen == rejected
        margins += [chosen - rejected] if scored else []
        longer, shorter = row["chosen_length"], row["rejected_length"]
        won = {
            "accuracy": scored and chosen > rejected,
            "random": coin.random() < 0.5,
            "longest": longer > shorter,
            "shortest": longer < shorter,
        }
        subset = row["subset"] or row["task"]
        examples += [Example(row["id"], 0, subset, metric, float(value)) for metric, value in won.items()]
    health = {"ties": ties, "too_long": too_long, "mean_margin": sum(margins) / len(margins) if margins else None}
    spread = bootstrap_stderr(margins, calibration_error, resamples=CALIBRATION_RESAMPLES, seed=options["seed"])
    calibration = Metric(OVERALL, "calibration_error", calibration_error(margins), len(margins), spread)
    return Grades(examples, [*mean_metrics(examples), calibration], health)
