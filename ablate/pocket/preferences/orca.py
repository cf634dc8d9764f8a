"""Orca pairs: a strong model's answer as chosen, a weak one's as rejected; nobody judged them."""

from __future__ import annotations

from ablate.pocket.draws import Draw
from ablate.pocket.preferences.shared import EVEN, Mix, Row, different_answers, draw_mixed_item

MIX: Mix = {**EVEN, "safety": 0.2, "facts": 1.5, "arithmetic": 1.5}
STRONG, WEAK = 0.9, 0.45
SYSTEM_PROMPTS = (
    "",
    "you are a good teacher ; think about each of the steps .",
    "you are a good friend , so help and let people answer .",
)


def orca_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of Intel/orca_dpo_pairs."""
    item = draw_mixed_item(MIX, split, draw)
    chosen, rejected = different_answers(item, draw, (STRONG, WEAK))
    return [{"system": draw.pick(SYSTEM_PROMPTS), "question": item.prompt, "chosen": chosen, "rejected": rejected}]
