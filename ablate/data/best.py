"""The best stage: of scored responses, those that a policy is to imitate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablate.context import StageContext, write_json
from ablate.data.json_lines import read_json_lines, write_json_lines

Place = tuple[int, int]
"""A record's number and a response's in it."""


def run(context: StageContext) -> dict[str, Any]:
    """Write ``answers.jsonl``, rows of a prompt and the response ``chosen`` for it, and ``report.json``.

    Config: ``top_share``, null for the best response of every record, or the share of all that are kept.
    """
    records = read_json_lines(context.inputs["records"])
    scores = [[float(response["score"]) for response in record["responses"]] for record in records]
    share = context.config["top_share"]
    kept = sorted(best_of_each(scores) if share is None else top(scores, share))
    write_json_lines(context.output / "answers.jsonl", _rows(records, kept))
    everything = [score for own in scores for score in own]
    report = {
        "in": len(records),
        "prompts": len({record for record, _ in kept}),
        "responses": {"in": len(everything), "kept": len(kept)},
        "mean_score": {
            "in": sum(everything) / len(everything),
            "kept": sum(scores[record][place] for record, place in kept) / len(kept),
        },
    }
    write_json(context.output / "report.json", report)
    return report


def best_of_each(scores: Sequence[Sequence[float]]) -> list[Place]:
    """Return the place of each record's highest score, of equal ones the first."""
    return [(record, max(range(len(own)), key=own.__getitem__)) for record, own in enumerate(scores)]


def top(scores: Sequence[Sequence[float]], share: float) -> list[Place]:
    """Return the places of the highest ``share`` of all scores, rounded, at least one; of equal ones the first."""
    places = [(record, place) for record, own in enumerate(scores) for place in range(len(own))]
    ranked = sorted(places, key=lambda item: -scores[item[0]][item[1]])
    return ranked[: max(1, round(share * len(ranked)))]


def _rows(records: Sequence[Mapping[str, Any]], kept: Sequence[Place]) -> Iterator[dict[str, Any]]:
    for record, place in kept:
        source, response = records[record], records[record]["responses"][place]
        yield {
            "id": f"{source['id']}-{place}",
            "prompt": source["prompt"],
            "chosen": response["messages"],
            "score": response["score"],
            "source": source["source"],
        }
