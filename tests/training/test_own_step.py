"""The training step of a researcher's own method: the manual's, in the trainer of all offline losses."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ablate.catalogs.digests import sha256_file
from ablate.catalogs.functions import import_own
from ablate.context import StageContext
from ablate.errors import DataError, StageError
from ablate.training import logprobs, own, preference
from ablate.training.losses import PairLogprobs

MANUAL = (Path(__file__).resolve().parents[2] / "docs/algorithms.md").read_text(encoding="utf-8")
CODE = MANUAL.partition("This is all of `dpop.py`")[2].partition("```python\n")[2].partition("```")[0]
PARAMETERS = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "beta": 0.2}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The manual's file; what is imported from it is forgotten."""
    (tmp_path / "dpop.py").write_text(CODE)
    modules = set(sys.modules)
    yield tmp_path / "dpop.py"
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def inputs(policy_folder, write_pairs, make_context) -> dict[str, Path]:
    data = write_pairs(29)
    context = make_context("reference", {"dtype": "float32"}, {"model": policy_folder, "data": data})
    logprobs.run(context)
    return {"policy": policy_folder, "data": data, "reference_logprobs": context.output / "logprobs.parquet"}


def planned(make_context: Any, name: str, file: Path, inputs: dict[str, Path], **changes: Any) -> StageContext:
    digest = sha256_file(file)
    config = {
        "algorithm": "dpop",
        "seed": 3,
        "parameters": {**PARAMETERS, **changes},
        "code": {"method": digest, "step": digest},
    }
    return replace(make_context(name, config, inputs), locations={"step": f"{file}:run"})


def weights(context: StageContext) -> dict[str, torch.Tensor]:
    return load_file(context.output / "model" / "model.safetensors")


def test_the_loss_of_the_manual_by_hand(file: Path) -> None:
    """beta 0.5, penalty 2: won by 3 nats with 0.5 lost by the chosen one; won by 1 with nothing lost."""
    loss = import_own(f"{file}:loss", "the loss")
    chosen, rejected = torch.tensor([-4.5, -3.0]), torch.tensor([-9.5, -5.0])
    reference_chosen, reference_rejected = torch.tensor([-4.0, -4.0]), torch.tensor([-6.0, -5.0])
    tokens = torch.tensor([3, 3])
    found = loss(
        PairLogprobs(chosen, rejected, reference_chosen, reference_rejected, tokens, tokens), beta=0.5, penalty=2.0
    )
    expected = [math.log1p(math.exp(-0.5 * (3.0 - 2.0 * 0.5))), math.log1p(math.exp(-0.5 * 1.0))]
    assert found.tolist() == pytest.approx(expected)


def test_without_its_penalty_it_is_dpo_to_the_bit(inputs, make_context, file: Path) -> None:
    config = {"algorithm": "dpo", "seed": 3, "parameters": PARAMETERS}
    dpo = make_context("dpo", config, inputs)
    preference.run(dpo)
    plain, punished = (planned(make_context, str(penalty), file, inputs, penalty=penalty) for penalty in (0.0, 5.0))
    for context in (plain, punished):
        own.run(context)
    for name, tensor in weights(dpo).items():
        assert torch.equal(tensor, weights(plain)[name]), name
    assert (dpo.output / "history.jsonl").read_text() == (plain.output / "history.jsonl").read_text()
    embeddings = "model.embed_tokens.weight"
    assert not torch.equal(weights(punished)[embeddings], weights(plain)[embeddings])


def test_a_file_that_changed_since_the_plan_stops_the_stage(inputs, make_context, file: Path) -> None:
    context = planned(make_context, "edited", file, inputs)
    file.write_text(CODE + "# a remark\n")
    with pytest.raises(DataError, match="is not the file this stage was planned with"):
        own.run(context)


def test_a_step_that_writes_no_model_is_said_to(inputs, make_context, file: Path) -> None:
    file.write_text("def run(context):\n    return {}\n")
    with pytest.raises(StageError, match="wrote no model"):
        own.run(planned(make_context, "nothing", file, inputs))
