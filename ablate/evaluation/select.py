"""The select stage: one of several responses to each item, the one that scores best."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.context import StageContext, read_json, write_json
from ablate.data.json_lines import read_json_lines
from ablate.errors import StageError
from ablate.evaluation.items import ITEMS, PROTOCOL, Response, artifact_folder, read_responses, write_responses

Scores = Mapping[tuple[str, int], float | None]


def run(context: StageContext) -> dict[str, Any]:
    """Write ``responses.jsonl`` with one sample an item, the items beside it, and ``selection.json``."""
    if context.config["rule"] != "best":
        raise StageError(f"unknown selection rule {context.config['rule']!r}", hint="allowed: best")
    folder = artifact_folder(context.inputs["responses"])
    scores = {(row["id"], row["sample"]): row["score"] for row in read_json_lines(context.inputs["scores"])}
    responses = read_responses(folder)
    picked = select_best(responses, scores, seed=context.config["seed"])
    write_responses(context.output, picked)
    shutil.copyfile(folder / ITEMS, context.output / ITEMS)
    protocol = read_json(folder / PROTOCOL)
    write_json(context.output / PROTOCOL, {**protocol, "selected": dict(context.config)})
    report = selection_report(responses, scores, picked)
    write_json(context.output / "selection.json", report)
    return report


def select_best(responses: Sequence[Response], scores: Scores, *, seed: int) -> list[Response]:
    """The highest-scoring response to each item, in the items' order; a seeded draw decides between equal ones.

    A response without a score (it does not fit the reward model) is taken only where none has one. Raises
    ``StageError`` when a response was never scored.
    """
    if missing := [row for row in responses if (row.id, row.sample) not in scores]:
        first = missing[0]
        raise StageError(f"{len(missing)} responses were not scored, the first is sample {first.sample} of {first.id}")
    by_item: dict[str, list[Response]] = defaultdict(list)
    for row in responses:
        by_item[row.id].append(row)
    picked = []
    for name, rows in by_item.items():
        values = [(scores[row.id, row.sample], row) for row in rows]
        known = [value for value, _ in values if value is not None]
        best = max(known) if known else None
        equal = [row for value, row in values if value == best]
        picked.append(equal[0] if len(equal) == 1 else random.Random(f"{seed}:{name}").choice(equal))
    return picked


def selection_report(responses: Sequence[Response], scores: Scores, picked: Sequence[Response]) -> dict[str, Any]:
    """Counts, the mean score of all and of the picked responses, and how many picks had no score."""
    return {
        "items": len(picked),
        "responses": len(responses),
        "unscored": sum(scores[row.id, row.sample] is None for row in responses),
        "unscored_picks": sum(scores[row.id, row.sample] is None for row in picked),
        "mean_score": _mean([scores[row.id, row.sample] for row in responses]),
        "mean_picked_score": _mean([scores[row.id, row.sample] for row in picked]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
