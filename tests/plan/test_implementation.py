"""Whose trainer runs a loss is an axis: what it changes, and where there is nothing to choose."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import pytest

from ablate.algorithms.base import TRLPairParameters
from ablate.algorithms.registry import METHODS
from ablate.errors import SpecError
from ablate.plan.plan import Plan

MakePlan = Callable[..., Plan]

SPEC = """\
name: study
policy: pocket-small
sft: {dataset: pocket-instructions}
grid:
  - {dataset: pocket-hh, algorithm: dpo}
"""
TRAINERS = {"kto", "simpo", "orpo"}
"""Methods that TRL has a trainer of their own for."""
WITH_TRL = {name for name, method in METHODS.items() if issubclass(method.parameters, TRLPairParameters)}


def test_an_axis_adds_a_training_stage_and_names_trl_s_version(plan: MakePlan) -> None:
    alone = plan(SPEC)
    made = plan(SPEC.replace("algorithm: dpo", "algorithm: dpo, dpo.implementation: [ablate, trl]"))
    assert set(alone.stages) <= set(made.stages)
    (added,) = made.stages.keys() - alone.stages.keys()
    stage = made.stages[added]
    assert stage.execution.entry == "ablate.training.trl_preference:run"
    config = stage.identity.config.value
    assert config["packages"] == {"trl": importlib.metadata.version("trl")}
    assert config["parameters"]["implementation"] == "trl"


@pytest.mark.parametrize("name", sorted(WITH_TRL - TRAINERS))
def test_every_other_method_that_has_the_choice_has_a_loss_of_trl_s_dpo(name: str) -> None:
    from trl.trainer.dpo_config import DPOConfig

    from ablate.training.losses import PREFERENCE_LOSSES
    from ablate.training.trl_trainers import LOSS_TYPES

    documented = str(DPOConfig.__doc__)
    assert name in PREFERENCE_LOSSES
    assert f"'{LOSS_TYPES.get(name, name)}'" in documented


@pytest.mark.parametrize(
    ("algorithm", "section", "message"),
    [
        ("ipo", "ipo: {implementation: trl}", "IPO: TRL's IPO averages over tokens: that is ipo_avg"),
        ("ppo", "ppo: {implementation: trl}", "PPO: TRL has dropped its trainer of it; leave implementation out"),
        ("rrhf", "rrhf: {implementation: trl}", "RRHF: TRL has no trainer of it; leave implementation out"),
        ("kto", "kto: {implementation: trl, lora_rank: 8}", "trl trains all weights: leave lora_rank and quantisation"),
        ("dpo", "dpo: {implementation: tlr}", "'tlr' is not allowed\n  did you mean 'trl'? allowed: ablate, trl"),
        ("dpo", "dpo: {implementation: trl, label_smoothing: 0.1}", "TRL's loss has no label_smoothing: leave it out"),
        ("dpo", "dpo: {implementation: trl, lora_rank: 8}", "trl trains all weights: leave lora_rank and quantisation"),
    ],
)
def test_what_trl_is_not_asked_for_is_refused(plan: MakePlan, algorithm: str, section: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan(SPEC.replace("dpo}", f"{algorithm}}}").replace("grid:", f"{section}\ngrid:"))
    assert message in str(caught.value)
    assert "study.yaml:4: " in str(caught.value)


def test_an_axis_that_trl_has_no_trainer_for_is_refused_alike(plan: MakePlan) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:5: bco\.implementation: unknown axis .*\n.*its loss without a"):
        plan(SPEC.replace("algorithm: dpo", "algorithm: bco, bco.implementation: [ablate, trl]"))


@pytest.mark.parametrize(("name", "needs"), [("kto", 2), ("simpo", 0), ("orpo", 0)])
def test_trl_s_own_trainers_share_tokens_and_reference_passes(plan: MakePlan, name: str, needs: int) -> None:
    made = plan(SPEC.replace("algorithm: dpo", f"algorithm: {name}, {name}.implementation: [ablate, trl]"))
    trained = [stage for stage in made.stages.values() if stage.kind == "train"]
    assert len({stage.identity.inputs for stage in trained}) == 1
    assert [stage.kind for stage in made.stages.values()].count("reference_logprobs") == needs


def test_what_can_t_be_divided_is_planned_for_one_process(plan: MakePlan) -> None:
    grid = (
        "{dataset: pocket-hh, algorithm: [dpo, online_dpo, d2po], dpo.implementation: [ablate, trl],"
        " prompts: pocket-hh, annotator: nouns, d2po.discriminator: sft}"
    )
    short = "{max_prompt_length: 128, max_response_length: 64}"
    spec = SPEC.replace("{dataset: pocket-hh, algorithm: dpo}", grid) + f"online_dpo: {short}\nd2po: {short}\n"
    found = {}
    for stage in plan(spec).stages.values():
        config, execution = stage.identity.config.value, stage.execution
        how = config.get("parameters", {}).get("implementation", "")
        found[f"{config.get('algorithm', stage.kind)} {how}".strip()] = (execution.trains, execution.ranks)
    assert found["dpo"] == found["sft"] == (True, True)
    assert found["dpo trl"] == found["online_dpo"] == found["d2po"] == (True, False)
    assert found["tokenise"] == (False, False)
