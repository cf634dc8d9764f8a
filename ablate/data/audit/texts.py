"""Texts as the checks compare them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from ablate.models.chat import Messages

_WORD = re.compile(r"[^\W_]+|(?<=[\s\d)])[-−+*/×÷^=<>](?=\s*[\d(])")
"""Letters and digits; and the signs of arithmetic before a number, so that 20 + 8 is not 20 - 8."""
_APOSTROPHES = str.maketrans("", "", "'’ʼ")


def words(text: str) -> list[str]:
    """Return the words of a text for comparison: in one case, without punctuation and spacing."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES))


def ngrams(tokens: Sequence[str], length: int) -> Iterator[str]:
    """Yield every run of ``length`` words, joined by spaces, in order."""
    for start in range(len(tokens) - length + 1):
        yield " ".join(tokens[start : start + length])


def dialogue(messages: Messages) -> str:
    """Return turns as one text."""
    return "\n\n".join(turn["content"] for turn in messages)


def excerpt(text: str, length: int = 160) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
