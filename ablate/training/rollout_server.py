"""Rollouts from a vLLM server over HTTP, whose weights are the policy's as it is before every step.

TRL's client does the talking: completions over vLLM's OpenAI-compatible interface, weights over NCCL. Every response
has a seed of its own, derived from (seed, step, row); its tokens are not those that the policy's own process would
draw, so that the engine is a parameter of the method, and where the server is, is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from requests.exceptions import RequestException
from torch import Tensor, nn

from ablate.errors import StageError
from ablate.training.lora import merged_weights
from ablate.training.rollouts import Sampled
from ablate.training.seeding import derive_seed

REQUESTS_AT_A_TIME = 64
WAIT_SECONDS = 120.0
"""For a server that is still loading its model."""


@dataclass(frozen=True)
class RolloutServer:
    """A vLLM server that samples for the policy in training."""

    client: Any

    @classmethod
    def open(cls, url: str | None, device: torch.device) -> RolloutServer:
        """Connect to ``url``, weights included; raises StageError where that can't be done."""
        if url is None:
            raise StageError(
                "rollout_engine vllm needs a server",
                hint="start `vllm serve MODEL` and give its address: --rollout-server",
            )
        from trl.generation.vllm_client import VLLMClient  # of no use to those who sample in their own process

        try:
            client = VLLMClient(base_url=url, connection_timeout=WAIT_SECONDS)
            client.init_communicator(device=device)
        except (ImportError, NotImplementedError, RuntimeError, RequestException) as error:
            raise StageError(
                f"the rollout server {url} can't be used: {error}",
                hint="its weights are sent over NCCL by vllm itself: install vllm beside ablate, on a GPU of its own",
            ) from error
        return cls(client)

    def sample(
        self,
        model: nn.Module,
        prompt_ids: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        eos_token_ids: frozenset[int],
        generator_seed: int,
    ) -> list[Sampled]:
        """Send the weights of ``model``, then return one response a prompt, in the order of the prompts."""
        self._send(model)

        def ask(row: int) -> Sampled:
            answer = self.client.generate(
                [list(prompt_ids[row])],
                temperature=temperature,
                max_tokens=max_new_tokens,
                logprobs=None,
                generation_kwargs={
                    "seed": derive_seed(generator_seed, "row", row),
                    "stop_token_ids": sorted(eos_token_ids),
                },
            )
            ids = answer["completion_ids"][0]
            if not ids:
                raise StageError(f"the rollout server gave no token for prompt {row}")
            return Sampled(ids, ids[-1] in eos_token_ids)

        with ThreadPoolExecutor(max_workers=REQUESTS_AT_A_TIME) as executor:
            return list(executor.map(ask, range(len(prompt_ids))))

    def _send(self, model: nn.Module) -> None:
        def tensors() -> Iterator[tuple[str, Tensor]]:
            yield from merged_weights(model)

        metadata = [(name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in tensors()]
        self.client.update_named_params(metadata, tensors())
        self.client.reset_prefix_cache()  # what it remembers of prompts was made with the old weights
