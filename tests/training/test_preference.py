"""The offline trainer with DPO: against TRL, across micro-batches, resumed, and stopped when it must stop."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid

from ablate.algorithms.registry import METHODS
from ablate.context import Resources
from ablate.errors import DataError, StageError
from ablate.models.loading import load_policy, load_tokenizer, save_model
from ablate.models.tokenizers import word_tokenizer
from ablate.training import logprobs
from ablate.training.batches import batch_order
from ablate.training.checkpoints import Cadence, checkpoint_step, complete_checkpoints, latest_checkpoint
from ablate.training.collate import PairCollator, PairTokens
from ablate.training.history import History
from ablate.training.offline import OfflineTrainer
from ablate.training.preference import PreferenceObjective, make_objective, read_reference, run, train_preference
from ablate.training.trainer import TrainingRun

PARAMETERS = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "beta": 0.2}


def dpo_config(**changes: Any) -> dict[str, Any]:
    return {"algorithm": "dpo", "seed": 3, "parameters": {**PARAMETERS, **changes}}


@pytest.fixture
def inputs(policy_folder, write_pairs, make_context) -> dict[str, Path]:
    """Inputs of a train stage: 29 pairs, so that the last of four batches of 8 has 5."""
    data = write_pairs(29)
    context = make_context("reference", {"dtype": "float32"}, {"model": policy_folder, "data": data})
    logprobs.run(context)
    return {"policy": policy_folder, "data": data, "reference_logprobs": context.output / "logprobs.parquet"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def make_trainer(
    inputs: dict[str, Path], work: Path, *, algorithm="dpo", model=None, cadence=None, micro_batch=None, **changes: Any
):
    parameters = METHODS[algorithm].parameters.model_validate({**PARAMETERS, **changes})
    pairs = PairTokens.read(inputs["data"])
    columns = read_reference(inputs["reference_logprobs"], pairs)
    return OfflineTrainer(
        model or load_policy(inputs["policy"]),
        make_objective(algorithm, parameters),
        pairs,
        PairCollator(pairs, pad_id=0, columns=columns),
        parameters,
        TrainingRun(seed=3, work=work, history=History(), cadence=cadence or Cadence(), micro_batch=micro_batch),
    )


def perturbed(folder: Path, scale: float = 0.05):
    """Return the policy of ``folder`` moved away from it, so that losses differ from ln 2."""
    model = load_policy(folder)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


def test_stage_writes_a_policy_that_prefers_the_chosen_completions(inputs, make_context):
    context = make_context("dpo", dpo_config(epochs=15), inputs)
    summary = run(context)
    assert summary["rewards/accuracy"] == 1.0
    assert summary["step"] == 60
    history = [json.loads(line) for line in (context.output / "history.jsonl").read_text().splitlines()]
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert history[-1]["loss"] < 0.5
    assert [record["step"] for record in history] == [1, 10, 20, 30, 40, 50, 60]
    assert set(history[0]) == {
        *("step", "epoch", "loss", "grad_norm", "learning_rate", "logps/chosen", "logps/rejected"),
        *("rewards/chosen", "rewards/rejected", "rewards/accuracy", "rewards/margin"),
    }
    saved = sorted(path.suffix for path in context.output.rglob("*") if path.is_file())
    assert not {".bin", ".pt", ".pth", ".pkl"} & set(saved)
    assert load_tokenizer(context.output / "model").chat_template == load_tokenizer(inputs["policy"]).chat_template
    assert load_policy(context.output / "model").config.use_cache == load_policy(inputs["policy"]).config.use_cache


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("algorithm", "changes", "loss_type", "start"),
    [
        ("dpo", {}, "sigmoid", math.log(2)),
        ("ipo_avg", {}, "ipo", 1 / (2 * PARAMETERS["beta"]) ** 2),
        ("hinge", {}, "hinge", 1.0),
        ("robust_dpo", {"label_smoothing": 0.1}, "robust", math.log(2)),
        ("sigmoid_norm", {}, "sigmoid_norm", math.log(2)),
        ("exo_pair", {"label_smoothing": 0.01}, "exo_pair", math.log(0.5 / 0.99) / 2 + math.log(0.5 / 0.01) / 2),
        ("nca_pair", {}, "nca_pair", 2 * math.log(2)),
        ("bco_pair", {}, "bco_pair", 2 * math.log(2)),
        ("sppo_hard", {}, "sppo_hard", 2 / (2 * PARAMETERS["beta"]) ** 2),
        ("apo_zero", {}, "apo_zero", 1.0),
        ("apo_down", {}, "apo_down", 1.0),
        ("discopop", {}, "discopop", (math.log(2) + 1) / 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_loss_and_gradients_equal_those_of_trl(inputs, tmp_path, algorithm, changes, loss_type, start):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    ours = make_trainer(
        inputs, tmp_path / "ours", algorithm=algorithm, model=perturbed(inputs["policy"], 0.3), **changes
    )
    rows = list(range(12))
    batch = ours.data_collator(rows)
    loss_B, _ = ours.objective(ours.model, batch)
    loss_B.mean().backward()

    turns = {"prompt": [{"role": "user", "content": "w1"}], "chosen": [{"role": "assistant", "content": "w2"}]}
    turns["rejected"] = [{"role": "assistant", "content": "w3"}]
    theirs = DPOTrainer(
        model=perturbed(inputs["policy"], 0.3),
        ref_model=load_policy(inputs["policy"]),
        args=DPOConfig(
            output_dir=str(tmp_path / "trl"),
            beta=PARAMETERS["beta"],
            loss_type=loss_type,
            label_smoothing=changes.get("label_smoothing", 0.0),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
        ),
        processing_class=load_tokenizer(inputs["policy"]),
        train_dataset=Dataset.from_list([turns] * 4),
    )
    tokens = pq.read_table(inputs["data"]).to_pylist()
    expected = theirs.compute_loss(theirs.model, DataCollatorForPreference(pad_token_id=0)([tokens[i] for i in rows]))
    expected.backward()
    assert abs(expected.item() - start) > 0.01
    assert loss_B.mean().item() == pytest.approx(expected.item(), abs=1e-5, rel=1e-6)
    for one, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def slow_epoch_gradient(inputs: dict[str, Path], rows: list[int]) -> list[torch.Tensor]:
    """Gradient of the mean DPO loss over ``rows``, one unpadded sequence at a time, in float64."""
    model = perturbed(inputs["policy"]).double()
    pairs = PairTokens.read(inputs["data"])
    reference = read_reference(inputs["reference_logprobs"], pairs)
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        ratios = []
        for side in ("chosen", "rejected"):
            prompt, completion = pairs.prompts[row], getattr(pairs, side)[row]
            ids = torch.tensor([[*prompt, *completion]])
            logp = torch.log_softmax(model(input_ids=ids).logits[0], -1)
            sums = sum(logp[len(prompt) - 1 + t, token] for t, token in enumerate(completion.tolist()))
            ratios.append(sums - reference[f"reference_{side}"][row].double())
        total = total - logsigmoid(PARAMETERS["beta"] * (ratios[0] - ratios[1])) / len(rows)
    total.backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_every_micro_batch_gives_the_gradient_of_the_whole_batch(inputs, tmp_path, micro_batch, monkeypatch):
    """Of the first full batch and of the last one, which holds 5 pairs, against a loop over single sequences."""
    monkeypatch.setattr(PreferenceObjective, "check_start", lambda *arguments: None)  # the policy is perturbed
    # The learning rate is far below float32's spacing: all four batches see the same weights.
    trainer = make_trainer(
        inputs,
        tmp_path / "work",
        model=perturbed(inputs["policy"]),
        micro_batch=micro_batch,
        epochs=1,
        learning_rate=1e-30,
        max_grad_norm=1e9,
    )
    gradients: list[list[torch.Tensor]] = []
    clip = trainer._clip_grad_norm

    def keep(model):
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        return clip(model)

    monkeypatch.setattr(trainer, "_clip_grad_norm", keep)
    trainer.fit()
    batches = batch_order(PairTokens.read(inputs["data"]).lengths_N, 8, seed=3, epoch=0)
    assert len(gradients) == 4 and len(batches[3]) == 5
    for index, rows in ((0, batches[0]), (3, batches[3])):
        for found, expected in zip(gradients[index], slow_epoch_gradient(inputs, rows), strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-6)


def test_accumulating_8_times_1_equals_1_times_8(inputs, tmp_path):
    records, models = [], []
    for micro_batch in (1, 8):
        trainer = make_trainer(inputs, tmp_path / str(micro_batch), micro_batch=micro_batch, learning_rate=1e-4)
        trainer.fit()
        records.append(trainer.run.history.records)
        models.append(trainer.model)
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)  # eight steps of up to 1e-4
    for one, other in zip(*records, strict=True):
        assert one["step"] == other["step"]
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("stop", [3, 4, 6])
def test_resuming_after_an_interruption_gives_the_same_weights_bitwise(inputs, make_context, monkeypatch, stop):
    """29 pairs in batches of 8 are 4 steps an epoch: stops within, at the end of, and after the first epoch."""
    whole = make_context("whole", dpo_config(), inputs)
    train_preference(whole, Cadence())

    def interrupt_after(steps: int):
        save = OfflineTrainer._save_checkpoint

        def inner(self, model, trial):
            save(self, model, trial)
            if self.state.global_step == steps:
                raise KeyboardInterrupt

        return inner

    first = make_context("first", dpo_config(), inputs)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OfflineTrainer, "_save_checkpoint", interrupt_after(stop))
        train_preference(first, Cadence(steps=stop))
    assert [path.name for path in complete_checkpoints(first.work)] == [f"checkpoint-{stop}"]
    again = make_context("again", dpo_config(), inputs, previous_work=[first.work])
    torch.manual_seed(12345)  # the generators' state when a stage starts must not matter
    train_preference(again, Cadence())
    assert_same_weights(whole.output, again.output)
    assert (whole.output / "history.jsonl").read_text() == (again.output / "history.jsonl").read_text()


CHILD = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ablate.context import EventLog, StageContext
from ablate.training.preference import train_preference
from ablate.training.checkpoints import Cadence
facts = json.loads(sys.argv[1])
paths = {name: Path(value) for name, value in facts["paths"].items()}
context = StageContext(
    kind="train", config=facts["config"], inputs={name: Path(value) for name, value in facts["inputs"].items()},
    output=paths["output"], work=paths["work"], events=EventLog(paths["events"]),
)
train_preference(context, Cadence(steps=2))
"""


def test_a_killed_process_started_again_ends_with_the_same_weights_bitwise(inputs, make_context, tmp_path):
    config = dpo_config(epochs=10)
    whole = make_context("whole", config, inputs)
    train_preference(whole, Cadence())
    killed = make_context("killed", config, inputs)
    paths = {"output": killed.output, "work": killed.work, "events": tmp_path / "events.jsonl"}
    facts = json.dumps({"config": config, "inputs": inputs, "paths": paths}, default=str)
    child = subprocess.Popen([sys.executable, "-c", CHILD, facts], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while child.poll() is None and time.monotonic() < deadline:
            found = latest_checkpoint([killed.work])
            if found is not None and checkpoint_step(found) >= 10:
                break
            time.sleep(0.005)
    finally:
        child.kill()
        ended = child.wait()
    assert ended == -signal.SIGKILL, "the child ended before it was killed"
    assert complete_checkpoints(killed.work)
    assert not list(killed.output.iterdir())
    train_preference(killed, Cadence())
    assert_same_weights(whole.output, killed.output)
    assert (whole.output / "history.jsonl").read_text() == (killed.output / "history.jsonl").read_text()


def test_the_checkpoint_cadence_changes_nothing_in_the_result(inputs, make_context):
    often, never = (make_context(name, dpo_config(), inputs) for name in ("often", "never"))
    train_preference(often, Cadence(seconds=0.0))
    train_preference(never, Cadence())
    assert complete_checkpoints(often.work) and not complete_checkpoints(never.work)
    assert_same_weights(often.output, never.output)


def test_a_run_of_one_step_learns_whatever_the_warm_up(inputs, make_context):
    context = make_context("one", dpo_config(epochs=1, batch_size=32, warmup_ratio=0.1), inputs)
    assert run(context)["step"] == 1
    before, after = load_policy(inputs["policy"]).state_dict(), weights(context.output)
    assert not torch.equal(after["model.norm.weight"], before["model.norm.weight"])


def test_seed_changes_the_weights_and_smoothing_the_loss(inputs, make_context):
    contexts = [
        make_context("plain", dpo_config(), inputs),
        make_context("seed", dpo_config() | {"seed": 4}, inputs),
        make_context("smooth", dpo_config(label_smoothing=0.2), inputs),
    ]
    for context in contexts:
        run(context)
    embeddings = [weights(context.output)["model.embed_tokens.weight"] for context in contexts]
    assert not torch.equal(embeddings[0], embeddings[1])
    assert not torch.equal(embeddings[0], embeddings[2])


def test_missing_reference_log_probabilities_are_named(inputs, make_context, tmp_path):
    table = pq.read_table(inputs["reference_logprobs"])
    pq.write_table(table.slice(2), tmp_path / "partial.parquet")
    context = make_context("dpo", dpo_config(), inputs | {"reference_logprobs": tmp_path / "partial.parquet"})
    with pytest.raises(StageError, match=r"2 of 29 pairs: pair-0, pair-1"):
        run(context)


def test_reference_rows_are_joined_by_id_not_by_position(inputs, make_context, tmp_path):
    table = pq.read_table(inputs["reference_logprobs"])
    pq.write_table(table.take(list(range(table.num_rows))[::-1]), tmp_path / "reversed.parquet")
    contexts = [
        make_context("plain", dpo_config(), inputs),
        make_context("reversed", dpo_config(), inputs | {"reference_logprobs": tmp_path / "reversed.parquet"}),
    ]
    for context in contexts:
        run(context)
    assert_same_weights(contexts[0].output, contexts[1].output)


def test_a_reference_of_other_tokens_is_refused(inputs, make_context, write_pairs):
    other = write_pairs(29, seed=8, name="other.parquet")
    with pytest.raises(StageError, match="tokens in the reference pass"):
        run(make_context("dpo", dpo_config(), inputs | {"data": other}))


def test_a_reference_that_is_not_the_policy_stops_before_the_first_step(inputs, make_context, tmp_path):
    folder = tmp_path / "other-policy"
    perturbed(inputs["policy"]).save_pretrained(folder)
    load_tokenizer(inputs["policy"]).save_pretrained(folder)
    context = make_context("dpo", dpo_config(), inputs | {"policy": folder})
    with pytest.raises(StageError, match=r"gives 0\.693147"):
        run(context)


def reference_pass(make_context, name: str, model: Path, inputs: dict[str, Path], **more: Path) -> Path:
    """The log-probabilities that the stage writes for ``model`` as the reference."""
    context = make_context(name, {"dtype": "float32"}, {"model": model, "data": inputs["data"], **more})
    logprobs.run(context)
    return context.output / "logprobs.parquet"


@pytest.fixture
def other_folder(inputs, tmp_path) -> Path:
    """A model that is not the policy, with its tokenizer."""
    save_model(perturbed(inputs["policy"], 0.3), load_tokenizer(inputs["policy"]), tmp_path / "other")
    return tmp_path / "other"


def test_another_model_as_reference_gives_the_loss_by_hand_and_no_check_of_the_start(
    inputs, make_context, other_folder
):
    passed = reference_pass(make_context, "pass", other_folder, inputs, tokenizer=inputs["policy"])
    roles = inputs | {"reference_logprobs": passed, "reference": other_folder}
    context = make_context("dpo", dpo_config(epochs=1, batch_size=29), roles)
    run(context)
    first = json.loads((context.output / "history.jsonl").read_text().splitlines()[0])
    own = {row["id"]: row for row in pq.read_table(inputs["reference_logprobs"]).to_pylist()}
    others = {row["id"]: row for row in pq.read_table(passed).to_pylist()}
    losses = []
    for name, policy in own.items():
        ratio = [policy[f"{side}_logp"] - others[name][f"{side}_logp"] for side in ("chosen", "rejected")]
        losses.append(math.log1p(math.exp(-PARAMETERS["beta"] * (ratio[0] - ratio[1]))))
    assert first["loss"] == pytest.approx(sum(losses) / 29, abs=1e-5)
    assert abs(first["loss"] - math.log(2)) > 0.05


def test_the_pass_of_another_reference_still_has_to_be_over_the_same_tokens(
    inputs, make_context, other_folder, write_pairs
):
    passed = reference_pass(make_context, "pass", other_folder, inputs)
    roles = inputs | {"reference_logprobs": passed, "reference": other_folder}
    with pytest.raises(StageError, match="tokens in the reference pass"):
        run(make_context("other", dpo_config(), roles | {"data": write_pairs(29, seed=8, name="other.parquet")}))
    with pytest.raises(StageError, match="1 of 30 pairs: pair-29"):
        run(make_context("more", dpo_config(), roles | {"data": write_pairs(30, name="more.parquet")}))


def test_a_reference_with_another_tokenizer_is_refused_by_its_pass(inputs, make_context, tmp_path):
    tokenizer = word_tokenizer([*(f"w{index}" for index in range(39)), "another"], "tulu")
    save_model(load_policy(inputs["policy"]), tokenizer, tmp_path / "stranger")
    with pytest.raises(DataError, match=r"differ: vocabulary\n.*one tokenizer"):
        reference_pass(make_context, "pass", tmp_path / "stranger", inputs, tokenizer=inputs["policy"])


def test_a_reference_whose_context_is_too_short_is_refused_by_its_pass(inputs, make_context, tmp_path):
    model = load_policy(inputs["policy"])
    model.config.max_position_embeddings = 16
    save_model(model, load_tokenizer(inputs["policy"]), tmp_path / "short")
    with pytest.raises(DataError, match=r"has \d+ tokens; the model has 16 positions\n.*max_length to at most 16"):
        reference_pass(make_context, "pass", tmp_path / "short", inputs)


def test_a_loss_that_is_not_finite_stops_with_step_and_pairs(inputs, tmp_path, monkeypatch):
    trainer = make_trainer(inputs, tmp_path / "work")
    plain = trainer.objective.loss

    def broken(pairs):
        loss = plain(pairs)
        return loss * math.nan if trainer.state.global_step == 2 else loss

    trainer.objective = replace(trainer.objective, loss=broken)
    rows = [row for batch in trainer.batches for row in batch][16:24]
    with pytest.raises(StageError, match=rf"loss is nan at step 3.*pair-{rows[0]}, pair-{rows[1]}.*saved in .*t-2\n"):
        trainer.fit()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_a_stopped_run_goes_on_from_its_saved_state_as_if_it_had_not_stopped(inputs, make_context, monkeypatch):
    """Stopped in the second of two micro-batches: what the first one has added to the curve is forgotten."""
    single = {"resources": Resources(micro_batch=4)}
    whole = make_context("whole", dpo_config(), inputs, **single)
    train_preference(whole, Cadence())
    stopped = make_context("stopped", dpo_config(), inputs, **single)
    add, calls = History.add, []

    def failing(self, weight, **values):
        calls.append(values)
        if sum("loss" in seen for seen in calls) == 6:  # two passes a step: the second one of step 3
            raise StageError("the loss is nan")
        add(self, weight, **values)

    with monkeypatch.context() as patch, pytest.raises(StageError, match="the state before it is saved in "):
        patch.setattr(History, "add", failing)
        train_preference(stopped, Cadence())
    assert [path.name for path in complete_checkpoints(stopped.work)] == ["checkpoint-2"]
    again = make_context("again", dpo_config(), inputs, previous_work=[stopped.work], **single)
    train_preference(again, Cadence())
    assert_same_weights(whole.output, again.output)
    assert (whole.output / "history.jsonl").read_text() == (again.output / "history.jsonl").read_text()


def test_a_sequence_beyond_the_model_s_positions_is_refused_before_it_is_trained_on(inputs, make_context, tmp_path):
    model = load_policy(inputs["policy"])
    model.config.max_position_embeddings = 16
    save_model(model, load_tokenizer(inputs["policy"]), tmp_path / "short")
    config = {"algorithm": "simpo", "seed": 3, "parameters": {"epochs": 1, "batch_size": 8}}
    with pytest.raises(DataError, match=r"has \d+ tokens; the model has 16 positions\n.*max_length to at most 16"):
        run(make_context("simpo", config, {"policy": tmp_path / "short", "data": inputs["data"]}))


def test_gradients_that_are_not_finite_stop_too(inputs, tmp_path):
    trainer = make_trainer(inputs, tmp_path / "work")
    trainer.model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(StageError, match=r"gradient norm is (nan|inf) at step 1"):
        trainer.fit()


def test_bfloat16_multiplies_in_bfloat16_over_float32_weights(inputs, make_context):
    reference = make_context(
        "bf16-reference", {"dtype": "bfloat16"}, {"model": inputs["policy"], "data": inputs["data"]}
    )
    logprobs.run(reference)
    plain = pq.read_table(inputs["reference_logprobs"]).column("chosen_logp").to_numpy()
    rounded = pq.read_table(reference.output / "logprobs.parquet").column("chosen_logp").to_numpy()
    assert 1e-6 < abs(plain - rounded).max() < 1.0
    context = make_context(
        "bf16",
        dpo_config(dtype="bfloat16"),
        inputs | {"reference_logprobs": reference.output / "logprobs.parquet"},
    )
    run(context)
    assert {tensor.dtype for tensor in weights(context.output).values()} == {torch.float32}
