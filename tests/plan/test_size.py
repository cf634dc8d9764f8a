"""What a plan says of large models."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ablate.catalogs.memory import GIB
from ablate.catalogs.models import models
from ablate.cli.plan import print_sizes
from ablate.plan.plan import Plan
from ablate.plan.size import sizes_of

MakePlan = Callable[..., Plan]

BIG = """
name: big
policy: tulu-2-13b
data: {embedded: true}
ppo: {dtype: bfloat16}
dpo: {dtype: bfloat16}
reward_model: {dtype: bfloat16}
grid:
  - {dataset: ultrafeedback-raw, algorithm: [dpo, ppo], seed: [0, 1]}
  - {dataset: ultrafeedback-raw, algorithm: ppo, reward_model.init: tulu-2-70b}
"""


def test_sizes_of_large_models_are_told_once_and_small_ones_not(
    plan: MakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = sizes_of(plan(BIG).grid, models())
    assert [(model.name, round(model.bytes / GIB)) for model in sizes.trained] == [
        ("tulu-2-13b", 218),  # 18 x 13.016e9 / 2^30
        ("tulu-2-70b", 1156),
    ]
    assert dict(sizes.trained[0].shardings) == {1: None, 2: None, 4: "zero3", 8: "zero3", 16: "zero3"}
    assert [(four.policy, four.reward_model) for four in sizes.ppo] == [
        ("tulu-2-13b", "tulu-2-13b"),
        ("tulu-2-13b", "tulu-2-70b"),
    ]
    print_sizes(sizes)
    printed = capsys.readouterr().out
    assert "all on one device" in printed and "582" in printed  # 24 x 2 x 13.016e9 / 2^30
    lengths = "ppo: {max_prompt_length: 128, max_response_length: 64}"
    pocket = f"name: a\npolicy: pocket-small\n{lengths}\ngrid: [{{dataset: pocket-hh, algorithm: ppo}}]"
    small = sizes_of(plan(pocket).grid, models())
    assert small.trained == small.ppo == ()


def test_a_reward_model_has_a_dtype_of_its_own_and_a_chain_the_size_of_its_root(plan: MakePlan) -> None:
    chain = "{from: {algorithm: dpo, dataset: ultrafeedback-raw}}"
    grid = f"{{dataset: ultrafeedback-raw, algorithm: ppo, policy: {chain}}}"
    made = plan(BIG.partition("reward_model:")[0] + f"reward_model: {{dtype: float32}}\ngrid: [{grid}]")
    sizes = sizes_of(made.grid, models())
    assert [(model.name, model.dtype, round(model.bytes / GIB)) for model in sizes.trained] == [
        ("tulu-2-13b", "bfloat16", 218),
        ("tulu-2-13b", "float32", 194),  # no copies of 2 bytes: 16 x 13.016e9 / 2^30
    ]
    assert [(four.policy, four.dtype) for four in sizes.ppo] == [("tulu-2-13b", "bfloat16")]


def test_a_policy_that_is_not_trained_needs_no_device(plan: MakePlan) -> None:
    grid = "{dataset: ultrafeedback-raw, algorithm: reward_modelling, reward_model.init: tulu-2-70b}"
    made = plan(
        BIG.partition("grid:")[0].replace("ppo: {dtype: bfloat16}\ndpo: {dtype: bfloat16}\n", "") + f"grid: [{grid}]"
    )
    assert [model.name for model in sizes_of(made.grid, models()).trained] == ["tulu-2-70b"]
