"""Capybara: dialogues whose last answer was written anew by three models and rated."""

from __future__ import annotations

from ablate.pocket.draws import Draw
from ablate.pocket.language import answer, gold_reward
from ablate.pocket.preferences.shared import Mix, Row, different_answers, draw_mixed_item, messages, rating

MIX: Mix = {"facts": 1, "truth": 1.5, "arithmetic": 0.5, "code": 0.5, "safety": 0.5, "chat": 4, "constraints": 1}
AUTHORS = {"original": 0.85, "pocket-3": 0.5, "pocket-4": 0.65, "pocket-5": 0.75}
EARLIER_QUALITY = 0.85
NOISE = 0.5


def capybara_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row: a dialogue of two or three exchanges, the last answer rated highest and the one rated lowest."""
    earlier = [draw_mixed_item(MIX, split, draw) for _ in range(draw.pick((1, 1, 2)))]
    item = draw_mixed_item(MIX, split, draw)
    history = [(past.prompt, answer(past, draw, EARLIER_QUALITY)) for past in earlier]
    texts = different_answers(item, draw, tuple(AUTHORS.values()))
    ratings = [rating(1.0 + 2.0 * gold_reward(item, text) + draw.noise(NOISE)) for text in texts]
    order = sorted(range(len(texts)), key=lambda place: -ratings[place])
    turns = [turn for exchange in history for turn in exchange]
    row: Row = {
        "source": f"pocket_{item.skill}",
        "conversation": [{"input": left, "output": right} for left, right in (*history, (item.prompt, texts[0]))],
        "original_response": texts[0],
        "generation_prompt": [item.prompt] * (len(texts) - 1),
        "raw_generation_responses": texts[1:],
        "new_generations": texts[1:],
        "prompt": item.prompt,
    }
    for name, place in (("chosen", order[0]), ("rejected", order[-1])):
        row[name] = messages(*turns, item.prompt, texts[place])
        row[f"rating_{name}"] = ratings[place]
        row[f"{name}_model"] = tuple(AUTHORS)[place]
    return [row]
