"""Rollouts: responses sampled from a policy, and padded batches of them for every forward pass after sampling."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ablate.errors import UsageError
from ablate.training.logprobs import position_ids, selected_logprobs
from ablate.training.seeding import derive_seed

# Finished rows are taken out of a batch when they are at least this share of it: taking out copies the cache.
COMPACTION_SHARE = 0.25


@dataclass(frozen=True)
class Sampled:
    """One response: its token ids, the EOS included, and whether it ended with one (else it hit the length limit)."""

    ids: list[int]
    finished: bool


@torch.no_grad()
def sample(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    eos_token_ids: Collection[int],
    pad_token_id: int,
    generator_seed: int,
    batch_size: int,
    top_p: float = 1.0,
    numbers: Sequence[int] | None = None,
) -> list[Sampled]:
    """Return one response a prompt, in the order of the prompts; temperature 0 decodes greedily.

    Every row draws from random numbers of its own, derived from (``generator_seed``, row), and picks a token by
    inverting its cumulative distribution: a response depends neither on the batch size nor on the other rows. Where the
    prompts are a part of a longer list, ``numbers`` are their rows in it. The model is left in evaluation mode. Prompts
    of similar length share a batch; padding is on the left and is told by the attention mask alone, so a pad id that
    equals an EOS id does no harm.
    """
    if temperature < 0 or not 0 < top_p <= 1:
        raise UsageError(f"sampling needs temperature >= 0 and 0 < top_p <= 1; got {temperature} and {top_p}")
    if empty := [row for row, prompt in enumerate(prompt_ids) if not prompt]:
        raise UsageError(f"{len(empty)} prompts have no token, the first is number {empty[0]}")
    model.eval()
    responses: list[Sampled | None] = [None] * len(prompt_ids)
    by_length = sorted(range(len(prompt_ids)), key=lambda row: -len(prompt_ids[row]))
    for start in range(0, len(by_length), batch_size):
        rows = by_length[start : start + batch_size]
        own = rows if numbers is None else [numbers[row] for row in rows]
        draws = _Draws(own, generator_seed, max_new_tokens, temperature, top_p)
        prompts = [prompt_ids[row] for row in rows]
        decoded = _decode(model, prompts, draws, max_new_tokens, frozenset(eos_token_ids), pad_token_id)
        for row, response in zip(rows, decoded, strict=True):
            responses[row] = response
    return [response for response in responses if response is not None]


class _Draws:
    """Picks next tokens; row i of a batch reads its own uniform numbers, [B, max_new_tokens]."""

    def __init__(self, rows: list[int], seed: int, count: int, temperature: float, top_p: float) -> None:
        self.temperature, self.top_p = temperature, top_p
        if temperature > 0:
            streams = [torch.Generator().manual_seed(derive_seed(seed, "row", row)) for row in rows]
            numbers = [torch.rand(count, generator=stream, dtype=torch.float64) for stream in streams]
            self.uniforms_BT = torch.stack(numbers)

    def pick(self, logits_AV: Tensor, rows_A: Tensor, step: int) -> Tensor:
        """Return the tokens [A] that follow in the active ``rows_A`` of the batch."""
        if self.temperature == 0:
            return logits_AV.float().argmax(-1)
        probabilities_AV = (logits_AV.float() / self.temperature).double().softmax(-1)
        if self.top_p < 1:
            probabilities_AV = nucleus(probabilities_AV, self.top_p)
        cumulative_AV = probabilities_AV.cumsum(-1)
        uniforms_A1 = self.uniforms_BT[rows_A.cpu(), step].to(logits_AV.device).unsqueeze(-1)
        # right=True: the first token whose cumulative mass exceeds the draw, so never one of probability 0
        found_A1 = torch.searchsorted(cumulative_AV, uniforms_A1 * cumulative_AV[:, -1:], right=True)
        return found_A1.squeeze(-1).clamp_max(logits_AV.shape[-1] - 1)


def nucleus(probabilities_AV: Tensor, top_p: float) -> Tensor:
    """Return the probabilities with all but the smallest set of most likely tokens of mass >= ``top_p`` set to 0.

    The rest is not renormalised (Holtzman et al. 2020, section 3.1).
    """
    sorted_AV, order_AV = probabilities_AV.sort(dim=-1, descending=True, stable=True)
    before_AV = sorted_AV.cumsum(-1) - sorted_AV
    return torch.zeros_like(probabilities_AV).scatter(-1, order_AV, sorted_AV.where(before_AV < top_p, 0.0))


def _decode(
    model: nn.Module,
    prompts: list[Sequence[int]],
    draws: _Draws,
    max_new_tokens: int,
    eos: frozenset[int],
    pad_id: int,
) -> list[Sampled]:
    """Decode one batch with a key-value cache, in which only the rows without EOS yet are kept."""
    device = next(model.parameters()).device
    width = max(len(prompt) for prompt in prompts)
    ids_AT, mask_AT = (tensor.to(device) for tensor in _left_padded(prompts, pad_id, width))
    rows_A = torch.arange(len(prompts), device=device)
    eos_ids = torch.tensor(sorted(eos), device=device)
    config: Any = model.config
    cache = DynamicCache(config=config)
    inputs: dict[str, Any] = {"input_ids": ids_AT, "position_ids": position_ids(mask_AT)}
    tokens: list[list[int]] = [[] for _ in prompts]
    finished = [False] * len(prompts)
    active_A = torch.ones_like(rows_A, dtype=torch.bool)
    for step in range(max_new_tokens):
        output = model(**inputs, attention_mask=mask_AT, past_key_values=cache, use_cache=True, logits_to_keep=1)
        next_A = draws.pick(output.logits[:, -1], rows_A, step)
        for row, token, active in zip(rows_A.tolist(), next_A.tolist(), active_A.tolist(), strict=True):
            if active:
                tokens[row].append(token)
                finished[row] = token in eos
        active_A = active_A & ~torch.isin(next_A, eos_ids)
        if not active_A.any() or step == max_new_tokens - 1:
            break
        positions_A1 = mask_AT.sum(-1, keepdim=True)
        mask_AT = torch.cat([mask_AT, torch.ones_like(mask_AT[:, :1])], dim=-1)
        if (~active_A).sum() >= COMPACTION_SHARE * len(active_A):
            kept = active_A.nonzero().flatten()
            cache.batch_select_indices(kept)
            rows_A, next_A, mask_AT, positions_A1 = rows_A[kept], next_A[kept], mask_AT[kept], positions_A1[kept]
            active_A = active_A[kept]
        inputs = {"input_ids": next_A.unsqueeze(-1), "position_ids": positions_A1}
    return [Sampled(ids, ended) for ids, ended in zip(tokens, finished, strict=True)]


def _left_padded(rows: Sequence[Sequence[int]], pad_id: int, width: int) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask, each [B, ``width``] int64."""
    ids = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


@dataclass(frozen=True)
class Episode:
    """A prompt with one sampled response; the prompt's id travels along for messages and samples."""

    prompt_id: str
    prompt_ids: list[int]
    response_ids: list[int]
    finished: bool

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class EpisodeBatch:
    """Padded episodes: prompts end and responses start at the same column P in every row.

    ``input_ids_BT`` and ``attention_mask_BT`` with T = P + R: [left padding, prompt | response, right padding].
    ``response_mask_BR`` is 1 on response tokens, the EOS included. It comes from the lengths, never from token ids:
    a pad id that equals the EOS id can't hide the first EOS.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    response_mask_BR: Tensor

    @property
    def response_ids_BR(self) -> Tensor:
        """Response tokens; padding where ``response_mask_BR`` is 0."""
        return self.input_ids_BT[:, -self.response_mask_BR.shape[1] :]

    @property
    def positions_BT(self) -> Tensor:
        """Position ids counted over real tokens only: padding on either side does not shift them."""
        return position_ids(self.attention_mask_BT)

    def to(self, device: torch.device) -> EpisodeBatch:
        """Return the batch on ``device``."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


def collate(episodes: Sequence[Episode], pad_id: int) -> EpisodeBatch:
    """Pad episodes into one batch, prompts on the left and responses on the right."""
    prompt_width = max(len(episode.prompt_ids) for episode in episodes)
    response_width = max(len(episode.response_ids) for episode in episodes)
    prompts_BP, prompt_mask_BP = _left_padded([episode.prompt_ids for episode in episodes], pad_id, prompt_width)
    reversed_responses = [episode.response_ids[::-1] for episode in episodes]
    responses_BR, response_mask_BR = (x.flip(-1) for x in _left_padded(reversed_responses, pad_id, response_width))
    return EpisodeBatch(
        torch.cat([prompts_BP, responses_BR], dim=-1),
        torch.cat([prompt_mask_BP, response_mask_BR], dim=-1),
        response_mask_BR,
    )


def response_logits(model: nn.Module, batch: EpisodeBatch) -> Tensor:
    """Return the logits that predict each response token, [B, R, V]: those of the columns P - 1 ... T - 2."""
    width = batch.response_mask_BR.shape[1]
    output = model(
        input_ids=batch.input_ids_BT,
        attention_mask=batch.attention_mask_BT,
        position_ids=batch.positions_BT,
        use_cache=False,
        logits_to_keep=width + 1,
    )
    logits_BRV: Tensor = output.logits[:, :-1]
    return logits_BRV


def response_logprobs(logits_BRV: Tensor, batch: EpisodeBatch, temperature: float) -> Tensor:
    """Return log pi_T of every response token, [B, R], with pi_T = softmax(logits / T); 0 at padding.

    The behaviour log-probabilities, the reference's and those of the update all come from here, so that the ratio
    is 1 until the first weight changes and the KL compares two policies at one temperature.
    """
    logps_BR = selected_logprobs(logits_BRV, batch.response_ids_BR, temperature)
    return torch.where(batch.response_mask_BR.bool(), logps_BR, 0.0)


@torch.no_grad()
def response_entropy(logits_BRV: Tensor, batch: EpisodeBatch, temperature: float) -> Tensor:
    """Return the entropy (nats) of pi_T at every response position, [B, R]; 0 at padding."""
    entropies = []
    for logits_RV in logits_BRV:  # row by row: no second [B, R, V] array
        logps_RV = (logits_RV.float() / temperature).log_softmax(-1)
        entropies.append(-(logps_RV.exp() * logps_RV).nan_to_num(0.0).sum(-1))  # 0 * -inf is 0 here
    return torch.where(batch.response_mask_BR.bool(), torch.stack(entropies), 0.0)
