"""What any reward model, or any policy's likelihoods, make of a suite of pairs: without an experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablate.catalogs.suites import Suite
from ablate.errors import UsageError
from ablate.models.loading import compares_responses, load_policy, load_reward_model, load_tokenizer
from ablate.models.reward_heads import reads_end_of_turn
from ablate.rewards.implicit import LanguageModel, pair_rows
from ablate.rewards.interface import PairJudge, Reward
from ablate.rewards.pairs import Candidates, Pair
from ablate.rewards.reward_model import ComparisonModel, ReadAt, RewardModel
from ablate.rewards.stage import Row, score_pairs

Progress = Callable[[int, int], None]


def score_suite(
    model: Path | str,
    suite: Suite,
    asked: Sequence[Pair | Candidates],
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: torch.device | str = "cpu",
    at: ReadAt | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Scores of the suite's responses, a row a prompt, by any sequence classifier with one output.

    ``model`` is a folder, or a hub id at a full ``revision``. ``at`` says where its head is read; null: at the
    end-of-turn token of a model that was trained here, of others at the last token of the rendered text. Raises
    ``UsageError`` for a suite that asks no reward model, ``DataError`` for a model that is none.
    """
    if suite.engine != "pairs":
        raise UsageError(
            f"suite {suite.name} has no pairs for a reward model to score", hint=f"its engine is {suite.engine}"
        )
    reward: Reward | PairJudge
    tokenizer = load_tokenizer(model, revision=revision, doubled_bos=True)
    compares = compares_responses(model, revision=revision)
    loaded = load_reward_model(model, revision=revision, dtype=dtype, pairwise=compares)
    own: ReadAt = "end-of-turn" if reads_end_of_turn(loaded.config) else "last"
    module: nn.Module = loaded
    module.to(device)
    if compares:
        reward = ComparisonModel(module, tokenizer, progress=progress)
    else:
        reward = RewardModel(module, tokenizer, at=at or own, reading=suite.reading, progress=progress)
    return score_pairs(reward, asked)


def likelihoods_of_suite(
    model: Path | str,
    suite: Suite,
    asked: Sequence[Pair | Candidates],
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: torch.device | str = "cpu",
    chat: bool = True,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Likelihoods of the suite's responses under any causal language model, a row a prompt.

    A policy and its reference are asked one after the other; without ``chat`` prompts are written without a template.
    """
    if suite.engine != "implicit":
        raise UsageError(f"suite {suite.name} asks for no likelihoods of pairs", hint=f"its engine is {suite.engine}")
    loaded: nn.Module = load_policy(model, revision=revision, dtype=dtype)
    loaded.to(device)
    tokenizer = load_tokenizer(model, revision=revision, template=chat, doubled_bos=True)
    language_model = LanguageModel(loaded, tokenizer, progress, suite.reading)
    return pair_rows(language_model, asked, chat=chat and suite.chat)
