"""Refusals and lectures, by their words: guesses for audits and filters, not the protocol of an evaluation."""

from __future__ import annotations

import re

_REFUSAL = re.compile(
    r"\bas an ai\b|\bi('m| am) (an? )?(ai|language model)\b"
    r"|\bi('m| am)( really| very| so)? sorry,? but\b|\bi apologi[sz]e,? but\b"
    r"|\bsorry,? (but )?i (can't|cannot|can not|won't)\b"
    r"|\bi (can't|cannot|can not|won't|will not|would not|wouldn't) (help|assist|provide|do that|answer|tell you"
    r"|give you|recommend|support|condone|engage|fulfill|comply|participate|discuss|create|write|generate)\b"
    r"|\bi('m| am) (not able|unable|not going) to\b|\bi('m| am) not comfortable\b"
    r"|\bagainst my (programming|guidelines|principles)\b"
    r"|\bit (is|would be) (not|in)appropriate\b|\bit('s| is) not (ethical|appropriate)\b"
)
REFUSAL_WITHIN = 200  # characters

LECTURES = (
    "as an ai language model",
    "as a language model",
    "as an artificial intelligence",
    "not programmed to",
    "my programming prohibits",
    "ethical guidelines",
    "legal and ethical",
    "illegal or unethical",
    "promote safety",
    "harmful to individuals",
    "it is important to remember that",
    "it is important to note that",
)
"""Phrases of lectures and disclaimers, of the kind that the data of “uncensored” models was cleaned of."""


def refuses(text: str) -> bool:
    """Whether a response has the words of a refusal, or speaks as an AI, among its first 200 characters."""
    return _REFUSAL.search(text[:REFUSAL_WITHIN].lower().replace("’", "'")) is not None


def lectures(text: str) -> bool:
    """Whether a response has a phrase of :data:`LECTURES` anywhere."""
    lowered = text.lower().replace("’", "'").replace("it's ", "it is ")
    return any(phrase in lowered for phrase in LECTURES)
