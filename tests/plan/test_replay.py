"""The pairs of an online run as a set of their own: what is planned, what is shared, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.errors import AblateError, SpecError, UnknownNameError
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]
RUN = {"algorithm": "online_dpo", "dataset": "pocket-hh"}
LENGTHS = {"max_prompt_length": 128, "max_response_length": 64}


def text(replay: dict[str, Any], **changes: Any) -> str:
    spec = {
        "name": "study",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions"},
        "datasets": {"replayed": replay},
        "online_dpo": LENGTHS,
        "d2po": {**LENGTHS, "discriminator": "sft"},
        "grid": [{"dataset": "replayed", "algorithm": "dpo", "seed": [0, 1]}],
        "evaluate": {"policy": ["pocket-gold"]},
    }
    return yaml.safe_dump({**spec, **changes}, sort_keys=False)


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == kind]


def trains(plan: Plan, algorithm: str) -> list[Stage]:
    return [stage for stage in of_kind(plan, "train") if stage.identity.config.value["algorithm"] == algorithm]


def parent(plan: Plan, stage: Stage, role: str) -> Stage:
    return plan.stages[dict(stage.identity.inputs)[role].stage]


def test_a_cell_learns_from_the_pairs_of_the_online_run_with_its_seed(plan: MakePlan) -> None:
    made = plan(text({"replay": RUN}))
    for offline in trains(made, "dpo"):
        tokens = parent(made, offline, "data")
        rows = parent(made, tokens, "data")
        online = parent(made, rows, "source")
        assert dict(rows.identity.inputs)["source"].artifact == "pairs.jsonl"
        assert online.identity.config.value["algorithm"] == "online_dpo"
        assert online.identity.config.value["seed"] == offline.identity.config.value["seed"]
        assert "order" not in rows.identity.config.value and "order" not in tokens.identity.config.value
    assert len(trains(made, "online_dpo")) == 2
    (data,) = [facts for facts in made.data if facts["name"] == "replayed" and facts["roles"] == ["preferences"]][:1]
    assert (data["revision"], data["label_kind"]) == ("made here", "ai")


def test_an_online_cell_of_the_grid_is_the_run_that_is_replayed(plan: MakePlan) -> None:
    grid = [{**RUN, "seed": 3}, {"dataset": "replayed", "algorithm": ["dpo", "ipo"], "seed": 3}]
    made = plan(text({"replay": RUN}, grid=grid))
    (online,) = trains(made, "online_dpo")
    assert online.id == made.subjects[0].stage


def test_a_kept_order_reaches_the_tokens_also_when_the_set_is_cut(plan: MakePlan) -> None:
    for data in ({}, {"match": "smallest"}):
        both = {"replayed": {"replay": RUN, "order": "kept"}, "mixed": {"replay": RUN, "order": "shuffled"}}
        grid = [{"dataset": ["replayed", "mixed"], "algorithm": "dpo"}]
        made = plan(text({}, datasets=both, grid=grid, data=data))
        kept, shuffled = (parent(made, stage, "data") for stage in trains(made, "dpo"))
        assert kept.identity.config.value["order"] == "kept"
        assert "order" not in shuffled.identity.config.value
        assert len(trains(made, "online_dpo")) == 1


def test_keys_of_the_run_are_its_own(plan: MakePlan) -> None:
    run = {**RUN, "seed": 7, "online_dpo.beta": 0.3, "prompts": "pocket-shp"}
    made = plan(text({"replay": run}))
    (online,) = trains(made, "online_dpo")
    assert online.identity.config.value["seed"] == 7
    assert online.identity.config.value["parameters"]["beta"] == 0.3


@pytest.mark.parametrize(
    ("replay", "error", "message"),
    [
        ({"replay": {"algorithm": "dpo", "dataset": "pocket-hh"}}, SpecError, "DPO learns from no pairs of its own"),
        ({"replay": {"algorithm": "online_dpo"}}, AblateError, "replay names the run .*: dataset is missing"),
        ({"replay": {**RUN, "dataset": "replayed"}}, SpecError, "'replayed' is this set itself"),
        ({"replay": {**RUN, "algorithm": "online_dp"}}, UnknownNameError, "online_dpo"),
        ({"replay": {**RUN, "dpo.beta": 0.3}}, SpecError, "Online DPO does not read 'dpo.beta'"),
        ({"replay": RUN, "order": "backwards"}, AblateError, "order"),
        ({"use": "pocket-hh", "order": "kept"}, AblateError, "'order' says nothing about 'use'"),
    ],
)
def test_what_can_not_be_replayed(plan: MakePlan, replay: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan(text(replay))
