"""The condition stage: rated responses as answers to imitate, each to its prompt with its own ratings written in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablate.algorithms.steerlm import quantised
from ablate.context import StageContext, write_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.errors import StageError
from ablate.models.conditions import conditioned

Row = Mapping[str, Any]


def run(context: StageContext) -> dict[str, Any]:
    """Write ``answers.jsonl``, rows of a conditioned prompt and the response ``chosen`` for it, and ``report.json``.

    Config: ``condition``, attributes in braces; ``attributes``, their names; ``lowest`` and ``highest``, their values.
    The report counts the values of every attribute.
    """
    config = context.config
    names, within = config["attributes"], (config["lowest"], config["highest"])
    records = read_json_lines(context.inputs["records"])
    values = [[_values(response, names, *within) for response in record["responses"]] for record in records]
    write_json_lines(context.output / "answers.jsonl", _rows(records, values, config["condition"]))
    everything = [own for of_record in values for own in of_record]
    report = {
        "in": len(records),
        "responses": len(everything),
        "values": {name: _counted([own[name] for own in everything]) for name in names},
    }
    write_json(context.output / "report.json", report)
    return report


def _counted(values: Sequence[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _values(response: Row, names: Sequence[str], lowest: int, highest: int) -> dict[str, int]:
    ratings = response["aspects"] or {}
    if missing := [name for name in names if name not in ratings]:
        raise StageError(
            f"a response is not rated for {', '.join(missing)}",
            hint="the condition names attributes of reward_model.attributes",
        )
    return quantised({name: ratings[name] for name in names}, lowest, highest)


def _rows(records: Sequence[Row], values: Sequence[Sequence[Mapping[str, int]]], condition: str) -> Iterator[Row]:
    for record, of_record in zip(records, values, strict=True):
        for place, (response, own) in enumerate(zip(record["responses"], of_record, strict=True)):
            yield {
                "id": f"{record['id']}-{place}",
                "prompt": conditioned(record["prompt"], condition.format(**own)),
                "chosen": response["messages"],
                "source": record["source"],
            }
