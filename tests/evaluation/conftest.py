"""Tiny random models on disk and the contexts that evaluation stages run in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ablate.context import EventLog, StageContext

ARCHITECTURE = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "tie_embeddings": True}


def _save(folder: Path, tokenizer: Any, seed: int, positions: int) -> Path:
    from ablate.models.loading import new_policy, save_model

    model = new_policy({**ARCHITECTURE, "max_positions": positions}, tokenizer, seed=seed)
    # Random weights of this size are nearly uniform; larger ones make likelihoods and greedy choices differ clearly.
    for parameter in model.parameters():
        parameter.data.mul_(4.0)
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def byte_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random byte-level policy with a context of 512 tokens."""
    from ablate.models.tokenizers import byte_tokenizer

    return _save(tmp_path_factory.mktemp("byte") / "model", byte_tokenizer("tulu"), 1, 512)


@pytest.fixture(scope="session")
def pocket_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy over the words of the pocket language."""
    from ablate.models.tokenizers import word_tokenizer
    from ablate.pocket.vocabulary import vocabulary

    return _save(tmp_path_factory.mktemp("pocket") / "model", word_tokenizer(vocabulary(), "pocket"), 2, 128)


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory: pytest.TempPathFactory, pocket_policy: Path) -> Path:
    """A random reward model over the words of the pocket language."""
    from ablate.models.loading import load_reward_model, load_tokenizer, save_model

    folder = tmp_path_factory.mktemp("reward") / "model"
    save_model(load_reward_model(pocket_policy, head_seed=3), load_tokenizer(pocket_policy), folder)
    return folder


@pytest.fixture(scope="session")
def byte_reward(tmp_path_factory: pytest.TempPathFactory, byte_policy: Path) -> Path:
    """A random byte-level reward model."""
    from ablate.models.loading import load_reward_model, load_tokenizer, save_model

    folder = tmp_path_factory.mktemp("byte-reward") / "model"
    save_model(load_reward_model(byte_policy, head_seed=5), load_tokenizer(byte_policy), folder)
    return folder


@pytest.fixture
def run_stage(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs a stage's work in folders of its own and returns its output folder."""

    def run(
        name: str,
        work: Callable[[StageContext], Any],
        config: Mapping[str, Any],
        inputs: Mapping[str, Path],
        root: Path | None = None,
    ) -> Path:
        folder = tmp_path / name
        for part in ("output", "work"):
            (folder / part).mkdir(parents=True)
        locations = {} if root is None else {"root": str(root)}
        events = EventLog(folder / "events.jsonl")
        work(StageContext(name, config, inputs, folder / "output", folder / "work", events, locations))
        return folder / "output"

    return run
