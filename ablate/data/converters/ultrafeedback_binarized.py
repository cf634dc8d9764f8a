"""Binarised UltraFeedback: a prompt, a chosen and a rejected response, and their scores where they are known.

Three spellings occur: responses as strings with ``metadata.score_chosen`` / ``metadata.score_rejected``; the hub's
responses as messages (prompt included) with ``score_chosen`` / ``score_rejected`` beside them; and Argilla's, with
``chosen-rating`` and ``chosen-model``.
"""

from __future__ import annotations

from typing import Any

from ablate.catalogs.converters import UltraFeedbackBinarizedOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import name
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, message


def convert(row: Row, options: UltraFeedbackBinarizedOptions) -> Converted:
    """Take prompt, chosen and rejected as given: what is called chosen has rank 1 whatever the scores say."""
    prompt, *sides = columns(row, "ultrafeedback_binarized", "prompt", "chosen", "rejected")
    texts = [_completion(side) for side in sides]
    if not isinstance(prompt, str) or None in texts:
        return Dropped("not-text")
    if any(isinstance(side, list) and side[-1].get("role") != "assistant" for side in sides):
        return Dropped("last-turn-not-assistant")
    turns = [message("assistant", text) for text in texts if text is not None]
    if not prompt.strip() or not all(turn["content"] for turn in turns):
        return Dropped("empty-message")
    metadata = row.get("metadata")
    scores = [_score(row, metadata, side) for side in ("chosen", "rejected")]
    models = [name(row.get(f"{side}-model")) for side in ("chosen", "rejected")]
    responses = tuple(
        Response((turn,), score=score if None not in scores else None, rank=rank, model=model)
        for rank, (turn, score, model) in enumerate(zip(turns, scores, models, strict=True), start=1)
    )
    return PreferenceRecord((message("user", prompt),), responses, source="ultrafeedback", row_id=digest(row))


def _completion(side: Any) -> str | None:
    if isinstance(side, list):
        last = side[-1] if side else {}
        side = last.get("content") if isinstance(last, dict) else None
    return side if isinstance(side, str) else None


def _score(row: Row, metadata: Any, side: str) -> float | None:
    column = f"score_{side}"
    if isinstance(metadata, dict) and column in metadata:
        return number(metadata[column])
    return number(row.get(column, row.get(f"{side}-rating")))
