"""AlpacaFarm: two outputs of one model for an instruction, compared by a person or by GPT-4."""

from __future__ import annotations

from ablate.pocket.draws import Draw
from ablate.pocket.language import Item
from ablate.pocket.preferences.shared import EVEN, Mix, Row, draw_mixed_item, liking, two_answers

MIX: Mix = {**EVEN, "safety": 0.3, "chat": 1.5, "constraints": 1.5}
QUALITY, SPREAD = 0.5, 0.2
HUMAN_NOISE, HUMAN_LENGTH, HUMAN_RANDOM = 0.7, 0.01, 0.05
JUDGE_NOISE, JUDGE_LENGTH, JUDGE_FIRST = 0.35, 0.01, 0.1
CLEAR = 0.5


def _comparison(draw: Draw, split: str) -> tuple[Item, list[str], Row]:
    """Return an item, two outputs and the columns that both sets share; an input is what stands after a colon."""
    item = draw_mixed_item(MIX, split, draw)
    texts = two_answers(item, draw, QUALITY, SPREAD)
    before, colon, after = item.prompt.partition(" : ")
    instruction, context = (f"{before} :", after) if colon else (item.prompt, "")
    return item, texts, {"instruction": instruction, "input": context, "output_1": texts[0], "output_2": texts[1]}


def human_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of the human comparisons; ``raw_preference`` is 1 to 4, clear for the first to clear for the
    second."""
    item, texts, row = _comparison(draw, split)
    first, second = (liking(item, text, draw, HUMAN_NOISE, HUMAN_LENGTH) for text in texts)
    gap = draw.noise(1.0) if draw.chance(HUMAN_RANDOM) else first - second
    raw = (1 if gap >= CLEAR else 2) if gap >= 0 else (4 if gap <= -CLEAR else 3)
    return [{**row, "preference": 1 if raw <= 2 else 2, "raw_preference": raw}]


def judged_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of GPT-4's comparisons, which favour the first output a little."""
    item, texts, row = _comparison(draw, split)
    first, second = (liking(item, text, draw, JUDGE_NOISE, JUDGE_LENGTH) for text in texts)
    return [{**row, "preference": 1 if first + JUDGE_FIRST >= second else 2}]
