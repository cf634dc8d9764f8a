"""Anthropic's transcript format: turns that begin with ``Human:`` and ``Assistant:``."""

from __future__ import annotations

import re
from typing import Literal

from ablate.data.records import message
from ablate.models.chat import Messages

_MARKERS = {
    # A blank line before the word: text that merely mentions "Human:" stays in one turn.
    "anchored": re.compile(r"\n\n(Human|Assistant):"),
    # The study's code cut at the bare words.
    "bare": re.compile(r"(Human|Assistant):"),
}
_ROLES = {"Human": "user", "Assistant": "assistant"}


def parse_transcript(text: str, parsing: Literal["anchored", "bare"]) -> tuple[str, Messages]:
    """Return the text before the first marker (stripped) and the turns, contents stripped, empty ones included."""
    before, *parts = _MARKERS[parsing].split(text)
    turns = tuple(message(_ROLES[role], content) for role, content in zip(parts[::2], parts[1::2], strict=True))
    return before.strip(), turns
