"""Where tensors live."""

from __future__ import annotations

import pytest
import torch

from ablate.context import Resources
from ablate.training.devices import stage_device


@pytest.mark.parametrize("gpus", [(0,), (1,), (3, 1)])
def test_a_process_that_sees_its_own_gpus_only_takes_the_first(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[int, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert stage_device(Resources(gpus=gpus)) == torch.device("cuda:0")


def test_without_a_gpu_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert stage_device(Resources()) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert stage_device(Resources(gpus=(0,))) == torch.device("cpu")
