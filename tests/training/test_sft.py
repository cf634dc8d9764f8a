import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from ablate.algorithms.sft import SFTParameters
from ablate.context import Resources, StageContext
from ablate.errors import DataError, StageError
from ablate.models.loading import load_policy, load_tokenizer
from ablate.training.checkpoints import Cadence, latest_checkpoint
from ablate.training.collate import ConversationCollator, ConversationTokens
from ablate.training.sft import ConversationTrainer, NextTokenObjective, make_trainer, run, run_method
from ablate.training.trainer import TrainingRun

PARAMETERS = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 4, "max_length": 40, "warmup_ratio": 0.1}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """46 conversations of random tokens; about half of each is the assistant's."""
    random = np.random.default_rng(0)
    ids = [random.integers(6, 46, random.integers(6, 24)).tolist() for _ in range(46)]
    masks = [[0, 0, *random.integers(0, 2, len(row) - 3).tolist(), 1] for row in ids]
    return write_tokens(tmp_path / "tokens.parquet", ids, masks)


def write_tokens(path: Path, ids: list[list[int]], masks: list[list[int]]) -> Path:
    columns = {
        "id": [str(index) for index in range(len(ids))],
        "input_ids": pa.array(ids, pa.list_(pa.int32())),
        "loss_mask": pa.array(masks, pa.list_(pa.int8())),
    }
    pq.write_table(pa.table(columns), path)
    return path


def config(**changes: Any) -> dict[str, Any]:
    return {"parameters": {**PARAMETERS, **changes}, "seed": 0}


def weights(context: StageContext) -> dict[str, torch.Tensor]:
    return load_file(context.output / "model" / "model.safetensors")


def history(context: StageContext) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (context.output / "history.jsonl").read_text().splitlines()]


def slow_loss(model: torch.nn.Module, rows: list[tuple[list[int], list[int]]]) -> float:
    """Mean of -log p over the masked tokens of all rows, one row at a time without padding, in float64."""
    total, count = 0.0, 0
    for ids, mask in rows:
        logits = model(input_ids=torch.tensor([ids])).logits[0].detach().double()
        for position in range(1, len(ids)):
            if mask[position]:
                total -= float(logits[position - 1].log_softmax(-1)[ids[position]])
                count += 1
    return total / count


@pytest.mark.parametrize("micro_batch", [None, 1])
def test_first_loss_equals_slow_sum_over_masked_tokens(
    policy_folder: Path,
    tokens: Path,
    make_context: Callable[..., StageContext],
    monkeypatch: pytest.MonkeyPatch,
    micro_batch: int | None,
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    original = ConversationTrainer.compute_loss

    def spy(trainer: Any, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **named: Any) -> torch.Tensor:
        seen.append({name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        return original(trainer, model, inputs, *args, **named)

    monkeypatch.setattr(ConversationTrainer, "compute_loss", spy)
    resources = Resources(micro_batch=micro_batch)
    context = make_context("run", config(), {"model": policy_folder, "data": tokens}, resources=resources)
    run(context)
    first = seen[: 4 if micro_batch else 1]
    rows, names = [], ("input_ids", "completion_mask", "attention_mask")
    for batch in first:
        for ids, counted, attention in zip(*(batch[name] for name in names), strict=True):
            length = int(attention.sum())
            rows.append((ids[:length].tolist(), counted[:length].bool().tolist()))
    table = pq.read_table(tokens).to_pylist()
    known = {(tuple(row["input_ids"]), tuple(map(bool, row["loss_mask"]))) for row in table}
    assert len(rows) == 4 and all((tuple(ids), tuple(mask)) in known for ids, mask in rows)
    assert history(context)[0]["loss"] == pytest.approx(slow_loss(load_policy(policy_folder).eval(), rows), rel=1e-5)


def test_micro_batches_leave_the_result(
    policy_folder: Path, tokens: Path, make_context: Callable[..., StageContext]
) -> None:
    """Effective batches of 4 at once or one by one: equal up to rounding, also where the last batch has 2 rows."""
    contexts = []
    for size in (4, 1):
        inputs, resources = {"model": policy_folder, "data": tokens}, Resources(micro_batch=size)
        contexts.append(make_context(f"micro-{size}", config(), inputs, resources=resources))
        run(contexts[-1])
    first, second = map(weights, contexts)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=2e-5)
    for one, other in zip(*map(history, contexts), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_micro_batch_without_labels_changes_nothing(
    policy_folder: Path, tmp_path: Path, make_context: Callable[..., StageContext]
) -> None:
    """Also the first token of a sequence, which nothing predicts, counts for nothing, whatever its mask says."""
    ids, masks = [[6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16, 17]], [[1, 0, 1, 1], [1, 0, 0], [0, 0, 0, 1, 0]]
    data = write_tokens(tmp_path / "t.parquet", ids, masks)
    found = []
    for size in (3, 1):
        parameters = config(epochs=1, batch_size=3, scheduler="constant", warmup_ratio=0.0)
        inputs, resources = {"model": policy_folder, "data": data}, Resources(micro_batch=size)
        context = make_context(f"micro-{size}", parameters, inputs, resources=resources)
        run(context)
        found.append(history(context)[0])
    assert found[0]["loss"] == pytest.approx(slow_loss(load_policy(policy_folder), list(zip(ids, masks, strict=True))))
    assert found[0] == pytest.approx(found[1])


@pytest.mark.filterwarnings("ignore")
def test_loss_and_gradients_equal_those_of_trl(policy_folder: Path, tokens: Path, tmp_path: Path) -> None:
    """Of TRL's own compute_loss on a batch that its own collator made, as one of two parts of a batch."""
    conversations = ConversationTokens.read(tokens)
    ours = load_policy(policy_folder)
    batch = ConversationCollator(conversations, pad_id=0)(range(12))
    loss_N, values = NextTokenObjective()(ours, batch)
    (loss_N.sum() / 300).backward()

    rows = []
    for ids, counted in zip(conversations.tokens, conversations.counted, strict=True):
        rows.append({"input_ids": ids.tolist(), "labels": np.where(counted == 1, ids, -100).tolist()})
    theirs = SFTTrainer(
        model=load_policy(policy_folder),
        args=SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        processing_class=load_tokenizer(policy_folder),
        train_dataset=Dataset.from_list(rows),
    )
    theirs.model.train()
    expected = theirs.compute_loss(theirs.model, theirs.data_collator(rows[:12]), num_items_in_batch=torch.tensor(300))
    expected.backward()
    assert NextTokenObjective().units(batch) == len(loss_N) < 300
    assert loss_N.sum().item() / 300 == pytest.approx(expected.item(), abs=1e-5)
    assert values["accuracy"].mean().item() == pytest.approx(theirs._metrics["train"]["mean_token_accuracy"][-1])
    for one, other in zip(ours.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_one_step_by_hand(policy_folder: Path, tmp_path: Path, make_context: Callable[..., StageContext]) -> None:
    """One optimiser step equals torch's AdamW on the slow loss; only masked tokens carry gradient."""
    rows = [([6, 7, 8, 9, 1], [0, 0, 1, 1, 1]), ([10, 11, 12], [0, 1, 0])]
    data = write_tokens(tmp_path / "t.parquet", *map(list, zip(*rows, strict=True)))
    parameters = config(epochs=1, batch_size=2, warmup_ratio=0.0, scheduler="constant", max_grad_norm=0.1)
    context = make_context("run", parameters, {"model": policy_folder, "data": data})
    run(context)
    model = load_policy(policy_folder)
    losses = []
    for ids, mask in rows:
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-logprobs[t - 1, ids[t]] for t in range(1, len(ids)) if mask[t]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    (sum(losses) / len(losses)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    expected, found = model.state_dict(), weights(context)
    for name, tensor in found.items():
        # Adam's first step is the sign of the gradient: where it is 0 up to rounding, the sign is noise.
        close = torch.isclose(tensor, expected[name], rtol=0, atol=1e-5)
        assert close.float().mean() > 0.99, name


@pytest.mark.parametrize("stop", [3, 12, 15])
def test_resume_is_exact(
    policy_folder: Path,
    tokens: Path,
    make_context: Callable[..., StageContext],
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    """24 steps, 12 an epoch: killed in the first epoch, at its end, in the second."""
    inputs = {"model": policy_folder, "data": tokens}
    named: dict[str, Any] = {"resources": Resources(micro_batch=2)}
    whole = make_context("whole", config(), inputs, **named)
    run(whole)
    killed = make_context("killed", config(), inputs, **named)
    original = ConversationTrainer._clip_grad_norm

    def dies(trainer: Any, model: Any) -> torch.Tensor:
        if trainer.state.global_step == stop + 2:
            raise KeyboardInterrupt
        return original(trainer, model)

    monkeypatch.setattr(ConversationTrainer, "_clip_grad_norm", dies)
    with pytest.raises(KeyboardInterrupt):
        run(killed, cadence=Cadence(steps=stop))
    monkeypatch.setattr(ConversationTrainer, "_clip_grad_norm", original)
    found = latest_checkpoint([killed.work])
    assert found is not None and found.name == f"checkpoint-{stop}"
    resumed = make_context("resumed", config(), inputs, previous_work=[killed.work], **named)
    run(resumed)
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (whole.output / "history.jsonl").read_bytes() == (resumed.output / "history.jsonl").read_bytes()


def test_output_and_history(policy_folder: Path, tokens: Path, make_context: Callable[..., StageContext]) -> None:
    context = make_context("run", config(), {"model": policy_folder, "data": tokens})
    summary = run(context)
    records = history(context)
    assert [record["step"] for record in records] == [1, 10, 20, 24] and summary["steps"] == 24
    assert records[-1]["loss"] < records[0]["loss"]
    assert {"accuracy", "grad_norm", "learning_rate", "epoch"} <= set(records[-1])
    files = [path for path in context.output.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pth", ".md"}]
    before = json.loads((policy_folder / "config.json").read_text())
    assert json.loads((context.output / "model" / "config.json").read_text()) == before
    assert load_tokenizer(context.output / "model").chat_template == load_tokenizer(policy_folder).chat_template


@pytest.mark.parametrize("name", ["supervised", "rejection_sampling"])
def test_as_a_method_it_is_the_same_training(
    name: str, policy_folder: Path, tokens: Path, make_context: Callable[..., StageContext]
) -> None:
    plain = make_context("plain", config(epochs=1), {"model": policy_folder, "data": tokens})
    run(plain)
    method = make_context(name, {**config(epochs=1), "algorithm": name}, {"policy": policy_folder, "data": tokens})
    run_method(method)
    found, expected = weights(method), weights(plain)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_seed_changes_the_order_alone(
    policy_folder: Path, tokens: Path, make_context: Callable[..., StageContext]
) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        context = make_context(name, {**config(epochs=1), "seed": seed}, {"model": policy_folder, "data": tokens})
        run(context)
        found.append(weights(context)["model.norm.weight"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_dropout_is_off(policy_folder: Path, tokens: Path, make_context: Callable[..., StageContext]) -> None:
    context = make_context("run", config(), {"model": policy_folder, "data": tokens})
    model = load_policy(policy_folder)
    conversations = ConversationTokens.read(tokens)
    parameters = SFTParameters.model_validate(PARAMETERS)
    plan = TrainingRun.of(context, Cadence())
    trainer = make_trainer(model, load_tokenizer(policy_folder), conversations, parameters, plan)
    batch = next(iter(trainer.get_train_dataloader()))
    model.train()
    losses = {trainer.compute_loss(model, dict(batch)).item() for _ in range(3)}
    assert len(losses) == 1
    assert not trainer.args.gradient_checkpointing and not trainer.args.bf16 and trainer.args.use_cpu


def test_bfloat16_runs_over_float32_weights(
    policy_folder: Path, tokens: Path, make_context: Callable[..., StageContext]
) -> None:
    losses = []
    for dtype in ("float32", "bfloat16"):
        context = make_context(dtype, config(epochs=1, dtype=dtype), {"model": policy_folder, "data": tokens})
        run(context)
        losses.append(history(context)[0]["loss"])
        assert all(tensor.dtype == torch.float32 for tensor in weights(context).values())
    assert losses[0] == pytest.approx(losses[1], rel=2e-2) and losses[0] != losses[1]


def test_a_loss_that_is_not_finite_stops(
    policy_folder: Path, tokens: Path, make_context: Callable[..., StageContext]
) -> None:
    context = make_context(
        "run", config(learning_rate=1e30, max_grad_norm=1e30), {"model": policy_folder, "data": tokens}
    )
    with pytest.raises(StageError, match=r"is (nan|inf) at step \d+; training stops. Rows of the batch: \d+, \d+"):
        run(context)


def test_unfit_tokens_are_refused(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "t.parquet", [[6, 7, 8]], [[0, 1, 1]])
    conversations = ConversationTokens.read(path)
    assert conversations.tokens[0].tolist() == [6, 7, 8] and conversations.counted[0].tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="differ in length"):
        ConversationTokens.read(write_tokens(path, [[6, 7, 8]], [[1, 1]]))
    with pytest.raises(DataError, match="holds no conversation"):
        ConversationTokens.read(write_tokens(path, [], []))
    pq.write_table(pa.table({"id": ["a"], "prompt_ids": [[1]]}), path)
    with pytest.raises(DataError, match="not conversations"):
        ConversationTokens.read(path)


@pytest.mark.filterwarnings("ignore")
def test_the_stage_before_it_has_applied_max_length(
    policy_folder: Path, tokens: Path, make_context: Callable[..., StageContext]
) -> None:
    """A plan leaves max_length out of this stage, so that the sequences may be longer than the default."""
    parameters = {name: value for name, value in PARAMETERS.items() if name != "max_length"}
    ids = [[6, *[7] * 8200]]
    long = write_tokens(tokens.parent / "long.parquet", ids, [[0] * 8200 + [1]])
    conversations = ConversationTokens.read(long)
    assert conversations.lengths_N.max() > SFTParameters().max_length
    context = make_context("run", {"parameters": parameters, "seed": 0}, {"model": policy_folder, "data": tokens})
    assert run(context)["examples"] == 46
