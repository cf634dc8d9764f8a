"""lvwerra/stack-exchange-paired: a question, an answer with more votes (j) and one with fewer (k)."""

from __future__ import annotations

from ablate.catalogs.converters import StackExchangeOptions
from ablate.data.converters.columns import columns
from ablate.data.converters.sides import two_responses, user_prompt
from ablate.data.records import Converted, Dropped, Row


def convert(row: Row, options: StackExchangeOptions) -> Converted:
    """``response_j`` is chosen, ``response_k`` rejected."""
    question, *answers = columns(row, "stack_exchange_paired", "question", "response_j", "response_k")
    if not isinstance(question, str):
        return Dropped("not-text")
    return two_responses(row, user_prompt(question), answers, source="stack_exchange")
