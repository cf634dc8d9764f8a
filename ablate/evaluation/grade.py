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
from ablate.errors import DataError, UnknownNameError, UsageError
from ablate.evaluation.baselines import Baseline, baseline_outputs
from ablate.evaluation.evaluate import write_examples
from ablate.evaluation.formats import read_submission
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
    """What to grade, a file or a baseline, and how to read it.

    ``judges`` names models (folders, or fetched ids of the hub) for the columns of scores that a grader reads.
    """

    suite: Suite
    path: Path | None = None
    baseline: Baseline | None = None
    root: Path | None = None
    read: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    by_order: bool = False
    partial: bool = False
    judges: Mapping[str, str] = field(default_factory=dict)


def grade(request: Request, examples: Path | None = None) -> dict[str, Any]:
    """The report of a file's outputs under a suite's grader: suite, score, metrics, health, protocol.

    No model is run. ``examples`` names a file (``.parquet`` or ``.jsonl``) for the value of every example. Raises
    ``DataError`` for a file that can't be read, rows that are not the suite's, and a data root without its files.
    """
    if examples is not None and examples.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"{examples} is neither .parquet nor .jsonl", hint="examples are written as one of the two")
    suite = request.suite
    with tempfile.TemporaryDirectory() as folder:
        evidence, joined, asked = read_evidence(request, Path(folder))
        evidence = _judged(request, evidence)
        run: Grader = import_function(resolve_entry("grader", suite.grader), "the grader of this suite")
        grades = run(evidence, suite.options)
    if examples is not None:
        _write(examples, grades.examples)
    made_report = report(grades, suite.grading_config(), evidence.protocol)
    health = {**made_report["health"], **_known(evidence.responses if evidence.has_responses else (), joined, asked)}
    return {"suite": suite.name, **made_report, "health": health}


def read_evidence(request: Request, scratch: Path) -> tuple[HeldEvidence, Joined, list[Any]]:
    """What a grader reads of a file of outputs, how its rows were found, and all examples that the suite asks."""
    suite = request.suite
    whole = whole_suite(suite, request.root, scratch)
    asked = drawn(suite, whole)
    submission = _submission(request, asked)
    joined = join(
        submission,
        asked,
        whole,
        lambda made: bare_texts(suite, made),
        by_order=request.by_order,
        partial=request.partial,
        repeated=suite.decoding.samples > 1 or find_entry("grader", suite.grader).repeated,
    )
    outputs = {"outputs": _account(submission, joined)}
    made = {"made": suite.data_config({name: _digest(request.root, name) for name in suite.files})}
    return gathered(suite, asked, joined, submission, scratch, made | outputs, request.root), joined, asked


def _submission(request: Request, asked: Sequence[Item] | Sequence[Pair]) -> Submission:
    """The outputs to grade: those of the file, or a baseline's."""
    if request.path is not None and request.baseline is None:
        return read_submission(request.path, request.read, request.options)
    if request.baseline is not None and request.path is None:
        return baseline_outputs(request.suite, asked, request.baseline)
    raise UsageError("give either a file of outputs or a baseline", hint="ablate grade SUITE FILE, or --baseline NAME")


def gathered(
    suite: Suite,
    asked: Sequence[Item] | Sequence[Pair],
    joined: Joined,
    submission: Submission,
    scratch: Path,
    protocol: Mapping[str, Any],
    root: Path | None = None,
) -> HeldEvidence:
    """What the suite's grader reads: items, and of their rows responses, likelihoods, scores and all else."""
    there = [made for made in asked if made.id in joined.outputs]
    items = {made.id: made for made in there if isinstance(made, Item)}
    tasks = task_names(suite.prompts.options) if suite.prompts.name == "lm-eval" else None
    return HeldEvidence(
        scratch,
        scratch,
        protocol,
        files={} if root is None else {name: root / name for name in suite.files},
        held_items=items,
        held_responses=[row for item in items.values() for row in _responses(item, joined.outputs[item.id], tasks)],
        held_likelihoods=[row for item in items.values() for row in _likelihoods(item, joined.outputs[item.id], tasks)],
        held_scores=_scores([made for made in there if isinstance(made, Pair)], joined),
        held_stored={name: [output.facts for output in rows] for name, rows in joined.outputs.items()},
        lacking=f"{submission.path} has the columns {', '.join(submission.columns) or '(none more)'}; "
        f"responses are read from {', '.join(RESPONSES)}, or from the column that --response names",
    )


def _judged(request: Request, evidence: HeldEvidence) -> HeldEvidence:
    """The evidence with the scores of the request's judges: a response's in the column that the judge is named by."""
    known = find_entry("grader", request.suite.grader).judges
    stored: dict[str, list[Mapping[str, Any]]] = {name: list(rows) for name, rows in evidence.stored.items()}
    for column, model in request.judges.items():
        if column not in known:
            raise UnknownNameError(f"judge of suite {request.suite.name!r}", column, known)
        ask = import_function(known[column], "the judge of this suite")
        scores = ask(model, evidence.items, evidence.responses, Resources())
        for response, score in zip(evidence.responses, scores, strict=True):
            stored[response.id] = [{column: score}, *stored.get(response.id, ())]
    return replace(evidence, held_stored=stored, protocol={**evidence.protocol, "judges": dict(request.judges)})


def _responses(item: Item, rows: Sequence[Output], tasks: Sequence[str] | None) -> list[Response]:
    """An item's responses, numbered as samples; under lm-eval once for each of its tasks."""
    if item.followups and any(output.texts is not None for output in rows):
        return _turns(item, rows)
    said = [(output, text) for output in rows for text in output.texts or ()]
    return [
        Response(item.id, task, sample, "", text, _finish(output), _tokens(output))
        for task in tasks or (item.task,)
        for sample, (output, text) in enumerate(said)
    ]


def _turns(item: Item, rows: Sequence[Output]) -> list[Response]:
    """The responses to an item of several user turns: the texts of a row are those of its turns, a row is a sample."""
    for output in rows:
        if len(output.texts or ()) != 1 + len(item.followups):
            raise DataError(
                f"row {output.row} has {len(output.texts or ())} responses to the {1 + len(item.followups)} turns of "
                f"example {item.source}",
                hint="give a list of responses, one a turn",
            )
    return [
        Response(item.id, item.task, sample, "", text, _finish(output), _tokens(output), turn)
        for sample, output in enumerate(rows)
        for turn, text in enumerate(output.texts or ())
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


def _account(submission: Submission, joined: Joined) -> dict[str, Any]:
    """What the protocol says of the file."""
    path = submission.path
    return {
        "file": path.name,
        "sha256": sha256_file(path) if path.is_file() else None,
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
