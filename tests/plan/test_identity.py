"""Which words of a specification reach a stage's id, and which do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.algorithms.registry import METHODS
from ablate.catalogs.datasets import DatasetEntry
from ablate.catalogs.digests import DigestCache
from ablate.errors import SpecError, UsageError
from ablate.execution.slots import Machine
from ablate.experiment.sections import SECTIONS
from ablate.plan.plan import Plan
from ablate.shipped import shipped_folder

MakePlan = Callable[..., Plan]

SHORT = {"max_prompt_length": 128, "max_response_length": 64}

SPEC: dict[str, Any] = {
    "name": "study",
    "policy": "pocket-small",
    "sft": {"dataset": "pocket-instructions", "learning_rate": 0.001},
    "reward_model": {"epochs": 2},
    "grid": [{"dataset": "pocket-hh", "algorithm": ["dpo", "ppo"]}],
    **{name: SHORT for name, method in METHODS.items() if "prompts" in method.needs},
    "baselines": ["base", "sft"],
    "evaluate": {"policy": ["pocket-factuality"], "reward_model": ["pocket-pairs", "best-of-16"]},
}

# A value other than the default for every parameter there is.
OTHER = {
    "win_rate_every": 2,
    "learning_rate": 0.0123,
    "min_learning_rate": 0.00123,
    "value_learning_rate": 0.0123,
    "scheduler": "cosine",
    "warmup_ratio": 0.21,
    "weight_decay": 0.07,
    "epochs": 5,
    "batch_size": 7,
    "max_length": 99,
    "dtype": "bfloat16",
    "max_grad_norm": 0.33,
    "beta": 0.77,
    "gamma": 0.98,
    "odds_ratio_weight": 0.44,
    "desirable_weight": 1.4,
    "undesirable_weight": 0.6,
    "tau": 0.2,
    "implementation": "trl",
    "label_smoothing": 0.11,
    "steps": 17,
    "prompts_per_step": 48,
    "responses_per_prompt": 6,
    "mini_batch_size": 24,
    "inner_epochs": 3,
    "temperature": 0.9,
    "kl_coefficient": 0.011,
    "gae_lambda": 0.91,
    "clip_range": 0.15,
    "value_clip_range": 0.25,
    "value_coefficient": 0.3,
    "whiten_advantages": False,
    "missing_eos_reward": None,
    "max_prompt_length": 77,
    "max_response_length": 55,
    "stop_at_kl": 3.5,
    "reward_model.loss": "instruct-k",
    "online_dpo.loss": "hinge",
    "d2po.loss": "hinge",
    "margin_scale": 0.4,
    "centring": 0.02,
    "attributes": "helpfulness=1, verbosity=-0.5",
    "rank_weight": 100.0,
    "length_exponent": 0.5,
    "sft_weight": 0.2,
    "scale_by_deviation": False,
    "deviation_epsilon": 0.01,
    "length_normalisation": "token",
    "label_budget": 4321,
    "discriminator": "sft",
    "gold_every": 65,
    "gold_labels": 5,
    "gold_choice": "random",
    "gold_memory": "all",
    "discriminator_learning_rate": 0.0123,
    "discriminator_epochs": 2,
    "discriminator_batch_size": 3,
    "seed": 9,
    "max_examples": 123,
    "rollout_engine": "vllm",
    "lora_rank": 4,
    "lora_alpha": 32,
    "lora_targets": "q_proj",
    "quantisation": "4bit",
    "n": 3,
    "top_p": 0.9,
    "top_share": 0.25,
    "condition": "{helpfulness} {correctness} {coherence} {complexity} {verbosity}",
    "ask": "helpfulness=3, correctness=4, coherence=4, complexity=4, verbosity=2",
    "lowest": 1,
    "highest": 5,
    "parts": 3,
    "order": "random",
}


READ_WITH = {
    **{name: {"lora_rank": 8} for name in ("lora_alpha", "lora_targets", "quantisation")},
    "margin_scale": {"loss": "margin"},
    "attributes": {"loss": "attributes"},
}
"""What must be chosen beside a parameter that is read with this choice alone."""


def other_value(section: str, name: str) -> Any:
    if name == "truncation":
        return {"drop": "keep-start", "keep-start": "drop"}[SECTIONS[section].model_fields[name].default]
    return OTHER[f"{section}.{name}"] if f"{section}.{name}" in OTHER else OTHER[name]


def text(**changes: Any) -> str:
    return yaml.safe_dump({**SPEC, **changes}, sort_keys=False)


def ids(plan: Plan) -> set[str]:
    return set(plan.stages)


def kinds(stages: set[str]) -> set[str]:
    return {stage.rpartition("-")[0] for stage in stages}


def parameters() -> list[tuple[str, str]]:
    sections = ["pretrain", "sft", "reward_model", *METHODS]
    return [
        (section, name)
        for section in sections
        for name in SECTIONS[section].model_fields
        if (section, name) not in {("sft", "dataset"), ("reward_model", "init"), ("reward_model", "dataset")}
    ]


def test_order_of_keys_comments_style_and_name_change_nothing(plan: MakePlan) -> None:
    reference = ids(plan(text()))
    backwards = {key: SPEC[key] for key in reversed(SPEC)}
    assert ids(plan("# a comment\n" + yaml.safe_dump(backwards, sort_keys=False, default_flow_style=True))) == reference
    assert ids(plan(text(name="another", question="Why?", report="reports/x.yaml"))) == reference
    assert list(plan(text()).stages) == list(plan(text()).stages)


@pytest.mark.parametrize("section", ["sft", "reward_model", "dpo", "ppo", "data"])
def test_a_default_written_out_changes_nothing(plan: MakePlan, section: str) -> None:
    fields = SECTIONS[section].model_fields
    defaults = {name: field.default for name, field in fields.items() if not field.is_required()}
    assert ids(plan(text(**{section: {**defaults, **SPEC.get(section, {})}}))) == ids(plan(text()))


def test_derived_keys_written_out_change_nothing(plan: MakePlan) -> None:
    written = {"init": "pocket-small", "dataset": "pocket-hh", "epochs": 2}
    assert ids(plan(text(seed=0, prompts="pocket-hh", reward_model=written))) == ids(plan(text()))


def test_an_axis_of_one_value_is_a_fixed_value(plan: MakePlan) -> None:
    grid = [{"dataset": ["pocket-hh"], "algorithm": ["dpo", "ppo"], "dpo": {"beta": 0.3}, "seed": [4]}]
    assert ids(plan(text(grid=grid))) == ids(plan(text(dpo={"beta": 0.3}, seed=4)))
    assert ids(plan(text(), "dpo.beta=0.3", "seed=4")) == ids(plan(text(dpo={"beta": 0.3}, seed=4)))


def test_one_spelt_as_a_float_is_one(plan: MakePlan) -> None:
    assert ids(plan(text(dpo={"beta": 1}))) == ids(plan(text(dpo={"beta": 1.0})))


def test_a_variant_that_changes_nothing_is_the_same_data(plan: MakePlan) -> None:
    grid = [{"dataset": "mine", "algorithm": ["dpo", "ppo"]}]
    datasets = {"mine": {"use": "pocket-hh", "title": "Another title"}}
    assert ids(plan(text(grid=grid, datasets=datasets))) == ids(plan(text()))
    changed = {"mine": {"use": "pocket-hh", "converter_options": {"parsing": "bare"}}}
    assert "dataset" in kinds(ids(plan(text(grid=grid, datasets=changed))) - ids(plan(text())))


@pytest.mark.parametrize(("section", "name"), parameters())
def test_every_parameter_reaches_an_id(plan: MakePlan, section: str, name: str) -> None:
    apart = {"online_dpo": {"annotator": "nouns"}, "d2po": {"annotator": "nouns"}}
    apart |= {"steerlm": {"reward_model.loss": "attributes"}} if section == "steerlm" else {}
    grid = [{"dataset": "pocket-shp", "algorithm": [name for name in METHODS if name not in {*apart, "steerlm"}]}]
    grid += [{"dataset": "pocket-shp", "algorithm": name, **keys} for name, keys in apart.items()]
    own = {**SPEC.get(section, {}), **READ_WITH.get(name, {})}
    before = ids(plan(text(grid=grid, **{section: own})))
    after = ids(plan(text(grid=grid, **{section: {**own, name: other_value(section, name)}})))
    assert before != after
    made = kinds(after - before)
    if section in METHODS and not name.startswith("max_"):
        assert {"train"} <= made
        assert not {"sft", "reward_model", "pretrain", "dataset"} & made
    assert "train" in made, "all that hangs on it changes too"


def test_an_adapter_is_an_axis_beside_full_fine_tuning(plan: MakePlan) -> None:
    """The cells without one are those of a study that knows no adapters; the reference pass is shared by both."""
    grid = [{"dataset": "pocket-hh", "algorithm": ["dpo", "ppo"], "dpo.lora_rank": [None, 16]}]
    both = plan(text(grid=grid, dpo={"lora_alpha": 32}))
    assert ids(plan(text())) < ids(both)
    assert [cell.values.get("dpo.lora_rank") for cell in both.grid.cells] == [None, 16, None]
    assert sum(stage.kind == "reference_logprobs" for stage in both.stages.values()) == 1
    bits = plan(text(grid=grid, when=[{"if": {"dpo.lora_rank": 16}, "set": {"dpo.quantisation": "4bit"}}]))
    assert sum(stage.kind == "reference_logprobs" for stage in bits.stages.values()) == 2


def test_a_key_of_an_adapter_where_none_has_one_is_refused(plan: MakePlan) -> None:
    with pytest.raises(SpecError, match=r"study.yaml:\d+: dpo.lora_alpha: .*no cell has one\n  set dpo.lora_rank"):
        plan(text(dpo={"lora_alpha": 32}))
    with pytest.raises(SpecError, match="lora_dropout"):  # there is none: see the manual
        plan(text(dpo={"lora_rank": 8, "lora_dropout": 0.1}))
    with pytest.raises(SpecError, match="quantisation needs lora_rank"):
        plan(text(dpo={"quantisation": "4bit"}))


def test_what_an_earlier_stage_has_applied_is_in_its_identity_alone(plan: MakePlan) -> None:
    applied = {"max_length", "truncation", "max_prompt_length"}
    kept = {
        stage.kind: set(stage.identity.config.value["parameters"]) & applied
        for stage in plan(text()).stages.values()
        if "parameters" in stage.identity.config.value
    }
    assert kept == {"sft": set(), "reward_model": set(), "train": set()}


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"seed": 1}, "train"),
        ({"policy": "pocket-medium"}, "pretrain"),
        ({"grid": [{"dataset": "pocket-shp", "algorithm": ["dpo", "ppo"]}]}, "dataset"),
        ({"data": {"max_examples": 500}}, "dataset"),
        ({"data": {"max_examples": 500, "seed": 1}}, "dataset"),
        ({"sft": {"dataset": "pocket-instructions", "learning_rate": 0.001, "seed": 1}}, "sft"),
        ({"reward_model": {"init": "pocket-medium", "epochs": 2}}, "reward_model"),
        ({"reward_model": {"dataset": "pocket-shp", "epochs": 2}}, "reward_model"),
        ({"prompts": "pocket-shp"}, "train"),
    ],
)
def test_every_choice_reaches_an_id(plan: MakePlan, change: dict[str, Any], first: str) -> None:
    assert first in kinds(ids(plan(text(**change))) - ids(plan(text())))


def test_the_seed_leaves_base_sft_and_data_alone(plan: MakePlan) -> None:
    changed = kinds(ids(plan(text(seed=1))) - ids(plan(text())))
    assert changed == {"train", "reward_model", "generate", "score", "select", "evaluate"}


def test_epochs_of_ppo_count_only_without_steps(plan: MakePlan) -> None:
    assert ids(plan(text(ppo={**SHORT, "steps": 9, "epochs": 4}))) == ids(plan(text(ppo={**SHORT, "steps": 9})))
    assert ids(plan(text(ppo={**SHORT, "epochs": 4}))) != ids(plan(text()))


def test_a_sampling_seed_counts_only_where_something_is_sampled(plan: MakePlan) -> None:
    assert ids(plan(text(data={"seed": 7}))) == ids(plan(text()))
    sampled = [ids(plan(text(data={"max_examples": 50, "seed": seed}))) for seed in (7, 8)]
    assert sampled[0] != sampled[1]


def test_resources_cannot_reach_an_id() -> None:
    """Threads, jobs and GPUs are of a type of their own, which no config holds."""
    from ablate.context import Resources

    names = {*Resources.__dataclass_fields__, *Machine.__dataclass_fields__}
    for section, model in SECTIONS.items():
        assert not names & set(model.model_fields), section


DIGESTS = """
import json, sys
from pathlib import Path
from ablate.execution.study import make_plan
from ablate.store import Store
print(json.dumps(list(make_plan(sys.argv[1], [], Store(Path("somewhere"))).stages)))
"""


def test_machine_folder_environment_and_hash_seed_change_nothing(tmp_path: Path) -> None:
    file = shipped_folder("experiments") / "pocket_quick.yaml"
    answers = []
    for number, seed in enumerate(("0", "12345")):
        folder = tmp_path / f"cwd{number}"
        folder.mkdir()
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "HOSTNAME": f"host{number}",
            "OMP_NUM_THREADS": str(number + 1),
        }
        environment |= {
            "OMP_NUM_THREADS": f"{number + 1}",
            "HOME": str(folder),
            "USER": f"user{number}",
            "TZ": ("UTC", "Asia/Tokyo")[number],
        }
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.run(
            [sys.executable, "-c", DIGESTS, str(file)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        answers.append(json.loads(process.stdout))
        assert list(folder.iterdir()) == [], "planning writes nothing"
    assert answers[0] == answers[1]


ROW = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog with one set that is read from a file."""
    from ablate.plan import facts

    entry = DatasetEntry.model_validate(
        {
            "name": "real",
            "title": "Real",
            "format": "preference",
            "source": {"files": ["rows/train.jsonl"]},
            "converter": "hh_rlhf",
            "label_kind": "human",
            "licence": "none",
        }
    )
    known = facts.datasets()
    monkeypatch.setattr(facts, "datasets", lambda: {**known, "real": entry})


@pytest.mark.usefixtures("real")
def test_the_content_of_a_file_counts_and_its_folder_does_not(plan: MakePlan, tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        (root / "rows").mkdir(parents=True)
        (root / "rows/train.jsonl").write_text(json.dumps(ROW) + "\n")
    spec = text(grid=[{"dataset": "real", "algorithm": "dpo"}])
    first, second = (plan(spec, root=root) for root in roots)
    assert ids(first) == ids(second) == ids(plan(spec, "data.root=one"))
    locations = {stage.execution.locations.get("root") for stage in second.stages.values()}
    assert locations == {None, str(roots[1])}
    (roots[1] / "rows/train.jsonl").write_text(json.dumps(ROW).replace("b", "B") + "\n")
    assert kinds(ids(plan(spec, root=roots[1])) - ids(first)) == {
        "dataset",
        "tokenise",
        "reference_logprobs",
        "train",
        "generate",
        "evaluate",
    }


def test_a_model_folder_counts_by_its_content(plan: MakePlan, tmp_path: Path) -> None:
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    found = {name: ids(plan(text(policy=f"./{name}"))) for name in "abc"}
    assert found["a"] == found["b"]
    assert found["a"] & found["c"] != found["a"]


def test_a_hub_model_counts_by_its_revision(plan: MakePlan) -> None:
    spec = text(policy="someone/model@" + "0" * 40)
    assert ids(plan(spec)) != ids(plan(spec.replace("@0", "@1")))


@pytest.mark.usefixtures("real")
def test_only_a_plan_that_is_made_leaves_digests(plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / "root/rows").mkdir(parents=True)
    (tmp_path / "root/rows/train.jsonl").write_text(json.dumps(ROW) + "\n")
    grid = [{"dataset": "real", "algorithm": "dpo"}]
    wrong = {"policy": ["pocket-factuality"], "reward_model": ["pocket-gold"]}
    for change in ({"policy": ["pocket-small", "./nowhere"]}, {"dataset": ["real", "pocket-instructions"]}):
        with pytest.raises(UsageError):
            plan(text(grid=[{**grid[0], **change}]), root=tmp_path / "root")
    with pytest.raises(SpecError, match="evaluates a policy"):
        plan(text(grid=grid, evaluate=wrong), root=tmp_path / "root")
    assert not (tmp_path / "digests.json").exists()
    plan(text(grid=grid), root=tmp_path / "root")
    assert (tmp_path / "digests.json").exists()


def test_the_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    def digest() -> str:
        return DigestCache(tmp_path / "cache.json").of_folder(tmp_path / "model")

    (tmp_path / "model/sub").mkdir(parents=True)
    (tmp_path / "model/a").write_text("x")
    first = digest()
    (tmp_path / "model/.hidden").write_text("y")
    assert digest() == first
    (tmp_path / "model/a").rename(tmp_path / "model/sub/a")
    second = digest()
    (tmp_path / "model/sub/b").write_text("")
    assert len({first, second, digest()}) == 3
