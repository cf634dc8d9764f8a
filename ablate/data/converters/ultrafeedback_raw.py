"""openbmb/UltraFeedback: one instruction, four completions, each with four aspect ratings and an overall score."""

from __future__ import annotations

from typing import Any

from ablate.catalogs.converters import UltraFeedbackRawOptions
from ablate.data.converters.columns import columns, number
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, message

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
SUSPICIOUS_TEN = 2.0
"""In the released file some overall scores of 1 are written as 10; a 10 with this mean rating or less is one."""


def convert(row: Row, options: UltraFeedbackRawOptions) -> Converted:
    """Score every completion by the chosen label; completions without text or without that label are left out.

    Ratings are strings and may be ``"N/A"``: the mean is over the aspects that are rated.
    """
    instruction, completions = columns(row, "ultrafeedback_raw", "instruction", "completions")
    if not isinstance(instruction, str) or not isinstance(completions, list):
        return Dropped("not-text")
    if not instruction.strip():
        return Dropped("empty-message")
    responses: list[Response] = []
    left_out: list[str] = []
    for completion in completions:
        result = _response(completion, options)
        if isinstance(result, Response):
            responses.append(result)
        else:
            left_out.append(result)
    if len(responses) < 2:
        return Dropped("fewer-than-two-responses")
    source = f"ultrafeedback_{row['source']}" if isinstance(row.get("source"), str) else "ultrafeedback"
    prompt = (message("user", instruction),)
    return PreferenceRecord(prompt, tuple(responses), source=source, row_id=digest(row), left_out=tuple(left_out))


def _response(completion: Any, options: UltraFeedbackRawOptions) -> Response | str:
    if not isinstance(completion, dict) or not isinstance(completion.get("response"), str):
        return "not-text"
    if not completion["response"].strip():
        return "empty-message"
    aspects = _ratings(completion.get("annotations"))
    score = _score(completion, aspects, options)
    if score is None:
        return "no-rating"
    if options.label == "overall" and score == 10.0 and aspects and _mean(aspects) <= SUSPICIOUS_TEN:
        if options.overall_ten == "drop-response":
            return "overall-ten-for-one"
        if options.overall_ten == "one":
            score = 1.0
    model = completion.get("model")
    turn = message("assistant", completion["response"])
    return Response((turn,), score=score, aspects=aspects, model=model if isinstance(model, str) else None)


def _ratings(annotations: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for aspect in ASPECTS:
        annotation = annotations.get(aspect) if isinstance(annotations, dict) else None
        rating = number(annotation.get("Rating")) if isinstance(annotation, dict) else None
        if rating is not None:
            found[aspect] = rating
    return found


def _score(completion: Row, aspects: dict[str, float], options: UltraFeedbackRawOptions) -> float | None:
    if options.label == "overall":
        return number(completion.get("overall_score"))
    if options.label == "mean-aspects":
        return _mean(aspects) if aspects else None
    return aspects.get(options.label)


def _mean(aspects: dict[str, float]) -> float:
    return sum(aspects.values()) / len(aspects)
