"""argilla/distilabel-capybara-dpo-7k-binarized: dialogues whose last answer was generated anew and rated 1 to 5."""

from __future__ import annotations

from ablate.catalogs.converters import CapybaraOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import part, read_messages, two_responses
from ablate.data.records import Converted, Dropped, Row


def convert(row: Row, options: CapybaraOptions) -> Converted:
    """Chosen and rejected are taken as given; the ratings are their scores."""
    chosen, rejected = (read_messages(value) for value in columns(row, "capybara", "chosen", "rejected"))
    parted = part(chosen, rejected, options.diverging)
    if isinstance(parted, Dropped):
        return parted
    return two_responses(
        row,
        *parted,
        source="capybara",
        scores=[number(row.get(column)) for column in ("rating_chosen", "rating_rejected")],
        models=[row.get(column) for column in ("chosen_model", "rejected_model")],
    )
