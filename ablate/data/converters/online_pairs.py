"""The pairs that an online run learnt from: two of its own responses, the preferred one first, with their scores."""

from __future__ import annotations

from ablate.catalogs.converters import OnlinePairsOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import name, read_messages
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest


def convert(row: Row, _: OnlinePairsOptions) -> Converted:
    """Read ``{prompt, chosen, rejected, chosen_score, rejected_score, finished, source}``.

    A response that did not end would be read as one that did, so that a pair with one is dropped.
    """
    written, finished, *sides = columns(row, "online_pairs", "prompt", "finished", "chosen", "rejected")
    if finished is not True:
        return Dropped("unfinished-response")
    prompt, chosen, rejected = (read_messages(messages) for messages in (written, *sides))
    if isinstance(prompt, Dropped):
        return prompt
    if isinstance(chosen, Dropped):
        return chosen
    if isinstance(rejected, Dropped):
        return rejected
    if not prompt:
        return Dropped("no-prompt")
    if not chosen or not rejected:
        return Dropped("empty-message")
    if chosen == rejected:
        return Dropped("identical-responses")
    responses = (
        Response(chosen, score=number(row.get("chosen_score")), rank=1),
        Response(rejected, score=number(row.get("rejected_score")), rank=2),
    )
    return PreferenceRecord(prompt, responses, source=name(row.get("source")) or "online", row_id=digest(row))
