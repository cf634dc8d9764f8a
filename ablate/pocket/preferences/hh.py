"""HH-RLHF: two transcripts that part at the last turn, labelled by one person a row."""

from __future__ import annotations

from ablate.pocket.draws import Draw
from ablate.pocket.language import answer
from ablate.pocket.preferences.shared import Mix, Row, draw_mixed_item, liking, transcript, two_answers

MIX: Mix = {"facts": 1, "truth": 1, "arithmetic": 0.5, "code": 0.5, "safety": 4, "chat": 3, "constraints": 1}
NOISE, LENGTH_LIKING, RANDOM, DIALOGUES = 0.8, 0.01, 0.1, 0.25


def hh_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of Anthropic/hh-rlhf: ``chosen`` and ``rejected`` share all but the last turn."""
    item = draw_mixed_item(MIX, split, draw)
    turns = [item.prompt]
    if draw.chance(DIALOGUES):
        earlier = draw_mixed_item(MIX, split, draw)
        turns = [earlier.prompt, answer(earlier, draw, 0.7), item.prompt]
    responses = two_answers(item, draw, 0.2, 0.6)
    likings = [liking(item, text, draw, NOISE, LENGTH_LIKING) for text in responses]
    first = draw.chance(0.5) if draw.chance(RANDOM) else likings[0] >= likings[1]
    chosen, rejected = responses if first else responses[::-1]
    return [{"chosen": transcript([*turns, chosen]), "rejected": transcript([*turns, rejected])}]
