"""This package's own form of preference data: a prompt and its k responses, as one JSON object a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.catalogs.converters import RecordsOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import name, read_messages
from ablate.data.records import (
    Converted,
    Dropped,
    PreferenceRecord,
    Response,
    Row,
    digest,
)


def convert(row: Row, _: RecordsOptions) -> Converted:
    """Read ``{prompt, responses: [{messages, score, rank, aspects, model}], source, language}``.

    Of a response only ``messages`` must be there. Turns need not alternate: a set that is labelled anew has those of
    its source, which may be taken as released.
    """
    written, responses = columns(row, "records", "prompt", "responses")
    prompt = read_messages(written)
    if isinstance(prompt, Dropped):
        return prompt
    if not prompt:
        return Dropped("no-prompt")
    if not isinstance(responses, list) or not all(isinstance(response, dict) for response in responses):
        return Dropped("not-responses")
    read = []
    for response in responses:
        found = _response(response)
        if isinstance(found, Dropped):
            return found
        read.append(found)
    if len(read) < 2:
        return Dropped("fewer-than-two-responses")
    return PreferenceRecord(
        prompt,
        tuple(read),
        source=name(row.get("source")) or "records",
        row_id=name(row.get("id")) or digest(row),
        language=name(row.get("language")),
    )


def as_row(record: PreferenceRecord) -> dict[str, Any]:
    """Return a record in the form that :func:`convert` reads."""
    return {
        "id": record.row_id,
        "prompt": list(record.prompt),
        "responses": [
            {
                "messages": list(response.messages),
                "score": response.score,
                "rank": response.rank,
                "aspects": dict(response.aspects) if response.aspects is not None else None,
                "model": response.model,
            }
            for response in record.responses
        ],
        "source": record.source,
        "language": record.language,
    }


def _response(row: Mapping[str, Any]) -> Response | Dropped:
    messages = read_messages(row.get("messages"))
    if isinstance(messages, Dropped):
        return messages
    if not messages or messages[-1]["role"] != "assistant":
        return Dropped("last-turn-not-assistant")
    rank, aspects = number(row.get("rank")), row.get("aspects")
    if not isinstance(aspects, dict | None):
        return Dropped("not-aspects")
    rated = {key: value for key, given in aspects.items() if (value := number(given)) is not None} if aspects else None
    return Response(
        messages,
        score=number(row.get("score")),
        rank=None if rank is None else int(rank),
        aspects=rated,
        model=name(row.get("model")),
    )
