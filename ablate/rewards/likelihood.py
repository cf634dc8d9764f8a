"""How likely a model finds a response, and the reward that likelihoods imply. Light: graders read it.

It is log pi(y | x) - log pi_ref(y | x), or, without a reference, log pi(y | x) alone: Rafailov et al. 2023 (arXiv
2305.18290), eq. 5, without beta and the term of the prompt alone, neither of which changes which of two responses has
more. RewardBench (arXiv 2403.13787) takes the mean over tokens where there is no reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.errors import StageError

PAIR_LIKELIHOODS = "likelihoods.jsonl"
"""Rows of pairs, each with the likelihoods of both responses under keys ``chosen`` and ``rejected``."""


@dataclass(frozen=True)
class Likelihood:
    """The log-probability (natural) of a response, summed over its tokens, and how many these are."""

    logprob: float
    tokens: int

    def as_json(self) -> dict[str, Any]:
        """Return the likelihood as JSON values."""
        return {"logprob": self.logprob, "tokens": self.tokens}

    @classmethod
    def read(cls, value: Mapping[str, Any] | None) -> Likelihood | None:
        """Return a likelihood of :meth:`as_json`, or null where there was none."""
        return None if value is None else cls(float(value["logprob"]), int(value["tokens"]))


def log_likelihood(policy: Likelihood | None, *, average: bool) -> float | None:
    """Return log pi, the implicit reward without a reference; null where the policy could not read the response.

    ``average`` divides by the number of tokens; a response without any has no likelihood of its own: null, too.
    """
    if policy is None or not policy.tokens:
        return None
    return policy.logprob / policy.tokens if average else policy.logprob


def log_ratio(policy: Likelihood | None, reference: Likelihood | None, *, average: bool) -> float | None:
    """Return log pi - log ref, the implicit reward; null where one of them could not read the response.

    Raises StageError where the two are of different tokens.
    """
    if policy is None or reference is None:
        return None
    if reference.tokens != policy.tokens:
        raise StageError(f"the policy reads {policy.tokens} tokens where its reference reads {reference.tokens}")
    return log_likelihood(Likelihood(policy.logprob - reference.logprob, policy.tokens), average=average)
