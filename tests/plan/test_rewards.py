"""The axis ``reward``: what a cell keeps with it, which stages it takes, which prompts it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.algorithms.registry import METHODS
from ablate.catalogs.rewards import REWARDS
from ablate.catalogs.suite_code import GRADERS
from ablate.errors import SpecError, UnknownNameError
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage

MakePlan = Callable[..., Plan]
SHORT = {"max_prompt_length": 128, "max_response_length": 64}
JUDGED = [name for name, method in METHODS.items() if method.entry == "ablate.training.policy_gradient:run"]
SPEC: dict[str, Any] = {
    "name": "study",
    "policy": "pocket-small",
    "sft": {"dataset": "pocket-instructions"},
    "dataset": "pocket-hh",
    **dict.fromkeys(JUDGED, SHORT),
}


def text(**changes: Any) -> str:
    return yaml.safe_dump({**SPEC, **changes}, sort_keys=False)


def trained(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == "train"]


def inputs(stage: Stage) -> dict[str, str]:
    return {role: ref.artifact for role, ref in stage.identity.inputs}


def config(stage: Stage) -> Mapping[str, Any]:
    value: Mapping[str, Any] = stage.identity.config.value
    return value


@pytest.mark.parametrize("algorithm", JUDGED)
def test_the_reward_model_written_out_changes_nothing(plan: MakePlan, algorithm: str) -> None:
    plain = plan(text(grid=[{"algorithm": algorithm}]))
    written = plan(text(grid=[{"algorithm": algorithm}], reward="reward_model"))
    assert set(plain.stages) == set(written.stages)
    (stage,) = trained(plain)
    assert set(config(stage)) == {"algorithm", "parameters", "seed"}
    assert set(inputs(stage)) == {"policy", "reference", "prompts", "reward_model"}


@pytest.mark.parametrize("algorithm", JUDGED)
def test_a_formula_takes_no_reward_model_and_no_pairs(plan: MakePlan, algorithm: str) -> None:
    made = plan(text(grid=[{"algorithm": algorithm, "reward": "nouns"}]))
    assert "reward_model" not in {stage.kind for stage in made.stages.values()}
    assert not any(config(stage).get("format") == "pairs" for stage in made.stages.values())
    (stage,) = trained(made)
    assert config(stage)["reward"] == "nouns"
    assert "gold" not in config(stage)
    assert inputs(stage)["prompt_texts"] == "prompts.jsonl"
    assert "reward_model" not in inputs(stage)
    assert dict(stage.identity.parts) == {algorithm: 1, "reward nouns": 1}


def test_a_verifier_vouches_for_its_grader(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    written = text(grid=[{"algorithm": "grpo", "reward": "pocket-correct", "prompts": "pocket-prompts"}])
    (before,) = trained(plan(written))
    assert dict(before.identity.parts) == {
        "grpo": 1,
        "reward pocket-correct": 1,
        "reward pocket-gold": 1,
        "grader pocket": 1,
    }
    monkeypatch.setitem(GRADERS, "pocket", dataclasses.replace(GRADERS["pocket"], revision=2))
    (after,) = trained(plan(written))
    assert after.id != before.id


def test_cells_of_a_formula_collapse_over_reward_models(plan: MakePlan) -> None:
    axes = {"reward": ["reward_model", "nouns"], "reward_model.init": ["pocket-small", "pocket-medium"]}
    made = plan(text(grid=[{"algorithm": "ppo", **axes}]))
    cells = made.grid.cells
    assert [(cell.values["reward"], cell.values.get("reward_model.init")) for cell in cells] == [
        ("reward_model", "pocket-small"),
        ("reward_model", "pocket-medium"),
        ("nouns", None),
    ]
    assert not [key for key in cells[2].values if key.startswith("reward_model")]


def test_an_axis_of_a_reward_model_that_no_cell_has_is_an_error(plan: MakePlan) -> None:
    grid = [{"algorithm": "rloo", "reward": "nouns", "reward_model.init": ["pocket-small", "pocket-medium"]}]
    with pytest.raises(SpecError, match=r"study.yaml:\d+: reward_model.init: no method of this block reads"):
        plan(text(grid=grid))
    with pytest.raises(SpecError, match="no method of this block reads 'reward'"):
        plan(text(grid=[{"algorithm": "dpo", "reward": ["nouns", "pocket-gold"]}]))


def test_conditions_see_the_reward(plan: MakePlan) -> None:
    rule = {"if": {"reward": "nouns"}, "set": {"ppo.missing_eos_reward": None, "ppo.kl_coefficient": 0.5}}
    made = plan(text(grid=[{"algorithm": "ppo", "reward": ["reward_model", "nouns"]}], when=[rule]))
    found = {config(stage).get("reward"): config(stage)["parameters"]["kl_coefficient"] for stage in trained(made)}
    assert found == {None: 0.05, "nouns": 0.5}


@pytest.mark.parametrize("where", ["grid", "file", "when"])
def test_a_misspelt_reward_offers_the_nearest(plan: MakePlan, where: str) -> None:
    grid = [{"algorithm": "ppo", **({"reward": "noun"} if where == "grid" else {})}]
    more: dict[str, Any] = {"reward": "noun"} if where == "file" else {}
    if where == "when":
        more = {"when": [{"if": {"reward": "noun"}, "set": {"ppo.kl_coefficient": 0.5}}]}
    with pytest.raises(UnknownNameError, match=r"study.yaml:\d+: .*unknown reward 'noun'\n  did you mean 'nouns'"):
        plan(text(grid=grid, **more))


def test_prompts_without_what_a_verifier_reads_are_refused(plan: MakePlan) -> None:
    message = (
        r"study.yaml:\d+: prompts: the reward pocket-gold reads the item of each prompt, which the prompts of "
        r"'pocket-hh' do not carry\n  allowed as prompts: pocket-prompts; .*checks: pocket"
    )
    with pytest.raises(SpecError, match=message):
        plan(text(grid=[{"algorithm": "grpo", "reward": "pocket-gold", "prompts": "pocket-hh"}]))
    with pytest.raises(SpecError, match="of 'pocket-hh' do not carry"):  # prompts are those of the dataset
        plan(text(grid=[{"algorithm": "grpo", "reward": "pocket-gold"}]))
    with pytest.raises(SpecError, match=r"the answer to each prompt.*'pocket-prompts'.*\n.*gsm8k-answers"):
        plan(text(grid=[{"algorithm": "grpo", "reward": "exact-answer", "prompts": "pocket-prompts"}]))


def test_a_verifier_of_rejection_sampling_is_held_to_its_prompts_too(plan: MakePlan) -> None:
    block = {"algorithm": "rejection_sampling", "reward": "exact-answer"}
    with pytest.raises(SpecError, match="reward exact-answer reads the answer to each prompt, which the prompts of 'p"):
        plan(text(grid=[block]))
    assert trained(plan(text(grid=[{**block, "reward": "pocket-gold", "prompts": "pocket-prompts"}])))


ANSWERED: dict[str, Any] = {
    "prompts": "pocket-prompts",
    "responses": {"n": 2, "max_new_tokens": 32},
    "label": {"by": {"reward": "nouns"}},
}


def test_labels_by_a_formula_or_a_verifier_are_those_of_rejection_sampling(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"algorithm": "rejection_sampling", "reward": ["nouns", "pocket-gold"], "prompts": "pocket-prompts"}
    sampled = {"n": 2, "temperature": 1.0, "max_new_tokens": 32}
    own = {name: {**ANSWERED, "responses": sampled, "label": {"by": {"reward": name}}} for name in block["reward"]}
    spec = text(
        datasets={f"by-{name}": variant for name, variant in own.items()},
        grid=[block, {"algorithm": "dpo", "dataset": ["by-nouns", "by-pocket-gold"]}],
        rejection_sampling={"n": 2, "max_response_length": 32},
    )
    by_formula, by_verifier = (stage for stage in plan(spec).stages.values() if stage.kind == "label")
    assert config(by_formula) == {"closed_form": "nouns"} and set(inputs(by_formula)) == {"records"}
    assert not by_formula.identity.parts
    assert config(by_verifier) == {"closed_form": None, "reward": "pocket-gold"}
    assert inputs(by_verifier)["prompt_texts"] == "prompts.jsonl"
    assert dict(by_verifier.identity.parts) == {"reward pocket-gold": 1, "grader pocket": 1}
    raised = {name: dataclasses.replace(REWARDS[name], revision=2) for name in ("nouns", "pocket-gold")}
    for name, entry in raised.items():
        monkeypatch.setitem(REWARDS, name, entry)
    again = [stage for stage in plan(spec).stages.values() if stage.kind == "label"]
    assert {stage.id for stage in again}.isdisjoint({by_formula.id, by_verifier.id})


def test_prompts_that_a_pipeline_answered_carry_nothing_to_verify(plan: MakePlan) -> None:
    datasets = {"own": ANSWERED}
    with pytest.raises(SpecError, match="which the prompts of 'own' do not carry"):
        plan(text(datasets=datasets, dataset="own", grid=[{"algorithm": "grpo", "reward": "pocket-gold"}]))
    both = {**datasets, "both": {"mix": ["own", "pocket-hh"]}}
    with pytest.raises(SpecError, match="which the prompts of 'own' do not carry"):
        plan(text(datasets=both, dataset="both", grid=[{"algorithm": "grpo", "reward": "pocket-gold"}]))
    (stage,) = trained(plan(text(datasets=datasets, dataset="own", grid=[{"algorithm": "ppo"}])))
    assert "gold" not in config(stage) and "prompt_texts" not in inputs(stage), "its prompts have no items to grade"


def test_a_part_of_a_mixture_without_it_is_named(plan: MakePlan) -> None:
    datasets = {"plain": {"prompts": "pocket-hh"}, "both": {"mix": ["pocket-prompts", "plain"]}}
    with pytest.raises(SpecError, match="which the prompts of 'plain' do not carry"):
        plan(text(datasets=datasets, grid=[{"algorithm": "grpo", "reward": "pocket-gold", "prompts": "both"}]))


def test_a_set_of_prompts_is_dataset_enough_where_nothing_learns_from_pairs(plan: MakePlan) -> None:
    made = plan(text(grid=[{"algorithm": "rloo", "reward": "pocket-correct", "dataset": "pocket-prompts"}]))
    (stage,) = trained(made)
    assert config(stage)["gold"] == "pocket-gold"
    with pytest.raises(
        SpecError, match="'pocket-prompts' holds prompts data; dataset needs a set of preference or instruction"
    ):
        plan(text(grid=[{"algorithm": "rloo", "dataset": "pocket-prompts"}]))


def test_gold_is_logged_against_a_reward_model_too(plan: MakePlan) -> None:
    (stage,) = trained(plan(text(grid=[{"algorithm": "ppo", "prompts": "pocket-prompts"}])))
    assert config(stage)["gold"] == "pocket-gold"
    assert {"reward_model", "prompt_texts"} <= set(inputs(stage))
    (plain,) = trained(plan(text(grid=[{"algorithm": "ppo", "prompts": "pocket-nectar"}])))
    assert "prompt_texts" not in inputs(plain)


def test_prompts_are_told_as_prompts_in_the_account_of_data(plan: MakePlan) -> None:
    made = plan(text(grid=[{"algorithm": "rloo", "reward": "pocket-correct", "dataset": "pocket-prompts"}]))
    assert {entry["name"]: entry["roles"] for entry in made.data}["pocket-prompts"] == ["prompts"]


OWN = """
mine:
  title: Mine
  format: prompts
  source: {source}
  converter: verifiable_prompts
  converter_options: {options}
  licence: MIT
"""


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("{pocket: {what: items, n: 5, split: test}}", "{checks: pocket}", "the test split of the pocket world"),
        ("{pocket: {what: items, n: 5, split: validation}}", "{checks: pocket}", "the validation split"),
        ("{files: [gsm8k/test.jsonl.gz]}", "{checks: answer, column: question}", "gsm8k/test.jsonl.gz.* suite 'gsm8k'"),
        (
            "{files: [humaneval/HumanEval.jsonl.gz]}",
            "{checks: tests, columns: {tests: test}}",
            "humaneval/HumanEval.jsonl.gz.* suite 'humaneval",
        ),
    ],
)
@pytest.mark.parametrize("algorithm", JUDGED)
def test_prompts_that_a_suite_tests_on_are_refused(
    algorithm: str, source: str, options: str, message: str, tmp_path: Path
) -> None:
    from ablate.experiment.loading import load_experiment
    from ablate.plan.facts import gather_facts
    from ablate.plan.plan import build_plan
    from ablate.shipped import shipped_folder

    catalog = tmp_path / "catalog"
    catalog.mkdir()
    (catalog / "mine.yaml").write_text(OWN.replace("{source}", source).replace("{options}", options))
    for name in ("gsm8k/test.jsonl.gz", "humaneval/HumanEval.jsonl.gz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    rewards = {"answer": "exact-answer", "tests": "unit-tests", "pocket": "pocket-gold"}
    reward = next(reward for checks, reward in rewards.items() if f"checks: {checks}" in options)
    file = tmp_path / "study.yaml"
    answered = {"own": {"prompts": "mine", "responses": {"n": 2}, "label": {"by": {"reward": "nouns"}}}}
    chain = {"from": {"algorithm": algorithm, "dataset": "pocket-hh", "prompts": "mine"}}
    for place, datasets, given in (
        ("prompts", {}, {"prompts": "mine", "reward": reward}),
        ("(prompts|dataset)", {}, {"dataset": "mine", "reward": reward}),
        ("prompts", {}, {"prompts": "mine"}),
        ("grid.0.policy.from.prompts", {}, {"policy": chain, "algorithm": "dpo"}),
        ("datasets.own.prompts", answered, {"dataset": "own", "algorithm": "dpo"}),
        ("datasets.own.prompts", answered, {"reward_model.dataset": "own"}),
        (
            "datasets.own.prompts",
            answered | {"two": {"mix": ["own", "pocket-shp"]}},
            {"dataset": "two", "algorithm": "dpo"},
        ),
    ):
        file.write_text(text(datasets=datasets, grid=[{"algorithm": algorithm, **given}]))
        loaded = load_experiment(file, ())
        facts = gather_facts(
            loaded,
            evals=[shipped_folder("evals")],
            digest_cache=tmp_path / "digests.json",
            data_root=str(tmp_path),
            catalogs=[catalog],
        )
        with pytest.raises(SpecError, match=rf"study.yaml:\d+: {place}: .*'mine' are those of {message}"):
            build_plan(loaded, facts)


def test_prompts_with_tests_are_planned_for_unit_tests_and_for_no_other_verifier(tmp_path: Path) -> None:
    from ablate.experiment.loading import load_experiment
    from ablate.plan.facts import gather_facts
    from ablate.plan.plan import build_plan
    from ablate.shipped import shipped_folder

    catalog, rows = tmp_path / "catalog", tmp_path / "mine" / "programs.jsonl"
    for folder in (catalog, rows.parent):
        folder.mkdir()
    rows.write_text('{"prompt": "Write add(a, b).", "tests": ["assert add(1, 2) == 3"]}\n')
    own = OWN.replace("{source}", "{files: [mine/programs.jsonl]}").replace("{options}", "{checks: tests}")
    (catalog / "mine.yaml").write_text(own)
    file = tmp_path / "study.yaml"

    def planned(reward: str) -> Plan:
        file.write_text(text(grid=[{"algorithm": "grpo", "prompts": "mine", "reward": reward}]))
        loaded = load_experiment(file, ())
        digests, evals = tmp_path / "digests.json", [shipped_folder("evals")]
        facts = gather_facts(loaded, evals=evals, digest_cache=digests, data_root=str(tmp_path), catalogs=[catalog])
        return build_plan(loaded, facts)

    (stage,) = trained(planned("unit-tests"))
    assert config(stage)["reward"] == "unit-tests"
    assert {"reward unit-tests", "grader unit-tests"} <= set(dict(stage.identity.parts))
    with pytest.raises(SpecError, match="reads the answer to each prompt, which the prompts of 'mine' do not carry"):
        planned("exact-answer")
