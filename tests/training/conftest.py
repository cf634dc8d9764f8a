"""Tiny random policies with a real tokenizer, random pairs, and the contexts that stages run in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.nn.functional import pad

from ablate.context import EventLog, Resources, StageContext

WORDS = [f"w{index}" for index in range(40)]
ARCHITECTURE = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "ffn_size": 64,
    "max_positions": 128,
    "tie_embeddings": True,
}


@pytest.fixture
def more_padding() -> Callable[..., dict[str, Any]]:
    """Return a function that adds columns of padding to a batch, which must change nothing."""

    def padded(batch: dict[str, Any], pad_id: int, *, left: int = 0, right: int = 0) -> dict[str, Any]:
        sides, masks = (left, right), ("attention_mask", "completion_mask")
        wider = {name: pad(batch[name], sides, value=0) for name in masks}
        return {**batch, "input_ids": pad(batch["input_ids"], sides, value=pad_id), **wider}

    return padded


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama policy (vocabulary of 46 words and marks) with tokenizer and template."""
    from ablate.models.loading import new_policy, save_model
    from ablate.models.tokenizers import word_tokenizer

    folder = tmp_path_factory.mktemp("policy") / "model"
    tokenizer = word_tokenizer(WORDS, "tulu")
    save_model(new_policy(ARCHITECTURE, tokenizer, seed=1), tokenizer, folder)
    return folder


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a random ``tokens.parquet`` of pairs with lengths from 2 to 12."""

    def write(count: int, *, seed: int = 0, name: str = "tokens.parquet", lengths: tuple[int, int] = (2, 13)) -> Path:
        random = np.random.default_rng(seed)
        lists = {
            column: [random.integers(6, 46, random.integers(*lengths)).tolist() for _ in range(count)]
            for column in ("prompt_ids", "chosen_ids", "rejected_ids")
        }
        columns: dict[str, Any] = {"id": [f"pair-{index}" for index in range(count)]}
        columns |= {column: pa.array(rows, pa.list_(pa.int32())) for column, rows in lists.items()}
        columns["margin"] = pa.array([None] * count, pa.float64())
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., StageContext]:
    """Return a function that makes a stage's folders below ``tmp_path / name`` and its context."""

    def make(
        name: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, Path],
        *,
        previous_work: Sequence[Path] = (),
        resources: Resources | None = None,
    ) -> StageContext:
        output, work = tmp_path / name / "output", tmp_path / name / "work"
        output.mkdir(parents=True, exist_ok=True)
        work.mkdir(exist_ok=True)
        return StageContext(
            kind="train",
            config=config,
            inputs=inputs,
            output=output,
            work=work,
            events=EventLog(tmp_path / name / "events.jsonl"),
            previous_work=tuple(previous_work),
            resources=resources or Resources(),
        )

    return make
