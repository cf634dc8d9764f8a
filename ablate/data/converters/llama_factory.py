"""LLaMA-Factory's preference files: a dialogue in ShareGPT's form and two answers to its last turn."""

from __future__ import annotations

from ablate.catalogs.converters import LlamaFactoryOptions
from ablate.data.converters.columns import columns
from ablate.data.converters.sides import read_messages, two_responses
from ablate.data.records import Converted, Dropped, Row, problem_of_turns


def convert(row: Row, options: LlamaFactoryOptions) -> Converted:
    """``conversations`` is the prompt and ends with the user's turn; ``chosen`` and ``rejected`` are one turn each."""
    dialogue, *sides = columns(row, "llama_factory", "conversations", "chosen", "rejected")
    prompt = read_messages(dialogue, "from", "value")
    if isinstance(prompt, Dropped):
        return prompt
    problem = problem_of_turns(prompt)
    if problem is not None:
        return Dropped(problem)
    if not prompt or prompt[-1]["role"] != "user":
        return Dropped("prompt-does-not-end-with-user")
    texts = []
    for side in sides:
        turns = read_messages([side], "from", "value")
        if isinstance(turns, Dropped):
            return turns
        if turns[0]["role"] != "assistant":
            return Dropped("last-turn-not-assistant")
        texts.append(turns[0]["content"])
    return two_responses(row, prompt, texts, source="llama_factory")
