"""allenai/tulu-2.5-preference-data: the study's own sets after conversion, two whole conversations a row."""

from __future__ import annotations

from ablate.catalogs.converters import Tulu25Options
from ablate.data.converters.columns import columns
from ablate.data.converters.sides import name, part, read_messages, two_responses
from ablate.data.records import Converted, Dropped, Row


def convert(row: Row, options: Tulu25Options) -> Converted:
    """The shared turns are the prompt, the first differing turn of each side is its response.

    Turns need not alternate: the sets were cut at markers that can stand inside a turn, and are taken as released.
    """
    chosen, rejected = (read_messages(value) for value in columns(row, "tulu_2_5", "chosen", "rejected"))
    parted = part(chosen, rejected, options.diverging)
    if isinstance(parted, Dropped):
        return parted
    return two_responses(row, *parted, source=name(row.get("source")) or "tulu_2_5")
