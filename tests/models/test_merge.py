"""Averages of policies: against plain floats, and what can't be averaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.context import EventLog, StageContext
from ablate.errors import DataError, StageError
from ablate.models.loading import load_policy, load_tokenizer, new_policy, save_model
from ablate.models.merge import run
from ablate.models.tokenizers import word_tokenizer

SHAPE = {"hidden_size": 8, "layers": 1, "heads": 2, "ffn_size": 16, "max_positions": 32}

Merge = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save a random policy and return its folder."""

    def make(seed: int, words: str = "a b c", **shape: Any) -> Path:
        folder = tmp_path / f"model-{seed}"
        tokenizer = word_tokenizer(words.split(), "tulu")
        save_model(new_policy({**SHAPE, **shape}, tokenizer, seed), tokenizer, folder)
        return folder

    return make


@pytest.fixture
def merge(tmp_path: Path) -> Merge:
    """Run the stage and return the merged model's folder."""

    def run_stage(*folders: Path, weights: list[float]) -> Path:
        output = tmp_path / "output"
        output.mkdir()
        inputs = {f"model-{index}": folder for index, folder in enumerate(folders)}
        run(StageContext("merge", {"weights": weights}, inputs, output, tmp_path, EventLog(tmp_path / "events.jsonl")))
        return output / "model"

    return run_stage


def numbers(folder: Path) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in load_policy(folder).state_dict().items()}


def test_every_weight_is_the_weighted_sum_of_the_models(save: Callable[..., Path], merge: Merge) -> None:
    folders, weights = [save(1), save(2), save(3)], [0.5, 0.75, -0.25]
    models = [numbers(folder) for folder in folders]
    merged = numbers(merge(*folders, weights=weights))
    assert merged.keys() == models[0].keys()
    for name, values in merged.items():
        for index, value in enumerate(values):
            expected = sum(weight * model[name][index] for weight, model in zip(weights, models, strict=True))
            assert value == pytest.approx(expected, rel=1e-6, abs=1e-7), name
    assert load_tokenizer(folders[0].parent / "output/model").get_vocab() == load_tokenizer(folders[0]).get_vocab()


def test_a_model_averaged_with_itself_is_that_model(save: Callable[..., Path], merge: Merge) -> None:
    model = save(1)
    assert numbers(merge(model, model, weights=[0.5, 0.5])) == numbers(model)


def test_models_of_another_shape_are_refused(save: Callable[..., Path], merge: Merge) -> None:
    with pytest.raises(StageError, match=r"models 1 and 2 of the merge differ in shape: .*ffn|mlp.* is \(16, 8\)"):
        merge(save(1), save(2, ffn_size=24), weights=[0.5, 0.5])


def test_models_of_more_layers_are_refused(save: Callable[..., Path], merge: Merge) -> None:
    with pytest.raises(StageError, match=r"model\.layers\.1\..* is none and \("):
        merge(save(1), save(2, layers=2), weights=[0.5, 0.5])


def test_models_of_another_tokenizer_are_refused(save: Callable[..., Path], merge: Merge) -> None:
    with pytest.raises(DataError, match="differ: vocabulary"):
        merge(save(1), save(2, words="a b d"), weights=[0.5, 0.5])
