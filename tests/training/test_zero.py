"""How a model is shared out, before DeepSpeed is asked to."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ablate.algorithms.on_policy import RolloutParameters
from ablate.catalogs.memory import GIB, SHARE, trained_bytes
from ablate.context import Resources
from ablate.errors import StageError
from ablate.training import shared_network, zero
from ablate.training.zero import config, mark, require_deepspeed, require_mark, sharding_of


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, as far as sharing is concerned."""
    monkeypatch.setattr(zero, "world", lambda: 2)


def model(parameters: int) -> nn.Module:
    made = nn.Module()
    made.weight = nn.Parameter(torch.empty(parameters, device="meta"))
    return made


def memory(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=size))


@pytest.mark.parametrize("expected", ["ddp", "zero2", "zero3"])
def test_the_first_that_has_room_for_all_that_is_trained(
    monkeypatch: pytest.MonkeyPatch, two: None, expected: str
) -> None:
    needed = trained_bytes(3e9, "bfloat16", expected, 2)  # type: ignore[arg-type]
    memory(monkeypatch, 1.001 * needed / SHARE)
    models = [model(10**9), model(2 * 10**9)]
    assert sharding_of(models, "bfloat16", None, gpu=True) == expected
    assert sharding_of(models, "bfloat16", "zero3", gpu=True) == "zero3", "what is asked counts"


def test_cores_adapters_and_one_process_take_copies_and_what_has_no_room_is_refused(
    monkeypatch: pytest.MonkeyPatch, two: None
) -> None:
    memory(monkeypatch, GIB)
    assert sharding_of([model(10**9)], "float32", None, gpu=False) == "ddp"
    adapted = model(10**9)
    adapted.peft_config = {}  # type: ignore[assignment]
    assert sharding_of([adapted], "float32", "zero3", gpu=True) == "ddp"
    with pytest.raises(StageError, match=r"1 billion parameters takes .* more than 2 x 1 GiB hold\n  use 19 such dev"):
        sharding_of([model(10**9)], "float32", None, gpu=True)
    monkeypatch.setattr(zero, "world", lambda: 1)
    assert sharding_of([model(10**9)], "float32", "zero3", gpu=True) == "ddp"


def test_without_deepspeed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(
        StageError, match=r"zero2 is DeepSpeed's, which can't be imported.*\n  DS_BUILD_OPS=0 pip install 'ab"
    ):
        require_deepspeed("zero2")


def test_a_batch_is_the_passes_of_all_processes(two: None) -> None:
    given = config("zero3", "bfloat16", 4, 8, max_grad_norm=1.0)
    assert (given["train_batch_size"], given["zero_optimization"]["stage"]) == (64, 3)
    assert (
        given["torch_autocast"]["enabled"]
        and not config("zero2", "float32", max_grad_norm=1)["torch_autocast"]["enabled"]
    )


def test_a_checkpoint_is_read_by_those_who_wrote_it(monkeypatch: pytest.MonkeyPatch, two: None, tmp_path: Path) -> None:
    mark(tmp_path, "zero2")
    require_mark(tmp_path, "zero2")
    for world, sharding, now in ((4, "zero2", "zero2 over 4"), (2, "zero3", "zero3 over 2"), (2, "ddp", "ddp over 2")):
        monkeypatch.setattr(zero, "world", lambda found=world: found)
        with pytest.raises(StageError, match=rf"written with zero2 over 2 processes, and this is {now}\n  go on as it"):
            require_mark(tmp_path, sharding)  # type: ignore[arg-type]
    mark(tmp_path, "ddp")
    for world in (1, 2, 8):
        monkeypatch.setattr(zero, "world", lambda found=world: found)
        require_mark(tmp_path, "ddp")
    with pytest.raises(StageError, match="written with ddp over 2 processes, and this is zero2 over 8"):
        require_mark(tmp_path, "zero2")


def test_an_on_policy_method_has_no_weights_shared_out(monkeypatch: pytest.MonkeyPatch, two: None) -> None:
    with pytest.raises(StageError, match="needs its models whole on every process, and zero3 shares"):
        shared_network.make_networks(
            {"policy": model(9)}, {"policy": 1.0}, RolloutParameters(), Resources(sharding="zero3")
        )
