"""Nectar: seven answers of seven models in one ranking."""

from __future__ import annotations

from ablate.pocket.draws import Draw
from ablate.pocket.language import answer, gold_reward
from ablate.pocket.preferences.shared import EVEN, MODEL_QUALITIES, Mix, Row, draw_mixed_item, transcript

MIX: Mix = {**EVEN, "chat": 2, "safety": 1.5, "arithmetic": 0.7}
NOISE, POSITION = 0.35, 0.03


def nectar_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of berkeley-nest/Nectar: seven answers with ranks 1 (best) to 7."""
    item = draw_mixed_item(MIX, split, draw)
    models = draw.some(tuple(MODEL_QUALITIES), 7)
    texts = [answer(item, draw, MODEL_QUALITIES[model]) for model in models]
    likings = [gold_reward(item, text) + draw.noise(NOISE) - POSITION * place for place, text in enumerate(texts)]
    order = sorted(range(7), key=lambda place: -likings[place])
    ranks = {place: float(rank) for rank, place in enumerate(order, 1)}
    answers = [
        {"answer": texts[place], "model": models[place], "rank": ranks[place]}
        for place in sorted(range(7), key=lambda place: models[place])
    ]
    return [
        {
            "prompt": f"{transcript([item.prompt])}\n\nAssistant: ",
            "answers": answers,
            "turns": 1,
            "num_responses": 7,
            "source": [f"pocket_{item.skill}"],
            "good_natured": not item.spec.get("harmful", False),
        }
    ]
