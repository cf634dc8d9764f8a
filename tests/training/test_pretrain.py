import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ablate.context import StageContext
from ablate.errors import DataError, StageError
from ablate.models.loading import load_policy, load_tokenizer
from ablate.models.tokenizers import word_tokenizer
from ablate.training import pretrain
from ablate.training.checkpoints import Cadence, latest_checkpoint
from ablate.training.pretrain import bucketed_batches, encode_corpus, next_token_loss, padded_batch, run

ARCHITECTURE = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "ffn_size": 48,
    "max_positions": 32,
    "tie_embeddings": True,
}
CONFIG = {
    "architecture": ARCHITECTURE,
    "text": "documents",
    "steps": 45,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "warmup_ratio": 0.1,
    "max_length": 16,
    "seed": 0,
}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A tokenizer of ten words and 60 documents that count upwards from a random word."""
    word_tokenizer([f"w{index}" for index in range(10)], "pocket").save_pretrained(tmp_path / "tokenizer")
    random = np.random.default_rng(0)
    lines = []
    for _ in range(60):
        start, count = random.integers(10), random.integers(2, 12)
        lines.append(json.dumps({"text": " ".join(f"w{(start + step) % 10}" for step in range(count))}))
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    return {"tokenizer": tmp_path / "tokenizer", "corpus": tmp_path / "corpus.jsonl"}


def weights(context: StageContext) -> dict[str, torch.Tensor]:
    return load_file(context.output / "model" / "model.safetensors")


def test_training_learns_and_writes_an_ordinary_folder(
    inputs: dict[str, Path], make_context: Callable[..., StageContext]
) -> None:
    context = make_context("run", CONFIG, inputs)
    summary = run(context)
    history = [json.loads(line) for line in (context.output / "history.jsonl").read_text().splitlines()]
    assert [record["step"] for record in history] == [1, 20, 40, 45]
    assert history[-1]["loss"] < 1.5 < 2.2 < history[0]["loss"]  # ln 16 = 2.8 before, 11 ways to start or end
    assert summary["in"] == summary["kept"] == 60 and summary["truncated"] == 0
    assert load_policy(context.output / "model").config.vocab_size == len(load_tokenizer(context.output / "model"))
    names = {path.suffix for path in context.output.rglob("*") if path.is_file()}
    assert not names & {".bin", ".pt", ".pth", ".pkl"}


@pytest.mark.parametrize("stop", [7, 20, 33])
def test_resume_is_exact(
    inputs: dict[str, Path],
    make_context: Callable[..., StageContext],
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    whole = make_context("whole", CONFIG, inputs)
    run(whole)
    killed = make_context("killed", CONFIG, inputs)
    original = pretrain.PretrainingLoop._update

    def dies(loop: Any, rows: Any) -> float:
        if loop.step == stop + 4:
            raise KeyboardInterrupt
        return original(loop, rows)

    monkeypatch.setattr(pretrain.PretrainingLoop, "_update", dies)
    with pytest.raises(KeyboardInterrupt):
        run(killed, cadence=Cadence(steps=stop))
    monkeypatch.undo()
    found = latest_checkpoint([killed.work])
    assert found is not None and found.name == f"checkpoint-{stop}"
    resumed = make_context("resumed", CONFIG, inputs, previous_work=[killed.work])
    run(resumed)
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (whole.output / "history.jsonl").read_bytes() == (resumed.output / "history.jsonl").read_bytes()


def test_seed_changes_the_model(inputs: dict[str, Path], make_context: Callable[..., StageContext]) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        context = make_context(name, {**CONFIG, "steps": 3, "seed": seed}, inputs)
        run(context)
        states.append(weights(context)["model.embed_tokens.weight"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_first_loss_equals_slow_sum(inputs: dict[str, Path], make_context: Callable[..., StageContext]) -> None:
    context = make_context("run", {**CONFIG, "steps": 1}, inputs)
    run(context)
    record = json.loads((context.output / "history.jsonl").read_text())
    tokenizer = load_tokenizer(inputs["tokenizer"])
    documents, _ = encode_corpus(inputs["corpus"], tokenizer, "documents", 16)
    model = pretrain.new_policy(ARCHITECTURE, tokenizer, pretrain.derive_seed(0, "weights")).eval()
    total, count = 0.0, 0
    for row in next(bucketed_batches(documents.lengths, 4, 0)):
        ids = torch.from_numpy(documents[row])  # one document at a time: no padding at all
        logits = model(input_ids=ids[None]).logits[0].detach().double()
        for position in range(1, len(ids)):
            total -= float(logits[position - 1].log_softmax(-1)[ids[position]])
            count += 1
    assert record["loss"] == pytest.approx(total / count, rel=1e-5)


def test_padding_does_not_reach_the_loss(inputs: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(inputs["tokenizer"])
    model = pretrain.new_policy(ARCHITECTURE, tokenizer, 0).eval()
    documents = [np.array([6, 7, 8]), np.array([6, 7, 8, 9, 10, 1])]
    ids, labels = padded_batch(documents)
    alone = [next_token_loss(model, *padded_batch([document])) for document in documents]
    together = next_token_loss(model, ids, labels)
    torch.testing.assert_close(together, (2 * alone[0] + 5 * alone[1]) / 7)
    ids[0, 3:] = 12
    torch.testing.assert_close(next_token_loss(model, ids, labels), together)


def test_epochs_cover_every_document_once_and_start_anywhere() -> None:
    lengths = np.random.default_rng(1).integers(2, 50, 700)
    order = bucketed_batches(lengths, 8, seed=3)
    batches = [next(order) for _ in range(180)]
    first, second = np.concatenate(batches[:87]), np.concatenate(batches[87:174])
    assert len(set(first)) == len(first) == 696 == len(set(second))  # 700 = 87 · 8 + 4
    assert not np.array_equal(first, second)
    for start in (1, 86, 87, 130):
        resumed = bucketed_batches(lengths, 8, seed=3, start=start)
        assert all(np.array_equal(next(resumed), batch) for batch in batches[start : start + 40])
    real = sum(lengths[batch].sum() for batch in batches[:87])
    padded = sum(len(batch) * lengths[batch].max() for batch in batches[:87])
    assert real / padded > 0.9
    few = next(bucketed_batches(np.array([3, 4]), 8, seed=0))
    assert sorted(few) == [0, 1]


def test_corpora_of_both_kinds_and_cuts(tmp_path: Path, inputs: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(inputs["tokenizer"])
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("w0 w1", "w0 w1 w2 w3 w4", "")))
    documents, counts = encode_corpus(path, tokenizer, "documents", 4)
    assert [documents[row].tolist() for row in range(2)] == [[6, 7, 1], [6, 7, 8, 9]]
    assert counts == {"in": 3, "kept": 2, "truncated": 1, "tokens": 7}
    chat = [{"role": "user", "content": "w0"}, {"role": "assistant", "content": "w1"}]
    path.write_text(json.dumps({"messages": chat}) + "\n")
    documents, _ = encode_corpus(path, tokenizer, "conversations", 9)
    assert documents[0].tolist() == [2, 6, 3, 7, 1]
    with pytest.raises(DataError, match=r"rows.jsonl:1: has no 'text'"):
        encode_corpus(path, tokenizer, "documents", 9)


def test_a_loss_that_is_not_finite_stops(inputs: dict[str, Path], make_context: Callable[..., StageContext]) -> None:
    config = {**CONFIG, "learning_rate": 1e30, "max_grad_norm": 1e30}
    with pytest.raises(StageError, match=r"the loss is (nan|inf) at step \d+"):
        run(make_context("run", config, inputs))


def test_bfloat16_multiplies_over_float32_weights(
    inputs: dict[str, Path], make_context: Callable[..., StageContext]
) -> None:
    context = make_context("run", {**CONFIG, "steps": 2, "dtype": "bfloat16"}, inputs)
    run(context)
    assert all(tensor.dtype == torch.float32 for tensor in weights(context).values())
