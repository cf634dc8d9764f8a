"""What the preference sets share: authors, items of a mix of skills, dialogues, ratings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.pocket.draws import Draw
from ablate.pocket.language import SKILLS, Item, answer, draw_item, gold_reward, skill_named

Row = dict[str, Any]
Mix = Mapping[str, float]

EVEN: Mix = dict.fromkeys(SKILLS, 1.0)
MODEL_QUALITIES = {
    "pocket-1": 0.2,
    "pocket-2": 0.35,
    "pocket-3": 0.5,
    "pocket-4": 0.65,
    "pocket-5": 0.75,
    "pocket-6": 0.9,
    "pocket-7": 1.0,
}


@dataclass(frozen=True)
class Family:
    """One preference set: ``write`` makes the rows that belong to one prompt, mostly a single one.

    ``schema`` is the converter that reads the rows. Sets that name the same ``stream`` begin with the same draws: their
    prompts and responses are equal and only the labels differ.
    """

    schema: str
    write: Callable[[Draw, str], list[Row]]
    stream: str | None = None


def draw_mixed_item(mix: Mix, split: str, draw: Draw) -> Item:
    """Draw an item of ``split`` whose skill follows the weights of ``mix``."""
    name = draw.weighted(tuple(mix), tuple(mix.values()))
    return draw_item(skill_named(name), split, draw)


def two_answers(item: Item, draw: Draw, lowest: float, spread: float) -> list[str]:
    """Return different responses of two authors whose qualities lie in ``lowest`` to ``lowest + spread``."""
    texts = [answer(item, draw, lowest + spread * draw.unit()) for _ in range(2)]
    while texts[0] == texts[1]:
        texts[1] = answer(item, draw, lowest + spread * draw.unit())
    return texts


def different_answers(item: Item, draw: Draw, qualities: Sequence[float]) -> list[str]:
    """Return one response of each author, all different."""
    texts: list[str] = []
    for quality in qualities:
        text = answer(item, draw, quality)
        while text in texts:
            text = answer(item, draw, quality)
        texts.append(text)
    return texts


def liking(item: Item, text: str, draw: Draw, noise: float, length: float = 0.0) -> float:
    """Return how a judge likes a response: its gold reward, ``length`` for every word, bell-shaped ``noise``."""
    return gold_reward(item, text) + length * len(text.split()) + draw.noise(noise)


def rating(value: float, low: int = 1, high: int = 5) -> int:
    """Round to a whole rating between ``low`` and ``high``."""
    return min(max(int(value + 0.5), low), high)


def transcript(turns: Sequence[str]) -> str:
    """Join turns, the first a human's, in the form of HH-RLHF."""
    speakers = ("Human", "Assistant")
    return "".join(f"\n\n{speakers[index % 2]}: {turn}" for index, turn in enumerate(turns))


def messages(*turns: str) -> list[dict[str, str]]:
    """Return turns, the first a user's, as ``{content, role}``."""
    return [{"content": turn, "role": ("user", "assistant")[index % 2]} for index, turn in enumerate(turns)]
