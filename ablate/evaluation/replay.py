"""lm-eval as a grader: its metrics over stored answers, without any model."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.evaluator
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from ablate.errors import DataError, StageError
from ablate.evaluation.grading import Evidence, Example, Grades, Metric, mean_metric, response_health, shortened
from ablate.evaluation.lmeval import ID, is_ifeval, load_tasks, quiet_lm_eval


def replaying(evidence: Evidence) -> LM:
    """An lm-eval model that returns the stored answers; a request without one is an error."""
    texts = {(row.task, row.id): row for row in evidence.responses} if evidence.has_responses else {}
    scored = {(row.task, row.id): row for row in evidence.likelihood_rows}

    class Replaying(LM):  # type: ignore[misc]
        """Looks answers up by task, example and choice."""

        def generate_until(self, requests: list[Instance]) -> list[str]:
            return [_stored(texts, request).response for request in requests]

        def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
            answers = []
            for request in requests:
                row = _stored(scored, request)
                if row.logprobs is None or row.greedy is None:
                    answers.append((0.0, False))  # too long: overruled after grading
                else:
                    answers.append((row.logprobs[request.idx], row.greedy[request.idx]))
            return answers

        def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
            raise StageError("perplexity tasks of lm-eval are not supported")

    return Replaying()


def _stored(known: Mapping[tuple[str, str], Any], request: Instance) -> Any:
    key = (request.task_name or "", request.doc[ID])
    if not known:
        texts = request.request_type == "generate_until"
        raise DataError(
            f"task {key[0]} reads {'responses' if texts else 'log-likelihoods of choices'}, and there are none",
            hint="a file gives them in a column "
            + ("response" if texts else "logprobs: a list in the choices' order, of several tasks an object of lists"),
        )
    if key not in known:
        raise StageError(f"no stored answer for example {key[1]} of task {key[0]}")
    return known[key]


def evaluate(model: LM, tasks: Any) -> dict[str, Any]:
    """Run lm-eval over loaded tasks; returns its results with the logged samples."""
    with quiet_lm_eval():
        found = lm_eval.evaluator.evaluate(lm=model, task_dict=tasks, bootstrap_iters=0)
    if found is None:
        raise StageError("lm-eval returned no results")
    return dict(found)


def grade(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """lm-eval's own metrics over the stored answers; a prompt that did not fit the context counts as wrong (0)."""
    prompts, items = evidence.prompt_options, list(evidence.items.values())
    protocol: dict[str, Any] = {"lm_eval": lm_eval.__version__}
    with ExitStack() as stack:
        if is_ifeval(prompts):
            from ablate.evaluation.sentences import SENTENCES, checker_splitter, seeded_checker

            protocol["sentences"] = SENTENCES[options["sentences"]]
            stack.enter_context(checker_splitter(options["sentences"]))
            stack.enter_context(seeded_checker())
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=evidence.scratch))
        results = evaluate(replaying(evidence), load_tasks(items, prompts, Path(folder)))
    too_long = _too_long(evidence)
    examples, metrics = _read_samples(results, too_long)
    health: dict[str, Any] = response_health(evidence.responses) if evidence.has_responses else {}
    return Grades(examples, metrics, {**health, "too_long": len(too_long)}, protocol)


def _too_long(evidence: Evidence) -> set[tuple[str, str]]:
    found = set()
    if evidence.has_responses:
        found |= {(row.task, row.id) for row in evidence.responses if row.finish == "too_long"}
    found |= {(row.task, row.id) for row in evidence.likelihood_rows if row.logprobs is None}
    return found


def _read_samples(results: Mapping[str, Any], too_long: set[tuple[str, str]]) -> tuple[list[Example], list[Metric]]:
    """Per-example values of each task, metric and filter, and their means.

    A metric that is a list for each example (IFEval's instruction level) is pooled over the entries of all lists,
    as lm-eval does; its per-example value is the mean of the list.
    """
    examples: list[Example] = []
    metrics: list[Metric] = []
    for task, samples in results["samples"].items():
        pooled: dict[str, list[float]] = defaultdict(list)
        mine: dict[str, list[Example]] = defaultdict(list)
        for sample in samples:
            identity = sample["doc"][ID]
            said = sample["filtered_resps"][0] if isinstance(sample["filtered_resps"][0], str) else None
            for name in sample["metrics"]:
                metric = name if sample["filter"] == "none" else f"{name},{sample['filter']}"
                raw = sample[name] if isinstance(sample[name], list) else [sample[name]]
                values = [0.0] * len(raw) if (task, identity) in too_long else [float(value) for value in raw]
                pooled[metric] += values
                value = sum(values) / len(values)
                mine[metric].append(Example(identity, 0, task, metric, value, None, said and shortened(said)))
        for metric, rows_of in mine.items():
            mean = mean_metric(task, metric, rows_of)
            if len(pooled[metric]) != len(rows_of):
                mean = Metric(task, metric, sum(pooled[metric]) / len(pooled[metric]), mean.n, None)
            metrics.append(mean)
            examples += rows_of
    return examples, metrics
