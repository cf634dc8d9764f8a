"""Grade outputs from anywhere: a file's rows joined with a suite's items, its grader in memory, a report."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablate.catalogs.digests import sha256_file
from ablate.catalogs.suite_code import find_entry, resolve_entry
from ablate.catalogs.suites import Suite
from ablate.context import Resources, import_function
from ablate.data.json_lines import write_json_lines
from ablate.errors import DataError, UsageError
from ablate.evaluation.evaluate import write_examples
from ablate.evaluation.formats import find_format, read_submission
from ablate.evaluation.formats.rows import RESPONSES
from ablate.evaluation.formats.submission import Output, ReadOptions, Submission
from ablate.evaluation.grading import Example, Grader, HeldEvidence
from ablate.evaluation.items import Finish, Item, Likelihoods, Response
from ablate.evaluation.joining import Joined, join
from ablate.evaluation.lmeval import task_names
from ablate.evaluation.questions import bare_texts
from ablate.evaluation.report import report
from ablate.evaluation.suite_items import drawn, whole_suite
from ablate.rewards.pairs import Pair

_FINISHES: dict[str, Finish] = {"length": "length", "max_tokens": "length", "too_long": "too_long"}
_SCORES = ("{side}", "{side}_score", "score_{side}", "scores_{side}", "{side}_reward", "reward_{side}")


@dataclass(frozen=True)
class Request:
    """What to grade, and how to read it."""

    suite: Suite
    path: Path
    root: Path | None = None
    read: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    by_order: bool = False
    partial: bool = False
    resources: Resources = field(default_factory=Resources)


def grade(request: Request, examples: Path | None = None) -> dict[str, Any]:
    """The report of a file's outputs under a suite's grader: suite, score, metrics, health, protocol.

    No model is run. ``examples`` names a file (``.parquet`` or ``.jsonl``) for the value of every example. Raises
    ``DataError`` for a file that can't be read, rows that are not the suite's, and a data root without its files.
    """
    if examples is not None and examples.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"{examples} is neither .parquet nor .jsonl", hint="examples are written as one of the two")
    suite = request.suite
    reader = find_format(request.path, request.read)
    submission = read_submission(request.path, reader, request.options)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        whole = whole_suite(suite, request.root, scratch)
        asked = drawn(suite, whole)
        joined = join(
            submission,
            asked,
            whole,
            lambda made: bare_texts(suite, made),
            by_order=request.by_order,
            partial=request.partial,
            repeated=suite.decoding.samples > 1 or find_entry("grader", suite.grader).repeated,
        )
        outputs = {"outputs": _account(submission, reader, joined)}
        made = {"made": suite.data_config({name: _digest(request.root, name) for name in suite.files})}
        evidence = gathered(suite, asked, joined, submission, scratch, made | outputs)
        evidence = replace(evidence, resources=request.resources)
        run: Grader = import_function(resolve_entry("grader", suite.grader), "the grader of this suite")
        grades = run(evidence, suite.options)
    if examples is not None:
        _write(examples, grades.examples)
    made_report = report(grades, suite.grading_config(), evidence.protocol)
    health = {**made_report["health"], **_known(evidence.responses if evidence.has_responses else (), joined, asked)}
    return {"suite": suite.name, **made_report, "health": health}


def gathered(
    suite: Suite,
    asked: Sequence[Item] | Sequence[Pair],
    joined: Joined,
    submission: Submission,
    scratch: Path,
    protocol: Mapping[str, Any],
) -> HeldEvidence:
    """What the suite's grader reads: items, and of their rows responses, likelihoods, scores and all else."""
    there = [made for made in asked if made.id in joined.outputs]
    items = {made.id: made for made in there if isinstance(made, Item)}
    tasks = task_names(suite.prompts.options) if suite.prompts.name == "lm-eval" else None
    return HeldEvidence(
        scratch,
        scratch,
        protocol,
        held_items=items,
        held_responses=[row for item in items.values() for row in _responses(item, joined.outputs[item.id], tasks)],
        held_likelihoods=[row for item in items.values() for row in _likelihoods(item, joined.outputs[item.id], tasks)],
        held_scores=_scores([made for made in there if isinstance(made, Pair)], joined),
        held_stored={name: [output.facts for output in rows] for name, rows in joined.outputs.items()},
        lacking=f"{submission.path} has the columns {', '.join(submission.columns) or '(none more)'}; "
        f"responses are read from {', '.join(RESPONSES)}, or from the column that --response names",
    )


def _responses(item: Item, rows: Sequence[Output], tasks: Sequence[str] | None) -> list[Response]:
    """An item's responses, numbered as samples; under lm-eval once for each of its tasks."""
    said = [(output, text) for output in rows for text in output.texts or ()]
    return [
        Response(item.id, task, sample, "", text, _finish(output), _tokens(output))
        for task in tasks or (item.task,)
        for sample, (output, text) in enumerate(said)
    ]


def _finish(output: Output) -> Finish:
    return _FINISHES.get(str(output.facts.get("finish", output.facts.get("finish_reason"))), "eos")


def _tokens(output: Output) -> int:
    value = output.facts.get("tokens")
    return value if isinstance(value, int) else 0


def _likelihoods(item: Item, rows: Sequence[Output], tasks: Sequence[str] | None) -> list[Likelihoods]:
    """Log-likelihoods of an item's choices from the column ``logprobs``: a list, or one for each task of lm-eval."""
    found = []
    for output in rows:
        value = output.facts.get("logprobs")
        for task in tasks or (item.task,):
            own = value.get(task) if isinstance(value, Mapping) else value
            if isinstance(own, list) and (not item.choices or len(own) == len(item.choices)):
                numbers = tuple(float(number) for number in own)
                found.append(Likelihoods(item.id, task, "", numbers, (False,) * len(numbers)))
    return found


def _scores(pairs: Sequence[Pair], joined: Joined) -> list[dict[str, Any]]:
    """Rows of pairs with the scores of both sides, as a score stage writes them; empty where the file has none."""
    rows = []
    for pair in pairs:
        facts = joined.outputs[pair.id][0].facts
        sides = {side: _score(facts, side) for side in ("chosen", "rejected")}
        if None in sides.values():
            return []
        rows.append({**pair.facts(), **sides})
    return rows


def _score(facts: Mapping[str, Any], side: str) -> float | None:
    for spelling in _SCORES:
        value = facts.get(spelling.format(side=side))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _account(submission: Submission, reader: str, joined: Joined) -> dict[str, Any]:
    """What the protocol says of the file."""
    path = submission.path
    return {
        "file": path.name,
        "sha256": sha256_file(path) if path.is_file() else None,
        "read": reader,
        "joined": joined.by,
        **submission.about,
    }


def _digest(root: Path | None, name: str) -> str:
    if root is None:
        raise DataError(f"no data root for {name}")
    return sha256_file(root / name)


def _known(responses: Sequence[Response], joined: Joined, asked: Sequence[Any]) -> dict[str, Any]:
    """Health of a file: how many of the suite's examples it has; null for what it does not say of its responses."""
    outputs = [output for rows in joined.outputs.values() for output in rows]
    finishes = any("finish" in output.facts or "finish_reason" in output.facts for output in outputs)
    tokens = any(isinstance(output.facts.get("tokens"), int) for output in outputs)
    counts: dict[str, Any] = {"missing": len(asked) - len(joined.outputs), "left_out": joined.left_out}
    if responses and not finishes:
        counts |= {"truncated": None, "no_eos": None, "too_long": None}
    if responses and not tokens:
        counts["mean_length"] = None
    if responses:
        counts["mean_characters"] = sum(len(row.response) for row in responses) / len(responses)
    return counts


def _write(path: Path, examples: Sequence[Example]) -> None:
    if path.suffix == ".parquet":
        write_examples(path, examples)
    else:
        write_json_lines(path, [vars(example) for example in examples])
