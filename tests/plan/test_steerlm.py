"""SteerLM's stages: what is shared, what a condition changes, chains from a policy that is asked, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.errors import SpecError
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]
SECTION = {
    "condition": "help : {helpfulness} , true : {correctness} , long : {verbosity}",
    "ask": "helpfulness=4, correctness=4, verbosity=1",
    "max_length": 256,
}
RATED = {"loss": "attributes", "max_length": 256}
LENGTHS = {"max_prompt_length": 128, "max_response_length": 64}


def text(*grid: dict[str, Any], **changes: Any) -> str:
    spec = {
        "name": "study",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions"},
        "dataset": "helpsteer",
        "data": {"embedded": True},
        "steerlm": SECTION,
        "reward_model": RATED,
        "grid": list(grid) or [{"algorithm": "steerlm"}],
        "evaluate": {"policy": ["pocket-gold"], "reward_model": []},
    }
    return yaml.safe_dump({**spec, **changes}, sort_keys=False)


def of_kind(plan: Plan, kind: str, **config: Any) -> list[Stage]:
    found = [stage for stage in plan.stages.values() if stage.kind == kind]
    return [stage for stage in found if all(stage.identity.config.value.get(key) == config[key] for key in config)]


def parent(plan: Plan, stage: Stage, role: str) -> Stage:
    return plan.stages[dict(stage.identity.inputs)[role].stage]


def test_a_reward_model_rates_all_responses_which_become_answers_to_conditioned_prompts(plan: MakePlan) -> None:
    made = plan(text())
    (train,) = of_kind(made, "train")
    tokens = parent(made, train, "data")
    answers = parent(made, tokens, "data")
    rated = parent(made, answers, "records")
    assert (tokens.kind, tokens.identity.config.value["format"]) == ("tokenise", "answers")
    assert (answers.kind, rated.kind) == ("condition", "rate")
    assert answers.identity.config.value == {
        "condition": SECTION["condition"],
        "attributes": ["helpfulness", "correctness", "verbosity"],
        "lowest": 0,
        "highest": 4,
    }
    assert parent(made, rated, "reward_model").kind == "reward_model"
    assert parent(made, rated, "records").identity.config.value["format"] == "records"
    own = train.identity.config.value["parameters"]
    assert {"condition", "ask", "learning_rate"} <= set(own) and not {"lowest", "highest", "max_length"} & set(own)
    assert dict(train.identity.parts) == {"steerlm": 1}
    assert parent(made, train, "policy").kind == "sft"


def test_another_wish_trains_on_the_same_tokens_and_another_condition_on_the_same_ratings(plan: MakePlan) -> None:
    wishes = [SECTION["ask"], "helpfulness=0, correctness=0, verbosity=1"]
    made = plan(text({"algorithm": "steerlm", "steerlm.ask": wishes, "steerlm.highest": [4, 9]}))
    counted = {kind: len(of_kind(made, kind)) for kind in ("reward_model", "rate", "condition", "train")}
    assert counted == {"reward_model": 1, "rate": 1, "condition": 2, "train": 4}


def test_what_comes_after_reads_the_prompts_that_the_policy_is_asked_in(plan: MakePlan) -> None:
    """Tokens of a method that starts from it are in its own chat template; a second SteerLM asks in its own words."""
    after = {"policy": {"from": {"algorithm": "steerlm"}}}
    made = plan(
        text(
            {"algorithm": "dpo", **after},
            {"algorithm": "dpo", "dpo.beta": 0.3, "policy": {"from": {"algorithm": "dpo", **after}}},
            {"algorithm": "steerlm", **after},
            {"algorithm": "grpo", "reward": "nouns", "prompts": "pocket-prompts", **after},
            dpo={"max_length": 256},
            grpo={**LENGTHS, "responses_per_prompt": 2},
        )
    )
    names = {stage.id: stage.identity.config.value.get("algorithm") for stage in of_kind(made, "train")}
    (first,) = [
        stage for stage in of_kind(made, "train", algorithm="steerlm") if parent(made, stage, "policy").kind == "sft"
    ]
    tokenizers = {
        names[stage.id]: parent(made, parent(made, stage, "data"), "tokenizer")
        for stage in of_kind(made, "train")
        if stage is not first and "data" in dict(stage.identity.inputs)
    }
    assert tokenizers["dpo"] is first
    assert tokenizers["steerlm"].kind == "tokenizer"
    (grpo,) = of_kind(made, "train", algorithm="grpo")
    assert parent(made, parent(made, grpo, "prompts"), "tokenizer") is first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_model": {"max_length": 256}}, r"reward_model\.loss: SteerLM writes ratings .* loss bradley-terry"),
        ({"reward_model": {"loss": "k-wise"}}, r"with loss k-wise gives none\n  set reward_model.loss: attributes"),
        ({"steerlm": {"max_length": 256}, "reward_model": {**RATED, "attributes": "helpfulness=1, correctness=0"}},
         r"steerlm\.condition: the condition has correctness, coherence, complexity, verbosity, without a weight"),
        ({"steerlm": {**SECTION, "ask": "helpfulness=4"}}, r"study.yaml:\d+.*ask has values for helpfulness; the cond"),
    ],
)  # fmt: skip
def test_what_can_not_be_asked_is_refused_with_its_line(plan: MakePlan, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan(text(**changes))


def test_a_reward_model_that_knows_no_conditions_does_not_score_a_policy_that_has_them(plan: MakePlan) -> None:
    steered = {"from": {"algorithm": "steerlm"}}
    block = {"algorithm": "ppo", "prompts": "pocket-prompts", "policy": steered}
    with pytest.raises(
        SpecError, match=r"study.yaml:\d+.*has a condition in every prompt, which the reward model of PPO"
    ):
        plan(text(block, ppo=LENGTHS))
    plan(text({**block, "reward": "nouns"}, ppo=LENGTHS))
