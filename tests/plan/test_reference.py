"""The frozen reference as an axis: what it changes, what it shares, what it must have in common with the policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.algorithms.registry import METHODS
from ablate.errors import UsageError
from ablate.plan.plan import Plan

MakePlan = Callable[..., Plan]

SPEC = """\
name: study
policy: pocket-small
sft: {dataset: pocket-instructions}
ppo: {max_prompt_length: 128, max_response_length: 64}
grid:
  - {dataset: pocket-hh, algorithm: [dpo, ppo]}
"""
AXIS = SPEC.replace("[dpo, ppo]", "[dpo, ppo], reference: [sft, pocket-medium]")


def inputs_of(plan: Plan, algorithm: str, reference: str) -> dict[str, str]:
    """The stages that the cell of a method and a reference takes in, by role."""
    subject = next(
        item
        for item in plan.subjects
        if item.subject == "policy" and item.axes["algorithm"] == algorithm and item.axes["reference"] == reference
    )
    return {role: ref.stage for role, ref in plan.stages[subject.stage].identity.inputs}


def test_the_default_written_out_changes_nothing(plan: MakePlan) -> None:
    written = SPEC.replace("grid:", "reference: sft\ngrid:")
    assert set(plan(written).stages) == set(plan(SPEC).stages)
    assert set(plan(SPEC.replace("[dpo, ppo]", "[dpo, ppo], reference: [sft]")).stages) == set(plan(SPEC).stages)


def test_another_reference_is_that_model_after_its_sft(plan: MakePlan) -> None:
    made = plan(AXIS)
    added = [made.stages[stage] for stage in made.stages.keys() - plan(SPEC).stages.keys()]
    assert sorted(stage.kind for stage in added) == ["pretrain", "reference_logprobs", "sft", "train", "train"]
    sft = next(stage.id for stage in added if stage.kind == "sft")
    own, other = (inputs_of(made, "dpo", name) for name in ("sft", "pocket-medium"))
    assert "reference" not in own and other["reference"] == sft
    assert own["policy"] == other["policy"] != sft
    passed = made.stages[other["reference_logprobs"]].identity.inputs
    assert {role: ref.stage for role, ref in passed} == {"model": sft, "data": own["data"]}, "one tokenizer: no check"
    own, other = (inputs_of(made, "ppo", name) for name in ("sft", "pocket-medium"))
    assert own["reference"] == own["policy"] and other["reference"] == sft
    assert own["reward_model"] == other["reward_model"]


def test_the_policy_by_its_own_name_is_the_same_reference(plan: MakePlan) -> None:
    assert set(plan(SPEC, "reference=pocket-small").stages) == set(plan(SPEC).stages)


def test_a_model_of_a_folder_is_used_as_it_is_and_its_tokenizer_checked_by_the_pass(
    plan: MakePlan, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    made = plan(SPEC, "reference=./other")
    model = next(stage for stage in made.stages.values() if stage.kind == "model")
    passed = next(stage for stage in made.stages.values() if stage.kind == "reference_logprobs")
    roles = {role: ref.stage for role, ref in passed.identity.inputs}
    assert roles["model"] == model.id
    assert made.stages[roles["tokenizer"]].kind == "tokenizer"
    assert [stage.kind for stage in made.stages.values()].count("sft") == 1


def test_every_method_held_to_a_reference_reads_the_axis() -> None:
    for method in METHODS.values():
        held = {"reference", "reference_logprobs"} & set(method.needs)
        assert ("reference" in method.axes) == bool(held), method.name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("stf", "study.yaml:5: reference: unknown model 'stf'\n  did you mean 'sft'"),
        (
            "byte-bpe-tiny",
            "study.yaml:5: reference: the reference is byte-bpe-tiny, whose tokenizer is not that of",
        ),
        ("./nowhere", "study.yaml:5: reference: "),
    ],
)
def test_a_reference_that_cannot_be_is_refused_where_it_is_written(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    from ablate.plan.plan import _Builder

    monkeypatch.setattr(_Builder, "_check_corpus", lambda *arguments: None)  # of byte-bpe-tiny, which has files
    with pytest.raises(UsageError) as caught:
        plan(SPEC.replace("grid:", f"reference: {value}\ngrid:"))
    assert message in str(caught.value).replace(str(tmp_path) + "/", "")


def test_a_condition_may_name_a_reference(plan: MakePlan) -> None:
    made = plan(AXIS + "exclude: [{algorithm: ppo, reference: pocket-medium}]\n")
    assert [(item.axes["algorithm"], item.axes["reference"]) for item in made.subjects if item.subject == "policy"] == [
        ("dpo", "sft"),
        ("dpo", "pocket-medium"),
        ("ppo", "sft"),
    ]
    with pytest.raises(UsageError, match="unknown model 'pocket-mediun'"):
        plan(AXIS + "exclude: [{reference: pocket-mediun}]\n")


CLASSIFIER = AXIS.replace("algorithm: [dpo, ppo]", "algorithm: [dpo, ipo]") + (
    "baselines: [base, sft]\nevaluate: {policy: [pocket-pairs-implicit, pocket-pairs-likelihood]}\n"
)


def test_one_pass_over_the_pairs_serves_every_suite_and_every_policy_it_is_the_reference_of(plan: MakePlan) -> None:
    made = plan(CLASSIFIER)
    passes = {stage.id: stage for stage in made.stages.values() if stage.kind == "likelihoods"}
    assert len(passes) == 4 + 2 + 1, "four policies, two references (one is the sft baseline), the base model"
    graded = {
        (item.role, item.axes.get("algorithm"), item.axes.get("reference"), suite): {
            role: dict(passes[ref.stage].identity.inputs)["policy"].stage
            for role, ref in made.stages[stage].identity.inputs
        }
        for item in made.subjects
        for suite, stage in item.evaluations.items()
    }
    sft = next(item.stage for item in made.subjects if item.role == "sft")
    other = next(stage.id for stage in made.stages.values() if stage.kind == "sft" and stage.id != sft)
    for method in ("dpo", "ipo"):
        assert graded["cell", method, "sft", "pocket-pairs-implicit"]["reference_likelihoods"] == sft
        assert graded["cell", method, "pocket-medium", "pocket-pairs-implicit"]["reference_likelihoods"] == other
        assert set(graded["cell", method, "sft", "pocket-pairs-likelihood"]) == {"likelihoods"}
    assert graded["sft", None, None, "pocket-pairs-implicit"] == {"likelihoods": sft}
    base = next(item for item in made.subjects if item.role == "base").evaluations["pocket-pairs-likelihood"]
    assert not passes[made.stages[base].parents[0]].identity.config.value["chat"]


def test_a_policy_that_is_not_trained_has_no_reference(plan: MakePlan) -> None:
    grid = "grid:\n- {algorithm: none, policy: [pocket-small, {from: {algorithm: dpo, dataset: pocket-hh}}]}\n"
    made = plan(CLASSIFIER.partition("grid:")[0] + grid + "evaluate: {policy: [pocket-pairs-implicit]}\n")
    graded = [made.stages[stage] for item in made.subjects for stage in item.evaluations.values()]
    assert len(graded) == 2
    assert [[role for role, _ in stage.identity.inputs] for stage in graded] == [["likelihoods"]] * 2
