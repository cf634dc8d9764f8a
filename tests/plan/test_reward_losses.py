"""Losses of reward models and methods over rankings: what stages they share, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.algorithms.reward_model import STEERLM_WEIGHTS, RewardModelParameters, attribute_weights
from ablate.errors import SpecError
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]
LABELS = {"by": {"reward_model": {"init": "pocket-small", "dataset": "pocket-nectar"}}}


def text(grid: Any, **changes: Any) -> str:
    spec = {
        "name": "study",
        "policy": "pocket-small",
        "sft": {"dataset": "pocket-instructions"},
        "ppo": {"max_prompt_length": 128, "max_response_length": 64},
        "grid": grid,
        "evaluate": {"policy": ["pocket-gold"], "reward_model": ["pocket-pairs"]},
    }
    return yaml.safe_dump({**spec, **changes}, sort_keys=False)


def of_kind(plan: Plan, kind: str, **config: Any) -> list[Stage]:
    found = [stage for stage in plan.stages.values() if stage.kind == kind]
    return [stage for stage in found if all(stage.identity.config.value.get(key) == config[key] for key in config)]


def parent(plan: Plan, stage: Stage, role: str) -> Stage:
    return plan.stages[dict(stage.identity.inputs)[role].stage]


@pytest.mark.parametrize(
    ("dataset", "refused"),
    [("pocket-nectar", "pocket-nectar"), ("halves", "pocket-hh"), ("pocket-shp", None), ("labelled", None)],
)
def test_margins_need_scores(plan: MakePlan, dataset: str, refused: str | None) -> None:
    sets = {
        "halves": {"mix": ["pocket-shp", "pocket-hh"]},
        "labelled": {"use": "pocket-nectar", "label": {"by": {"reward_model": LABELS["by"]["reward_model"]}}},
    }
    cell = {"dataset": dataset, "algorithm": "reward_modelling", "reward_model.loss": "margin"}
    spec = text([cell], datasets=sets)
    if refused is None:
        plan(spec)
        return
    with pytest.raises(SpecError) as caught:
        plan(spec)
    assert f"reward_model.loss: loss margin reads the score gap of every pair, and {refused!r} says" in str(
        caught.value
    )
    allowed = str(caught.value).partition("allowed as the reward model's dataset: ")[2]
    assert "pocket-ultrafeedback" in allowed and "pocket-nectar" not in allowed


def test_a_comparing_model_annotates_online_pairs_and_nothing_else_that_trains(plan: MakePlan) -> None:
    cell = {"dataset": "pocket-hh", "reward_model.loss": "pairwise"}
    short = {"max_prompt_length": 128, "max_response_length": 64}
    grid = [{**cell, "algorithm": "d2po", "d2po.discriminator": "sft"}, {**cell, "algorithm": "online_dpo"}]
    made = plan(text(grid, online_dpo=short, d2po=short))
    (model,) = of_kind(made, "reward_model")
    learnt = of_kind(made, "train")
    assert [parent(made, stage, "reward_model").id for stage in learnt] == [model.id] * 2
    taught = {"algorithm": "d2po", "annotator": "nouns", "d2po.discriminator": "reward_model"}
    for change in ({"algorithm": "ppo"}, taught):
        with pytest.raises(SpecError, match=r"compares two responses, and .*\n.*online pairs as annotator"):
            plan(text([{**cell, **change}], d2po=short))
    with pytest.raises(SpecError, match=r"online_dpo\.win_rate_every: a model that compares .* not for a win rate"):
        plan(text([{**cell, "algorithm": "online_dpo", "online_dpo.win_rate_every": 1}], online_dpo=short))


def test_a_labeller_with_margins_needs_scores_too(plan: MakePlan) -> None:
    labels = {"by": {"reward_model": {**LABELS["by"]["reward_model"], "parameters": {"loss": "margin"}}}}
    sets = {"own": {"use": "pocket-shp", "label": labels}}
    with pytest.raises(SpecError, match=r"label\.by\.reward_model\.dataset: loss margin .* 'pocket-nectar' says"):
        plan(text([{"dataset": "own", "algorithm": "dpo"}], datasets=sets))


def test_losses_over_rankings_share_one_set_of_records_and_one_of_tokens(plan: MakePlan) -> None:
    losses = ["bradley-terry", "margin", "k-wise", "instruct-k", "attributes"]
    made = plan(
        text([{"dataset": "pocket-ultrafeedback", "algorithm": "reward_modelling", "reward_model.loss": losses}])
    )
    models = of_kind(made, "reward_model")
    tokens = {
        str(stage.identity.config.value["parameters"].get("loss")): parent(made, stage, "data") for stage in models
    }
    formats = {loss: stage.identity.config.value["format"] for loss, stage in tokens.items()}
    assert formats == {
        "None": "pairs", "margin": "pairs", "k-wise": "rankings", "instruct-k": "rankings", "attributes": "rated",
    }  # fmt: skip
    assert tokens["None"] is tokens["margin"] and tokens["k-wise"] is tokens["instruct-k"]
    records = parent(made, tokens["k-wise"], "data")
    assert records is parent(made, tokens["attributes"], "data")
    assert records.identity.config.value["format"] == "records"
    assert "pairing" not in records.identity.config.value
    assert [item.subject for item in made.subjects] == ["reward_model"] * 5, "no policy is trained, none has a row"
    assert not of_kind(made, "train")


def test_methods_over_rankings_share_tokens_with_reward_models_of_the_same_length(plan: MakePlan) -> None:
    grid = [
        {"dataset": "pocket-nectar", "algorithm": ["rrhf", "pro"]},
        {"dataset": "pocket-nectar", "algorithm": "ppo", "reward_model.loss": "k-wise"},
    ]
    limits = {"max_length": 256, "truncation": "drop"}
    made = plan(text(grid, rrhf=limits, pro=limits, reward_model=limits))
    assert len(of_kind(made, "tokenise", format="rankings")) == 1
    assert not of_kind(made, "reference_logprobs")
    assert {stage.identity.config.value["algorithm"] for stage in of_kind(made, "train")} == {"rrhf", "pro", "ppo"}
    trained = of_kind(made, "train", algorithm="rrhf")[0]
    assert set(trained.identity.config.value["parameters"]) & {"max_length", "truncation"} == set()


def test_records_of_labels_and_mixtures(plan: MakePlan) -> None:
    datasets = {
        "relabelled": {"use": "pocket-nectar", "label": LABELS, "where": {"score_gap": {"min": 0.1}}},
        "mixed": {"mix": ["pocket-nectar", "pocket-ultrafeedback"]},
    }
    made = plan(text([{"dataset": list(datasets), "algorithm": "rrhf"}], datasets=datasets))
    trained = {
        stage.execution.label: parent(made, parent(made, stage, "data"), "data") for stage in of_kind(made, "train")
    }
    relabelled, mixed = trained["RRHF on relabelled"], trained["RRHF on mixed"]
    assert relabelled.identity.config.value["where"] == {"score_gap": {"min": 0.1}}
    assert (relabelled.kind, relabelled.identity.config.value["format"]) == ("dataset", "records")
    assert parent(made, relabelled, "source").kind == "label"
    assert (mixed.kind, mixed.identity.config.value["format"]) == ("mixture", "records")
    assert {parent(made, mixed, role).identity.config.value["format"] for role in ("part-0", "part-1")} == {"records"}


def test_matched_sets_of_rankings_have_as_many_prompts_as_the_smallest(plan: MakePlan) -> None:
    grid = [{"dataset": ["pocket-nectar", "pocket-ultrafeedback"], "algorithm": "rrhf"}]
    made = plan(text(grid, data={"match": "smallest"}))
    for stage in of_kind(made, "match"):
        assert stage.identity.config.value["format"] == "records"
        for role, ref in stage.identity.inputs:
            assert made.stages[ref.stage].identity.config.value["format"] == "records", role


def test_a_labeller_may_learn_from_rankings_or_compare(plan: MakePlan) -> None:
    for loss, format in (("k-wise", "rankings"), ("pairwise", "pairs")):
        by = {"reward_model": {**LABELS["by"]["reward_model"], "parameters": {"loss": loss}}}
        datasets = {"relabelled": {"use": "pocket-nectar", "label": {"by": by}}}
        made = plan(text([{"dataset": "relabelled", "algorithm": "dpo"}], datasets=datasets))
        (model,) = of_kind(made, "reward_model")
        assert parent(made, model, "data").identity.config.value["format"] == format


def test_a_judge_labels_by_what_it_is_asked_not_by_where_it_is(plan: MakePlan) -> None:
    def label_of(**judge: Any) -> Stage:
        datasets = {"judged": {"use": "pocket-nectar", "label": {"by": {"judge": {"model": "big-1", **judge}}}}}
        made = plan(text([{"dataset": "judged", "algorithm": "dpo"}], datasets=datasets))
        assert made.datasets["judged"]["label_kind"] == "ai"
        return of_kind(made, "label")[0]

    first = label_of()
    assert first.id == label_of(url="http://elsewhere/v1", key="OTHER").id != label_of(template="compare").id
    assert json.loads(label_of(key="OTHER").execution.locations["judges"])[0]["key"] == "OTHER"
    assert (
        first.execution.network
        and not of_kind(plan(text([{"dataset": "pocket-hh", "algorithm": "dpo"}])), "train")[0].execution.network
    )


def test_a_model_that_compares_two_responses_scores_none(plan: MakePlan) -> None:
    grid = [{"dataset": "pocket-nectar", "algorithm": "ppo", "reward_model.loss": "pairwise"}]
    with pytest.raises(SpecError, match="compares two responses, and PPO needs a score of each") as caught:
        plan(text(grid))
    assert caught.value.location is not None and caught.value.location.line is not None
    grid[0]["algorithm"] = "reward_modelling"
    assert of_kind(plan(text(grid)), "reward_model")
    with pytest.raises(SpecError, match="'best-of-16' picks by score"):
        plan(text(grid, evaluate={"reward_model": ["pocket-pairs", "best-of-16"]}))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"margin_scale": 0.5}, "margin_scale is read with loss margin; the loss is bradley-terry"),
        ({"loss": "attributes", "centring": 0.1}, "centring is read with loss bradley-terry or margin"),
        ({"loss": "k-wise", "attributes": "quality=1"}, "attributes is read with loss attributes"),
        ({"loss": "attributes", "attributes": "quality"}, "written as name=weight"),
        ({"loss": "attributes", "attributes": "quality=1, quality=2"}, "'quality' is written twice"),
        ({"loss": "attributes", "attributes": "quality=nan"}, "written as name=weight"),
        ({"loss": "attributes", "attributes": "quality=0"}, "every attribute has weight 0"),
        ({"loss": "kwise"}, "'kwise' is not allowed"),
    ],
)
def test_what_a_loss_does_not_read_is_refused(plan: MakePlan, section: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan(text([{"dataset": "pocket-nectar", "algorithm": "reward_modelling"}], reward_model=section))


def test_the_nine_attributes_and_one_spelling_of_weights() -> None:
    assert len(attribute_weights(STEERLM_WEIGHTS)) == 9
    assert RewardModelParameters().attributes == STEERLM_WEIGHTS
    written = RewardModelParameters(loss="attributes", attributes="quality = 1.0,verbosity=-5e-1")
    assert written.identity()["attributes"] == "quality=1, verbosity=-0.5"
    assert not {"loss", "margin_scale", "centring", "attributes"} & RewardModelParameters().identity().keys()
