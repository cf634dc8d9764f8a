"""nvidia/HelpSteer and HelpSteer2: one response a row with five ratings (0 to 4); rows of one prompt are a group.

HelpSteer2 also comes as pairs with the strength of a preference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.catalogs.converters import (
    HelpSteer2Options,
    HelpSteer2PreferenceOptions,
    HelpSteerOptions,
    HelpSteerScore,
)
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import rows_of, two_responses, user_prompt
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, message

ASPECTS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
WEIGHTS: dict[HelpSteerScore, tuple[float, ...]] = {
    "mean-without-verbosity": (0.25, 0.25, 0.25, 0.25, 0.0),
    "mean": (0.2, 0.2, 0.2, 0.2, 0.2),
    "nvidia-70b": (0.65, 0.8, 0.45, 0.55, -0.4),
    "nvidia-340b": (0.3, 0.74, 0.46, 0.47, -0.33),
}
"""The weight of each of the five ratings in a response's score, in the order of ``ASPECTS``."""


def key(row: Row, options: Any) -> str | None:
    """Rows of one prompt belong together; a row whose prompt is no text stands alone."""
    prompt = columns(row, "helpsteer", "prompt")[0]
    return prompt.strip() if isinstance(prompt, str) else None


def convert(row: Row, options: HelpSteerOptions) -> Converted:
    """Score the responses to one prompt; with ``order: released`` the lowest score has rank 1."""
    made = _record(rows_of(row), options.score, "helpsteer")
    if isinstance(made, Dropped) or options.order == "best-first":
        return made
    scores = [response.score or 0.0 for response in made.responses]
    responses = tuple(
        Response(response.messages, response.score, 1 + sum(other < score for other in scores), response.aspects)
        for response, score in zip(made.responses, scores, strict=True)
    )
    return PreferenceRecord(made.prompt, responses, made.source, made.row_id, made.left_out)


def convert_2(row: Row, options: HelpSteer2Options) -> Converted:
    """Score the responses to one prompt (two consecutive rows)."""
    return _record(rows_of(row), options.score, "helpsteer2")


def convert_2_preference(row: Row, options: HelpSteer2PreferenceOptions) -> Converted:
    """``preference_strength`` below 0 prefers response 1, above 0 response 2; the score gap is its size."""
    names = ("prompt", "response_1", "response_2", "preference_strength")
    prompt, *answers, column = columns(row, "helpsteer2_preference", *names)
    strength = number(column)
    if not isinstance(prompt, str):
        return Dropped("not-text")
    if strength is None or abs(strength) > 3:
        return Dropped("no-preference")
    if strength == 0:
        return Dropped("tied")
    if abs(strength) < options.minimum_strength:
        return Dropped("preference-below-minimum")
    scores = (max(-strength, 0.0), max(strength, 0.0))
    return two_responses(row, user_prompt(prompt), answers, source="helpsteer2", ranks=None, scores=scores)


def _record(rows: list[Row], score: HelpSteerScore, source: str) -> PreferenceRecord | Dropped:
    prompt = columns(rows[0], source, "prompt")[0]
    if not isinstance(prompt, str):
        return Dropped("not-text")
    if not prompt.strip():
        return Dropped("empty-message")
    results = [_response(row, score, source) for row in rows]
    responses = tuple(result for result in results if isinstance(result, Response))
    if len(responses) < 2:
        return Dropped("fewer-than-two-responses")
    left_out = tuple(result for result in results if isinstance(result, str))
    return PreferenceRecord((message("user", prompt),), responses, source, digest(rows), left_out)


def _response(row: Row, score: HelpSteerScore, source: str) -> Response | str:
    text, *ratings = columns(row, source, "response", *ASPECTS)
    if not isinstance(text, str):
        return "not-text"
    if not text.strip():
        return "empty-message"
    aspects = {
        aspect: value for aspect, rating in zip(ASPECTS, ratings, strict=True) if (value := number(rating)) is not None
    }
    total = _weighted(aspects, WEIGHTS[score])
    return "no-rating" if total is None else Response((message("assistant", text),), score=total, aspects=aspects)


def _weighted(aspects: Mapping[str, float], weights: tuple[float, ...]) -> float | None:
    """Return the weighted sum of the ratings that have a weight, None where one of those is missing."""
    used = [(aspect, weight) for aspect, weight in zip(ASPECTS, weights, strict=True) if weight]
    if any(aspect not in aspects for aspect, _ in used):
        return None
    return sum(aspects[aspect] * weight for aspect, weight in used)
