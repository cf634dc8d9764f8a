"""A raised revision makes what it vouches for again, with all that hangs on it, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from ablate.algorithms.registry import METHODS
from ablate.catalogs import datasets, parameters, suite_code
from ablate.plan.graph import children_of
from ablate.plan.kinds import KINDS
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]

SHORT = {"max_prompt_length": 128, "max_response_length": 64}

ADAPTED = {
    f"{section}.{key}": value
    for section in ("sft", "reward_model", "ppo")
    for key, value in {"lora_rank": 4, "quantisation": "4bit"}.items()
}

SPEC: dict[str, Any] = {
    "name": "study",
    "policy": "pocket-small",
    "sft": {"dataset": "pocket-instructions"},
    "data": {"match": "smallest"},
    "datasets": {
        "both": {"mix": ["pocket-hh", "pocket-shp"]},
        "own": {
            "prompts": "pocket-nectar",
            "responses": {"max_new_tokens": 64},
            "label": {"by": {"reward_model": {"init": "pocket-small", "dataset": "pocket-hh"}}},
            "where": {"score_gap": {"min": 0.1}},
        },
        "again": {"replay": {"algorithm": "online_dpo", "dataset": "pocket-hh"}},
    },
    "grid": [
        {"dataset": ["pocket-hh", "pocket-shp", "both", "own"], "algorithm": list(METHODS)},
        {"dataset": "again", "algorithm": "dpo"},
        {"dataset": "pocket-hh", "algorithm": "ppo", **ADAPTED},
        {"dataset": "pocket-hh", "algorithm": "dpo", "policy": {"merge": ["pocket-small", {"from": {"seed": 1}}]}},
    ],
    "when": [{"if": {"algorithm": "steerlm"}, "set": {"reward_model.loss": "attributes"}}],
    **{name: SHORT for name, method in METHODS.items() if "prompts" in method.needs},
    "d2po": {**SHORT, "discriminator": "sft"},
    "baselines": ["base", "sft"],
    "evaluate": {
        "policy": ["pocket-gold", "pocket-if", "pocket-pairs-implicit", "pocket-judged"],
        "reward_model": ["pocket-pairs", "best-of-16"],
        "judge": {"model": "big-1", "url": "http://127.0.0.1:9/v1", "key": ""},
    },
}
OUTSIDE = {"model", "response_scores"}
"""Kinds of stages that take a model from outside the pocket world."""


def with_descendants(plan: Plan, roots: set[str]) -> set[str]:
    children, found, stack = children_of(plan.stages.values()), set[str](), list(roots)
    while stack:
        stage = stack.pop()
        if stage not in found:
            found.add(stage)
            stack += children.get(stage, [])
    return found


def changed_by(plan: MakePlan, raise_revision: Callable[[], None], uses: Callable[[Stage], bool]) -> set[str]:
    """Check that exactly the stages that ``uses`` says, and what hangs on them, are others; return the former."""
    text = yaml.safe_dump(SPEC, sort_keys=False)
    before = plan(text)
    raise_revision()
    after = plan(text)
    users = {stage.id for stage in before.stages.values() if uses(stage)}
    assert set(before.stages) - set(after.stages) == with_descendants(before, users)
    assert len(before.stages) == len(after.stages)
    return users


def test_the_study_has_every_kind_of_the_pocket_world(plan: MakePlan) -> None:
    made = {stage.kind for stage in plan(yaml.safe_dump(SPEC)).stages.values()}
    assert made == set(KINDS) - OUTSIDE


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OUTSIDE])
def test_of_a_kind(plan: MakePlan, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    raised = dataclasses.replace(KINDS[kind], revision=KINDS[kind].revision + 1)
    assert changed_by(plan, lambda: monkeypatch.setitem(KINDS, kind, raised), lambda stage: stage.kind == kind)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.entry])
def test_of_a_method(plan: MakePlan, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    raised = dataclasses.replace(METHODS[name], revision=METHODS[name].revision + 1)

    def uses(stage: Stage) -> bool:
        return stage.identity.config.value.get("algorithm") == name

    assert changed_by(plan, lambda: monkeypatch.setitem(METHODS, name, raised), uses)


def test_of_a_quantisation(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has an adapter over four bits is trained again, and nothing that has none."""

    def uses(stage: Stage) -> bool:
        config = stage.identity.config.value
        return stage.kind != "reference_logprobs" and config.get("parameters", {}).get("quantisation") == "4bit"

    users = changed_by(plan, lambda: monkeypatch.setitem(parameters.QUANTISATION_REVISIONS, "4bit", 3), uses)
    assert {stage.rpartition("-")[0] for stage in users} == {"sft", "reward_model", "train"}


@pytest.mark.parametrize("name", ["hh_rlhf", "shp", "messages", "records", "online_pairs"])
def test_of_a_converter(plan: MakePlan, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def uses(stage: Stage) -> bool:
        return stage.kind == "dataset" and stage.identity.config.value["converter"] == name

    revision = datasets.CONVERTER_REVISIONS[name] + 1
    assert changed_by(plan, lambda: monkeypatch.setitem(datasets.CONVERTER_REVISIONS, name, revision), uses)


def test_of_a_filter_of_labels(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def uses(stage: Stage) -> bool:
        return "where" in stage.identity.config.value

    users = changed_by(plan, lambda: monkeypatch.setitem(datasets.REFINEMENT_REVISIONS, "where", 2), uses)
    assert {stage.rpartition("-")[0] for stage in users} == {"dataset"}


@pytest.mark.parametrize(("name", "kinds"), [("pocket", {"generate"}), ("pocket-pairs", {"score", "likelihoods"})])
def test_of_prompts(plan: MakePlan, monkeypatch: pytest.MonkeyPatch, name: str, kinds: set[str]) -> None:
    raised = dataclasses.replace(suite_code.PROMPTS[name], revision=suite_code.PROMPTS[name].revision + 1)

    def uses(stage: Stage) -> bool:
        return stage.identity.config.value.get("prompts", {}).get("name") == name

    users = changed_by(plan, lambda: monkeypatch.setitem(suite_code.PROMPTS, name, raised), uses)
    assert {stage.rpartition("-")[0] for stage in users} == kinds


@pytest.mark.parametrize("name", ["pocket", "pairwise"])
def test_of_a_grader(plan: MakePlan, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    raised = dataclasses.replace(suite_code.GRADERS[name], revision=suite_code.GRADERS[name].revision + 1)

    def uses(stage: Stage) -> bool:
        return stage.identity.config.value.get("grader") == name

    assert changed_by(plan, lambda: monkeypatch.setitem(suite_code.GRADERS, name, raised), uses)


def test_a_grader_that_is_logged_alone_trains_nothing_again(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = [
        {"dataset": "pocket-hh", "algorithm": "ppo", "prompts": "pocket-prompts", "reward": ["nouns", "pocket-gold"]}
    ]
    text = yaml.safe_dump({**SPEC, "grid": grid, "evaluate": {"policy": ["pocket-gold"]}})

    def policies() -> dict[str, str]:
        made = plan(text).stages.values()
        trained = [stage for stage in made if stage.kind == "train"]
        assert all(stage.identity.config.value["gold"] == "pocket-gold" for stage in trained)
        return {stage.identity.config.value["reward"]: stage.id for stage in trained}

    before = policies()
    monkeypatch.setitem(suite_code.GRADERS, "pocket", dataclasses.replace(suite_code.GRADERS["pocket"], revision=2))
    after = policies()
    assert before["nouns"] == after["nouns"]
    assert before["pocket-gold"] != after["pocket-gold"]


def entry(**changes: Any) -> datasets.DatasetEntry:
    facts = {"name": "mine", "title": "Mine", "source": {"files": ["a", "b"]}, "licence": "none"}
    return datasets.DatasetEntry.model_validate({**facts, **changes})


def test_converters_that_are_wrapped_count() -> None:
    inner = {"of": "nectar", "responses": "all"}
    wrapped = entry(format="instruction", converter="chosen_as_instruction", converter_options=inner)
    assert set(wrapped.converter_revisions()) == {"chosen_as_instruction", "nectar"}
    files = {
        "a": {"converter": "chosen_as_instruction", "options": {"of": "shp"}},
        "b": {"converter": "messages"},
    }
    by_file = entry(format="instruction", converter="by_file", converter_options={"files": files})
    assert set(by_file.converter_revisions()) == {"by_file", "chosen_as_instruction", "shp", "messages"}
    assert entry(format="documents").converter_revisions() == {}
