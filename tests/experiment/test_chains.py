"""Policies that other cells make, as values of the grid: their names, what they inherit, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ablate.errors import UsageError
from ablate.experiment.chains import Chain, Merged, Trained, chains_in
from ablate.experiment.grid import Cell, Grid

Expand = Callable[..., Grid]


def policies(grid: Grid) -> list[Any]:
    return [cell.policy for cell in grid.cells]


def test_a_name_says_what_a_chain_is_made_from_however_it_is_written(grid: Expand) -> None:
    found = grid("""
        dataset: pocket-hh
        algorithm: dpo
        grid:
          - policy:
            - pocket-small
            - {from: {dataset: pocket-shp, algorithm: ppo, ppo: {gamma: 1}}}
            - {from: {dataset: pocket-shp, policy: {from: {algorithm: ipo}}}}
            - {merge: [{from: {seed: 1}}, {from: {seed: 2}}, pocket-small], weights: [0.5, 1, -0.5]}
          - policy: {from: {ppo.gamma: 1.0, algorithm: ppo, dataset: pocket-shp}, title: PPO first}
    """)
    assert policies(found) == [
        "pocket-small",
        "ppo(dataset=pocket-shp ppo.gamma=1)",
        "from(dataset=pocket-shp policy=ipo())",
        "merge(0.5*from(seed=1) 1*from(seed=2) -0.5*pocket-small)",
    ], "the second block's cell is the first's"
    shown = [policy.shown for policy in policies(found) if isinstance(policy, Chain)]
    assert shown == [
        "PPO on pocket-shp (ppo.gamma=1)",
        "IPO → the same method on pocket-shp",
        "merge of the same method (seed=1) and the same method (seed=2) and pocket-small",
    ]
    assert {policy.root for policy in policies(found) if isinstance(policy, Chain)} == {"pocket-small"}
    assert [str(chain) for chain in chains_in(policies(found)[2])] == ["ipo()", policies(found)[2]]


def test_a_cell_keeps_what_the_methods_of_its_chain_read(grid: Expand) -> None:
    found = grid("""
        dataset: pocket-hh
        grid:
          - algorithm: dpo
            policy: {from: {algorithm: ppo, ppo.gamma: 0.9}}
            ppo.kl_coefficient: [0.1, 0.2]
            reward_model.epochs: 2
    """)
    assert [cell.values["ppo.kl_coefficient"] for cell in found.cells] == [0.1, 0.2]
    assert found.cells[0].values["reward_model.epochs"] == 2
    assert "reward_model.init" not in found.cells[0].values, "derived where the reward model is made"
    assert set(found.cells[0].own_sections()) == {"data"}
    with pytest.raises(UsageError, match=r"no method of this block reads 'ppo.gamma'"):
        grid("""
            dataset: pocket-hh
            grid: [{algorithm: dpo, policy: {from: {algorithm: ppo, ppo.gamma: 0.9}}, ppo.gamma: [0.9, 1.0]}]
        """)


def test_the_model_under_a_chain_is_where_its_reward_model_starts(grid: Expand) -> None:
    chain = "{from: {algorithm: dpo, policy: {from: {policy: pocket-medium, algorithm: dpo}}}}"
    (cell,) = grid(f"grid: [{{dataset: pocket-hh, algorithm: ppo, policy: {chain}}}]").cells
    assert cell.values["reward_model.init"] == "pocket-medium"


def test_chains_are_axes_of_a_zip_too_and_conditions_know_them(grid: Expand) -> None:
    found = grid("""
        dataset: pocket-hh
        algorithm: dpo
        grid:
          - zip: {policy: [pocket-small, {from: {seed: 3}}, {from: {seed: 4}}], dpo.beta: [0.1, 0.2, 0.3]}
        when: [{if: {policy: [{from: {seed: 3}}]}, set: {dpo.label_smoothing: 0.2}}]
        exclude: [{policy: {from: {seed: 4}}}]
    """)
    assert [(cell.policy, cell.values["dpo.beta"]) for cell in found.cells] == [
        ("pocket-small", 0.1),
        ("from(seed=3)", 0.2),
    ]
    assert [cell.values.get("dpo.label_smoothing") for cell in found.cells] == [None, 0.2]


def test_a_chain_may_be_fixed_and_others_start_from_it(grid: Expand) -> None:
    text = """
        grid: [{dataset: pocket-hh, algorithm: dpo, policy: [pocket-small, {from: {algorithm: ppo}}]}]
    """
    first, second = (cell.policy for cell in grid(text, "policy={from: {policy: pocket-small, algorithm: ipo}}").cells)
    assert first == "pocket-small"
    assert isinstance(second, Trained) and second.start == "ipo(policy=pocket-small)" and second.root == "pocket-small"


def test_weights_of_a_merge_are_equal_unless_written(grid: Expand) -> None:
    merge = "{merge: [{from: {seed: 0}}, {from: {seed: 1}}, {from: {seed: 2}}, pocket-small]}"
    (cell,) = grid(f"grid: [{{dataset: pocket-hh, algorithm: dpo, policy: {merge}}}]").cells
    assert isinstance(cell.policy, Merged) and cell.policy.weights == (0.25,) * 4


def test_rounds_that_nobody_wrote_are_the_method_s_own(grid: Expand) -> None:
    found = grid("""
        dataset: pocket-hh
        grid:
          - {algorithm: dpo, rounds: [1, 2]}
          - {algorithm: [dpo, ppo]}
    """)
    assert [(cell.method.name, cell.rounds) for cell in found.cells] == [("dpo", 1), ("dpo", 2), ("ppo", 1)]
    (cell,) = grid("grid: [{dataset: pocket-hh, algorithm: dpo}]").cells
    assert cell.rounds == 1 and "rounds" not in cell.values
    assert cell.at_round(3).rounds == 3 and hash(cell.at_round(3)) == hash(Cell({**cell.values, "rounds": 3}, 0))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("{form: {algorithm: dpo}}", "7: grid.0.policy.1.form: unknown key 'form'\n  did you mean 'from'?"),
        ("{from: {\n algoritm: dpo}}", "8: grid.0.policy.1.from.algoritm: unknown axis 'algoritm'\n  did you mean"),
        ("{from: {\n algorithm: dpoo}}", "8: grid.0.policy.1.from.algorithm: unknown algorithm 'dpoo'"),
        ("{from: {\n algorithm: [dpo, ipo]}}", "8: grid.0.policy.1.from.algorithm: algorithm needs a single value"),
        ("{from: {\n rounds: 0}}", "8: grid.0.policy.1.from.rounds: rounds needs a whole number, 1 or more"),
        ("{from: {}}", "7: grid.0.policy.1.from: from names no key of a cell"),
        ("{from: {seed: 1}, merge: [a, b]}", "7: grid.0.policy.1: exactly one of from, merge is needed"),
        ("{title: x}", "7: grid.0.policy.1: exactly one of from, merge is needed"),
        ("{merge: [pocket-small]}", "two or more policies"),
        ("{merge: [pocket-small,\n 3]}", "8: grid.0.policy.1.merge.1: a merge is of names of models"),
        ("{merge: [a, b], weights: [1]}", "there are 1 weights for 2 policies"),
        ("{from: {seed: 1}, weights: [1]}", "there are 1 weights for no merge"),
        ("{merge: [a, b], weights: [0.5, 0.6]}", "add up to 1 (found 1.1)"),
        ("{merge: [a, {from: {\n policy: 3}}]}", "8: grid.0.policy.1.merge.1.from.policy: policy needs a name"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(grid: Expand, policy: str, said: str) -> None:
    text = f"dataset: pocket-hh\nalgorithm: dpo\ngrid:\n- policy: [pocket-small,\n   {policy}]\n"
    with pytest.raises(UsageError) as caught:
        grid(text)
    assert f"study.yaml:{said}" in str(caught.value) or said in str(caught.value)


def test_a_chain_that_starts_nowhere_is_refused(grid: Expand) -> None:
    for policy in ("{from: {algorithm: dpo}}", "{from: {policy: {from: {algorithm: dpo}}, seed: 1}}"):
        with pytest.raises(UsageError, match=r"policy\.from.*: it is not said which policy this starts from"):
            grid("grid: [{dataset: pocket-hh, algorithm: dpo}]", f"policy={policy}")
