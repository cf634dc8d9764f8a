"""Sampling: distribution, independence of the batch, EOS; padded batches of episodes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.errors import UsageError
from ablate.training.experience import mini_batches, prompt_rows
from ablate.training.rollouts import Episode, Sampled, collate, nucleus, sample

PAD, EOS, V = 0, 1, 40


def tiny_policy(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        attention_dropout=0.5,
    )
    return LlamaForCausalLM(config).eval()


def prompts(count: int, seed: int = 3) -> list[list[int]]:
    stream = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (count,), generator=stream).tolist()
    return [torch.randint(2, V, (length,), generator=stream).tolist() for length in lengths]


def draw(model: nn.Module, rows: list[list[int]], **changes: object) -> list[Sampled]:
    settings: dict[str, object] = {
        "max_new_tokens": 20,
        "temperature": 0.7,
        "eos_token_ids": [EOS, 7],
        "pad_token_id": PAD,
        "generator_seed": 11,
        "batch_size": 64,
    }
    return sample(model, rows, **{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_response_does_not_depend_on_batch_size_or_neighbours(temperature: float, top_p: float) -> None:
    model, rows = tiny_policy(), prompts(30)
    whole = draw(model, rows, temperature=temperature, top_p=top_p)
    assert whole == draw(model, rows, temperature=temperature, top_p=top_p, batch_size=1)
    assert whole[:15] == draw(model, rows[:15], temperature=temperature, top_p=top_p, batch_size=7)
    assert {response.finished for response in whole} == {True, False}


def test_greedy_is_the_argmax_of_full_forward_passes() -> None:
    model, rows = tiny_policy(), prompts(12)
    for row, response in zip(rows, draw(model, rows, temperature=0.0), strict=True):
        ids = list(row)
        for _ in range(20):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in (EOS, 7):
                break
        assert response.ids == ids[len(row) :]


def test_eos_ends_a_response_and_is_part_of_it_even_when_it_is_the_pad_token() -> None:
    model, rows = tiny_policy(), prompts(60)
    separate = draw(model, rows)
    assert separate == draw(model, rows, pad_token_id=EOS)
    for response in separate:
        assert response.finished == (response.ids[-1] in (EOS, 7))
        assert not set(response.ids[:-1]) & {EOS, 7}
        assert response.finished or len(response.ids) == 20


class FixedLogits(nn.Module):
    """Gives the same logits after every context."""

    def __init__(self, logits_V: torch.Tensor) -> None:
        super().__init__()
        self.logits_V = nn.Parameter(logits_V)
        self.config = LlamaConfig(num_hidden_layers=1)

    def forward(self, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits_V.expand(*input_ids.shape, -1))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_sampled_tokens_follow_the_tempered_softmax(temperature: float) -> None:
    logits_V = torch.tensor([-math.inf, 0.0, 1.0, 2.0, -1.0, 0.5])
    count = 4000
    responses = draw(
        FixedLogits(logits_V),
        [[2]] * count,
        temperature=temperature,
        max_new_tokens=1,
        batch_size=count,
        eos_token_ids=[],
    )
    observed_V = torch.bincount(torch.tensor([r.ids[0] for r in responses]), minlength=6)
    expected_V = (logits_V / temperature).softmax(-1) * count
    assert observed_V[0] == 0
    chi_square = float(((observed_V - expected_V)[1:] ** 2 / expected_V[1:]).sum())
    assert chi_square < 18.5  # 0.999 quantile of chi-square with 4 degrees of freedom; seeded
    wrong_V = (logits_V * temperature).softmax(-1) * count
    if temperature != 1.0:
        assert float(((observed_V - wrong_V)[1:] ** 2 / wrong_V[1:]).sum()) > 50


def test_nucleus_keeps_the_smallest_sufficient_set() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    assert nucleus(probabilities, 0.7)[0].tolist() == pytest.approx([0.0, 0.5, 0.0, 0.25])
    assert nucleus(probabilities, 0.5)[0].tolist() == pytest.approx([0.0, 0.5, 0.0, 0.0])
    assert nucleus(probabilities, 0.95)[0].tolist() == pytest.approx([0.1, 0.5, 0.15, 0.25])


def test_other_seeds_give_other_responses_and_repeated_prompts_are_independent() -> None:
    model, row = tiny_policy(), prompts(1)[0]
    first = draw(model, [row] * 30, temperature=1.5)
    assert first != draw(model, [row] * 30, temperature=1.5, generator_seed=12)
    assert len({tuple(response.ids) for response in first}) > 15


def test_sampling_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="temperature"):
        draw(tiny_policy(), [[2]], temperature=-1.0)
    with pytest.raises(UsageError, match="number 1"):
        draw(tiny_policy(), [[2], []])


def test_collate_puts_every_response_at_the_same_column() -> None:
    batch = collate([Episode("a", [5, 6], [8, EOS], True), Episode("b", [9], [8, 7, 6], False)], EOS)
    assert batch.input_ids_BT.tolist() == [[5, 6, 8, EOS, EOS], [EOS, 9, 8, 7, 6]]
    assert batch.attention_mask_BT.tolist() == [[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert batch.response_mask_BR.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 3], [0, 0, 1, 2, 3]]
    assert batch.response_ids_BR.tolist() == [[8, EOS, EOS], [8, 7, 6]]


def test_mini_batches_are_a_partition_without_a_small_rest() -> None:
    parts = mini_batches(10, 4, seed=1, step=2, inner_epoch=0)
    assert sorted(row for part in parts for row in part) == list(range(10))
    assert [len(part) for part in parts] == [4, 3, 3]
    assert parts == mini_batches(10, 4, seed=1, step=2, inner_epoch=0)
    assert parts != mini_batches(10, 4, seed=1, step=3, inner_epoch=0)


def test_steps_walk_through_whole_permutations() -> None:
    rows = [row for step in range(7) for row in prompt_rows(step, 3, 10, seed=5)]
    assert sorted(rows[:10]) == sorted(rows[10:20]) == list(range(10))
    assert rows[:10] != rows[10:20]
