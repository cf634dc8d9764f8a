"""Graders of what judges say: win rates against a baseline (AlpacaEval, Arena-Hard), and ratings (MT-Bench).

A verdict that can't be read is counted in health and in the metric ``parsed``, whatever a win rate makes of it.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import DataError
from ablate.evaluation.grading import (
    OVERALL,
    Evidence,
    Example,
    Grades,
    Metric,
    bootstrap_stderr,
    mean_metric,
    mean_metrics,
    response_health,
)
from ablate.evaluation.length_control import LengthControl, fit, published
from ablate.evaluation.verdict_rows import Judged, gather, judge_health
from ablate.rewards.verdicts import winner


def win_rate(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Share of wins against the baseline's responses, a tie counts half; by task and over all.

    ``parsed``: share of verdicts that could be read; ``ties``: of those; ``consistent``: share of pairs with the same
    winner in both orders; ``first_wins``: wins of the response shown first, of all that are no tie (0.5: no bias);
    ``agreement``: share of responses on whose winner two judges of a panel agree.
    """
    judged = gather(evidence, "pairwise")
    examples = _win_examples(judged, options)
    return Grades(examples, [*_means(examples, ["win_rate"]), *_beside(judged)], _health(evidence, judged))


def alpaca_eval(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """AlpacaEval's win rate, its discrete one (preferences rounded to wins and draws) and the length-controlled one.

    Values are shares of 1, standard errors those of a mean over instructions, as the alpaca_eval package has them.
    """
    judged = gather(evidence, "pairwise")
    examples = _win_examples(judged, options)
    discrete = [
        Example(row.example, row.sample, row.task, "discrete_win_rate", winner(row.value), row.cluster)
        for row in examples
        if row.metric == "win_rate"
    ]
    metrics = [*_means([*examples, *discrete], ["win_rate", "discrete_win_rate"]), *_beside(judged)]
    health = _health(evidence, judged)
    if options["length_control"]:
        controlled, protocol = _length_controlled(evidence, judged, options)
        return Grades([*examples, *discrete], [*metrics, *controlled], health, protocol)
    return Grades([*examples, *discrete], metrics, health)


def arena_hard(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Arena-Hard's score: the win rate against the baseline; a great difference counts ``weight`` games.

    Against one baseline this solves the Bradley-Terry model that Arena-Hard fits. Its error is bootstrapped over
    prompts.
    """
    judged = gather(evidence, "pairwise")
    examples = _win_examples(judged, options)
    by_prompt: dict[str, list[Games]] = defaultdict(list)
    for row in judged:
        games = _games(row, options["weight"])
        if games[1] > 0:
            by_prompt[row.id].append(games)
    played = list(itertools.chain.from_iterable(by_prompt.values()))
    spread = bootstrap_stderr(by_prompt.values(), _share, resamples=options["resamples"], seed=options["seed"])
    score = Metric(OVERALL, "score", _share(played), len(played), spread)
    metrics = [score, *_means(examples, ["win_rate"]), *_beside(judged)]
    return Grades(examples, metrics, _health(evidence, judged))


def rating(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Mean rating over all turns of all questions, by category and for each turn.

    What can't be read has no rating and is counted. Of a file with several models each is a task of its own, and
    ``model/category`` its categories. ``disagreement`` is the mean difference between two judges of a panel.
    """
    judged = gather(evidence, "single")
    models = dict.fromkeys(row.model for row in judged)
    examples = []
    for row in judged:
        if row.value is None:
            continue
        task = f"{row.model}/{row.task}" if len(models) > 1 else row.task
        name = f"{row.id}@{row.model}" if len(models) > 1 else row.id
        for metric in ("rating", f"rating_turn_{row.turn + 1}"):
            examples.append(Example(name, row.sample, task, metric, row.value, None, None))
    metrics = _rating_metrics(examples, [model for model in models if len(models) > 1])
    parsed = [Example(row.id, row.sample, row.task, "parsed", float(row.value is not None)) for row in judged]
    differences = [
        Example(row.id, row.sample, row.task, "disagreement", value)
        for row in judged
        if (value := row.spread()) is not None
    ]
    beside = [mean_metric(OVERALL, "parsed", parsed)]
    beside += [mean_metric(OVERALL, "disagreement", differences, "rating")] if differences else []
    return Grades(examples, [*metrics, *beside], _health(evidence, judged))


def _rating_metrics(examples: Sequence[Example], models: Sequence[str]) -> list[Metric]:
    """Means over turns, not over questions: two turns of a question are two ratings; their error is by question."""
    metrics = [_mean_of_turns(OVERALL, name, examples) for name in ("rating", "rating_turn_1", "rating_turn_2")]
    for model in models:
        own = [row for row in examples if row.task.startswith(f"{model}/")]
        metrics += [_mean_of_turns(model, name, own) for name in ("rating", "rating_turn_1", "rating_turn_2")]
    tasks = dict.fromkeys(row.task for row in examples)
    for task in tasks if len(tasks) > 1 else ():
        own = [row for row in examples if row.task == task]
        metrics += [_mean_of_turns(task, name, own) for name in ("rating", "rating_turn_1", "rating_turn_2")]
    return [metric for metric in metrics if metric.n or metric.metric == "rating"]


def _mean_of_turns(task: str, metric: str, examples: Sequence[Example]) -> Metric:
    """Mean over ratings; n counts questions, and the standard error is of a mean over clusters of their ratings."""
    sums: dict[str, list[float]] = defaultdict(list)
    for row in examples:
        if row.metric == metric:
            sums[row.example].append(row.value)
    count = sum(len(values) for values in sums.values())
    if count == 0:
        return Metric(task, metric, None, 0, None, "rating")
    mean = math.fsum(value for values in sums.values() for value in values) / count
    n = len(sums)
    if n == 1:
        return Metric(task, metric, mean, 1, None, "rating")
    squares = math.fsum(math.fsum(value - mean for value in values) ** 2 for values in sums.values())
    return Metric(task, metric, mean, n, math.sqrt(squares * n / (n - 1)) / count, "rating")


def _win_examples(judged: Sequence[Judged], options: Mapping[str, Any]) -> list[Example]:
    examples = []
    for row in judged:
        value = row.value
        if value is None and options["unparsable"] == "tie":
            value = 0.5
        if value is not None:
            examples.append(Example(row.id, row.sample, row.task, "win_rate", value, row.cluster, row.response))
    return examples


def _means(examples: Sequence[Example], names: Sequence[str]) -> list[Metric]:
    """The means of examples; null under each of the names where no verdict could be read and none counts."""
    return mean_metrics(examples) or [Metric(OVERALL, name, None, 0) for name in names]


def _beside(judged: Sequence[Judged]) -> list[Metric]:
    """What must be known of a win rate: how many verdicts could be read, ties, and the judges' biases."""
    found: dict[str, list[Example]] = {name: [] for name in ("parsed", "ties", "consistent", "first_wins", "agreement")}

    def add(name: str, row: Judged, value: float) -> None:
        found[name].append(Example(row.id, row.sample, row.task, name, value))

    for row in judged:
        add("parsed", row, float(row.value is not None))
        if row.value is not None:
            add("ties", row, float(row.value == 0.5))
        for consistent in row.consistent:
            add("consistent", row, float(consistent))
        for first in row.first_wins():
            add("first_wins", row, first)
        if (alike := row.agreement()) is not None:
            add("agreement", row, alike)
    return [mean_metric(OVERALL, name, rows) for name, rows in found.items() if rows]


def _length_controlled(
    evidence: Evidence, judged: Sequence[Judged], options: Mapping[str, Any]
) -> tuple[list[Metric], dict[str, Any]]:
    """The length-controlled win rate: fitted anew, and that of the published weights where the model has some."""
    items = [evidence.items[row.id] for row in judged]
    if absent := [item for item in items if "difficulty" not in item.data]:
        raise DataError(
            f"example {absent[0].source} has no difficulty, which length control needs",
            hint="name the file of difficulties in the options of the suite's prompts",
        )
    difficulties = [float(item.data["difficulty"]) for item in items]
    differences = [_longer(evidence, row) for row in judged]
    fitted = fit([row.value for row in judged], differences, difficulties)
    metrics = [_controlled("length_controlled_win_rate", fitted)]
    protocol: dict[str, Any] = {"length_control": "fitted without the two baselines of altered length"}
    models = {row.model for row in judged}
    known = None
    if options["weights"] is not None and evidence.files and len(models) == 1:
        known = published(_weights(evidence.files, options["weights"]), models.pop(), difficulties)
    if known is not None:
        metrics.append(_controlled("published_length_controlled_win_rate", known))
    return metrics, protocol


def _weights(files: Mapping[str, Path], part: str) -> Path:
    """The one of the suite's files that has ``part`` in its name; DataError for none and for several."""
    found = {name: path for name, path in files.items() if part in name}
    if len(found) != 1:
        raise DataError(
            f"options.weights is {part!r}, which is in the names of {len(found)} of the suite's files",
            hint=f"name a part of one of them: {', '.join(found or files)}",
        )
    return next(iter(found.values()))


def _longer(evidence: Evidence, row: Judged) -> int:
    """By how many characters the baseline's response is longer; DataError where there is none, or no response."""
    if row.length is None or row.baseline_length is None:
        lacking = "response" if row.length is None else "response of the baseline's"
        raise DataError(
            f"example {evidence.items[row.id].source} has a preference and no {lacking}, whose length counts",
            hint="give annotations with output_1 (the baseline's) and output_2, or a column of responses",
        )
    return row.baseline_length - row.length


def _controlled(name: str, found: LengthControl | None) -> Metric:
    if found is None:
        return Metric(OVERALL, name, None, 0)
    return Metric(OVERALL, name, found.win_rate, found.n, found.stderr)


Games = tuple[float, float]
"""Games won, and games played."""


def _games(row: Judged, weight: int) -> Games:
    """The games of a response: one for each answer that can be read, ``weight`` for a great difference."""
    counted = [
        (value, float(weight if is_strong else 1))
        for value, is_strong in zip(row.values, row.strong, strict=True)
        if value is not None
    ]
    return sum(value * games for value, games in counted), sum(games for _, games in counted)


def _share(games: Sequence[Games]) -> float | None:
    played = math.fsum(own[1] for own in games)
    return math.fsum(own[0] for own in games) / played if played else None


def _health(evidence: Evidence, judged: Sequence[Judged]) -> dict[str, Any]:
    problems = itertools.chain.from_iterable(row.problems for row in judged)
    own = response_health(evidence.responses) if evidence.has_responses else {}
    return {**own, **judge_health(evidence, list(problems))}
