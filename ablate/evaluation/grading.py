"""What graders share: evidence in, examples and metrics out, and how means and their errors are taken."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from ablate.catalogs.suites import PICK_METRICS
from ablate.context import Resources, read_json
from ablate.data.json_lines import read_json_lines
from ablate.errors import DataError, StageError
from ablate.evaluation.items import (
    LIKELIHOODS,
    RESPONSES,
    SERVED,
    Item,
    Likelihoods,
    Response,
    read_items,
    read_likelihoods,
    read_responses,
)
from ablate.rewards.likelihood import PAIR_LIKELIHOODS

OVERALL = "overall"
"""Task name of the metrics over all examples of a suite."""


@dataclass(frozen=True)
class Example:
    """One graded example: ``value`` of ``metric`` for one sample of one item."""

    example: str
    sample: int
    task: str
    metric: str
    value: float
    cluster: str | None = None
    response: str | None = None


@dataclass(frozen=True)
class Metric:
    """One number; ``value`` is null where there is nothing to take it over. ``n`` counts distinct examples.

    ``weights`` are those of the tasks whose means it is the weighted mean of, where it is one; they sum to 1.
    """

    task: str
    metric: str
    value: float | None
    n: int
    stderr: float | None = None
    unit: str = "proportion"
    weights: Mapping[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the metric as JSON values, without weights where it has none."""
        return {name: value for name, value in asdict(self).items() if name != "weights" or value is not None}


@dataclass(frozen=True)
class Grades:
    """All that a grader found. ``health`` adds to the counts that every suite has; ``protocol`` says what was
    resolved only while grading (versions, substitutes)."""

    examples: Sequence[Example]
    metrics: Sequence[Metric]
    health: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What there is to grade: the folder of a generate or select stage, or the scores of a score stage.

    ``protocol`` is what the stage that asked the model wrote about itself: ``made`` (its config) and the digest of the
    items; ``scratch`` is a folder for temporary files.
    """

    folder: Path
    scratch: Path
    protocol: Mapping[str, Any] = field(default_factory=dict)
    scores_file: Path | None = None
    reference: Path | None = None
    """Folder of the reference's likelihoods, where those of a policy are graded and it has a reference."""
    resources: Resources = field(default_factory=Resources)
    """How the grader runs; nothing that it finds depends on it."""
    judging: Path | None = None
    """Folder of a judge stage."""
    response_scores: Path | None = None
    """Rows of what models of this machine say of each response, where a stage asked them."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """The suite's data files by relative name, where a file of outputs is graded: a stage has none at hand."""
    scale: tuple[float, float] = (0.0, 10.0)
    """Lowest and highest rating that a judge of the suite can give; a stage has read its judges' ratings already."""

    @property
    def prompt_options(self) -> Mapping[str, Any]:
        """Options of the suite's prompts."""
        options: Mapping[str, Any] = self.protocol["made"]["prompts"]["options"]
        return options

    @cached_property
    def items(self) -> dict[str, Item]:
        """Items by id, in the suite's order."""
        return {item.id: item for item in read_items(self.folder)}

    @cached_property
    def responses(self) -> list[Response]:
        """Responses; an item of the suite without any is an error."""
        rows = read_responses(self.folder)
        answered = {row.id for row in rows}
        if missing := [name for name in self.items if name not in answered]:
            raise StageError(f"{len(missing)} items have no response, the first is {missing[0]}")
        return rows

    @cached_property
    def likelihood_rows(self) -> list[Likelihoods]:
        """Likelihoods of the items' choices; of several tasks over the same items each has its own."""
        return read_likelihoods(self.folder) if self.has_likelihoods else []

    @cached_property
    def likelihoods(self) -> dict[str, Likelihoods]:
        """Likelihoods of the items' choices by item id; an item without is an error."""
        rows = {row.id: row for row in self.likelihood_rows}
        if missing := [name for name in self.items if name not in rows]:
            raise StageError(f"{len(missing)} items have no likelihoods, the first is {missing[0]}")
        return rows

    @cached_property
    def scores(self) -> list[dict[str, Any]]:
        """Rows of ``scores.jsonl``."""
        if self.scores_file is None:
            raise StageError("this grader reads scores; the stage was given responses")
        return read_json_lines(self.scores_file)

    @cached_property
    def pair_likelihoods(self) -> list[dict[str, Any]]:
        """Rows of pairs with the policy's likelihoods."""
        return read_json_lines(self.folder / PAIR_LIKELIHOODS)

    @cached_property
    def reference_likelihoods(self) -> dict[str, dict[str, Any]]:
        """Rows of pairs with the reference's likelihoods, by id; empty where there is no reference."""
        rows = [] if self.reference is None else read_json_lines(self.reference / PAIR_LIKELIHOODS)
        return {row["id"]: row for row in rows}

    @cached_property
    def stored(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What is known of each item beside its responses, by item id: of a file of outputs the other columns of its
        rows (labels, verdicts), in a stage what models say of its responses."""
        found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in [] if self.response_scores is None else read_json_lines(self.response_scores):
            found[row["id"]].append(row)
        return found

    @cached_property
    def verdicts(self) -> list[dict[str, Any]]:
        """Rows of ``verdicts.jsonl``: what judges say of the responses."""
        if self.judging is None:
            raise StageError("this grader reads what judges say; the stage was given no verdicts")
        return read_json_lines(self.judging / "verdicts.jsonl")

    @cached_property
    def judges(self) -> list[dict[str, Any]]:
        """What is known of each judge: the model that answered, when, how often it could not be read, what it cost."""
        found: list[dict[str, Any]] = [] if self.judging is None else read_json(self.judging / "judging.json")["judges"]
        return found

    @cached_property
    def server_health(self) -> dict[str, Any]:
        """What is to be known of responses that a server gave: the models that it named, the first and the last day."""
        path = self.folder / SERVED
        if not path.is_file():
            return {}
        account = read_json(path)
        days = {f"served_{end}": account[f"asked_{end}"] for end in ("from", "to") if f"asked_{end}" in account}
        return {"served": ", ".join(account["served"]) or "not named", **days}

    @property
    def has_responses(self) -> bool:
        """Whether there are generated responses."""
        return (self.folder / RESPONSES).is_file()

    @property
    def has_likelihoods(self) -> bool:
        """Whether there are likelihoods."""
        return (self.folder / LIKELIHOODS).is_file()


@dataclass(frozen=True)
class HeldEvidence(Evidence):
    """Evidence that lies in memory: items by id, and what there is to grade of them.

    ``held_scores`` are rows of pairs as a score stage writes them; ``lacking`` says, after "there is no …", what is
    accepted in place of what a grader asks for and the evidence does not have.
    """

    held_items: Mapping[str, Item] = field(default_factory=dict)
    held_responses: Sequence[Response] = ()
    held_likelihoods: Sequence[Likelihoods] = ()
    held_scores: Sequence[Mapping[str, Any]] = ()
    held_stored: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    lacking: str | None = None

    @cached_property
    def items(self) -> dict[str, Item]:
        """The items that there is something to grade of."""
        return dict(self.held_items)

    @cached_property
    def responses(self) -> list[Response]:
        """The responses; DataError where there is none."""
        if self.held_items and not self.held_responses:
            raise DataError("this suite's grader reads responses, and there is none", hint=self.lacking)
        return list(self.held_responses)

    @cached_property
    def likelihood_rows(self) -> list[Likelihoods]:
        """The likelihoods."""
        return list(self.held_likelihoods)

    @cached_property
    def scores(self) -> list[dict[str, Any]]:
        """The rows of pairs with the scores of both sides; DataError where there is none."""
        if not self.held_scores:
            raise DataError("this suite's grader reads a score of both responses of a pair", hint=self.lacking)
        return [dict(row) for row in self.held_scores]

    @cached_property
    def stored(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What was said of each item beside its responses."""
        return self.held_stored

    @property
    def has_responses(self) -> bool:
        """Whether there are responses."""
        return bool(self.held_responses)

    @property
    def has_likelihoods(self) -> bool:
        """Whether there are likelihoods."""
        return bool(self.held_likelihoods)


Grader = Callable[[Evidence, Mapping[str, Any]], Grades]


def mean_metric(task: str, metric: str, examples: Iterable[Example], unit: str = "proportion") -> Metric:
    """Mean over examples (of the mean over an example's samples) with its standard error.

    stderr = sqrt(C / (C - 1) * sum over C clusters of (sum of deviations from the mean)^2) / n, cluster-robust (Liang
    and Zeger 1986; Miller 2024, eq. 4). An example without a cluster is its own: without any it is sd / sqrt(n). Null
    for fewer than two clusters.
    """
    by_example: dict[str, list[float]] = defaultdict(list)
    clusters: dict[str, str] = {}
    for row in examples:
        by_example[row.example].append(row.value)
        clusters[row.example] = f"example {row.example}" if row.cluster is None else f"cluster {row.cluster}"
    values = {name: sum(samples) / len(samples) for name, samples in by_example.items()}
    n = len(values)
    if n == 0:
        return Metric(task, metric, None, 0, None, unit)
    mean = math.fsum(values.values()) / n
    deviations: dict[str, float] = defaultdict(float)
    for name, value in values.items():
        deviations[clusters[name]] += value - mean
    count = len(deviations)
    if count == 1:
        return Metric(task, metric, mean, n, None, unit)
    squares = math.fsum(total**2 for total in deviations.values())
    return Metric(task, metric, mean, n, math.sqrt(count / (count - 1) * squares) / n, unit)


def mean_metrics(examples: Sequence[Example], units: Mapping[str, str] | None = None) -> list[Metric]:
    """For each metric the mean over all examples (task ``overall``: pooled, not averaged over tasks).

    With several tasks also the mean of each.
    """
    several = len({row.task for row in examples}) > 1
    groups: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for row in examples:
        groups[OVERALL, row.metric].append(row)
    for row in examples if several else ():
        groups[row.task, row.metric].append(row)
    units = units or {}
    return [mean_metric(task, metric, rows, units.get(metric, "proportion")) for (task, metric), rows in groups.items()]


def pick_references(examples: Sequence[Example], score: Metric) -> list[Metric]:
    """Return what picking one of an item's candidates can give: ``random`` (their score) and ``oracle`` (their best).

    ``examples`` and ``score`` are those of all candidates that a reward model picked from. A score that is not the mean
    over examples (an F1) has no standard error here, and its oracle is null: no example says which pick is best for it.
    """
    rows = [row for row in examples if row.metric == score.metric and score.task in (OVERALL, row.task)]
    mean = mean_metric(score.task, score.metric, rows, score.unit)
    chance, oracle = PICK_METRICS
    if mean.value is None or score.value is None or not math.isclose(mean.value, score.value, abs_tol=1e-12):
        n = len({row.example for row in examples})
        return [replace(score, metric=chance, n=n, stderr=None), Metric(score.task, oracle, None, 0, None, score.unit)]
    best: dict[str, Example] = {}
    for row in rows:
        if row.example not in best or row.value > best[row.example].value:
            best[row.example] = row
    return [replace(mean, metric=chance), mean_metric(score.task, oracle, best.values(), score.unit)]


def bootstrap_stderr(
    groups: Collection[Sequence[Any]],
    statistic: Callable[[Sequence[Any]], float | None],
    *,
    resamples: int,
    seed: int,
) -> float | None:
    """Standard deviation of ``statistic`` over resamples of ``groups``, for metrics that are no means.

    A group is the rows of one example, which are no independent draws: a resample has all of them or none. Resamples in
    which the statistic is undefined are left out; null when fewer than half are defined.
    """
    if len(groups) < 2 or resamples < 2:
        return None
    examples = list(groups)
    stream = random.Random(seed)
    resampled = (stream.choices(examples, k=len(examples)) for _ in range(resamples))
    drawn = [statistic(list(chain.from_iterable(chosen))) for chosen in resampled]
    values = [value for value in drawn if value is not None]
    if len(values) < resamples / 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def response_health(responses: Sequence[Response]) -> dict[str, Any]:
    """Counts of what may be wrong with responses: cut at the limit, without EOS, empty, prompt too long."""
    lengths = [row.tokens for row in responses if row.finish != "too_long"]
    thought = [row for row in responses if row.reasoning]
    unfinished = {"unfinished_reasoning": sum(not row.response for row in thought)} if thought else {}
    return {
        "responses": len(responses),
        "truncated": sum(row.finish == "length" for row in responses),
        "no_eos": sum(row.finish in ("length", "stop") for row in responses),
        "empty": sum(not row.response.strip() for row in responses),
        "too_long": sum(row.finish == "too_long" for row in responses),
        "mean_length": sum(lengths) / len(lengths) if lengths else None,
        **unfinished,
    }


def shortened(text: str, limit: int = 500) -> str:
    """The start of a response, for tables that people read."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
