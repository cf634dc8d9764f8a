"""The rate stage: the responses of records rated in every attribute by a reward model that has heads for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablate.context import StageContext, write_json
from ablate.data.converters.native import as_row
from ablate.data.json_lines import write_json_lines
from ablate.data.records import PreferenceRecord
from ablate.errors import StageError
from ablate.rewards.label import read_records
from ablate.rewards.reward_model import AttributeModel
from ablate.training.devices import stage_device

Ratings = Mapping[str, float]


def run(context: StageContext) -> dict[str, Any]:
    """Write ``records.jsonl``, with the ratings of ``reward_model`` as the responses' aspects, and ``report.json``.

    A response that the model can't read whole is left out, and a record that keeps none dropped. The report has the
    mean rating of every attribute and, over the responses that the set itself rates in it, the mean absolute error.
    """
    records = read_records(context)
    model = AttributeModel.open(
        context.inputs["reward_model"],
        stage_device(context.resources),
        progress=lambda done, total: context.events.progress(done, total, "responses"),
    )
    before = [(*record.prompt, *response.messages[:-1]) for record in records for response in record.responses]
    texts = [response.messages[-1]["content"] for record in records for response in record.responses]
    ratings = model.rate(before, texts)
    rated = list(_rated(records, ratings))
    if not rated:
        raise StageError(f"no response of {len(records)} records could be read whole by the reward model")
    write_json_lines(context.output / "records.jsonl", map(as_row, rated))
    report = {
        "in": len(records),
        "kept": len(rated),
        "dropped": {"no-response-rated": len(records) - len(rated)},
        "responses": {"in": len(ratings), "unrated": sum(own is None for own in ratings)},
        "attributes": {name: _summary(name, records, ratings) for name in model.attributes},
    }
    write_json(context.output / "report.json", report)
    return report


def _rated(records: Sequence[PreferenceRecord], ratings: Sequence[Ratings | None]) -> Iterator[PreferenceRecord]:
    rest = iter(ratings)
    for record in records:
        own = [(response, next(rest)) for response in record.responses]
        kept = tuple(replace(response, aspects=dict(said)) for response, said in own if said is not None)
        if kept:
            yield replace(record, responses=kept)


def _summary(name: str, records: Sequence[PreferenceRecord], ratings: Sequence[Ratings | None]) -> dict[str, Any]:
    responses = [response for record in records for response in record.responses]
    said = [own[name] for own in ratings if own is not None]
    errors = [
        abs(own[name] - response.aspects[name])
        for response, own in zip(responses, ratings, strict=True)
        if own is not None and response.aspects and name in response.aspects
    ]
    return {
        "mean": sum(said) / len(said),
        "rated_by_the_set": len(errors),
        "mean_absolute_error": sum(errors) / len(errors) if errors else None,
    }
