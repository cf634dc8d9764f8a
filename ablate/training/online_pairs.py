"""Pairs of a policy's own samples: which responses make one, and how a network learns from them.

A step's pairs are tokenised pairs like those of a set, so that collator, log-probabilities and losses are the offline
trainer's: online and offline methods differ in where the pairs come from and in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ablate.algorithms.online_dpo import OnlinePairParameters
from ablate.training.collate import PairCollator, PairTokens, Ragged
from ablate.training.devices import autocast
from ablate.training.experience import PassLimits, Rollout, padded
from ablate.training.learner import Learner
from ablate.training.logprobs import length_batches
from ablate.training.objectives import PreferenceObjective
from ablate.training.pair_log import OnlinePair, PairLog
from ablate.training.placement import at_work
from ablate.training.rollouts import Episode, response_logits, response_logprobs
from ablate.training.trainer import Objective


def best_and_worst(episodes: Sequence[Episode], scores_N: Tensor, group: int) -> list[OnlinePair | None]:
    """Return the pair of each prompt, whose responses are ``group`` episodes one after another: best against worst.

    None for a prompt whose responses all tie, and for one whose best and worst are the same tokens (their scores
    differ by rounding at most). Of equal scores the first counts.
    """
    pairs: list[OnlinePair | None] = []
    for start in range(0, len(episodes), group):
        scores = scores_N[start : start + group].tolist()
        best, worst = scores.index(max(scores)), scores.index(min(scores))
        chosen, rejected = episodes[start + best], episodes[start + worst]
        differ = scores[best] > scores[worst] and chosen.response_ids != rejected.response_ids
        pairs.append(OnlinePair(chosen, rejected, scores[best], scores[worst]) if differ else None)
    return pairs


def pair_tokens(pairs: Sequence[OnlinePair]) -> PairTokens:
    """Return the pairs as those of a set are kept; their ids are the prompts'."""
    return PairTokens(
        ids=[pair.chosen.prompt_id for pair in pairs],
        prompts=Ragged.of([pair.chosen.prompt_ids for pair in pairs]),
        chosen=Ragged.of([pair.chosen.response_ids for pair in pairs]),
        rejected=Ragged.of([pair.rejected.response_ids for pair in pairs]),
    )


@torch.no_grad()
def reference_columns(
    reference: nn.Module, pairs: Sequence[OnlinePair], pad_id: int, limits: PassLimits, dtype: str
) -> dict[str, Tensor]:
    """Return the reference's log-probabilities of both sides, float32 [B] each, sums at temperature 1."""
    sides = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    sums_2B = torch.zeros(len(sides))
    with at_work(reference), autocast(limits.device, dtype):
        for rows in limits.chunks(sides, range(len(sides))):
            batch = padded(sides, rows, pad_id, limits)
            sums_2B[rows] = response_logprobs(response_logits(reference, batch), batch, 1.0).sum(-1).cpu()
    return {"reference_chosen": sums_2B[: len(pairs)], "reference_rejected": sums_2B[len(pairs) :]}


@dataclass(frozen=True)
class PairPass:
    """Forward and backward passes of a model over pairs, in micro-batches that change nothing beyond rounding."""

    model: nn.Module
    objective: Objective
    limits: PassLimits
    dtype: str

    def backward(self, collator: PairCollator, rows: list[int], *, check_start: bool = False) -> dict[str, float]:
        """Add the gradients of the mean loss over ``rows``; return the means of the loss and of what is logged."""
        sums: dict[str, float] = {}
        for chunk in self._chunks(collator.pairs, rows):
            batch = {name: value.to(self.limits.device) for name, value in collator(chunk).items()}
            with autocast(self.limits.device, self.dtype):
                losses_B, values = self.objective(self.model, batch)
            if check_start:
                self.objective.check_start(losses_B.detach(), batch)
            torch.autograd.backward(losses_B.sum() / len(rows))
            for name, values_B in {"loss": losses_B.detach(), **values}.items():
                sums[name] = sums.get(name, 0.0) + float(values_B.float().sum()) / len(rows)
        return sums

    def _chunks(self, pairs: PairTokens, rows: list[int]) -> list[list[int]]:
        """Split ``rows`` into micro-batches; a pair is two sequences of one forward pass."""
        lengths = pairs.lengths_N[rows] * 2
        chunks = [[rows[place] for place in places] for places in length_batches(lengths, self.limits.tokens)]
        most = self.limits.rows or len(rows)
        return [chunk[start : start + most] for chunk in chunks for start in range(0, len(chunk), most)]


@dataclass(frozen=True)
class StepPairs:
    """The pairs of a step: None for a prompt that gives none; ``rows`` says where a prompt's stands in ``collator``.

    ``learnt`` are the prompts whose pairs an update has seen.
    """

    of_prompt: list[OnlinePair | None]
    collator: PairCollator
    rows: dict[int, int]
    learnt: set[int] = field(default_factory=set)


class Labeller(Protocol):
    """Scores a step's responses, so that the best and the worst of a prompt can be told, and counts its labels."""

    def __call__(self, episodes: Sequence[Episode]) -> Tensor:
        """Return the scores, float32 [N]; called once a step."""
        ...

    def statistics(self) -> dict[str, float]:
        """Return the labels so far, and what the last step says of the labeller."""
        ...

    def save(self, folder: Path) -> None:
        """Write what a checkpoint holds of it."""
        ...

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote."""
        ...


@dataclass(frozen=True)
class PairLearner(Learner[OnlinePairParameters, StepPairs]):
    """The policy, and how it learns from the best and the worst of its own responses to a prompt.

    No gradient flows through sampling: the responses are tokens. Log-probabilities are at temperature 1, whatever that
    of sampling, as those of a set's pairs are.
    """

    reference: nn.Module
    objective: PreferenceObjective
    labeller: Labeller
    log: PairLog

    @property
    def learns_from_scoring(self) -> bool:
        """The labeller counts its labels when it scores, and may be a discriminator that learns from them."""
        return True

    @property
    def unit(self) -> int:
        """The responses to a prompt: a mini-batch counts prompts, each of which gives a pair at most."""
        return self.parameters.responses_per_prompt

    def targets(self, rollout: Rollout) -> StepPairs:
        """Return the pairs, with the reference's log-probabilities."""
        of_prompt = best_and_worst(rollout.episodes, rollout.outcomes_N, self.unit)
        pairs = [pair for pair in of_prompt if pair is not None]
        columns = reference_columns(self.reference, pairs, self.pad_id, self.limits, self.parameters.dtype)
        there = [prompt for prompt, pair in enumerate(of_prompt) if pair is not None]
        rows = {prompt: row for row, prompt in enumerate(there)}
        return StepPairs(of_prompt, PairCollator(pair_tokens(pairs), self.pad_id, columns), rows)

    def statistics(self, rollout: Rollout, targets: StepPairs) -> dict[str, float]:
        """Return the pairs of the step, the share of prompts that give none, and the labeller's counts."""
        ties = 1 - len(targets.rows) / len(targets.of_prompt)
        return {"pairs": len(targets.rows), "ties": ties, **self.labeller.statistics()}

    def backward(
        self, rollout: Rollout, targets: StepPairs, rows: list[int], *, step: int, first: bool
    ) -> dict[str, float]:
        """Add the gradients of the mean loss over the pairs of a mini-batch; without any there is nothing to learn.

        In the first update of all, policy and reference are equal, and the loss must say so.
        """
        prompts = self._with_pair(targets, rows)
        self._keep(targets, prompts, step)
        if not prompts:
            return {}
        passes = PairPass(self.policy.model, self.objective, self.limits, self.parameters.dtype)
        pairs = [targets.rows[prompt] for prompt in prompts]
        return passes.backward(targets.collator, pairs, check_start=first and step == 1)

    def weight(self, targets: StepPairs, rows: list[int]) -> int:
        """Return the pairs of a mini-batch: its means are over them, and without any it says nothing."""
        return len(self._with_pair(targets, rows))

    def save(self, folder: Path) -> None:
        """Write networks, labeller and the pairs so far."""
        super().save(folder)
        self.labeller.save(folder)
        self.log.save(folder)

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote."""
        super().load(folder)
        self.labeller.load(folder)
        self.log.load(folder)

    def _with_pair(self, targets: StepPairs, rows: list[int]) -> list[int]:
        """Return the prompts of a mini-batch that give a pair, in its order."""
        return [prompt for prompt in dict.fromkeys(row // self.unit for row in rows) if prompt in targets.rows]

    def _keep(self, targets: StepPairs, prompts: list[int], step: int) -> None:
        """Keep the pairs in the order in which they are learnt from, each once however many inner epochs there are."""
        for prompt in prompts:
            pair = targets.of_prompt[prompt]
            if pair is not None and prompt not in targets.learnt:
                targets.learnt.add(prompt)
                self.log.add(pair, step)
