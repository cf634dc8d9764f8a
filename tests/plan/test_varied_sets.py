"""Sets whose text takes the value of an axis: which set a cell has, what cells share, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.errors import SpecError, UsageError
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]
BY_SOURCE = {"use": "pocket-ultrafeedback", "where": {"source": "${source}"}}
BY_SEED: dict[str, Any] = {
    "prompts": "pocket-shp",
    "responses": {"n": 2, "max_new_tokens": 32, "seed": "${seed}"},
    "label": {"by": {"reward": "nouns"}},
}


def text(datasets: dict[str, Any], *blocks: dict[str, Any], **changes: Any) -> str:
    spec = {
        "name": "study",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions"},
        "datasets": datasets,
        "ppo": {"max_prompt_length": 128, "max_response_length": 64},
        "grid": list(blocks),
        "evaluate": {"policy": ["pocket-gold"], "reward_model": ["pocket-pairs"]},
    }
    return yaml.safe_dump({**spec, **changes}, sort_keys=False)


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == kind]


def made_sets(plan: Plan, name: str) -> list[dict[str, Any]]:
    stages = (stage for stage in of_kind(plan, "dataset") if stage.execution.label.startswith(name))
    return [dict(stage.identity.config.value) for stage in stages]


def test_each_cell_has_the_set_at_its_own_value(plan: MakePlan) -> None:
    block = {"dataset": "own", "algorithm": "dpo", "source": ["*_chat", "*_math"]}
    made = plan(text({"own": BY_SOURCE}, block, {"dataset": "pocket-hh", "algorithm": "dpo"}))
    assert [config["where"] for config in made_sets(made, "own")] == [{"source": ["*_chat"]}, {"source": ["*_math"]}]
    axes = [(item.axes["dataset"], item.axes["source"]) for item in made.subjects]
    assert axes == [("own(source=*_chat)", "*_chat"), ("own(source=*_math)", "*_math"), ("pocket-hh", None)]
    assert len({item.stage for item in made.subjects}) == 3
    plain = {"chat": {**BY_SOURCE, "where": {"source": "*_chat"}}}
    alone = plan(text(plain, {"dataset": "chat", "algorithm": "dpo"}))
    assert set(alone.stages) <= set(made.stages), "it is the set that is written with the value in place"
    assert list(made.as_json()["datasets"]) == ["own(source=*_chat)", "own(source=*_math)", "pocket-hh"]


def test_a_value_keeps_its_type_and_fills_text(plan: MakePlan) -> None:
    gap = {"use": "pocket-ultrafeedback", "where": {"score_gap": {"min": "${gap}"}}, "title": "gap ${gap}"}
    made = plan(text({"own": gap}, {"dataset": "own", "algorithm": "dpo", "gap": [0.5, 1]}))
    assert [config["where"]["score_gap"]["min"] for config in made_sets(made, "own")] == [0.5, 1.0]
    assert [facts["title"] for facts in made.datasets.values()] == ["gap 0.5", "gap 1"]


def test_keys_of_a_cell_are_axes_like_any_other(plan: MakePlan) -> None:
    made = plan(text({"own": BY_SEED}, {"dataset": "own", "algorithm": ["dpo", "ppo"], "seed": [0, 1]}))
    assert [stage.identity.config.value["seed"] for stage in of_kind(made, "respond")] == [0, 1]
    assert [item.axes["reward_model.dataset"] for item in made.subjects if item.subject == "reward_model"] == [
        "own(seed=0)",
        "own(seed=1)",
    ]
    fixed = plan(text({"own": BY_SEED}, {"dataset": "own", "algorithm": "dpo"}, seed=3))
    assert [item.axes["dataset"] for item in fixed.subjects] == ["own"], "the file's own key, where none varies"
    (respond,) = of_kind(fixed, "respond")
    assert respond.identity.config.value["seed"] == 3


def test_conditions_name_the_set_as_it_is_written(plan: MakePlan) -> None:
    block = {"dataset": ["own", "pocket-hh"], "algorithm": "dpo", "source": ["*_chat", "*_math"]}
    rule = {"if": {"dataset": "own", "source": "*_math"}, "set": {"dpo.beta": 0.5}}
    made = plan(text({"own": BY_SOURCE}, block, when=[rule], exclude=[{"dataset": "own", "source": "*_chat"}]))
    assert [(str(cell.values["dataset"]), cell.values.get("dpo.beta")) for cell in made.grid.cells] == [
        ("own(source=*_math)", 0.5),
        ("pocket-hh", None),
    ]


def test_a_chain_of_the_cell_has_the_cell_s_own_set(plan: MakePlan) -> None:
    chain = {"from": {"algorithm": "ipo"}}
    block = {"dataset": "own", "source": ["*_chat", "*_math"], "algorithm": "dpo", "policy": chain}
    made = plan(text({"own": BY_SOURCE}, block))
    trained = [stage.execution.label for stage in of_kind(made, "train")]
    assert len(trained) == 4 and sum(label.startswith("IPO on own(source=*_chat)") for label in trained) == 1


@pytest.mark.parametrize(
    ("datasets", "block", "changes", "message"),
    [
        (
            {"own": BY_SOURCE},
            {"dataset": "own", "sorce": ["a", "b"]},
            {},
            r"study.yaml:\d+: datasets.own.where.source: can't resolve: .*'source' not found",
        ),
        (
            {"own": BY_SOURCE, "other": {**BY_SOURCE, "where": {"source": "${soure}"}}},
            {"dataset": ["own", "other"], "source": ["a", "b"]},
            {},
            r"study.yaml:\d+: datasets.other.where.source: can't resolve: .*'soure' not found",
        ),
        (
            {"own": BY_SOURCE},
            {"dataset": "own", "source": ["a", "b"], "sorce": 1},
            {},
            r"study.yaml:\d+: sorce: unknown axis 'sorce'\n  did you mean 'source'",
        ),
        (
            {"own": BY_SOURCE},
            {"dataset": "pocket-hh", "source": ["a", "b"]},
            {},
            "source: no set of this block reads 'source', so the axis would vary nothing",
        ),
        (
            {"own": {"use": "pocket-hh", "where": {"prompt_words": {"min": "${words}"}}}},
            {"dataset": "own", "words": [3, "many"]},
            {},
            r"study.yaml:\d+: datasets.own.where.prompt_words.min: .*valid number",
        ),
        (
            {"own": BY_SOURCE, "both": {"mix": ["own", "pocket-shp"]}},
            {"dataset": ["own", "both"], "source": ["a", "b"]},
            {},
            r"both.mix.own: 'own' takes \$\{source\} of a cell, so only cells can use it: as dataset, prompts",
        ),
        (
            {"own": BY_SOURCE},
            {"dataset": "own", "source": ["a", "b"], "policy": {"from": {"algorithm": "dpo", "dataset": "own"}}},
            {},
            r"policy.from.dataset: 'own' takes \$\{source\} of a cell, so only cells",
        ),
        (
            {"own": {"use": "pocket-hh", "title": "${own.share}"}},
            {"dataset": "own", "own.share": [1, 2]},
            {},
            "unknown axis 'own.share'",
        ),
        ({"pocket-hh": BY_SOURCE}, {"dataset": "pocket-hh", "source": ["a"]}, {}, "is the catalog's own"),
    ],
)
def test_what_makes_no_sense_is_refused(
    plan: MakePlan, datasets: dict[str, Any], block: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(text(datasets, {"algorithm": "dpo", **block}, **changes))


def test_cells_without_a_value_are_refused(plan: MakePlan) -> None:
    blocks = ({"dataset": "own", "algorithm": "dpo", "source": "a"}, {"dataset": "own", "algorithm": "ipo"})
    with pytest.raises(SpecError, match=r"the set 'own' takes the value of 'source', and cells of block 2 have none"):
        plan(text({"own": BY_SOURCE}, *blocks))


def test_an_instruction_set_of_the_cell_shapes_its_sft_baseline_and_reward_model(plan: MakePlan) -> None:
    own = {"use": "pocket-instructions", "where": {"prompt_words": {"max": "${words}"}}}
    block = {"dataset": "pocket-hh", "algorithm": "ppo", "words": [20, 40]}
    made = plan(text({"own": own}, block, sft={"dataset": "own"}, baselines=["base", "sft"]))
    assert len(of_kind(made, "sft")) == 2
    subjects = [item for item in made.subjects if item.role == "cell"]
    assert [(item.subject, item.axes["words"]) for item in subjects] == [
        ("policy", 20),
        ("policy", 40),
        ("reward_model", 20),
        ("reward_model", 40),
    ]
    baselines = {item.stage: item.axes["sft.dataset"] for item in made.subjects if item.role == "sft"}
    policies = [item for item in subjects if item.subject == "policy"]
    assert [item.start["sft.dataset"] for item in policies] == list(baselines.values())
    assert [item.inputs["sft"] for item in policies] == list(baselines)
