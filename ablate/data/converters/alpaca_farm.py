"""tatsu-lab/alpaca_farm: an instruction, two outputs and the number of the preferred one, by people or GPT-4."""

from __future__ import annotations

from ablate.catalogs.converters import AlpacaFarmOptions
from ablate.data.converters.columns import columns, number
from ablate.data.converters.sides import two_responses, user_prompt
from ablate.data.records import Converted, Dropped, Row

RANKS = {1.0: (1, 2), 2.0: (2, 1)}


def convert(row: Row, options: AlpacaFarmOptions) -> Converted:
    """The input, where there is one, stands below the instruction; ``preference`` is 1 or 2."""
    names = ("instruction", "input", "output_1", "output_2", "preference")
    instruction, context, first, second, preference = columns(row, "alpaca_farm", *names)
    if not isinstance(instruction, str) or not isinstance(context, str | None):
        return Dropped("not-text")
    ranks = RANKS.get(number(preference) or 0.0)
    if ranks is None:
        return Dropped("label-not-1-or-2")
    prompt = user_prompt(instruction, context or "")
    return two_responses(row, prompt, (first, second), source="alpaca_farm", ranks=ranks)
