"""What one on-policy step learns from: sampled episodes, their scores, log-probabilities and advantages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ablate.context import Resources
from ablate.errors import StageError
from ablate.models.chat import Messages
from ablate.training.advantages import masked_mean
from ablate.training.devices import autocast, stage_device
from ablate.training.distributed import share, summed
from ablate.training.logprobs import length_batches
from ablate.training.placement import at_work
from ablate.training.rollouts import (
    Episode,
    EpisodeBatch,
    collate,
    response_entropy,
    response_logits,
    response_logprobs,
)
from ablate.training.score_head import response_values, sequence_scores
from ablate.training.seeding import derive_seed

Score = Callable[[Sequence[Episode]], Tensor]
"""Scores episodes: float32 [N], one a response, higher is better."""


@dataclass(frozen=True)
class PassLimits:
    """How large one forward pass may be: bounds memory, never changes a result beyond rounding."""

    device: torch.device
    tokens: int
    cache_bytes: int
    rows: int | None = None
    """Most rows of one pass, where the resources name it."""

    @classmethod
    def of(cls, resources: Resources, vocabulary: int) -> PassLimits:
        """Return the limits for a stage's resources; a large vocabulary makes the logits the largest array."""
        device = stage_device(resources)
        tokens, logits, cache = (4096, 2**26, 2**30) if device.type == "cpu" else (16384, 2**29, 2**34)
        return cls(device, max(1, min(tokens, logits // vocabulary)), cache, resources.micro_batch)

    def chunks(self, episodes: Sequence[Episode], rows: Sequence[int]) -> list[list[int]]:
        """Split this process's share of ``rows`` into micro-batches of at most ``tokens`` tokens, longest first.

        A micro-batch has one row at least.
        """
        rows = share(rows)
        lengths = np.array([episodes[row].length for row in rows])
        chunks = [[rows[i] for i in chunk] for chunk in length_batches(lengths, self.tokens)]
        most = self.rows or len(rows)
        return [chunk[start : start + most] for chunk in chunks for start in range(0, len(chunk), most)]

    def sampling_rows(self, model: nn.Module, tokens: int) -> int:
        """Return how many rows of ``tokens`` tokens have room in the key-value cache, 512 at most.

        Where the rows of a pass are named, because memory is short, it is eight times as many: no gradients are kept.
        """
        heads = _size(model, "num_attention_heads")
        width = getattr(model.config, "head_dim", None) or _size(model, "hidden_size") // heads
        stored = _size(model, "num_key_value_heads", "num_attention_heads")
        size = 4 * 2 * _size(model, "num_hidden_layers") * stored * width * tokens
        most = 512 if self.rows is None else 8 * self.rows
        return int(min(most, max(1, self.cache_bytes // size)))


def _size(model: nn.Module, *names: str) -> int:
    """Return the first of the config's sizes that is there, 1 where none is."""
    return next((int(size) for name in names if (size := getattr(model.config, name, None))), 1)


def named_prompts(episodes: Sequence[Episode], rows: Sequence[int]) -> str:
    """Name the prompts of ``rows`` for a message, eight at most."""
    names = list(dict.fromkeys(episodes[row].prompt_id for row in rows))
    return ", ".join(names[:8]) + (f", … ({len(names)} in all)" if len(names) > 8 else "")


def finite(scores_N: Tensor, what: str, episodes: Sequence[Episode], step: int) -> Tensor:
    """Return the scores of episodes; raises StageError with the prompts of those that are not finite."""
    rows = [row for row, is_finite in enumerate(scores_N.isfinite().tolist()) if not is_finite]
    if rows:
        raise StageError(
            f"step {step}: the {what} of {len(rows)} responses is not finite; prompts {named_prompts(episodes, rows)}",
            hint="look at what scores them: it gave no number for these responses",
        )
    return scores_N


@dataclass(frozen=True)
class Rollout:
    """The episodes of one step and what the models said of them while the policy was the one that sampled them.

    The responses to one prompt are ``group`` episodes one after another. Tensors are on the CPU, float32, [N, R] with
    padding on the right. ``scores_N`` are the reward's own; ``outcomes_N`` those after ``missing_eos_reward`` has
    replaced the score of every response without EOS.
    """

    episodes: list[Episode]
    mask_NR: Tensor
    scores_N: Tensor
    outcomes_N: Tensor
    logps_NR: Tensor
    reference_logps_NR: Tensor
    entropies_NR: Tensor
    values_NR: Tensor | None
    group: int = 1

    def prompt_ids(self, rows: Sequence[int]) -> str:
        """Name the prompts of ``rows`` for a message, eight at most."""
        return named_prompts(self.episodes, rows)


def reward_model_score(model: nn.Module, pad_id: int, limits: PassLimits, dtype: str) -> Score:
    """Return the score function of a frozen reward model that reads the policy's own token ids."""

    @torch.no_grad()
    def score(episodes: Sequence[Episode]) -> Tensor:
        scores_N = torch.zeros(len(episodes))
        for rows in limits.chunks(episodes, range(len(episodes))):
            batch = padded(episodes, rows, pad_id, limits)
            with autocast(limits.device, dtype):
                scores_N[rows] = sequence_scores(model, batch.input_ids_BT, batch.attention_mask_BT).cpu()
        return summed(scores_N)

    return score


ScoreTexts = Callable[[Sequence[Messages], Sequence[str]], list[float | None]]
"""Scores responses to prompts, both as text; null where there is no score."""


def text_score(score: ScoreTexts, prompts: Mapping[str, Messages], decode: Callable[[list[int]], str]) -> Score:
    """Return the score function of a formula or a verifier; ``prompts`` are the messages by the prompt's id.

    A response that has no score gets NaN, which stops the run where it is learnt from or is the gold reward.
    """

    def of_episodes(episodes: Sequence[Episode]) -> Tensor:
        texts = [decode(episode.response_ids) for episode in episodes]
        scores = score([prompts[episode.prompt_id] for episode in episodes], texts)
        return torch.tensor([float("nan") if value is None else value for value in scores])

    return of_episodes


def outcomes(scores_N: Tensor, episodes: Sequence[Episode], missing_eos_reward: float | None) -> Tensor:
    """Return the scores with ``missing_eos_reward`` in place of that of every response without EOS; null: as given."""
    if missing_eos_reward is None:
        return scores_N
    finished_N = torch.tensor([episode.finished for episode in episodes])
    return scores_N.where(finished_N, missing_eos_reward)


def win_rate(scores_N: Tensor, others_N: Tensor) -> float:
    """Return the share of responses that score higher than the one they are compared with; a tie counts as half."""
    wins_N = (scores_N > others_N).double() + (scores_N == others_N).double() / 2
    return float(wins_N.mean())


def mini_batches(count: int, size: int, seed: int, step: int, inner_epoch: int) -> list[list[int]]:
    """Return a seeded partition of ``count`` units into ceil(count / size) mini-batches, of sizes that differ by 1.

    So no mini-batch is a small remainder whose few units would weigh more than the others.
    """
    stream = torch.Generator().manual_seed(derive_seed(seed, "mini-batches", step, inner_epoch))
    order = torch.randperm(count, generator=stream).numpy()
    return [part.tolist() for part in np.array_split(order, -(-count // size))]


def prompt_rows(step: int, per_step: int, count: int, seed: int) -> list[int]:
    """Return the prompts of ``step`` (0-based): the next ``per_step`` of an endless row of seeded permutations.

    A step may run over the end of a pass into the next one, so that every step has the same size. It is a function
    of its arguments alone: a resumed run needs no state of a data loader.
    """
    rows = []
    orders: dict[int, list[int]] = {}
    for position in range(step * per_step, (step + 1) * per_step):
        epoch, index = divmod(position, count)
        if epoch not in orders:
            stream = torch.Generator().manual_seed(derive_seed(seed, "prompts", epoch))
            orders[epoch] = torch.randperm(count, generator=stream).tolist()
        rows.append(orders[epoch][index])
    return rows


def padded(episodes: Sequence[Episode], rows: Sequence[int], pad_id: int, limits: PassLimits) -> EpisodeBatch:
    """Return ``rows`` of the episodes as one batch on the device."""
    return collate([episodes[row] for row in rows], pad_id).to(limits.device)


@dataclass(frozen=True)
class Recorder:
    """Runs the frozen passes over a step's episodes: behaviour and reference log-probabilities, entropy, values."""

    policy: nn.Module
    reference: nn.Module
    value: nn.Module | None
    pad_id: int
    limits: PassLimits
    temperature: float
    dtype: str

    @torch.no_grad()
    def record(
        self, episodes: list[Episode], chunks: list[list[int]], scores_N: Tensor, outcomes_N: Tensor, group: int = 1
    ) -> Rollout:
        """Return the rollout, whose prompts have ``group`` responses each.

        ``chunks`` are the micro-batches that the first inner epoch will use, so that its log-probabilities are made
        from the very same arrays as the behaviour policy's.
        """
        mask_NR = collate(episodes, self.pad_id).response_mask_BR
        logps_NR, reference_NR, entropies_NR, values_NR = (torch.zeros(mask_NR.shape) for _ in range(4))
        with at_work(self.reference):
            for rows, batch in self._batches(episodes, chunks):
                width = batch.response_mask_BR.shape[1]
                logits_BRV = response_logits(self.policy, batch)
                logps_NR[rows, :width] = response_logprobs(logits_BRV, batch, self.temperature).cpu()
                entropies_NR[rows, :width] = response_entropy(logits_BRV, batch, self.temperature).cpu()
                del logits_BRV
                logits_BRV = response_logits(self.reference, batch)
                reference_NR[rows, :width] = response_logprobs(logits_BRV, batch, self.temperature).cpu()
                del logits_BRV
                if self.value is not None:
                    values_NR[rows, :width] = response_values(self.value, batch).cpu()
        logps_NR, reference_NR, entropies_NR, values_NR = map(summed, (logps_NR, reference_NR, entropies_NR, values_NR))
        values = None if self.value is None else values_NR
        return Rollout(episodes, mask_NR, scores_N, outcomes_N, logps_NR, reference_NR, entropies_NR, values, group)

    def _batches(self, episodes: list[Episode], chunks: list[list[int]]) -> Iterator[tuple[list[int], EpisodeBatch]]:
        with autocast(self.limits.device, self.dtype):
            for rows in chunks:
                yield rows, padded(episodes, rows, self.pad_id, self.limits)


def rollout_statistics(rollout: Rollout) -> dict[str, float]:
    """Return what is logged of every rollout before the update.

    ``kl``: mean over episodes of the sum of log pi_T - log pi_ref,T (nats); ``kl_per_token``: the same sum a token;
    ``score``: the reward's own, before missing EOS is punished.
    """
    mask_NR = rollout.mask_NR
    log_ratios_NR = rollout.logps_NR - rollout.reference_logps_NR
    statistics = {
        "score": rollout.scores_N.mean(),
        "score_sd": rollout.scores_N.std(correction=0),
        "kl": log_ratios_NR.sum(-1).mean(),
        "kl_per_token": masked_mean(log_ratios_NR, mask_NR),
        "entropy": masked_mean(rollout.entropies_NR, mask_NR),
        "response_length": mask_NR.sum(-1).float().mean(),
        "missing_eos": torch.tensor([not episode.finished for episode in rollout.episodes]).float().mean(),
    }
    return {name: float(value) for name, value in statistics.items()}
