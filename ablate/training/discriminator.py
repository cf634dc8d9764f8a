"""D2PO's labeller: a reward model that learns from a few gold labels as the policy moves, and labels all samples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ablate.algorithms.d2po import D2POParameters
from ablate.context import read_json, write_json
from ablate.errors import StageError
from ablate.training.collate import PairCollator
from ablate.training.experience import PassLimits, Score, finite, mini_batches, reward_model_score
from ablate.training.learner import Network
from ablate.training.online_pairs import PairPass, best_and_worst, pair_tokens
from ablate.training.pair_log import OnlinePair
from ablate.training.reward_objectives import PairObjective
from ablate.training.rollouts import Episode
from ablate.training.seeding import derive_seed

NAME = "discriminator"


class Discriminator:
    """Scores a step's responses (silver labels); before that, every so many pairs, it learns from gold labels.

    ``annotate`` gives the gold scores. A round of gold labels chooses among the policy's pairs since the last one; a
    pair whose responses tie for the annotator has cost a label and teaches nothing. When the budget is used up the
    discriminator stays as it is. ``by_name``: the annotator is a formula or a verifier. Only then do gold labels count
    as ``labels`` (a reward model's were spent on its own training), and its mean score of all samples is logged, which
    costs no label because nothing learns from it; a judge, ``is_asked``, is not asked for that. Random numbers are
    derived from (seed, step).
    """

    def __init__(
        self,
        model: nn.Module,
        annotate: Score,
        parameters: D2POParameters,
        seed: int,
        pad_id: int,
        limits: PassLimits,
        *,
        by_name: bool,
        is_asked: bool = False,
    ) -> None:
        self.parameters, self.annotate, self.seed = parameters, annotate, derive_seed(seed, NAME)
        self.by_name, self.is_measured = by_name, by_name and not is_asked
        self.pad_id, self.limits = pad_id, limits
        model = model.to(limits.device)
        self.network = Network(model, parameters.discriminator_learning_rate, parameters.weight_decay)
        self.score = reward_model_score(model, pad_id, limits, parameters.dtype)
        self.passes = PairPass(model, PairObjective(), limits, parameters.dtype)
        self.pool: list[OnlinePair] = []
        self.gold: list[OnlinePair] = []
        self.step = self.since_round = self.gold_labels = self.silver_labels = 0
        self.last_round: dict[str, float] = {}

    def __call__(self, episodes: Sequence[Episode]) -> Tensor:
        """Return the scores of a step's responses, after a round of gold labels where one is due."""
        self.step += 1
        self.last_round = {}
        scores_N = self.score(episodes)
        if self._left() and self._is_due(episodes, scores_N):
            self._learn(self._choose())
            scores_N = self.score(episodes)
        if self.is_measured:
            self.last_round["annotator_score"] = float(self.annotate(episodes).mean())
        prompts = len(episodes) // self.parameters.responses_per_prompt
        self.silver_labels += prompts * self.parameters.labels_per_prompt
        return scores_N

    def statistics(self) -> dict[str, float]:
        """Return the labels of every kind so far, and of a step with a round what it says of the discriminator."""
        counts = {"gold_labels": self.gold_labels, "silver_labels": self.silver_labels}
        return {"labels": self.gold_labels if self.by_name else 0, **counts, **self.last_round}

    def save(self, folder: Path) -> None:
        """Write weights, AdamW's moments, pool, gold pairs and counts."""
        self.network.save(folder, NAME)
        pairs = {name: [asdict(pair) for pair in getattr(self, name)] for name in ("pool", "gold")}
        write_json(folder / f"{NAME}.json", {**pairs, **{name: getattr(self, name) for name in _COUNTS}})

    def load(self, folder: Path) -> None:
        """Restore what ``save`` wrote."""
        self.network.load(folder, NAME)
        state = read_json(folder / f"{NAME}.json")
        self.pool, self.gold = ([_pair(value) for value in state[name]] for name in ("pool", "gold"))
        for name in _COUNTS:
            setattr(self, name, state[name])

    def _left(self) -> int:
        """Return how many gold labels a round may still ask for."""
        budget = self.parameters.label_budget
        wanted = self.parameters.gold_labels
        return wanted if budget is None else min(wanted, budget - self.gold_labels)

    def _is_due(self, episodes: Sequence[Episode], scores_N: Tensor) -> bool:
        """Pool the step's pairs, all but those that a missing EOS decides; say whether a round is due."""
        parameters = self.parameters
        pairs = best_and_worst(episodes, scores_N, parameters.responses_per_prompt)
        asks = parameters.missing_eos_reward is None
        self.pool += [pair for pair in pairs if pair is not None and (asks or pair.finished)]
        self.since_round += len(pairs)
        return bool(self.pool) and (not self.gold_labels or self.since_round >= parameters.gold_every)

    def _choose(self) -> list[OnlinePair]:
        """Take the pairs that get gold labels out of the pool, which is then empty."""
        pool, count = self.pool, self._left()
        self.pool, self.since_round = [], 0
        if self.parameters.gold_choice == "random":
            return random.Random(derive_seed(self.seed, "choice", self.step)).sample(pool, min(count, len(pool)))
        return sorted(pool, key=lambda pair: pair.margin)[:count]

    def _learn(self, asked: list[OnlinePair]) -> None:
        """Have pairs labelled, note how often the discriminator was right before it learns, and let it learn."""
        sides = [episode for pair in asked for episode in (pair.chosen, pair.rejected)]
        scores: list[list[float]] = finite(self.annotate(sides), "gold score", sides, self.step).view(-1, 2).tolist()
        self.gold_labels += len(asked)
        new = [_ordered(pair, *own) for pair, own in zip(asked, scores, strict=True) if own[0] != own[1]]
        right = sum(chosen > rejected for chosen, rejected in scores)
        self.last_round = {"gold_score": float(np.mean(scores)), "gold_ties": 1 - len(new) / len(asked)}
        self.gold = new if self.parameters.gold_memory == "round" else [*self.gold, *new]
        if new:
            self.last_round["discriminator_accuracy"] = right / len(new)
            self.last_round["discriminator_loss"] = self._train()

    def _train(self) -> float:
        """Take the passes over the gold pairs; return the mean loss of the first one."""
        parameters, collator = self.parameters, PairCollator(pair_tokens(self.gold), self.pad_id)
        size, losses = parameters.discriminator_batch_size, []
        for epoch in range(parameters.discriminator_epochs):
            for rows in mini_batches(len(self.gold), size, self.seed, self.step, epoch):
                loss = self.passes.backward(collator, rows)["loss"]
                norm = self.network.step(1.0, parameters.max_grad_norm)
                if not np.isfinite([loss, norm]).all():
                    prompts = ", ".join(dict.fromkeys(collator.pairs.ids[row] for row in rows[:8]))
                    raise StageError(
                        f"step {self.step}: the discriminator's loss is {loss}, its gradient norm {norm}; prompts of "
                        f"the mini-batch: {prompts}",
                        hint="lower discriminator_learning_rate",
                    )
                if epoch == 0:
                    losses.append((loss, len(rows)))
        return sum(loss * count for loss, count in losses) / len(self.gold)


_COUNTS = ("step", "since_round", "gold_labels", "silver_labels")


def _ordered(pair: OnlinePair, first: float, second: float) -> OnlinePair:
    """Return the pair in the annotator's order, with its scores."""
    sides = sorted([(first, pair.chosen), (second, pair.rejected)], key=lambda side: -side[0])
    return OnlinePair(sides[0][1], sides[1][1], sides[0][0], sides[1][0])


def _pair(value: dict[str, Any]) -> OnlinePair:
    return OnlinePair(**{**value, "chosen": Episode(**value["chosen"]), "rejected": Episode(**value["rejected"])})
