"""The PPO stage: it learns, it resumes exactly, it stops with a reason."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from ablate.algorithms.ppo import PPOParameters
from ablate.context import EventLog, Resources, StageContext
from ablate.data.examples import prompt_id
from ablate.errors import AblateError, DataError, StageError
from ablate.pocket.draws import Draw
from ablate.pocket.language import SKILLS, draw_item
from ablate.pocket.vocabulary import NOUNS
from ablate.training.checkpoints import Cadence, complete_checkpoints
from ablate.training.experience import PassLimits, Score
from ablate.training.learner import Network
from ablate.training.on_policy import OnPolicyTrainer, Prompt, Tokens, planned_steps
from ablate.training.policy_gradient import PPOLearner, run
from ablate.training.rollouts import Episode
from tests.training.tiny import EOS, PAD, kill_after_a_checkpoint, llama

V, WANTED = 20, 5
NOUN = sorted(NOUNS)[0]
LIMITS = PassLimits(torch.device("cpu"), 4096, 2**24)


def policy(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(llama(V))


def classifier(seed: int = 1) -> LlamaForSequenceClassification:
    torch.manual_seed(seed)
    return LlamaForSequenceClassification(llama(V, num_labels=1))


def count_wanted(episodes: Sequence[Episode]) -> torch.Tensor:
    return torch.tensor([float(episode.response_ids.count(WANTED)) for episode in episodes])


def trainer(score: Score = count_wanted, *, seed: int = 0, steps: int | None = 5, **changes: Any) -> OnPolicyTrainer:
    values: dict[str, Any] = {
        "learning_rate": 3e-3,
        "prompts_per_step": 32,
        "mini_batch_size": 16,
        "max_response_length": 8,
        "temperature": 0.8,
        "kl_coefficient": 0.01,
        "value_coefficient": 1.0,
        "value_clip_range": 10.0,
        "missing_eos_reward": None,
        "steps": steps,
        **changes,
    }
    parameters = PPOParameters(**values)
    networks = {name: Network(model, 3e-3, 0.0) for name, model in (("policy", policy(seed)), ("value", classifier()))}
    return OnPolicyTrainer(
        PPOLearner(networks, parameters, PAD, LIMITS),
        seed,
        reference=policy(seed),
        score=score,
        prompts=[Prompt(f"p{i}", [2 + i % 7, 3 + i % 11, 4][: 1 + i % 3]) for i in range(40)],
        tokens=Tokens(frozenset({EOS}), PAD, lambda ids: " ".join(map(str, ids))),
    )


def weights(made: OnPolicyTrainer) -> dict[str, torch.Tensor]:
    networks = made.learner.networks.items()
    return {f"{role}.{name}": tensor for role, network in networks for name, tensor in network.parameters.items()}


def assert_equal_runs(first: OnPolicyTrainer, second: OnPolicyTrainer) -> None:
    assert first.history.records == second.history.records
    assert first.samples == second.samples
    expected, found = weights(first), weights(second)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reward_rises_when_it_counts_one_token(seed: int, tmp_path: Path) -> None:
    made = trainer(seed=seed, steps=20, prompts_per_step=64, mini_batch_size=32)
    made.train(tmp_path)
    records = made.history.records
    assert [record["step"] for record in records] == list(range(1, 21))
    assert records[0]["score"] < 0.8
    assert records[-1]["score"] > 4.0  # of at most 8
    assert records[0]["kl"] == 0.0
    assert records[-1]["kl"] > 1.0
    assert records[-1]["entropy"] < records[0]["entropy"]
    assert records[-1]["samples"] == 20 * 64


def test_missing_eos_is_punished_away(tmp_path: Path) -> None:
    made = trainer(lambda episodes: torch.zeros(len(episodes)), steps=25, missing_eos_reward=-10.0)
    made.train(tmp_path)
    records = made.history.records
    assert records[0]["missing_eos"] > 0.5
    assert records[0]["rlhf_reward"] == pytest.approx(-10 * records[0]["missing_eos"])
    assert records[-1]["missing_eos"] < 0.2
    assert records[-1]["score"] == 0.0


class Interrupted(Exception):
    pass


def interrupt_in_step(step: int) -> Score:
    calls = []

    def score(episodes: Sequence[Episode]) -> torch.Tensor:
        calls.append(1)
        if len(calls) == step:
            raise Interrupted
        return count_wanted(episodes)

    return score


@pytest.mark.parametrize("step", [1, 2, 5])
def test_an_interrupted_run_ends_as_an_unbroken_one(step: int, tmp_path: Path) -> None:
    unbroken = trainer(inner_epochs=2)
    unbroken.train(tmp_path / "unbroken")
    broken = trainer(interrupt_in_step(step), inner_epochs=2)
    with pytest.raises(Interrupted):
        broken.train(tmp_path / "first", cadence=Cadence(seconds=0))
    assert len(complete_checkpoints(tmp_path / "first")) == min(step - 1, 1)
    resumed = trainer(inner_epochs=2)
    resumed.train(tmp_path / "second", [tmp_path / "first"])
    assert_equal_runs(unbroken, resumed)


def test_checkpoints_are_spaced_by_time_and_never_written_after_the_last_step(tmp_path: Path) -> None:
    trainer(steps=2).train(tmp_path / "rare")
    assert not (tmp_path / "rare").exists()
    trainer(steps=2).train(tmp_path / "each", cadence=Cadence(seconds=0))
    assert [path.name for path in complete_checkpoints(tmp_path / "each")] == ["checkpoint-1"]


def test_a_reward_that_is_not_finite_names_step_and_prompt(tmp_path: Path) -> None:
    def score(episodes: Sequence[Episode]) -> torch.Tensor:
        return torch.tensor([float("nan") if episode.prompt_id == "p7" else 0.0 for episode in episodes])

    with pytest.raises(StageError, match=r"step [12]: the reward of \d responses is not finite; prompts p7"):
        trainer(score, steps=3).train(tmp_path)


def test_a_kl_beyond_the_limit_stops_the_run(tmp_path: Path) -> None:
    stop = (
        r"step \d+: the KL from the reference is .* allowed: 0.2; prompts p\d+.*the state is saved in .*checkpoint-\d+"
    )
    with pytest.raises(StageError, match=stop):
        trainer(steps=25, stop_at_kl=0.2).train(tmp_path)


@pytest.mark.parametrize("step", [1, 3])
def test_a_run_stopped_by_its_reward_goes_on_where_it_was_stopped(step: int, tmp_path: Path) -> None:
    calls = []

    def score(episodes: Sequence[Episode]) -> torch.Tensor:
        calls.append(1)
        return count_wanted(episodes) * (float("nan") if len(calls) == step else 1.0)

    unbroken = trainer(steps=4)
    unbroken.train(tmp_path / "unbroken")
    message = (
        rf"step {step}: the reward of 32 responses is not finite; prompts p\d+.*saved in .*checkpoint-{step - 1}\n"
    )
    with pytest.raises(StageError, match=message):
        trainer(score, steps=4).train(tmp_path / "stopped")
    resumed = trainer(steps=4)
    resumed.train(tmp_path / "resumed", [tmp_path / "stopped"])
    assert_equal_runs(unbroken, resumed)


def test_a_run_stopped_amid_an_update_leaves_its_state_and_no_checkpoint(tmp_path: Path) -> None:
    made = trainer(steps=3)
    made.step()
    made.recorder = dataclasses.replace(made.recorder, temperature=1.0)  # the two passes differ now
    with pytest.raises(StageError, match=r"step 2: before any update .*the state is saved in .*stopped-in-step-2"):
        made.train(tmp_path)
    assert complete_checkpoints(tmp_path) == []
    files = {path.name for path in (tmp_path / "stopped-in-step-2").iterdir()}
    assert {"policy.safetensors", "value.safetensors", "history.json", "state.json"} <= files


def test_warm_up_then_constant(tmp_path: Path) -> None:
    made = trainer(steps=5, warmup_ratio=0.4)
    made.train(tmp_path)
    rates = [record["learning_rate"] for record in made.history.records]
    assert rates == pytest.approx([3e-3 * share for share in (0.25, 0.75, 1.0, 1.0, 1.0)])


def test_steps_follow_from_epochs_and_whole_steps() -> None:
    parameters = PPOParameters(prompts_per_step=32, epochs=3)
    assert planned_steps(parameters, 40) == 3
    with pytest.raises(StageError, match="lower prompts_per_step"):
        planned_steps(PPOParameters(prompts_per_step=512), 40)


# The stage on folders


def tokenizer(extra: str = "w19", last: int = V - 1) -> PreTrainedTokenizerFast:
    words = ["<|pad|>", "<|end|>", *(f"w{i}" for i in range(2, V))]
    words[last] = extra
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="w2"))
    model.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<|pad|>", eos_token="<|end|>")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    folders = {role: tmp_path / role for role in ("policy", "reference", "reward_model")}
    for role, folder in folders.items():
        model = classifier() if role == "reward_model" else policy()
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    prompts = tmp_path / "tokens.parquet"
    rows = [[2 + i % 7, 3 + i % 11, 4][: 1 + i % 3] for i in range(40)]
    pq.write_table(pa.table({"id": [f"p{i}" for i in range(40)], "prompt_ids": rows}), prompts)
    return {**folders, "prompts": prompts}


def context(
    inputs: dict[str, Path],
    folder: Path,
    previous: tuple[Path, ...] = (),
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> StageContext:
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    values = {
        "learning_rate": 1e-3,
        "prompts_per_step": 16,
        "mini_batch_size": 8,
        "max_response_length": 8,
        "steps": 12,
        **changes,
    }
    return StageContext(
        kind="train",
        config={"algorithm": "ppo", "parameters": values, "seed": 3, **(config or {})},
        inputs=inputs,
        output=folder / "output",
        work=folder / "work",
        events=EventLog(folder / "events.jsonl"),
        previous_work=previous,
        resources=Resources(threads=1),
    )


def test_the_stage_writes_model_history_and_samples(inputs: dict[str, Path], tmp_path: Path) -> None:
    made = context(inputs, tmp_path / "run", steps=2)
    summary = run(made)
    assert (summary["prompts"], summary["steps"]) == (40, 2)
    history = [json.loads(line) for line in (made.output / "history.jsonl").read_text().splitlines()]
    assert [record["step"] for record in history] == [1, 2]
    logged = {"loss", "policy_loss", "value_loss", "kl", "kl_per_token", "rlhf_reward", "score", "score_sd", "samples"}
    logged |= {"entropy", "policy_clip_fraction", "value_clip_fraction", "approx_kl", "explained_variance"}
    logged |= {
        "labels",
        "response_length",
        "missing_eos",
        "policy_grad_norm",
        "value_grad_norm",
        "learning_rate",
        "step",
    }
    assert logged == set(history[0])
    samples = [json.loads(line) for line in (made.output / "samples.jsonl").read_text().splitlines()]
    assert {sample["step"] for sample in samples} == {1, 2}
    assert all(sample["response"].split() for sample in samples)
    published = {path.name for path in (made.output / "model").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= published
    assert not {name for name in published if name.endswith((".bin", ".pt", ".pkl"))}
    trained = LlamaForCausalLM.from_pretrained(made.output / "model")
    assert not torch.equal(trained.get_input_embeddings().weight, policy().get_input_embeddings().weight)
    events = [json.loads(line) for line in made.events.path.read_text().splitlines()]
    assert sum("score" in event for event in events) == 2


FOUR = {"prompts_per_step": 4, "responses_per_prompt": 4}


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("ppo", {}),
        pytest.param("rloo", FOUR, marks=pytest.mark.slow),
        pytest.param("grpo", FOUR, marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_is_continued_to_the_same_bytes(
    algorithm: str, changes: dict[str, Any], inputs: dict[str, Path], tmp_path: Path
) -> None:
    changes = {**changes, "config": {"algorithm": algorithm}, "steps": 20}
    unbroken = context(inputs, tmp_path / "unbroken", **changes)
    run(unbroken)
    killed = context(inputs, tmp_path / "killed", **changes)
    kill_after_a_checkpoint("ablate.training.policy_gradient:run", killed, inputs)
    resumed = context(inputs, tmp_path / "resumed", (killed.work,), **changes)
    run(resumed)
    for name in ("model/model.safetensors", "history.jsonl", "samples.jsonl"):
        assert (resumed.output / name).read_bytes() == (unbroken.output / name).read_bytes(), name


def test_the_stage_refuses_a_reward_model_with_another_tokenizer(inputs: dict[str, Path], tmp_path: Path) -> None:
    tokenizer("other").save_pretrained(inputs["reward_model"])
    with pytest.raises(DataError, match="differ: vocabulary"):
        run(context(inputs, tmp_path / "run"))
    other = tokenizer()
    other.chat_template = "{{ messages }}"
    other.save_pretrained(inputs["reward_model"])
    with pytest.raises(DataError, match="differ: chat template"):
        run(context(inputs, tmp_path / "again"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_response_length": 1024}, "need 1027 positions; the policy has 32"),
        ({"prompts_per_step": 64, "steps": None}, "holds no step of 64 prompts"),
    ],
)
def test_impossible_parameters_are_told_before_training(
    changes: dict[str, Any], message: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(AblateError, match=message):
        run(context(inputs, tmp_path / "run", **changes))


def test_bad_prompt_files_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    for table, message in (
        ({"id": ["a"], "chosen_ids": [[1]]}, "prompt_ids"),
        ({"id": ["a"], "prompt_ids": [[]]}, "no token"),
        ({"id": pa.array([], pa.string()), "prompt_ids": pa.array([], pa.list_(pa.int32()))}, "holds no prompt"),
    ):
        pq.write_table(pa.table(table), inputs["prompts"])
        with pytest.raises(DataError, match=message):
            run(context(inputs, tmp_path / f"run {message}"))


@pytest.fixture
def verifiable(inputs: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The inputs of a run without a reward model: token 5 is a noun, the prompts are items of the pocket world."""
    for role in ("policy", "reference"):
        tokenizer(NOUN, WANTED).save_pretrained(inputs[role])
    rows = []
    for name in SKILLS:
        item = draw_item(SKILLS[name], "train", Draw("test", name))
        prompt = [{"role": "user", "content": item.prompt}]
        checks = {key: value for key, value in item.row().items() if key != "prompt"}
        rows.append({"id": prompt_id(tuple(prompt)), "prompt": prompt, "source": "pocket", "checks": checks})
    texts = tmp_path / "prompts.jsonl"
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokens = pa.table({"id": [row["id"] for row in rows], "prompt_ids": [[2, 3]] * len(rows)})
    pq.write_table(tokens, inputs["prompts"])
    return {role: path for role, path in inputs.items() if role != "reward_model"} | {"prompt_texts": texts}


@pytest.mark.parametrize(("algorithm", "changes"), [("ppo", {}), ("rloo", FOUR), ("grpo", FOUR)])
def test_a_formula_scores_and_the_gold_reward_is_logged(
    algorithm: str, changes: dict[str, Any], verifiable: dict[str, Path], tmp_path: Path
) -> None:
    named = {"algorithm": algorithm, "reward": "nouns", "gold": "pocket-gold"}
    made = context(verifiable, tmp_path / "run", steps=2, missing_eos_reward=None, config=named, **changes)
    run(made)
    history = [json.loads(line) for line in (made.output / "history.jsonl").read_text().splitlines()]
    assert [record["labels"] for record in history] == [record["samples"] for record in history] == [16, 32]
    assert all(0 <= record["gold"] <= 2 for record in history)
    samples = [json.loads(line) for line in (made.output / "samples.jsonl").read_text().splitlines()]
    assert [sample["score"] for sample in samples] == [sample["response"].split().count(NOUN) for sample in samples]
    if algorithm == "ppo":  # the first values are 0: nothing of the returns is explained
        assert history[0]["explained_variance"] == pytest.approx(0.0, abs=1e-6)
    else:
        assert "value_loss" not in history[0]


@pytest.mark.bubblewrap
def test_unit_tests_score_programs(verifiable: dict[str, Path], tmp_path: Path) -> None:
    """What a policy of the pocket world writes passes tests that ask for nothing, and none that ask for a function."""
    rows = [json.loads(line) for line in verifiable["prompt_texts"].read_text().splitlines()]
    for place, row in enumerate(rows):
        row["checks"] = {"tests": ["assert total([1, 2]) == 3"] if place % 2 else "assert 1 + 1 == 2"}
    verifiable["prompt_texts"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {"algorithm": "grpo", "reward": "unit-tests"}
    made = context(verifiable, tmp_path / "run", steps=1, missing_eos_reward=None, config=named, **FOUR)
    run(made)
    samples = [json.loads(line) for line in (made.output / "samples.jsonl").read_text().splitlines()]
    assert samples and {sample["score"] for sample in samples} <= {0.0, 1.0}
    history = [json.loads(line) for line in (made.output / "history.jsonl").read_text().splitlines()]
    assert 0.0 < history[0]["score"] < 1.0


def test_a_prompt_that_carries_nothing_is_told_before_training(verifiable: dict[str, Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in verifiable["prompt_texts"].read_text().splitlines()]
    del rows[3]["checks"]
    verifiable["prompt_texts"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=f"prompt {rows[3]['id']} lacks id, skill, split, spec, which the reward"):
        run(context(verifiable, tmp_path / "run", config={"reward": "pocket-correct"}))
