"""What cells share is one stage, and a change reruns what hangs on it and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import yaml

from ablate.catalogs.suites import load_suites
from ablate.errors import UnknownNameError
from ablate.plan.graph import children_of
from ablate.plan.plan import Plan
from ablate.shipped import shipped_folder

MakePlan = Callable[..., Plan]

POLICY_SUITES = [
    "pocket-factuality",
    "pocket-truthfulness",
    "pocket-reasoning",
    "pocket-coding",
    "pocket-safety",
    "pocket-chat",
    "pocket-if",
    "pocket-gold",
]

SPEC: dict[str, Any] = {
    "name": "study",
    "policy": "pocket-small",
    "sft": {"dataset": "pocket-instructions"},
    "grid": [{"dataset": ["pocket-hh", "pocket-shp"], "algorithm": ["dpo", "ppo"], "seed": [0, 1]}],
    "ppo": {"max_prompt_length": 128, "max_response_length": 64},
    "baselines": ["base", "sft"],
    "evaluate": {"policy": POLICY_SUITES, "reward_model": ["pocket-pairs", "best-of-16"]},
}


def text(**changes: Any) -> str:
    return yaml.safe_dump({**SPEC, **changes}, sort_keys=False)


def counts(plan: Plan) -> Counter[str]:
    return Counter(stage.kind for stage in plan.stages.values())


def descendants(plan: Plan, roots: Iterable[str]) -> set[str]:
    children, found, stack = children_of(plan.stages.values()), set[str](), list(roots)
    while stack:
        stage = stack.pop()
        if stage not in found:
            found.add(stage)
            stack += children.get(stage, [])
    return found


def of_cell(plan: Plan, **axes: Any) -> str:
    stages = {
        item.stage
        for item in plan.subjects
        if item.subject == "policy" and item.role == "cell" and all(item.axes[key] == axes[key] for key in axes)
    }
    assert len(stages) == 1
    return stages.pop()


def test_offline_methods_share_the_passes_of_the_reference(plan: MakePlan) -> None:
    block = {"dataset": ["pocket-hh", "pocket-shp"], "algorithm": ["dpo", "simpo", "kto", "bco"], "seed": [0, 1]}
    made = plan(text(grid=[{**block, "kto.beta": [0.1, 0.3]}], evaluate={"policy": [], "reward_model": []}))
    passes = [stage for stage in made.stages.values() if stage.kind == "reference_logprobs"]
    assert len(passes) == 4, "for each set one over its completions and, for KTO, one over mismatched ones"
    for algorithm, needed in (("dpo", 1), ("simpo", 0), ("kto", 2), ("bco", 1)):
        trained = [made.stages[item.stage] for item in made.subjects if item.axes.get("algorithm") == algorithm]
        assert {len({parent.id for parent in passes} & set(stage.parents)) for stage in trained} == {needed}


def test_a_grid_shares_all_that_its_cells_have_in_common(plan: MakePlan) -> None:
    made = counts(plan(text()))
    assert made["tokenizer"] == made["pretrain"] == made["sft"] == 1
    assert made["reward_model"] == 4, "one for each (init, data, seed)"
    assert made["reference_logprobs"] == 2, "one for each preference set, whatever the seed"
    assert made["train"] == 8
    assert made["dataset"] == 3, "the two preference sets and the instructions"
    policies = 8 + 2
    shared_samples = 1  # best-of-16: the SFT model's, for all reward models
    asked = {
        (suite.data.pocket, suite.decoding, suite.chat)
        for name, suite in load_suites([shipped_folder("evals")]).items()
        if name in POLICY_SUITES
    }
    assert len(asked) == 1, "all pocket suites read the same responses"
    assert made["generate"] == policies * len(asked) + shared_samples
    assert made["evaluate"] == policies * len(POLICY_SUITES) + 4 * 2
    assert made["select"] == 4
    assert made["score"] == 8


def test_the_reference_pass_is_shared_by_every_beta_loss_setting_and_seed(plan: MakePlan) -> None:
    grid = [
        {
            "dataset": "pocket-hh",
            "algorithm": "dpo",
            "dpo.beta": [0.01, 0.1, 1.0],
            "dpo.label_smoothing": [0.0, 0.1],
            "dpo.learning_rate": [1e-4, 1e-5],
            "seed": [0, 1, 2],
        }
    ]
    made = counts(plan(text(grid=grid)))
    assert made["train"] == 36
    assert made["reference_logprobs"] == made["sft"] == 1
    assert made["tokenise"] == 2, "of the conversations and of the pairs"


def test_reward_models_and_dpo_share_the_tokens_of_a_set(plan: MakePlan) -> None:
    same = {"max_length": 256, "truncation": "drop"}
    made = counts(plan(text(reward_model=same, dpo=same)))
    assert made["tokenise"] == 1 + 2 + 2, "conversations; pairs and prompts of each set"


def test_a_larger_reward_model_brings_its_own_base_and_sft_only(plan: MakePlan) -> None:
    grid = [{"dataset": "pocket-hh", "algorithm": "ppo", "reward_model": ["pocket-small", "pocket-medium"]}]
    made = counts(plan(text(grid=grid)))
    assert (made["pretrain"], made["sft"], made["reward_model"], made["train"]) == (2, 2, 2, 2)
    samples = [stage for stage in plan(text(grid=grid)).stages.values() if stage.kind == "generate"]
    assert len(samples) == 2 + 2 + 1, "two policies, two baselines, one set of 16 samples for both reward models"


def test_stages_come_after_their_parents_and_ids_are_theirs(plan: MakePlan) -> None:
    seen: set[str] = set()
    for stage_id, stage in plan(text()).stages.items():
        assert stage.id == stage_id == stage.identity.id()
        assert seen.issuperset(stage.parents)
        seen.add(stage_id)


def test_changing_one_beta_changes_that_training_and_what_hangs_on_it(plan: MakePlan) -> None:
    before = plan(text())
    rule = {"if": {"algorithm": "dpo", "dataset": "pocket-shp", "seed": 1}, "set": {"dpo.beta": 0.3}}
    after = plan(text(when=[rule]))
    cell = {"dataset": "pocket-shp", "algorithm": "dpo", "seed": 1}
    gone, new = set(before.stages) - set(after.stages), set(after.stages) - set(before.stages)
    assert gone == descendants(before, [of_cell(before, **cell)])
    assert new == descendants(after, [of_cell(after, **cell)])
    assert Counter(stage.rpartition("-")[0] for stage in new) == {
        "train": 1,
        "generate": 1,
        "evaluate": len(POLICY_SUITES),
    }


def test_raising_a_method_s_revision_leaves_the_others_alone(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from ablate.algorithms.registry import METHODS

    before = plan(text())
    monkeypatch.setitem(METHODS, "ppo", dataclasses.replace(METHODS["ppo"], revision=99))
    after = plan(text())
    ppo = [item.stage for item in before.subjects if item.axes.get("algorithm") == "ppo"]
    assert set(before.stages) - set(after.stages) == descendants(before, ppo)


@pytest.mark.parametrize(
    "change",
    [
        {"grid": [{**SPEC["grid"][0], "seed": [0, 1, 2]}]},
        {"grid": [*SPEC["grid"], {"dataset": "pocket-nectar", "algorithm": "dpo", "dpo.beta": [0.2, 0.3]}]},
        {
            "grid": [
                {
                    "dataset": ["pocket-hh", "pocket-shp"],
                    "algorithm": ["dpo", "ppo"],
                    "seed": [0, 1],
                    "prompts": ["pocket-hh", "pocket-shp"],
                }
            ]
        },
        {"evaluate": {**SPEC["evaluate"], "policy": [*POLICY_SUITES, "pocket-validation-gold"]}},
    ],
    ids=["seed", "block", "prompts", "suite"],
)
def test_adding_to_a_study_removes_nothing(plan: MakePlan, change: dict[str, Any]) -> None:
    before, after = plan(text()), plan(text(**change))
    assert set(before.stages) < set(after.stages)


def test_two_experiments_share_what_they_have_in_common(plan: MakePlan) -> None:
    one = plan(text(name="one", grid=[{"dataset": "pocket-hh", "algorithm": "dpo"}]))
    two = plan(text(name="two", grid=[{"dataset": "pocket-hh", "algorithm": "dpo", "dpo.beta": 0.2}]))
    shared = Counter(stage.rpartition("-")[0] for stage in set(one.stages) & set(two.stages))
    assert shared["reference_logprobs"] == shared["sft"] == shared["pretrain"] == 1
    assert "train" not in shared


def test_subjects_carry_their_axes_and_evaluations(plan: MakePlan) -> None:
    made = plan(text())
    assert [item.label(made.grid.axes) for item in made.subjects[:3]] == [
        "base",
        "sft",
        "dataset=pocket-hh algorithm=dpo seed=0",
    ]
    facts = made.as_json()
    assert facts["axes"] == ["dataset", "algorithm", "seed"]
    by_role = Counter((item["subject"], item["role"]) for item in facts["subjects"])
    assert by_role == {("policy", "baseline"): 2, ("policy", "cell"): 8, ("reward_model", "cell"): 4}
    for item in facts["subjects"]:
        suites = POLICY_SUITES if item["subject"] == "policy" else ["pocket-pairs", "best-of-16"]
        assert list(item["evaluations"]) == suites
        assert {item["stage"], *item["evaluations"].values()} <= set(facts["stages"])
    assert set(facts["datasets"]) == {"pocket-hh", "pocket-shp"}
    assert set(facts["suites"]) == {*POLICY_SUITES, "pocket-pairs", "best-of-16"}


def test_a_policy_without_sft_starts_from_the_model_itself(plan: MakePlan) -> None:
    made = plan(text(sft=None, evaluate={"policy": ["pocket-gold"]}))
    assert counts(made)["sft"] == 0
    assert [item.role for item in made.subjects[:2]] == ["base", "cell"], "the SFT row would be the base row again"


BEST_OF_N = {"policy": [], "reward_model": ["pocket-pairs", "best-of-16"]}
TWO_POLICIES = [{"policy": ["pocket-small", "pocket-medium"], "dataset": "pocket-hh", "algorithm": "ppo"}]
ONE_REWARD_MODEL = {"init": "pocket-small"}


def test_one_reward_model_picks_among_the_responses_of_every_policy(plan: MakePlan) -> None:
    made = plan(text(grid=TWO_POLICIES, reward_model=ONE_REWARD_MODEL, evaluate=BEST_OF_N))
    rows = [item for item in made.subjects if item.subject == "reward_model"]
    assert [item.axes["policy"] for item in rows] == ["pocket-small", "pocket-medium"]
    assert len({item.stage for item in rows}) == counts(made)["reward_model"] == 1
    assert len({item.evaluations["best-of-16"] for item in rows}) == 2
    assert len({item.evaluations["pocket-pairs"] for item in rows}) == 1
    assert len({item.label(made.grid.axes) for item in rows}) == 2
    samplers = [made.stages[item.inputs["sft"]].execution.label for item in rows]
    assert samplers == [f"SFT of {item.axes['policy']} on pocket-instructions" for item in rows]


def test_without_best_of_n_a_reward_model_is_one_row_for_all_policies(plan: MakePlan) -> None:
    pairs = {"policy": [], "reward_model": ["pocket-pairs"]}
    made = plan(text(grid=TWO_POLICIES, reward_model=ONE_REWARD_MODEL, evaluate=pairs))
    (row,) = [item for item in made.subjects if item.subject == "reward_model"]
    assert "policy" not in row.axes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exclude": [{"dataset": "pocket-h"}]}, "exclude.0.dataset: unknown dataset 'pocket-h'.*'pocket-hh'"),
        ({"exclude": [{"dataset": ["pocket-hh", "pocket-sph"]}]}, "unknown dataset 'pocket-sph'.*'pocket-shp'"),
        ({"exclude": [{"algorithm": "dop"}]}, "exclude.0.algorithm: unknown algorithm 'dop'.*'dpo'"),
        ({"exclude": [{"policy": "pocket-smal"}]}, "unknown model 'pocket-smal'.*'pocket-small'"),
        ({"exclude": [{"reward_model": {"dataset": "pocket-h"}}]}, "unknown dataset 'pocket-h'.*'pocket-hh'"),
        ({"when": [{"if": {"algorithm": "pop"}, "set": {"ppo.gamma": 0.9}}]}, "if.algorithm: unknown algorithm 'pop'"),
    ],
)
def test_a_misspelt_name_in_a_condition_is_an_error(plan: MakePlan, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        plan(text(**changes))
    assert re.search(said, str(caught.value), re.DOTALL), caught.value
    assert caught.value.location is not None and caught.value.location.line is not None


def test_a_condition_may_name_what_the_grid_does_not_have(plan: MakePlan) -> None:
    rules = {"exclude": [{"dataset": "pocket-nectar"}], "when": [{"if": {"prompts": None}, "set": {"ppo.gamma": 0.9}}]}
    assert set(plan(text(**rules)).stages) == set(plan(text()).stages)
