"""What ends a response, what pads and how much fits, of models and tokenizers that say it in different ways."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ablate.models.properties import context_length, eos_ids, pad_id

SMALL: dict[str, Any] = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}


def llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_attention_heads=2, max_position_embeddings=48))


@pytest.mark.parametrize(("named", "found"), [(None, {7}), (3, {3, 7}), ([3, 4], {3, 4, 7}), (7, {7})])
def test_a_response_ends_with_the_tokenizer_s_eos_or_one_of_the_generation_config(named: Any, found: set[int]) -> None:
    model = llama()
    assert model.generation_config is not None
    model.generation_config.eos_token_id = named
    assert eos_ids(model, SimpleNamespace(eos_token_id=7)) == found


def test_eos_pads_where_nothing_else_does() -> None:
    assert pad_id(SimpleNamespace(pad_token_id=0, eos_token_id=7)) == 0
    assert pad_id(SimpleNamespace(pad_token_id=None, eos_token_id=7)) == 7


def test_the_context_is_that_of_the_positions() -> None:
    assert context_length(llama()) == 48
    assert (
        context_length(GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=24, n_embd=8, n_layer=1, n_head=2))) == 24
    )
    assert context_length(SimpleNamespace(config=SimpleNamespace())) is None  # type: ignore[arg-type]
