"""From blocks to cells: a pure function, tested without a store."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from ablate.errors import UsageError
from ablate.experiment.grid import Grid

Expand = Callable[..., Grid]


def points(grid: Grid, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(cell.values.get(key) for key in keys) for cell in grid.cells]


def test_a_block_is_a_product_in_the_order_written(grid: Expand) -> None:
    found = grid("grid: [{dataset: [pocket-shp, pocket-hh], algorithm: dpo, seed: [1, 0]}]")
    assert points(found, "dataset", "seed") == [
        ("pocket-shp", 1),
        ("pocket-shp", 0),
        ("pocket-hh", 1),
        ("pocket-hh", 0),
    ]
    assert found.axes == ("dataset", "algorithm", "seed")


def test_axes_of_a_zip_move_together(grid: Expand) -> None:
    found = grid(
        "grid: [{algorithm: dpo, zip: {dataset: [pocket-shp, pocket-hh], dpo.beta: [0.1, 0.2]}, seed: [0, 1]}]"
    )
    assert points(found, "dataset", "dpo.beta", "seed") == [
        ("pocket-shp", 0.1, 0),
        ("pocket-shp", 0.1, 1),
        ("pocket-hh", 0.2, 0),
        ("pocket-hh", 0.2, 1),
    ]


def test_blocks_are_a_union_with_equal_cells_once(grid: Expand) -> None:
    found = grid("""
        dataset: pocket-hh
        grid:
          - {algorithm: dpo, seed: [0, 1]}
          - {algorithm: [dpo, ppo], seed: [1, 2]}
        """)
    assert points(found, "algorithm", "seed") == [("dpo", 0), ("dpo", 1), ("dpo", 2), ("ppo", 1), ("ppo", 2)]
    assert [cell.block for cell in found.cells] == [0, 0, 1, 1, 1]


def test_a_cell_of_another_block_stands_at_the_default_of_an_axis(grid: Expand) -> None:
    found = grid("""
        dataset: pocket-hh
        grid:
          - {algorithm: dpo, dpo.beta: [0.1, 0.2]}
          - {algorithm: dpo}
        """)
    assert points(found, "dpo.beta") == [(0.1,), (0.2,)]


def test_the_default_of_an_sft_axis_needs_an_sft(grid: Expand) -> None:
    found = grid("""
        dataset: pocket-hh
        algorithm: dpo
        grid:
          - {sft.dataset: pocket-instructions, sft.epochs: [1, 2]}
          - {seed: 0}
        """)
    assert points(found, "sft.dataset", "sft.epochs") == [
        ("pocket-instructions", 1),
        ("pocket-instructions", 2),
        (None, None),
    ]


def test_an_axis_a_method_does_not_read_projects_out(grid: Expand) -> None:
    found = grid("grid: [{dataset: pocket-hh, algorithm: [dpo, ppo], dpo.beta: [0.1, 0.2], seed: [0, 1]}]")
    assert points(found, "algorithm", "dpo.beta", "seed") == [
        ("dpo", 0.1, 0),
        ("dpo", 0.1, 1),
        ("dpo", 0.2, 0),
        ("dpo", 0.2, 1),
        ("ppo", None, 0),
        ("ppo", None, 1),
    ]


def test_a_dpo_cell_carries_no_reward_model(grid: Expand) -> None:
    found = grid("""
        reward_model: {epochs: 2}
        grid: [{dataset: pocket-hh, algorithm: [dpo, ppo], reward_model.init: [pocket-small, pocket-medium]}]
        """)
    assert points(
        found, "algorithm", "reward_model.init", "reward_model.dataset", "reward_model.epochs", "prompts"
    ) == [
        ("dpo", None, None, None, None),
        ("ppo", "pocket-small", "pocket-hh", 2, "pocket-hh"),
        ("ppo", "pocket-medium", "pocket-hh", 2, "pocket-hh"),
    ]


def test_a_reward_model_is_a_name_or_a_section(grid: Expand) -> None:
    found = grid("""
        algorithm: ppo
        grid:
          - dataset: pocket-hh
            reward_model: [pocket-small, {init: pocket-medium, dataset: pocket-nectar}]
        """)
    assert points(found, "reward_model.init", "reward_model.dataset") == [
        ("pocket-small", "pocket-hh"),
        ("pocket-medium", "pocket-nectar"),
    ]
    fixed = grid("reward_model: pocket-medium\ngrid: [{dataset: pocket-hh, algorithm: ppo}]")
    assert points(fixed, "reward_model.init") == [("pocket-medium",)]


@pytest.mark.parametrize(
    "block",
    [
        "dpo.beta: [0.1, 0.2], dpo.epochs: [1, 2]",
        "dpo: {beta: [0.1, 0.2], epochs: [1, 2]}",
        "zip: {dpo: [{beta: 0.1, epochs: 1}, {beta: 0.1, epochs: 2}, {beta: 0.2, epochs: 1}, {beta: 0.2, epochs: 2}]}",
    ],
)
def test_a_nested_mapping_is_dotted_axes(grid: Expand, block: str) -> None:
    found = grid(f"grid: [{{dataset: pocket-hh, algorithm: dpo, {block}}}]")
    assert points(found, "dpo.beta", "dpo.epochs") == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)]


def test_when_sets_keys_of_matching_cells_and_the_later_wins(grid: Expand) -> None:
    found = grid("""
        grid: [{dataset: [pocket-hh, pocket-shp], algorithm: [dpo, ppo]}]
        when:
          - {if: {algorithm: dpo}, set: {dpo.beta: 0.3}}
          - {if: {dataset: [pocket-shp, pocket-nectar], dpo.beta: 0.3}, set: {dpo: {beta: 0.4}}}
          - {if: {reward_model.init: pocket-small}, set: {ppo.kl_coefficient: 0.01}}
        """)
    assert points(found, "dataset", "algorithm", "dpo.beta", "ppo.kl_coefficient") == [
        ("pocket-hh", "dpo", 0.3, None),
        ("pocket-hh", "ppo", None, 0.01),
        ("pocket-shp", "dpo", 0.4, None),
        ("pocket-shp", "ppo", None, 0.01),
    ]


def test_when_may_set_what_varies_in_another_block_only(grid: Expand) -> None:
    text = """
        dataset: pocket-hh
        algorithm: dpo
        grid: [{dpo.beta: [0.1, 0.2], seed: 0}, {seed: 1}]
        when: [{if: {seed: 1}, set: {dpo.beta: 0.5}}]
        """
    assert points(grid(text), "seed", "dpo.beta") == [(0, 0.1), (0, 0.2), (1, 0.5)]
    with pytest.raises(UsageError, match=r"study\.yaml:7: when\.0: when sets 'dpo\.beta', which varies in block 1"):
        grid(text.replace("{seed: 1}, set", "{seed: 0}, set"))


def test_exclude_leaves_matching_cells_out(grid: Expand) -> None:
    found = grid("""
        grid: [{dataset: [pocket-hh, pocket-shp], algorithm: [dpo, ppo], seed: [0, 1]}]
        exclude:
          - {dataset: pocket-hh, algorithm: ppo, seed: [0, 1]}
          - {algorithm: dpo, seed: 1}
          - {reward_model: {dataset: pocket-shp}, seed: 1}
        """)
    assert points(found, "dataset", "algorithm", "seed") == [
        ("pocket-hh", "dpo", 0),
        ("pocket-shp", "dpo", 0),
        ("pocket-shp", "ppo", 0),
    ]


def test_expansion_is_the_same_every_time(grid: Expand) -> None:
    text = (
        "grid: [{dataset: [pocket-hh, pocket-shp], algorithm: [ppo, dpo], reward_model: [pocket-small, pocket-medium]}]"
    )
    assert grid(text).cells == grid(text).cells


BLOCK = "grid: [{dataset: pocket-hh, algorithm: dpo}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: [{dataset: pocket-hh, algorithm: dppo}]", "3: algorithm: unknown algorithm 'dppo'\n  did you mean"),
        (
            "grid: [{dataset: a, algorithm: dpo, dpo.bta: 1}]",
            "3: dpo.bta: unknown axis 'dpo.bta'\n  did you mean 'dpo.beta'",
        ),
        (
            "grid: [{dataset: a, algorithm: dpo, dpo.lr: 1}]",
            r"unknown axis 'dpo.lr'\n.* dpo.learning_rate.*\(\d\d in all",
        ),
        ("grid: [{dataset: a, algorithm: dpo, dpo: {bta: 1}}]", "3: dpo.bta: unknown axis 'dpo.bta'"),
        ("grid: [{dataset: a, algorithm: dpo, sede: 1}]", "3: sede: unknown axis 'sede'\n  did you mean 'seed'"),
        ("grid: [{dataset: a, algorithm: dpo, dpo: 1}]", "3: dpo: unknown axis 'dpo'"),
        ("grid: [{dataset: a, algorithm: dpo, dpo: {}}]", "3: dpo: dpo is an empty mapping"),
        (
            "grid: [{dataset: a, algorithm: dpo, dpo.beta: [[1, 2]]}]",
            r"3: dpo.beta: dpo.beta needs a single value \(found",
        ),
        ("grid: [{dataset: a, algorithm: dpo, seed: []}]", "3: seed: an axis needs at least one value"),
        ("grid: [{dataset: a, algorithm: dpo, seed: [1, 1]}]", "3: seed: an axis repeats a value"),
        ("grid: [{dataset: a, algorithm: dpo, dpo.beta: 1, dpo: {beta: 2}}]", "axis 'dpo.beta' is written twice"),
        ("grid: [{dataset: a, algorithm: dpo, seed: 1, zip: {seed: [2]}}]", "3: seed: axis 'seed' is written twice"),
        (
            "grid: [{algorithm: dpo, zip: {dataset: [a, b], seed: [1]}}]",
            r"3: dataset: axes of a zip differ in length: \[1, 2\]",
        ),
        ("grid: [{dataset: a, algorithm: dpo, zip: [1]}]", "3: grid.0.zip: zip is a mapping of axes"),
        ("grid: [{dataset: a, algorithm: dpo, zip: {}}]", "3: grid.0.zip: zip is a mapping of axes"),
        ("grid: [{dataset: a, algorithm: dpo, zip: {zip: {seed: 1}}}]", "unknown axis 'zip.seed'"),
        (
            "grid: [{dataset: a, algorithm: dpo, ppo.gamma: [0.9, 1]}]",
            "3: ppo.gamma: no method of this block reads 'ppo.gamma'",
        ),
        (
            "grid: [{dataset: a, algorithm: dpo, reward_model: [x, y]}]",
            "3: reward_model.init: no method of this block reads",
        ),
        (
            "grid: [{dataset: a, algorithm: dpo, seed: [one]}]",
            r"3: seed: seed needs a whole number, 0 or more \(found 'one'\)",
        ),
        ("grid: [{dataset: a, algorithm: dpo, seed: true}]", "3: seed: seed needs a whole number"),
        ("grid: [{dataset: a, algorithm: dpo, seed: 1.5}]", "3: seed: seed needs a whole number"),
        ("grid: [{dataset: a, algorithm: dpo, seed: -1}]", "3: seed: seed needs a whole number"),
        ("grid: [{dataset: [5], algorithm: dpo}]", r"3: dataset: dataset needs a name \(found 5\)"),
        ("grid: [{dataset: [null], algorithm: dpo}]", "3: dataset: dataset needs a name"),
        ("grid: [{algorithm: dpo}]", "3: grid.0: 'dataset' is set nowhere\n  add dataset:"),
        ("grid: [{dataset: a, algorithm: dpo, dpo.beta: [0.1, -1]}]", r"3: dpo.beta: .*greater than 0 \(found -1\)"),
        ("grid: [{dataset: a, algorithm: dpo, dpo.beta: ['0.1']}]", r"3: dpo.beta: .*valid number \(found '0.1'\)"),
        ("grid: [{dataset: a, algorithm: dpo, dpo.beta: true}]", r"3: dpo.beta: .*valid number \(found True\)"),
        ("grid: [{dataset: a, algorithm: dpo, dpo.beta: .nan}]", r"3: dpo.beta: .*finite number \(found nan\)"),
        ("grid: [{dataset: a, algorithm: dpo, dpo.beta: .inf}]", r"3: dpo.beta: .*finite number \(found inf\)"),
        ("grid: [{dataset: a, algorithm: dpo, dpo.beta: [null]}]", "3: dpo.beta: "),
        ("grid: [{dataset: a, algorithm: dpo, dpo.epochs: 1.5}]", "3: dpo.epochs: .*valid integer"),
        (
            "grid: [{dataset: a, algorithm: dpo, dpo.dtype: float16}]",
            "3: dpo.dtype: 'float16' is not allowed\n  did you mean 'bfloat16'\\? allowed: bfloat16, float32",
        ),
        ("dpo: {beta: [0.1, 0.2]}\n" + BLOCK, r"3: dpo.beta: dpo.beta needs a single value \(found \[0.1, 0.2\]\)"),
        ("dpo: {beta: {a: 1}}\n" + BLOCK, "3: dpo.beta: dpo.beta needs a single value"),
        ("dpo: {beta: high}\n" + BLOCK, "3: dpo.beta: .*valid number"),
        ("dpo: {bta: 0.1}\n" + BLOCK, "3: dpo.bta: unknown key 'bta' in dpo\n  did you mean 'beta'"),
        (
            "dpo: {kl_coefficient: 0.1}\n" + BLOCK,
            "3: dpo.kl_coefficient: unknown key 'kl_coefficient' in dpo\n  it is a parameter of grpo, ",
        ),
        ("sft: {epochs: 2}\n" + BLOCK, "3: sft.dataset: 'dataset' is required"),
        (
            "pretrain: {scheduler: cosin}\n" + BLOCK,
            "3: pretrain.scheduler: 'cosin' is not allowed\n  did you mean 'cosine'",
        ),
        ("pretrain: {steps: 0}\n" + BLOCK, r"3: pretrain.steps: .*greater than or equal to 1 \(found 0\)"),
        ("grid: [{dataset: a, algorithm: dpo, pretrain.steps: [1, 0]}]", r"3: pretrain.steps: .*\(found 0\)"),
        ("dpo: {dtype: float3}\n" + BLOCK, "3: dpo.dtype: 'float3' is not allowed\n  did you mean 'float32'"),
        ("data: {max_examples: 0}\n" + BLOCK, "3: data.max_examples: .*greater than or equal to 1"),
        (BLOCK + "exclude: [{}]", "4: exclude.0: an empty exclude"),
        (BLOCK + "exclude: [{dataset: pocket-hh}]", "4: exclude: exclude leaves no cell"),
        (
            BLOCK + "exclude: [{dataset: x, algorithn: dpo}]",
            "4: exclude.0.algorithn: unknown key 'algorithn'\n  did you mean",
        ),
        (BLOCK + "when: [{if: {dataset: x, sede: 1}, set: {seed: 1}}]", "4: when.0.if.sede: unknown key 'sede'"),
        (BLOCK + "when: [{if: {dataset: x}, set: {dpo.bta: 1}}]", "4: when.0.set.dpo.bta: unknown axis 'dpo.bta'"),
        (BLOCK + "when: [{if: {dataset: x}, set: {dpo.beta: [1, 2]}}]", "4: when.0.set.dpo.beta: .*single value"),
    ],
)
def test_wrong_grids(grid: Expand, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        grid(text)
    assert re.search(r"study\.yaml:\d+: ", str(caught.value))


def test_an_override_is_named_as_the_place(grid: Expand) -> None:
    with pytest.raises(UsageError, match=r"override 'dpo\.beta=-1': dpo\.beta: .*greater than 0"):
        grid(BLOCK, "dpo.beta=-1")


SWEPT = """
seed: 3
dpo: {beta: 0.1}
grid:
  - {dataset: pocket-hh, algorithm: dpo, dpo.beta: [0.2, 0.3]}
  - {dataset: pocket-shp, algorithm: dpo, dpo: {beta: [0.4, 0.5]}, seed: [0, 1]}
"""


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("dpo.beta=0.7", "change the grid: 'grid.0.dpo.beta=0.7' 'grid.1.dpo.beta=0.7'"),
        ("algorithm=ppo", "change the grid: 'grid.0.algorithm=ppo' 'grid.1.algorithm=ppo'"),
    ],
)
def test_an_override_of_an_axis_of_every_block_is_refused(grid: Expand, override: str, hint: str) -> None:
    key = override.partition("=")[0]
    message = f"override '{override}': '{key}' is an axis of blocks 1, 2 of the grid, so this override would change no"
    with pytest.raises(UsageError, match=re.escape(message)) as found:
        grid(SWEPT, override)
    assert found.value.hint == hint


def test_an_axis_of_a_block_is_overridden_as_it_is_written(grid: Expand) -> None:
    assert points(grid(SWEPT, "grid.0.dpo.beta=0.7", "grid.1.dpo.beta=[0.8]"), "dpo.beta") == [(0.7,), (0.8,), (0.8,)]
    with pytest.raises(
        UsageError, match=r"override 'grid\.0\.dpo\.beta=-1': dpo\.beta: Input should be greater than 0"
    ):
        grid(SWEPT, "grid.0.dpo.beta=-1")


def test_an_override_of_what_only_some_blocks_sweep_reaches_the_others(grid: Expand) -> None:
    assert points(grid(SWEPT, "seed=7"), "seed") == [(7,), (7,), (0,), (1,), (0,), (1,)]


def test_an_override_of_a_zipped_or_short_axis_names_what_can_be_written(grid: Expand) -> None:
    zipped = "grid: [{algorithm: dpo, zip: {dataset: [pocket-shp, pocket-hh], dpo.beta: [0.1, 0.2]}}]"
    with pytest.raises(UsageError, match=r"\n  write the blocks anew: 'grid=\[…\]'"):
        grid(zipped, "dpo.beta=0.7")
    short = "grid: [{dataset: pocket-hh, algorithm: ppo, reward_model: [pocket-small, pocket-medium]}]"
    with pytest.raises(UsageError, match=r"'grid\.0\.reward_model=pocket-small'"):
        grid(short, "reward_model.init=pocket-small")


def test_an_override_that_the_grid_interpolates_is_used(grid: Expand) -> None:
    found = grid(
        'dpo: {beta: 0.1}\ngrid: [{dataset: pocket-hh, algorithm: dpo, dpo.beta: ["${dpo.beta}", 1.0]}]', "dpo.beta=0.7"
    )
    assert points(found, "dpo.beta") == [(0.7,), (1.0,)]
