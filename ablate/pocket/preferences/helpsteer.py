"""HelpSteer and HelpSteer2: responses that people rated from 0 to 4 in five attributes, and pairs of them."""

from __future__ import annotations

from ablate.pocket.draws import Draw
from ablate.pocket.language import Item, checks, gold_of, gold_reward
from ablate.pocket.preferences.shared import EVEN, Mix, Row, different_answers, draw_mixed_item, rating

MIX: Mix = {**EVEN, "safety": 0.5, "chat": 1.5, "constraints": 1.5}
QUALITIES = (0.35, 0.5, 0.65, 0.8)
NOISE, NOISE_2, NOISE_PAIR = 0.8, 0.4, 0.35
WORDS_A_POINT = 15


def _ratings(item: Item, text: str, draw: Draw, noise: float) -> dict[str, int]:
    """Return the five attributes: each follows from other checks, so that no single one is the gold reward."""
    named = checks(item, text)
    means = {
        "helpfulness": 2.0 * gold_of(named),
        "correctness": 1.0 + 3.0 * named["correct"],
        "coherence": 2.0 + 2.0 * named["concise"],
        "complexity": 1.0 + 2.0 * named["worked"],
        "verbosity": len(text.split()) / WORDS_A_POINT,
    }
    return {name: rating(mean + draw.noise(noise), 0, 4) for name, mean in means.items()}


def _rated(draw: Draw, split: str, count: int, noise: float) -> list[Row]:
    item = draw_mixed_item(MIX, split, draw)
    texts = different_answers(item, draw, draw.some(QUALITIES, count))
    return [{"prompt": item.prompt, "response": text, **_ratings(item, text, draw, noise)} for text in texts]


def helpsteer_rows(draw: Draw, split: str) -> list[Row]:
    """Return the four rows of one prompt of nvidia/HelpSteer, rated by one person each."""
    return _rated(draw, split, 4, NOISE)


def helpsteer2_rows(draw: Draw, split: str) -> list[Row]:
    """Return the two consecutive rows of one prompt of nvidia/HelpSteer2, whose ratings are means of several people."""
    return _rated(draw, split, 2, NOISE_2)


def helpsteer2_preference_rows(draw: Draw, split: str) -> list[Row]:
    """Return one row of HelpSteer2's preferences: a strength below 0 prefers response 1, above 0 response 2."""
    item = draw_mixed_item(MIX, split, draw)
    texts = different_answers(item, draw, draw.some(QUALITIES, 2))
    gap = gold_reward(item, texts[1]) - gold_reward(item, texts[0]) + draw.noise(NOISE_PAIR)
    return [
        {
            "split": "train" if split == "train" else "val",
            "prompt": item.prompt,
            "response_1": texts[0],
            "response_2": texts[1],
            "preference_strength": rating(2.0 * gap + 3.0, 0, 6) - 3,
            "preference_statement": "the answers were read and compared .",
            "preference_elaboration": "the better one is right and says why .",
        }
    ]
