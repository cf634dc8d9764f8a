"""Judges in plans: labellers, annotators, judge stages, the axis that multiplies no training, warnings."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.errors import SpecError, UsageError
from ablate.plan.judges import retired_judges
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage
from ablate.results.layout import averaged_categories

MakePlan = Callable[..., Plan]
LENGTHS = {"max_prompt_length": 128, "max_response_length": 64}
BIG = {"model": "big-1", "url": "http://127.0.0.1:9/v1", "key": ""}


def text(*grid: dict[str, Any], **changes: Any) -> str:
    spec = {
        "name": "study",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions"},
        "online_dpo": LENGTHS,
        "grid": [{"dataset": "pocket-hh", **block} for block in grid or ({"algorithm": "dpo"},)],
    }
    return yaml.safe_dump({**spec, **changes}, sort_keys=False)


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == kind]


def judged(judge: Any, **changes: Any) -> str:
    return text(evaluate={"policy": ["pocket-judged", "pocket-gold"], "judge": judge}, **changes)


def test_a_judge_stage_stands_between_generation_and_evaluation(plan: MakePlan) -> None:
    made = plan(judged(BIG))
    (judge,) = of_kind(made, "judge")
    (generated,) = (stage for stage in of_kind(made, "generate") if stage.id in judge.parents)
    (evaluated,) = (stage for stage in of_kind(made, "evaluate") if judge.id in stage.parents)
    assert generated.id in evaluated.parents
    assert (judge.execution.heavy, judge.execution.gpu, judge.execution.network) == (False, False, True)
    assert not evaluated.execution.network
    assert judge.execution.locations["answers"].endswith("answers")
    assert json.loads(judge.execution.locations["judges"])[0]["url"] == BIG["url"]


def test_identity_of_a_judge_stage_is_what_verdicts_depend_on(plan: MakePlan) -> None:
    def judge_of(**changes: Any) -> str:
        (stage,) = of_kind(plan(judged({**BIG, **changes})), "judge")
        return stage.id

    first = judge_of()
    elsewhere = {"url": "http://elsewhere/v1", "key": "OTHER", "price_in": 1.0, "price_out": 1.0, "max_cost": 2.0}
    assert first == judge_of(**elsewhere, requests_per_minute=5, name="another")
    for changed in ({"model": "big-2"}, {"temperature": 0.3}, {"seed": 1}, {"positions": "random"}):
        assert judge_of(**changed) != first


def test_an_axis_of_judges_multiplies_no_training(plan: MakePlan) -> None:
    one = plan(judged(BIG))
    two = plan(judged([BIG, {**BIG, "model": "big-2"}]))
    assert [len(of_kind(made, "train")) for made in (one, two)] == [1, 1]
    assert [len(of_kind(made, "generate")) for made in (one, two)] == [2, 2]
    assert [len(of_kind(made, "judge")) for made in (one, two)] == [1, 2]
    assert set(one.suites) == {"pocket-judged", "pocket-gold"}
    assert set(two.suites) == {"pocket-judged@big-1", "pocket-judged@big-2", "pocket-gold"}
    assert two.suites["pocket-judged@big-2"]["title"] == "Judged win rate (big-2)"
    assert {about["category"] for about in two.suites.values()} == {"gold", "gold (big-1)", "gold (big-2)"}
    assert averaged_categories({"a": {"category": "chat"}, "b": {"category": "chat (x)", "of_axis": True}}) == ["chat"]
    protocols = {about["protocol"] for about in two.suites.values()}
    assert len(protocols) == 3, "numbers of two judges share no column"


def test_another_judge_is_named_as_standing_in(plan: MakePlan) -> None:
    made = plan(judged(BIG))
    assert "Judged by big-1, which stands in for model served on this machine." in made.suites["pocket-judged"]["note"]
    own = plan(text(evaluate={"policy": ["pocket-judged"]}))
    assert "stands in" not in own.suites["pocket-judged"]["note"]


def test_a_panel_is_one_stage_with_several_judges(plan: MakePlan) -> None:
    made = plan(judged({"judges": [BIG, {**BIG, "model": "big-2"}], "vote": "majority"}))
    (stage,) = of_kind(made, "judge")
    config = stage.identity.config.value
    assert [judge["model"] for judge in config["judges"]] == ["big-1", "big-2"] and config["vote"] == "majority"


def test_judges_that_can_not_be_are_told_with_their_place(plan: MakePlan) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:\d+.*no suite of this experiment has one"):
        plan(text(evaluate={"policy": ["pocket-gold"], "judge": BIG}))
    with pytest.raises(SpecError, match=r"study\.yaml:\d+.*unknown judge 'gpt-4-061'") as caught:
        plan(judged("gpt-4-061"))
    assert "did you mean 'gpt-4-0613'?" in str(caught.value)
    for own in ("self", [BIG, "self"], {"judges": [BIG, "self"]}):
        with pytest.raises(UsageError, match=r"study\.yaml:\d+: evaluate\.judge: a policy is not evaluated by its own"):
            plan(judged(own))
    with pytest.raises(SpecError, match="unknown key 'templat'"):
        plan(judged({**BIG, "templat": "rate"}))
    with pytest.raises(SpecError, match="repeats 'big-1'"):
        plan(judged([BIG, BIG]))
    with pytest.raises(SpecError, match="unknown judge 'nobody'"):
        plan(text({"algorithm": "online_dpo", "annotator": {"judge": "nobody"}}))


def test_a_judge_annotates_pairs_without_a_reward_model(plan: MakePlan) -> None:
    made = plan(text({"algorithm": "online_dpo", "annotator": {"judge": BIG}}))
    (stage,) = of_kind(made, "train")
    config = stage.identity.config.value["annotator"]["judge"]
    assert (config["model"], config["template"]["answer"]) == ("big-1", "verdict")
    assert stage.execution.network and not of_kind(made, "reward_model")
    assert dict(stage.identity.parts)["judge"] == 1
    elsewhere = plan(text({"algorithm": "online_dpo", "annotator": {"judge": {**BIG, "url": "http://x/v1"}}}))
    assert of_kind(elsewhere, "train")[0].id == stage.id


def test_a_judge_is_a_reward_of_policy_gradients_without_a_reward_model(plan: MakePlan) -> None:
    lengths = {"max_prompt_length": 128, "max_response_length": 64}
    grid = {"algorithm": ["ppo", "rejection_sampling"], "reward": ["nouns", "self", {"judge": BIG}]}
    made = plan(text(grid, ppo=lengths))
    assert not of_kind(made, "reward_model")
    learnt = [stage for stage in of_kind(made, "train") if stage.identity.config.value["algorithm"] == "ppo"]
    assert len({stage.id for stage in learnt}) == 3
    asked = [stage.identity.config.value["reward"] for stage in learnt if stage.execution.network]
    assert [(reward["judge"]["model"], reward["judge"]["template"]["answer"]) for reward in asked] == [
        ("big-1", "number")
    ]
    labels = {
        stage.execution.network: stage for stage in of_kind(made, "label") if "judge" in stage.identity.config.value
    }
    assert labels[True].identity.config.value["judge"] == asked[0]["judge"], "rejection sampling asks the same"
    assert dict(labels[False].identity.inputs).keys() == {"records", "policy"}
    assert json.dumps(made.as_json())
    compared = text({"algorithm": "ppo", "reward": {"judge": {**BIG, "template": "compare"}}}, ppo=lengths)
    with pytest.raises(
        SpecError, match=r"study\.yaml:\d+.*a reward is a number of each response.*\n.*templates of one: "
    ):
        plan(compared)


def test_annotators_are_an_axis(plan: MakePlan) -> None:
    judges = ["nouns", "self", {"judge": BIG}, {"judge": {**BIG, "template": "additive"}}]
    made = plan(text({"algorithm": "online_dpo", "annotator": judges}))
    stages = of_kind(made, "train")
    assert len(stages) == len({stage.id for stage in stages}) == 4
    own = next(stage for stage in stages if "self" in stage.execution.label)
    config = own.identity.config.value["annotator"]["judge"]
    assert (config["model"], config["samples"], config["template"]["highest"]) == ("self", 3, 5.0)
    assert not own.execution.network
    assert json.dumps(made.as_json())
    fixed = plan(text({"algorithm": "online_dpo"}, annotator="self"))
    assert of_kind(fixed, "train")[0].id == own.id
    excluded = text({"algorithm": "online_dpo", "annotator": judges}, exclude=[{"annotator": "self"}])
    assert len(of_kind(plan(excluded), "train")) == 3


def test_a_policy_labels_its_own_responses_round_after_round(plan: MakePlan) -> None:
    datasets = {
        "own": {
            "prompts": "pocket-hh",
            "responses": {"n": 4, "temperature": 0.7, "max_new_tokens": 64},
            "label": {"by": {"judge": "self"}},
            "pairing": "best-vs-worst",
        }
    }
    made = plan(text({"dataset": "own", "algorithm": "dpo", "rounds": [1, 2]}, datasets=datasets))
    labels = of_kind(made, "label")
    writers = [dict(stage.identity.inputs)["policy"].stage for stage in labels]
    asked = [dict(made.stages[dict(stage.identity.inputs)["records"].stage].identity.inputs) for stage in labels]
    assert len(labels) == 2 and writers == [own["policy"].stage for own in asked], "who wrote also judges"
    assert len(set(writers)) == 2 and not any(stage.execution.network for stage in labels)


def test_one_judge_for_training_and_evaluation_is_a_warning(plan: MakePlan) -> None:
    datasets = {"judged": {"use": "pocket-nectar", "label": {"by": {"judge": BIG}}}}
    made = plan(judged(BIG, datasets=datasets, grid=[{"dataset": "judged", "algorithm": "dpo"}]))
    (warning,) = made.shared_judges
    assert "big-1 judges the evaluation and gave the labels that policies learn from" in warning
    assert made.as_json()["shared_judges"] == [warning]
    other = plan(judged({**BIG, "model": "big-2"}, datasets=datasets, grid=[{"dataset": "judged", "algorithm": "dpo"}]))
    assert not other.shared_judges and "shared_judges" not in other.as_json()


def test_a_judge_that_is_no_longer_offered_is_named(plan: MakePlan) -> None:
    made = plan(judged("gpt-4-0613"))
    stages = list(made.stages.values())
    assert not retired_judges(stages, datetime.date(2026, 10, 22))
    (warning,) = retired_judges(stages, datetime.date(2026, 10, 23))
    assert warning.startswith("gpt-4-0613 is no longer offered since 2026-10-23")
