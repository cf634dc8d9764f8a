"""The arithmetic of memory, worked by hand for a model of a billion parameters."""

from __future__ import annotations

import pytest

from ablate.catalogs.memory import (
    GIB,
    adapter_parameters,
    choose_sharding,
    frozen_bytes,
    ppo_placements,
    trained_bytes,
)
from ablate.errors import UsageError

B = 1e9


def test_bytes_a_parameter_by_hand() -> None:
    assert trained_bytes(B, "bfloat16") == 18e9  # 4 weight + 4 gradient + 8 moments + 2 copy
    assert trained_bytes(B, "float32") == 16e9
    assert trained_bytes(B, "bfloat16", "zero2", 4) == 9e9  # 4 + 2 on each, (4 + 8) / 4 shared
    assert trained_bytes(B, "bfloat16", "zero3", 4) == 4.5e9  # 18 / 4
    assert trained_bytes(B, "bfloat16", "zero2", 1) == trained_bytes(B, "bfloat16", "zero3", 1) == 18e9
    assert (frozen_bytes(B, "bfloat16"), frozen_bytes(B, "float32")) == (6e9, 4e9)


@pytest.mark.parametrize(
    ("parameters", "width", "layers", "ffn"),
    [(6.74e9, 4096, 32, 11008), (13.0e9, 5120, 40, 13824), (65.3e9, 8192, 80, 22016)],
    ids=["7B", "13B", "65B"],
)
def test_the_estimate_of_an_adapter_is_that_of_llamas_layers(
    parameters: float, width: int, layers: int, ffn: int
) -> None:
    """Four matrices of the width squared, two from width to feed-forward and one back: r (in + out) each."""
    exact = layers * 16 * (4 * 2 * width + 3 * (width + ffn))
    assert adapter_parameters(parameters, 16) == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize(
    ("billions", "gpus", "chosen"),
    [(1, 1, "ddp"), (3, 8, "ddp"), (7, 2, "zero3"), (7, 4, "zero2"), (7, 8, "zero2"), (13, 8, "zero3"), (70, 16, None)],
)
def test_the_table_for_devices_of_80_gib(billions: float, gpus: int, chosen: str | None) -> None:
    """0.8 x 80 GiB = 68.7e9 bytes. 7B: 126e9 by DDP; ZeRO-2 on 4: 63e9, on 2: 84e9; ZeRO-3 on 2: 63e9."""
    if chosen is None:
        with pytest.raises(UsageError, match=r"takes 1173 GiB, more than 16 x 80 GiB hold\n  use 19 such devices"):
            choose_sharding(billions * B, gpus, 80 * GIB)
    else:
        assert choose_sharding(billions * B, gpus, 80 * GIB) == chosen


def test_placements_of_four_models_by_hand() -> None:
    """Policy of 1 and reward model of 2 billion parameters: trained 18 x 3, frozen 6 x 3 (e9 bytes)."""
    one, adapters, host, other = ppo_placements(B, 2 * B, rank=16)
    assert one.device == 54e9 + 18e9
    assert (host.device, host.host) == (54e9 + 12e9, 12e9)  # the larger of the two frozen ones is on the device
    assert (other.device, other.other) == (54e9, 18e9)
    size = 18 * (adapter_parameters(B, 16) + adapter_parameters(2 * B, 16))
    assert adapters.device == pytest.approx(18e9 + size) and size < 1.2e9
    assert adapters.host == adapters.other == 0
