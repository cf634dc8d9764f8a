"""Cells that start from other cells' policies: which stages they are, what they share, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.errors import UsageError
from ablate.plan.plan import Plan, Subject
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]

DPO_ON_HH = {"from": {"algorithm": "dpo", "dataset": "pocket-hh"}}


def text(*blocks: dict[str, Any], **changes: Any) -> str:
    spec = {
        "name": "study",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions"},
        "ppo": {"max_prompt_length": 128, "max_response_length": 64},
        "grid": list(blocks),
        "evaluate": {"policy": ["pocket-gold"]},
    }
    return yaml.safe_dump({**spec, **changes}, sort_keys=False)


def cells(plan: Plan) -> list[Subject]:
    return [item for item in plan.subjects if item.subject == "policy" and item.role == "cell"]


def made(plan: Plan, subject: Subject) -> Stage:
    return plan.stages[subject.stage]


def inputs(plan: Plan, stage: Stage) -> dict[str, Stage]:
    return {role: plan.stages[ref.stage] for role, ref in stage.identity.inputs}


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == kind]


def test_a_cell_starts_from_the_very_stage_that_the_other_cell_is(plan: MakePlan) -> None:
    found = plan(
        text(
            {"dataset": "pocket-hh", "algorithm": "dpo"},
            {"dataset": "pocket-shp", "algorithm": ["dpo", "ppo"], "policy": DPO_ON_HH},
        )
    )
    first, *others = (made(found, item) for item in cells(found))
    for stage in others:
        own = inputs(found, stage)
        assert own["policy"] is first
        if stage.identity.config.value["algorithm"] == "ppo":
            assert own["reference"] is first
            assert inputs(found, own["reward_model"])["model"].kind == "sft"
        else:
            assert inputs(found, own["reference_logprobs"])["model"] is first
    assert len(of_kind(found, "sft")) == len(of_kind(found, "pretrain")) == 1, "no SFT on top of a policy"
    # Alone, the chained cell makes what the other one would have made.
    alone = plan(text({"dataset": "pocket-shp", "algorithm": "dpo", "policy": DPO_ON_HH}))
    assert set(alone.stages) < set(found.stages)


def test_what_a_chain_does_not_name_is_the_cell_s(plan: MakePlan) -> None:
    block = {"dataset": "pocket-shp", "algorithm": "dpo", "seed": [0, 1], "policy": {"from": {"algorithm": "ppo"}}}
    found = plan(text({**block, "ppo.gamma": [0.9, 1.0]}, dpo={"beta": 0.3}))
    starts = [inputs(found, made(found, item))["policy"].identity.config.value for item in cells(found)]
    assert [(start["seed"], start["parameters"]["gamma"]) for start in starts] == [
        (0, 0.9),
        (0, 1.0),
        (1, 0.9),
        (1, 1.0),
    ]
    written = plan(text({**block, "policy": {"from": {"algorithm": "ppo", "seed": 7}}}))
    assert len({inputs(written, made(written, item))["policy"].id for item in cells(written)}) == 1


def test_equal_chains_are_one_chain_however_deep(plan: MakePlan) -> None:
    deep = {"from": {"algorithm": "ipo", "dataset": "pocket-shp", "policy": DPO_ON_HH}}
    found = plan(
        text(
            {"dataset": "pocket-nectar", "algorithm": "dpo", "policy": [DPO_ON_HH, deep]},
            {"dataset": "pocket-shp", "algorithm": "ipo", "policy": DPO_ON_HH},
        )
    )
    on_dpo, on_ipo, ipo = (made(found, item) for item in cells(found))
    assert inputs(found, on_ipo)["policy"] is ipo
    assert inputs(found, ipo)["policy"] is inputs(found, on_dpo)["policy"]
    assert len(of_kind(found, "train")) == 4


def test_the_written_order_and_title_of_a_chain_change_no_id(plan: MakePlan) -> None:
    block = {"dataset": "pocket-shp", "algorithm": "dpo"}
    other = {"from": {"dataset": "pocket-hh", "seed": 0, "algorithm": "dpo"}, "title": "HH first"}
    one, two = plan(text({**block, "policy": DPO_ON_HH})), plan(text({**block, "policy": other}))
    assert set(one.stages) == set(two.stages)
    assert one.as_json()["policies"] == {"dpo(dataset=pocket-hh)": "DPO on pocket-hh"}
    assert list(two.as_json()["policies"].values()) == ["HH first"]


def test_a_chain_follows_what_it_is_made_of(plan: MakePlan) -> None:
    block = {"dataset": "pocket-shp", "algorithm": "dpo", "policy": DPO_ON_HH}
    before = plan(text(block))
    (cell,) = cells(before)
    for change in ({"from": {**DPO_ON_HH["from"], "dpo.beta": 0.2}}, {"from": {**DPO_ON_HH["from"], "seed": 1}}):
        (other,) = cells(plan(text({**block, "policy": change})))
        assert other.stage != cell.stage
    (other,) = cells(plan(text({**block, "sft.epochs": 3})))
    assert other.stage != cell.stage


def test_baselines_are_of_the_models_under_the_chains(plan: MakePlan) -> None:
    chain = {"from": {"algorithm": "dpo", "sft.epochs": 3}}
    spec = text(
        {"dataset": "pocket-shp", "algorithm": "dpo", "policy": [chain, "pocket-small"]},
        baselines=["base", "sft"],
        sft={"dataset": "pocket-instructions", "epochs": 1},
    )
    found = plan(spec)
    subjects = found.as_json()["subjects"]
    baselines = [item for item in subjects if item["role"] == "baseline"]
    assert [(item["label"], item["axes"]) for item in baselines] == [
        ("base policy=pocket-small", {"policy": "pocket-small"}),
        ("sft policy=pocket-small sft.epochs=3", {"policy": "pocket-small", "sft.epochs": 3}),
        ("sft policy=pocket-small sft.epochs=1", {"policy": "pocket-small", "sft.epochs": 1}),
    ]
    chained, plain = (made(found, item) for item in cells(found))
    under = [inputs(found, inputs(found, chained)["policy"])["policy"], inputs(found, plain)["policy"]]
    assert [item["stage"] for item in baselines[1:]] == [stage.id for stage in under]
    assert [item.get("start") for item in subjects if item["role"] == "cell"] == [
        {"policy": "pocket-small", "sft.epochs": 3},
        {"sft.epochs": 1},
    ]


def test_a_chain_that_makes_the_same_model_otherwise_written_adds_no_baseline(plan: MakePlan) -> None:
    chain = {"from": {"algorithm": "dpo", "sft.epochs": 2}}  # the default
    block = {"dataset": "pocket-shp", "algorithm": "dpo", "policy": [chain, "pocket-small"]}
    found = plan(text(block, baselines=["base", "sft"]))
    baselines = [item for item in found.subjects if item.role != "cell"]
    assert [item.axes for item in baselines] == [{"policy": "pocket-small"}] * 2
    assert [dict(item.start) for item in cells(found)] == [{"policy": "pocket-small"}, {}]


def test_a_chain_s_own_sft_is_its_baseline_where_the_grid_varies_it(plan: MakePlan) -> None:
    chain = {"from": {"algorithm": "dpo", "sft.epochs": 3}}
    block = {"dataset": "pocket-shp", "algorithm": "dpo", "policy": chain, "sft.epochs": [1, 3]}
    found = plan(text(block, {"dataset": "pocket-shp", "algorithm": "dpo", "sft.epochs": 1}, baselines=["sft"]))
    baselines = {item.axes["sft.epochs"]: item.stage for item in found.subjects if item.role == "sft"}
    for item in cells(found):
        stage = made(found, item)
        while stage.kind == "train":
            stage = inputs(found, stage)["policy"]
        assert stage.id == baselines[item.start.get("sft.epochs", item.axes["sft.epochs"])]


def test_a_merge_averages_the_policies_of_cells_and_models(plan: MakePlan) -> None:
    policies: list[Any] = [{"from": {"algorithm": "dpo", "seed": seed}} for seed in (0, 1)]
    merge = {"merge": [*policies, "pocket-small"], "weights": [0.5, 0.75, -0.25]}
    found = plan(
        text(
            {"dataset": "pocket-shp", "algorithm": "dpo", "policy": merge},
            {"dataset": "pocket-shp", "algorithm": "dpo", "seed": [0, 1]},
        )
    )
    (stage,) = of_kind(found, "merge")
    on_merge, *ingredients = (made(found, item) for item in cells(found))
    assert inputs(found, on_merge)["policy"] is stage
    assert list(inputs(found, stage).values()) == [*ingredients, of_kind(found, "sft")[0]]
    assert stage.identity.config.value == {"weights": [0.5, 0.75, -0.25]}


def test_a_reward_model_of_the_chain_is_none_of_the_cell(plan: MakePlan) -> None:
    chain = {"from": {"algorithm": "ppo", "dataset": "pocket-hh", "reward": "reward_model", "prompts": "pocket-hh"}}
    block = {"dataset": "pocket-prompts", "algorithm": "ppo", "reward": "pocket-gold", "policy": chain}
    found = plan(text(block, reward_model={"init": "pocket-small", "epochs": 2}))
    (cell,) = found.grid.cells
    assert cell.values["reward_model.epochs"] == 2, "the chain reads it"
    assert not cell.has_reward_model and cell.scored_without_model
    (item,) = cells(found)
    assert "reward_model" not in inputs(found, made(found, item))
    (judge,) = of_kind(found, "reward_model")
    assert judge.identity.config.value["parameters"]["epochs"] == 2
    assert inputs(found, inputs(found, made(found, item))["policy"])["reward_model"] is judge
    dpo = {"dataset": "pocket-shp", "algorithm": "dpo", "policy": chain}
    (cell,) = plan(text(dpo, reward_model={"init": "pocket-small", "epochs": 2})).grid.cells
    assert cell.values["reward_model.epochs"] == 2 and not cell.has_reward_model


def test_rounds_unroll_into_the_stages_of_every_round(plan: MakePlan) -> None:
    found = plan(text({"dataset": "pocket-shp", "algorithm": "dpo", "rounds": [1, 2, 3]}))
    first, second, third = (made(found, item) for item in cells(found))
    assert inputs(found, second)["policy"] is first and inputs(found, third)["policy"] is second
    assert inputs(found, inputs(found, third)["reference_logprobs"])["model"] is second
    assert len(of_kind(found, "train")) == 3
    once = plan(text({"dataset": "pocket-shp", "algorithm": "dpo"}))
    assert cells(once)[0].stage == first.id, "one round is the method itself"


def test_a_round_s_data_are_made_by_the_policy_of_the_round_before(plan: MakePlan) -> None:
    own = {
        "prompts": "pocket-shp",
        "responses": {"n": 3, "max_new_tokens": 32},
        "label": {"by": {"reward": "nouns"}},
    }
    found = plan(text({"dataset": "own", "algorithm": ["dpo", "ppo"], "rounds": 3}, datasets={"own": own}))
    for item in cells(found):
        policy = made(found, item)
        for _ in range(3):
            stage = inputs(found, policy).get("data") or inputs(found, inputs(found, policy)["reward_model"])["data"]
            while stage.kind != "respond":
                stage = next(iter(inputs(found, stage).values()))
            assert inputs(found, stage)["policy"] is inputs(found, policy)["policy"]
            policy = inputs(found, policy)["policy"]
        assert policy.kind == "sft"
    assert len(of_kind(found, "respond")) == 1 + 2 * 2, "the first round is one for both methods"


OWN = {
    "prompts": "pocket-shp",
    "responses": {"from": "policy", "n": 3, "max_new_tokens": 32},
    "label": {"by": {"reward": "nouns"}},
}


def reward_models(plan: Plan) -> list[Subject]:
    return [item for item in plan.subjects if item.subject == "reward_model"]


def test_reward_models_of_rounds_are_told_apart_by_what_made_their_sets(plan: MakePlan) -> None:
    block = {"dataset": "own", "algorithm": ["ppo", "rloo"], "rounds": [1, 2]}
    spec = text(
        {**block, "rloo.responses_per_prompt": 2},
        {"dataset": "pocket-hh", "algorithm": "ppo", "rounds": [1, 2]},
        datasets={"own": OWN},
        rloo={"max_prompt_length": 128, "max_response_length": 64},
        evaluate={"reward_model": ["pocket-pairs"]},
    )
    found = plan(spec)
    shown = ("reward_model.dataset", "algorithm", "rounds")
    assert [tuple(item.axes.get(axis) for axis in shown) for item in reward_models(found)] == [
        ("own", None, 1),  # of SFT's responses: one for both methods
        ("own", "ppo", 2),
        ("own", "rloo", 2),
        ("pocket-hh", None, None),  # fixed data: one for both rounds
    ]
    assert len({item.stage for item in reward_models(found)}) == 4
    labels = [item.label(found.grid.axes) for item in reward_models(found)]
    assert len(set(labels)) == 4 and labels[1].endswith("seed=0 algorithm=ppo rounds=2")


def test_reward_models_of_a_policy_s_responses_are_told_apart_by_the_policy(plan: MakePlan) -> None:
    block = {"dataset": "own", "algorithm": "reward_modelling", "policy": ["pocket-small", "pocket-medium"]}
    model = {"init": "pocket-small"}
    found = plan(text(block, datasets={"own": OWN}, reward_model=model, evaluate={"reward_model": ["pocket-pairs"]}))
    assert [item.axes["policy"] for item in reward_models(found)] == ["pocket-small", "pocket-medium"]
    of_hh = plan(text({**block, "dataset": "pocket-hh"}, reward_model=model, evaluate={"reward_model": []}))
    assert [list(item.axes) for item in reward_models(of_hh)] == [
        ["reward_model.init", "reward_model.dataset", "seed"],
    ]


def test_a_set_that_would_be_made_by_what_learns_from_it_is_refused(plan: MakePlan) -> None:
    own = {
        "prompts": "pocket-shp",
        "responses": {"from": {"algorithm": "dpo"}},
        "label": {"by": {"reward": "nouns"}},
    }
    with pytest.raises(UsageError, match=r"making this set takes the set itself: own → own"):
        plan(text({"dataset": "own", "algorithm": "dpo"}, datasets={"own": own}))
    (cell,) = cells(
        plan(
            text(
                {"dataset": "own", "algorithm": "dpo", "rounds": 1},
                datasets={"own": {**own, "responses": {"max_new_tokens": 9}}},
            )
        )
    )
    assert cell.stage


def test_the_steps_of_sdpo_share_the_split_and_each_has_the_one_before_as_reference(plan: MakePlan) -> None:
    block = {"dataset": "pocket-shp", "algorithm": "sdpo"}
    found = plan(text({**block, "rounds": [1, 2, 3]}, {"dataset": "pocket-shp", "algorithm": "dpo"}, sdpo={"parts": 3}))
    first, second, third, dpo = (made(found, item) for item in cells(found))
    (split,) = of_kind(found, "split")
    assert split.identity.config.value == {"parts": 3, "order": "easy-to-hard"}
    whole = inputs(found, dpo)["reference_logprobs"]
    assert inputs(found, split)["measured"] is whole, "DPO's own reference pass orders the pairs"
    assert inputs(found, first)["reference_logprobs"] is whole, "and is the first step's"
    for number, stage in enumerate((first, second, third), start=1):
        assert dict(stage.identity.inputs)["data"].artifact == f"part-{number}.parquet"
        assert inputs(found, stage)["data"] is split
        assert not {"parts", "order"} & stage.identity.config.value["parameters"].keys()
    for before, stage in ((first, second), (second, third)):
        assert inputs(found, stage)["policy"] is before
        reference = inputs(found, stage)["reference_logprobs"]
        assert inputs(found, reference) == {"model": before, "data": split}
    (cell,) = cells(plan(text(block, sdpo={"parts": 3})))
    assert cell.stage == third.id, "unless said, all parts are used"
    drawn = plan(text(block, sdpo={"order": "random"}, data={"seed": 5}))
    (split,) = of_kind(drawn, "split")
    assert split.identity.config.value == {"parts": 2, "order": "random", "seed": 5}
    assert list(inputs(drawn, split)) == ["data"]


def test_sdpo_has_no_more_rounds_than_parts(plan: MakePlan) -> None:
    with pytest.raises(UsageError, match=r"study.yaml:\d+: rounds: sDPO has 2 rounds, sdpo.parts; 3 are asked for"):
        plan(text({"dataset": "pocket-shp", "algorithm": "sdpo", "rounds": [2, 3]}))


def test_rejection_sampling_is_made_of_shared_stages(plan: MakePlan) -> None:
    block = {"dataset": "pocket-shp", "algorithm": ["rejection_sampling", "ppo"], "prompts": "pocket-hh"}
    own = {
        "prompts": "pocket-hh",
        "responses": {"n": 10, "temperature": 1.0, "max_new_tokens": 50},
        "label": {"by": {"reward_model": {"init": "pocket-small", "dataset": "pocket-shp"}}},
    }
    found = plan(
        text(
            {**block, "rounds": [1, 2]},
            {"dataset": "own", "algorithm": "dpo"},
            datasets={"own": own},
            rejection_sampling={"max_response_length": 50},
        )
    )
    first, second = (made(found, item) for item in cells(found) if item.axes["algorithm"] == "rejection_sampling")
    assert list(inputs(found, first)) == ["policy", "data"]
    labels = []
    for stage in (first, second):
        tokens = inputs(found, stage)["data"]
        assert tokens.identity.config.value["format"] == "answers"
        best = inputs(found, tokens)["data"]
        label = inputs(found, best)["records"]
        assert inputs(found, inputs(found, label)["records"])["policy"] is inputs(found, stage)["policy"]
        labels.append(label)
    assert inputs(found, second)["policy"] is first
    ppo = next(made(found, item) for item in cells(found) if item.axes["algorithm"] == "ppo")
    assert {inputs(found, label)["reward_model"] for label in labels} == {inputs(found, ppo)["reward_model"]}
    assert labels[0] in inputs(found, found.stages[found.datasets["own"]["stage"]]).values(), "a pipeline's, too"


def test_sft_as_a_method_reads_instructions_or_chosen_responses(plan: MakePlan) -> None:
    found = plan(text({"dataset": ["pocket-shp", "pocket-instructions"], "algorithm": "supervised"}))
    tokens = [inputs(found, made(found, item))["data"] for item in cells(found)]
    assert [stage.identity.config.value["format"] for stage in tokens] == ["answers", "conversations"]
    assert [dict(stage.identity.inputs)["data"].artifact for stage in tokens] == ["pairs.jsonl", "conversations.jsonl"]
    uses = {(facts["name"], use) for facts in found.data for use in facts["roles"]}
    assert {("pocket-shp", "SFT"), ("pocket-instructions", "SFT")} <= uses


def test_a_policy_that_is_not_trained_is_a_row_as_it_is(plan: MakePlan) -> None:
    merge = {"merge": [{"from": {"algorithm": "dpo", "dataset": "pocket-shp"}}, "pocket-small"], "title": "Half"}
    found = plan(text({"algorithm": "none", "policy": [merge, "pocket-small"]}))
    assert [made(found, item).kind for item in cells(found)] == ["merge", "sft"]
    assert all(item.evaluations for item in cells(found))
    base = cells(plan(text({"algorithm": "none"}, sft=None)))
    assert len(base) == 1


def test_a_chain_knows_a_template_only_if_what_it_is_made_by_does(plan: MakePlan) -> None:
    untrained = {"from": {"algorithm": "none"}}
    for block in ({"policy": untrained}, {"rounds": 2, "policy": "pocket-small"}):
        found = plan(text({"algorithm": "none", **block}, {"dataset": "pocket-shp", "algorithm": "dpo"}, sft=None))
        base, tuned = (next(iter(item.evaluations.values())) for item in cells(found))
        asked = [found.stages[found.stages[stage].parents[0]].identity.config.value["chat"] for stage in (base, tuned)]
        assert asked == [False, True]


def test_the_prompts_of_a_pipeline_can_be_drawn_into_a_part_a_round(plan: MakePlan) -> None:
    own: dict[str, Any] = {
        "prompts": "pocket-shp",
        "responses": {"n": 3, "max_new_tokens": 32, "parts": 2, "gold": True},
        "label": {"by": {"reward": "nouns"}},
    }
    found = plan(text({"dataset": "own", "algorithm": "dpo", "rounds": 3}, datasets={"own": own}))
    configs = [stage.identity.config.value for stage in of_kind(found, "respond")]
    assert [(config["part"], config["parts"]) for config in configs] == [(0, 2), (1, 2), (0, 2)]
    roles = [dict(stage.identity.inputs)["gold"].artifact for stage in of_kind(found, "respond")]
    assert roles == ["pairs.jsonl"] * 3
    whole = {**own, "responses": {"n": 3, "max_new_tokens": 32}}
    (respond,) = of_kind(plan(text({"dataset": "own", "algorithm": "dpo"}, datasets={"own": whole})), "respond")
    assert not {"part", "parts", "gold"} & respond.identity.config.value.keys()
    with pytest.raises(UsageError, match=r"own.responses.gold: 'pocket-instructions' has no chosen responses"):
        instructions = {"own": {**own, "prompts": "pocket-instructions"}}
        plan(text({"dataset": "own", "algorithm": "dpo"}, datasets=instructions))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            "{from: {\n  dataset: pocket-h}}",
            r"9: grid.0.policy.from.dataset: unknown dataset 'pocket-h'\n.*'pocket-hh'",
        ),
        ("{from: {\n  policy: pocket-smal}}", r"9: grid.0.policy.from.policy: unknown model 'pocket-smal'"),
        (
            "{from: {policy: {from: {\n  dataset: x}}}}",
            r"9: grid.0.policy.from.policy.from.dataset: unknown dataset 'x'",
        ),
        ("{from: {\n  dpo: {beta: -1}}}", r"9: grid.0.policy.from.dpo.beta: Input should be greater than 0"),
        ("{from: {algorithm: ppo,\n  dpo.beta: 1}}", r"9: grid.0.policy.from.dpo.beta: PPO does not read 'dpo.beta'"),
        ("{from: {\n  dataset: pocket-instructions}}", r"9: grid.0.policy.from.dataset: .* holds instruction data"),
        ("{from: {algorithm: ppo,\n  ppo.max_response_length: 999}}", r"9: grid.0.policy.from.ppo.max_resp.*256"),
        (
            "{merge: [pocket-small,\n  pocket-medium]}",
            r"9: grid.0.policy.merge.1: the models of a merge have one shape",
        ),
        ("{merge: [pocket-small,\n  pocket-smal]}", r"9: grid.0.policy.merge.1: unknown model 'pocket-smal'"),
    ],
)
def test_what_a_chain_can_t_be_made_of_is_refused_where_it_is_written(plan: MakePlan, policy: str, said: str) -> None:
    lines = ["name: study", "policy: pocket-small", "sft: {dataset: pocket-instructions}"]
    lines += [
        "ppo: {max_prompt_length: 128, max_response_length: 64}",
        "grid:",
        "- dataset: pocket-hh",
        "  algorithm: dpo",
    ]
    with pytest.raises(UsageError, match=rf"study.yaml:{said}"):
        plan("\n".join([*lines, f"  policy: {policy}"]) + "\n")
