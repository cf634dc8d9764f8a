"""Who orders the pairs of an online method: the axis ``annotator``, and the reward model a cell has or has not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.errors import SpecError, UnknownNameError
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]
LENGTHS = {"max_prompt_length": 128, "max_response_length": 64}


def text(*grid: dict[str, Any], **changes: Any) -> str:
    spec = {
        "name": "study",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions"},
        "online_dpo": LENGTHS,
        "d2po": LENGTHS,
        "grid": [{"dataset": "pocket-hh", **block} for block in grid],
    }
    return yaml.safe_dump({**spec, **changes}, sort_keys=False)


def trains(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == "train"]


def test_the_reward_model_annotates_unless_another_is_named(plan: MakePlan) -> None:
    (default,) = trains(plan(text({"algorithm": "online_dpo"})))
    (written,) = trains(plan(text({"algorithm": "online_dpo", "annotator": "reward_model"})))
    assert default.id == written.id
    assert "annotator" not in default.identity.config.value
    assert "reward_model" in dict(default.identity.inputs)


def test_a_formula_needs_no_reward_model_and_its_axes_fall_away(plan: MakePlan) -> None:
    models = ["pocket-small", "pocket-medium"]
    made = plan(text({"algorithm": "online_dpo", "annotator": "nouns"}, reward_model={"learning_rate": 0.01}))
    (stage,) = trains(made)
    assert stage.identity.config.value["annotator"] == "nouns"
    assert dict(stage.identity.parts)["reward nouns"] == 1
    assert not [other for other in made.stages.values() if other.kind == "reward_model"]
    block = {"algorithm": "online_dpo", "reward_model.init": models}
    made = plan(text({**block, "annotator": ["nouns", "reward_model"]}, name="both"))
    assert len(trains(made)) == 3  # nouns once, a reward model of each size


@pytest.mark.parametrize(
    ("annotator", "start", "models"),
    [
        ("nouns", "sft", 0),
        ("nouns", "reward_model", 1),
        ("reward_model", "sft", 1),
    ],
)
def test_a_discriminator_starts_from_the_sft_model_or_the_reward_model(
    plan: MakePlan, annotator: str, start: str, models: int
) -> None:
    made = plan(text({"algorithm": "d2po", "annotator": annotator, "d2po.discriminator": start}))
    (stage,) = trains(made)
    assert len([other for other in made.stages.values() if other.kind == "reward_model"]) == models
    assert ("reward_model" in dict(stage.identity.inputs)) is bool(models)
    assert ("annotator" in stage.identity.config.value) is (annotator == "nouns")


def test_a_discriminator_is_not_taught_by_itself(plan: MakePlan) -> None:
    """D2PO's defaults, where nothing is said: both annotator and discriminator would be the cell's reward model."""
    message = r"study\.yaml:\d+.*the annotator and the discriminator of D2PO are the same reward model"
    for written in ({}, {"annotator": "reward_model"}, {"d2po.discriminator": "reward_model"}):
        with pytest.raises(SpecError, match=message) as caught:
            plan(text({"algorithm": "d2po", **written}))
        assert "set d2po.discriminator: sft, or name another annotator: nouns" in str(caught.value)


@pytest.mark.parametrize("algorithm", ["online_dpo", "d2po"])
def test_a_budget_of_labels_that_cost_nothing_is_refused(plan: MakePlan, algorithm: str) -> None:
    """The labels of a reward model were spent on its own training: a budget would end the run for nothing."""
    block = {"algorithm": algorithm, **({"d2po.discriminator": "sft"} if algorithm == "d2po" else {})}
    changes = {algorithm: {**LENGTHS, "label_budget": 64}}
    with pytest.raises(SpecError, match=rf"study\.yaml:\d+.*{algorithm}\.label_budget.*costs no label"):
        plan(text(block, **changes))
    plan(text({**block, "annotator": "nouns"}, **changes))


def test_what_annotates_is_told_when_it_can_not(plan: MakePlan) -> None:
    with pytest.raises(UnknownNameError, match="unknown annotator 'noun'"):
        plan(text({"algorithm": "online_dpo", "annotator": "noun"}))
    with pytest.raises(SpecError, match="the annotator pocket-gold reads the item of each prompt"):
        plan(text({"algorithm": "online_dpo", "annotator": "pocket-gold"}))
    with pytest.raises(SpecError, match="no method of this block reads 'annotator'"):
        plan(text({"algorithm": "dpo", "annotator": "nouns"}))
    with pytest.raises(SpecError, match="no method of this block reads 'reward'"):
        plan(text({"algorithm": "online_dpo", "reward": "nouns"}))


def test_a_budget_without_room_for_a_step_is_told_with_its_line(plan: MakePlan) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:\d+.*label_budget 31 has no room for one step of 32 labels"):
        plan(text({"algorithm": "online_dpo"}, online_dpo={**LENGTHS, "label_budget": 31}))


def test_a_win_rate_asks_no_judge_that_is_asked_in_words(plan: MakePlan) -> None:
    """Pocket prompts without their items have no gold reward to say who wins."""
    judge = {"judge": {"model": "big-judge", "url": "http://localhost:1/v1"}}
    cell = {"algorithm": "online_dpo", "online_dpo.win_rate_every": 2}
    with pytest.raises(SpecError, match=r"win_rate_every: a judge \(.*\) is asked about .* not for a win rate"):
        plan(text({**cell, "annotator": judge}))
    plan(text({**cell, "annotator": judge, "prompts": "pocket-prompts"}))
    plan(text(cell))
    (alone,) = trains(plan(text({"algorithm": "online_dpo"})))
    (never,) = trains(plan(text({**cell, "online_dpo.win_rate_every": None})))
    assert alone.id == never.id
