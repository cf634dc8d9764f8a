"""Next-token training of a small Llama model from scratch: one document a row, never packed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ablate.catalogs.parameters import PretrainParameters
from ablate.context import StageContext
from ablate.errors import DataError, StageError
from ablate.models.chat import encode_chats
from ablate.models.loading import load_tokenizer, new_policy, save_model
from ablate.models.tokenizers import read_rows
from ablate.training.adamw import adamw, load_state, save_state
from ablate.training.batches import batch_order
from ablate.training.checkpoints import Cadence, CheckpointClock, checkpoint_step, latest_checkpoint
from ablate.training.collate import IntArray, Ragged
from ablate.training.devices import autocast, stage_device
from ablate.training.history import History
from ablate.training.schedules import learning_rate_factor
from ablate.training.seeding import derive_seed, seed_everything

CHUNK = 5000
"""Rows tokenised at a time."""
BUCKET_BATCHES = 50
"""Documents of this many batches are sorted by length together."""
LOGGING_STEPS = 20
IGNORED = -100
STATE = "model"


def run(context: StageContext, *, cadence: Cadence | None = None) -> dict[str, Any]:
    """Train on ``corpus`` with the tokenizer of ``tokenizer``; write ``model/`` and ``history.jsonl``.

    Config: ``architecture``, ``text`` (documents: rows with ``text``; conversations: rows with ``messages``,
    rendered by the chat template, every token counts) and the fields of PretrainParameters.
    """
    config = context.config
    own = {name: value for name, value in config.items() if name not in ("architecture", "text")}
    parameters = PretrainParameters.model_validate(own)
    if parameters.max_length > config["architecture"]["max_positions"]:
        raise StageError(
            f"max_length {parameters.max_length} exceeds {config['architecture']['max_positions']} positions"
        )
    tokenizer = load_tokenizer(context.inputs["tokenizer"])
    documents, report = encode_corpus(
        context.inputs["corpus"], tokenizer, config.get("text", "documents"), parameters.max_length
    )
    seed_everything(derive_seed(parameters.seed, "pretrain"))
    model = new_policy(config["architecture"], tokenizer, derive_seed(parameters.seed, "weights"))
    model.to(stage_device(context.resources))  # type: ignore[arg-type]
    loop = PretrainingLoop(model, documents, parameters, History(context.events, total_steps=parameters.steps))
    if checkpoint := latest_checkpoint([context.work, *context.previous_work]):
        loop.load(checkpoint)
    loop.train(context.work, cadence or Cadence(context.resources.checkpoint_seconds))
    loop.history.write(context.output / "history.jsonl")
    save_model(model.cpu(), tokenizer, context.output / "model")
    last = {name: value for name, value in loop.history.last.items() if name != "time"}
    return {**report, "parameters": model.num_parameters(), **last}


class PretrainingLoop:
    """Model, optimiser and step count; ``save`` and ``load`` carry all that later steps depend on."""

    def __init__(
        self, model: PreTrainedModel, documents: Ragged, parameters: PretrainParameters, history: History
    ) -> None:
        self.model = model
        self.documents = documents
        self.parameters = parameters
        self.history = history
        self.step = 0
        # in AdamW's order, which is also that of the sum under the gradient norm
        self.weights = dict(sorted(model.named_parameters(), key=lambda named: named[1].ndim < 2))
        self.optimiser = adamw(self.weights, parameters.learning_rate, parameters.weight_decay, fused=True)

    def train(self, work: Path, cadence: Cadence) -> None:
        """Take the remaining steps; checkpoints go into ``work``. Raises StageError when a loss is not finite."""
        self.model.train()
        steps, clock = self.parameters.steps, CheckpointClock(cadence)
        order = bucketed_batches(self.documents.lengths, self.parameters.batch_size, self.parameters.seed, self.step)
        for rows in islice(order, steps - self.step):
            rate = self._update(rows)
            self.step += 1
            if self.step % LOGGING_STEPS == 0 or self.step in (1, steps):
                self.history.log(self.step, **self.history.means(), learning_rate=rate)
            if clock.due(self.step, steps):
                clock.save(work, self.step, self.save)

    def _update(self, rows: IntArray) -> float:
        parameters = self.parameters
        ids_BT, labels_BT = padded_batch([self.documents[row] for row in rows])
        device = self.model.device
        with autocast(device, parameters.dtype):
            loss = next_token_loss(self.model, ids_BT.to(device), labels_BT.to(device))
        value = loss.item()
        if not np.isfinite(value):
            raise StageError(
                f"the loss is {value} at step {self.step + 1}; training stops",
                hint="lower learning_rate or raise warmup_ratio",
            )
        rate = parameters.learning_rate * learning_rate_factor(
            self.step, steps=parameters.steps, warmup_ratio=parameters.warmup_ratio, shape=parameters.scheduler
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.weights.values(), parameters.max_grad_norm)
        self.optimiser.step()
        self.history.add(float((labels_BT[:, 1:] != IGNORED).sum()), loss=value)
        self.history.add(1.0, grad_norm=norm.item())
        return rate

    def save(self, folder: Path) -> None:
        """Write weights, optimiser state and history; which step it is, the name of the checkpoint says."""
        save_state(folder, STATE, self.weights, self.optimiser)
        self.history.save(folder)

    def load(self, checkpoint: Path) -> None:
        """Go back to where ``save`` was called."""
        load_state(checkpoint, STATE, self.weights, self.optimiser)
        self.history.load(checkpoint)
        self.step = checkpoint_step(checkpoint)


def next_token_loss(model: nn.Module, ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
    """Return the mean cross-entropy of every labelled token given those before it.

    Rows are padded on the right, so causal attention alone keeps padding out and no mask is needed.
    """
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits_BTV.float().flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=IGNORED)


def padded_batch(documents: Sequence[IntArray]) -> tuple[Tensor, Tensor]:
    """Return input ids and labels, both [B, T] int64, padded on the right with 0 and ``IGNORED``."""
    shape = (len(documents), max(map(len, documents)))
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = document
        labels[row, : len(document)] = document
    return torch.from_numpy(ids), torch.from_numpy(labels)


def bucketed_batches(lengths_N: IntArray, batch_size: int, seed: int, start: int = 0) -> Iterator[IntArray]:
    """Yield the rows of batch ``start``, ``start + 1``, …, without end, as (lengths, seed) alone decide.

    Each epoch is ordered by ``batch_order``; what does not fill a batch at its end is left out.
    """
    size = min(batch_size, len(lengths_N))
    epoch, offset = divmod(start, len(lengths_N) // size)
    while True:
        batches = batch_order(lengths_N, size, seed, epoch, window=BUCKET_BATCHES)
        yield from (np.asarray(rows) for rows in batches[offset:] if len(rows) == size)
        epoch, offset = epoch + 1, 0


def encode_corpus(
    path: Path, tokenizer: PreTrainedTokenizerBase, text: str, max_length: int
) -> tuple[Ragged, dict[str, int]]:
    """Return the token ids of every row of a corpus, cut at ``max_length``, and counts (in, kept, truncated).

    A document ends with the end-of-sequence token; rows of fewer than two tokens teach nothing and are left out.
    """
    rows, documents, seen, truncated = read_rows(path), [], 0, 0
    while chunk := list(islice(rows, CHUNK)):
        seen += len(chunk)
        for ids in _encode(chunk, tokenizer, text):
            truncated += len(ids) > max_length
            if len(ids) > 1:
                documents.append(np.asarray(ids[:max_length], dtype=np.int64))
    if not documents:
        raise DataError(f"{path} holds no {text} to train on")
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    counts = {"in": seen, "kept": len(documents), "truncated": truncated, "tokens": int(offsets[-1])}
    return Ragged(np.concatenate(documents), offsets), counts


def _encode(
    chunk: Sequence[tuple[str, Mapping[str, Any]]], tokenizer: PreTrainedTokenizerBase, text: str
) -> list[list[int]]:
    key = {"documents": "text", "conversations": "messages"}[text]
    for place, row in chunk:
        if key not in row:
            raise DataError(f"{place}: has no {key!r}, which a corpus of {text} needs; its keys: {', '.join(row)}")
    values = [row[key] for _, row in chunk]
    if text == "documents":
        backend: Any = tokenizer.backend_tokenizer  # ours are all fast tokenizers
        encodings = backend.encode_batch_fast(values, add_special_tokens=False)
        return [[*encoding.ids, tokenizer.eos_token_id] for encoding in encodings]
    return encode_chats(tokenizer, values)["input_ids"]
