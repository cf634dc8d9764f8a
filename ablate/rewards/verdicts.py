"""How a judge's answer is read: a rating, a verdict about two responses, or nothing that can be read.

What cannot be read is told apart from what was cut, and both are counted by whoever asked; neither is a score.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ablate.catalogs.judges import Template

Problem = Literal["unparsable", "cut", "empty", "too_long"]
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_SCORE = re.compile(r"score\W{0,6}([-+]?\d+(?:\.\d+)?)", re.IGNORECASE)
_RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_BARE_RATING = re.compile(r"\[(\d+\.?\d*)\]")
_GRADED = re.compile(r"\[\[([AB<>=]+)\]\]")
GRADED = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}
"""Arena-Hard's verdicts, with the share of a win that the first response gets."""
_MARKS = (("[[A]]", 1.0), ("[[B]]", 0.0), ("[[C]]", 0.5))
_LONGEST_RANKING = 2000


@dataclass(frozen=True)
class Verdict:
    """What one answer says: a rating, or the share of a win of the response shown first; else why there is none.

    ``is_strong`` marks a verdict of great difference, where the format has one.
    """

    value: float | None
    problem: Problem | None = None
    is_strong: bool = False

    def exchanged(self) -> Verdict:
        """Return the verdict for the two responses in the other order."""
        return self if self.value is None else Verdict(1.0 - self.value, None, self.is_strong)


def winner(share: float) -> float:
    """Return the share of a win as who won: 1, 0, or 0.5 for neither."""
    return 0.5 if share == 0.5 else float(share > 0.5)


def read_answer(template: Template, answer: Mapping[str, Any]) -> Verdict:
    """Return the verdict of an answer in its template's format; one that was cut says nothing but its first token."""
    text, finish = str(answer["text"]), answer["finish"]
    if finish == "too_long":
        return Verdict(None, "too_long")
    if template.answer == "token":
        value = token_preference(answer.get("first"))
        return Verdict(value, "unparsable" if value is None else None)
    if template.labels is not None and (value := label_value(text, template.labels)) is not None:
        return Verdict(value)  # also of an answer that was cut behind it
    if finish == "length":
        return Verdict(None, "cut")
    if not text.strip():
        return Verdict(None, "empty")
    if template.answer == "graded":
        label = graded_label(text)
        if label is None:
            return Verdict(None, "unparsable")
        return Verdict(GRADED[label], None, ">>" in label)
    value = None
    if template.answer == "verdict":
        value = verdict_mark(text)
    elif template.answer == "ranking":
        value = ranking_preference(text)
    elif template.answer != "label":
        value = _rating(template, text)
    return Verdict(value, "unparsable" if value is None else None)


def _rating(template: Template, text: str) -> float | None:
    if template.answer == "rating":
        value = bracketed_rating(text)
    else:
        found = (NUMBER if template.answer == "number" else _SCORE).findall(text)
        value = float(found[-1]) if found else None
    return value if value is not None and template.lowest <= value <= template.highest else None


def bracketed_rating(text: str) -> float | None:
    """Return the first ``[[n]]`` of an answer, else its first ``[n]``, as FastChat reads MT-Bench's ratings."""
    found = _RATING.search(text) or _BARE_RATING.search(text)
    return float(found[1]) if found else None


def label_value(text: str, labels: Mapping[str, float]) -> float | None:
    """Return what the one label of an answer counts, whatever its capitals; None for none and for several."""
    plain = {name.lower(): value for name, value in labels.items()}
    names = "|".join(sorted(map(re.escape, plain), key=len, reverse=True))
    found = set(re.findall(rf"(?<!\w)(?:{names})(?!\w)", text.lower()))
    return plain[found.pop()] if len(found) == 1 else None


def verdict_mark(text: str) -> float | None:
    """Return 1 for ``[[A]]``, 0 for ``[[B]]``, 0.5 for ``[[C]]``; of several the first in this order (FastChat)."""
    return next((value for mark, value in _MARKS if mark in text), None)


def graded_label(text: str) -> str | None:
    """Return Arena-Hard's verdict; None for none, for one it does not have, and for two that differ."""
    found = set(_GRADED.findall(text)) - {""}
    label = found.pop() if len(found) == 1 else None
    return label if label in GRADED else None


def ranking_preference(text: str) -> float | None:
    """Return 1 where a list of models and ranks puts ``model_1`` first, 0 where it puts it second (AlpacaEval 1)."""
    try:
        ranks = [row["rank"] for row in ast.literal_eval(text.strip()[:_LONGEST_RANKING]) if row["model"] == "model_1"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return None
    return {1: 1.0, 2: 0.0}.get(ranks[0]) if ranks and isinstance(ranks[0], int) else None


def token_preference(first: Any) -> float | None:
    """Return P(m) / (P(m) + P(M)) of the first token (AlpacaEval 2); None where neither is among the likeliest.

    Of the two, one that is not among them has probability 0.
    """
    found = {token: logprob for token, logprob in first or () if token in ("m", "M")}
    if not found:
        return None
    one, other = found.get("m", -math.inf), found.get("M", -math.inf)
    return 1.0 / (1.0 + math.exp(min(other - one, 700.0))) if one > -math.inf else 0.0
