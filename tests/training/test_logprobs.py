"""Completion log-probabilities: against a loop over tokens, and independent of padding and of the batch."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from ablate.errors import DataError
from ablate.models.loading import load_policy
from ablate.training import logprobs
from ablate.training.collate import PairCollator, PairTokens, pad_sequences
from ablate.training.logprobs import completion_logprobs, length_batches, selected_logprobs, token_logprobs


def slow_logprob(model, prompt: list[int], completion: list[int]) -> float:
    """One unpadded sequence, one token after the other, the softmax in Python floats."""
    total = 0.0
    for position, token in enumerate(completion):
        ids = torch.tensor([prompt + completion[:position]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1].double().tolist()
        top = max(logits)
        total += logits[token] - top - math.log(sum(math.exp(value - top) for value in logits))
    return total


def random_sequences(count: int, vocabulary: int = 46, longest: int = 12) -> tuple[list, list]:
    random = np.random.default_rng(4)
    prompts = [random.integers(1, vocabulary, random.integers(1, longest)) for _ in range(count)]
    completions = [random.integers(1, vocabulary, random.integers(1, longest)) for _ in range(count)]
    return prompts, completions


@pytest.fixture
def policy(policy_folder):
    return load_policy(policy_folder).eval()


def test_selected_logprobs_equal_a_python_softmax_with_and_without_gradients():
    torch.manual_seed(0)
    logits = (4 * torch.randn(3, 5, 11)).requires_grad_()
    ids = torch.randint(11, (3, 5))
    expected = torch.empty(3, 5)
    for row in range(3):
        for column in range(5):
            scaled = [value / 0.7 for value in logits[row, column].double().tolist()]
            expected[row, column] = scaled[ids[row, column]] - math.log(sum(math.exp(value) for value in scaled))
    torch.testing.assert_close(selected_logprobs(logits, ids, 0.7), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(selected_logprobs(logits.detach(), ids, 0.7), expected, rtol=1e-5, atol=1e-5)


def test_completion_logprobs_equal_a_loop_over_tokens(policy):
    prompts, completions = random_sequences(12)
    expected = [slow_logprob(policy, p.tolist(), c.tolist()) for p, c in zip(prompts, completions, strict=True)]
    found = completion_logprobs(policy, pad_sequences(prompts, completions, pad_id=0))
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("pad_id", [0, 1, 7])
@pytest.mark.parametrize("side", ["left", "right"])
def test_side_amount_and_id_of_padding_change_neither_values_nor_gradients(policy, more_padding, side, pad_id):
    prompts, completions = random_sequences(6)

    def values_and_gradients(batch):
        policy.zero_grad()
        found = completion_logprobs(policy, batch)
        (found * torch.arange(1.0, 7.0)).sum().backward()
        return found.detach(), [parameter.grad.clone() for parameter in policy.parameters()]

    plain, plain_gradients = values_and_gradients(pad_sequences(prompts, completions, pad_id=0))
    batch = pad_sequences(prompts, completions, pad_id=pad_id, side=side)
    padded, padded_gradients = values_and_gradients(more_padding(batch, pad_id, **{side: 9}))
    torch.testing.assert_close(padded, plain, rtol=0, atol=1e-5)
    for one, other in zip(padded_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_row_does_not_depend_on_its_batch(policy):
    prompts, completions = random_sequences(24)
    together = completion_logprobs(policy, pad_sequences(prompts, completions, pad_id=0))
    alone = [
        completion_logprobs(policy, pad_sequences([p], [c], pad_id=0))[0]
        for p, c in zip(prompts, completions, strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


def test_token_logprobs_stand_before_their_tokens_and_are_zero_elsewhere(policy, more_padding):
    batch = more_padding(pad_sequences([np.array([3, 4])], [np.array([5, 6, 7])], pad_id=0), 0, right=2)
    found = token_logprobs(policy, batch)[0].tolist()
    expected = [slow_logprob(policy, [3, 4, 5, 6, 7][:end], [[3, 4, 5, 6, 7][end]]) for end in (2, 3, 4)]
    assert found == pytest.approx([0, *expected, 0, 0], abs=1e-5)


def test_a_soft_cap_after_the_output_layer_is_kept():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma2Config(
        vocab_size=46, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.05, pad_token_id=0, **sizes
    )
    model = Gemma2ForCausalLM(config).eval()
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=1.0)
    prompts, completions = random_sequences(3)
    expected = [slow_logprob(model, p.tolist(), c.tolist()) for p, c in zip(prompts, completions, strict=True)]
    with torch.no_grad():
        found = completion_logprobs(model, pad_sequences(prompts, completions, pad_id=0))
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert not list(model.get_output_embeddings()._forward_pre_hooks)


def test_length_batches_cover_every_row_once_within_the_limit():
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    batches = list(length_batches(lengths, 100))
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    assert all(len(rows) * lengths[rows].max() <= 100 for rows in batches)
    assert [rows.tolist() for rows in length_batches(np.array([500, 3]), 100)] == [[0], [1]]


def test_reference_stage_writes_the_sums_of_every_pair_in_order(policy, policy_folder, write_pairs, make_context):
    data = write_pairs(40)
    context = make_context("reference", {"dtype": "float32"}, {"model": policy_folder, "data": data})
    assert logprobs.run(context)["pairs"] == 40
    table = pq.read_table(context.output / "logprobs.parquet").to_pydict()
    tokens = pq.read_table(data).to_pydict()
    assert table["id"] == tokens["id"]
    for row in (0, 17, 39):
        for side in ("chosen", "rejected"):
            completion = tokens[f"{side}_ids"][row]
            slow = slow_logprob(policy, tokens["prompt_ids"][row], completion)
            assert table[f"{side}_logp"][row] == pytest.approx(slow, abs=1e-4)
            assert table[f"{side}_tokens"][row] == len(completion)


def test_reference_sums_do_not_depend_on_the_size_of_a_pass(
    policy_folder, write_pairs, make_context, monkeypatch: pytest.MonkeyPatch
):
    data = write_pairs(30)
    sums = []
    for tokens in (1, 4096):
        monkeypatch.setattr(logprobs, "PASS_TOKENS", tokens)
        context = make_context(f"pass-{tokens}", {"dtype": "float32"}, {"model": policy_folder, "data": data})
        logprobs.run(context)
        sums.append(pq.read_table(context.output / "logprobs.parquet").column("chosen_logp").to_numpy())
    np.testing.assert_allclose(sums[0], sums[1], rtol=0, atol=1e-5)


def test_collated_pairs_read_back_as_prompt_and_completions(write_pairs):
    pairs = PairTokens.read(write_pairs(20))
    collate = PairCollator(pairs, pad_id=0, columns={"margin": torch.arange(20.0)})
    batch = collate([3, 11])
    assert batch["margin"].tolist() == [3, 11]
    assert batch["rows"].tolist() == [3, 11]
    expected = [(3, pairs.chosen), (11, pairs.chosen), (3, pairs.rejected), (11, pairs.rejected)]
    for row, (index, side) in enumerate(expected):
        real = batch["attention_mask"][row].bool()
        completion = batch["completion_mask"][row].bool()
        assert batch["input_ids"][row][real].tolist() == [*pairs.prompts[index], *side[index]]
        assert batch["input_ids"][row][completion].tolist() == side[index].tolist()


def test_files_that_are_no_pairs_are_refused(tmp_path, write_pairs):
    tokens = pq.read_table(write_pairs(3))
    pq.write_table(tokens.drop_columns(["rejected_ids"]), tmp_path / "prompts.parquet")
    with pytest.raises(DataError, match="rejected_ids"):
        PairTokens.read(tmp_path / "prompts.parquet")
    pq.write_table(tokens.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="no pair"):
        PairTokens.read(tmp_path / "empty.parquet")
