"""On-policy training: the one loop in which every method that samples from the policy it trains runs.

A step: take prompts -> sample responses -> score them -> log-probabilities, KL, values -> targets -> mini-batches.
Methods differ in their learner (``ablate.training.learner``) and in nothing else.

Which policy is meant: responses are sampled from pi_T = softmax(logits / temperature), so pi_T is the behaviour policy
and the policy that is optimised. The ratio, the KL penalty (pi_T against the reference's pi_ref,T) and the entropy are
all of pi_T. EasyLM, with which the study was run, samples at 0.7 and takes ratio and KL from untempered
log-probabilities (llama_train_ppo.py at 042c148); its ratio is not that of the policy that sampled. It whitens per row,
here it is over the batch. The other rules are EasyLM's.

Resuming: every random number is derived from (seed, step), so that a checkpoint is weights, AdamW's moments, the step
and the history, and a resumed run makes the same rollouts, losses and weights as an unbroken one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ablate.algorithms.on_policy import RolloutParameters
from ablate.catalogs.rewards import find_reward
from ablate.context import EventLog, Sharding, StageContext, import_function, read_json, write_json
from ablate.data.json_lines import read_json_lines
from ablate.errors import DataError, StageError
from ablate.models.chat import Messages
from ablate.models.loading import compares_responses, load_tokenizer, require_same_tokenizer
from ablate.models.properties import context_length, eos_ids, pad_id
from ablate.training.checkpoints import Cadence, CheckpointClock, latest_checkpoint, save_checkpoint
from ablate.training.devices import autocast, room_for
from ablate.training.distributed import from_main, interleaved, is_main, share, world
from ablate.training.experience import (
    PassLimits,
    Recorder,
    Rollout,
    Score,
    finite,
    mini_batches,
    outcomes,
    prompt_rows,
    reward_model_score,
    rollout_statistics,
    text_score,
    win_rate,
)
from ablate.training.history import History
from ablate.training.judged import JudgedEpisodes
from ablate.training.learner import Learner
from ablate.training.lora import publish, tuned_policy
from ablate.training.placement import frozen_reference, frozen_score, sampled_from
from ablate.training.rollout_server import RolloutServer
from ablate.training.rollouts import Episode, Sampled, sample
from ablate.training.schedules import learning_rate_factor
from ablate.training.seeding import derive_seed
from ablate.training.zero import mark, require_mark

SAMPLES_PER_STEP = 3
ASKED_JUDGE = "ablate.rewards.annotate:open_annotator"
"""Opens a judge that is asked in words."""
COMPARING_MODEL = "ablate.rewards.annotate:open_comparing_annotator"
"""Opens a reward model that compares two responses."""


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt that ends with the template's generation prompt."""

    id: str
    ids: list[int]


@dataclass(frozen=True)
class Tokens:
    """The ids that end a response, the id that fills padding (it may be one of them), and how ids become text."""

    eos: frozenset[int]
    pad: int
    decode: Callable[[list[int]], str]

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tokens:
        """Return those of a model and its tokenizer; text shows special tokens."""
        return cls(
            eos_ids(model, tokenizer),
            pad_id(tokenizer),
            lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
        )


class OnPolicyTrainer:
    """A learner with its policy, the reference, and the loop over steps.

    The learner's networks are trained in place; the reference stays as it is. ``score`` is the reward, ``gold`` the
    true one where it is known, which is logged alone; without it ``compare`` says which of two responses wins.
    ``judged`` is the judge that is the reward, whose counts are logged.
    ``labels_per_response`` says how many labels a score costs: 0 for a reward model, whose labels were spent on its own
    training.
    """

    def __init__(
        self,
        learner: Learner[Any, Any],
        seed: int,
        *,
        reference: nn.Module,
        score: Score,
        prompts: list[Prompt],
        tokens: Tokens,
        gold: Score | None = None,
        compare: Score | None = None,
        judged: JudgedEpisodes | None = None,
        labels_per_response: int = 0,
        events: EventLog | None = None,
    ) -> None:
        self.learner, self.seed, self.score, self.gold = learner, seed, score, gold
        self.prompts, self.tokens, self.labels_per_response = prompts, tokens, labels_per_response
        self.parameters: RolloutParameters = learner.parameters
        self.limits: PassLimits = learner.limits
        self.compare, self.judged = gold or compare, judged
        self.reference = frozen = reference.to(self.limits.device).eval().requires_grad_(False)
        value = learner.networks["value"].model if "value" in learner.networks else None
        temperature, dtype = self.parameters.temperature, self.parameters.dtype
        self.recorder = Recorder(learner.policy.model, frozen, value, tokens.pad, self.limits, temperature, dtype)
        self.steps = planned_steps(self.parameters, len(prompts))
        self._check_processes()
        if self.parameters.win_rate_every is not None and self.compare is None:
            raise StageError(
                "nothing says which of two responses wins: a judge is asked about those alone that are learnt from",
                hint="leave win_rate_every out, or take prompts whose gold reward is known",
            )
        self.server: RolloutServer | None = None
        self.done = 0
        self.history = History(events, total_steps=self.steps)
        self.samples: list[dict[str, Any]] = []
        self._amid_step = False

    def train(self, work: Path, previous: Iterable[Path] = (), *, cadence: Cadence | None = None) -> None:
        """Run the steps that are left, from the newest checkpoint in ``work`` and ``previous`` if there is one.

        A step that must not go on (a reward, loss or KL that is not finite or too large, a ratio that is not 1) stops
        the run with a StageError, which says where the state is saved.
        """
        if checkpoint := latest_checkpoint([work, *previous]):
            require_mark(checkpoint, self.sharding)
            self.load(checkpoint)
        clock = CheckpointClock(cadence or Cadence())
        while self.done < self.steps:
            with room_for(self.limits.rows or self.parameters.mini_batch_size * self.learner.unit):
                self._step_or_stop(work)
            if from_main(clock.due(self.done, self.steps)):
                clock.save(work, self.done, self.save)
        for network in self.learner.networks.values():
            network.end()

    @property
    def sharding(self) -> Sharding:
        """How the processes share the networks."""
        return "zero2" if self.learner.shared_out else "ddp"

    def _step_or_stop(self, work: Path) -> None:
        """Make a step; where it is stopped, the first process saves the state, and the message says where."""
        try:
            self.step()
        except StageError as error:
            if not is_main() or self.learner.shared_out:  # a process can't save alone what all have parts of
                raise
            folder = self._save_stopped(work)
            raise StageError(f"{error.message}; the state is saved in {folder}", hint=error.hint) from error

    def _save_stopped(self, work: Path) -> Path:
        """Save the state of a run that is stopped, and return its folder.

        As long as the step has changed nothing that is a checkpoint: what was wrong can be put right, and the run goes
        on. After its first update, and where a labeller keeps or learns something, after its scores, it is for looking
        at alone: a resumed run goes on from an older checkpoint.
        """
        if not self._amid_step:
            return save_checkpoint(work, self.done, self.save)
        folder = work / f"stopped-in-step-{self.done + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        self.save(folder)
        return folder

    def step(self) -> None:
        """Sample, score, make the targets, update, log."""
        number, learner = self.done + 1, self.learner
        self._amid_step = False
        episodes = self.sample_episodes(self.done)
        parts = self.mini_batches(len(episodes), 0)
        self._amid_step = learner.learns_from_scoring
        rollout = self.evaluate_episodes(episodes, parts)
        targets = learner.targets(rollout)
        statistics = {**rollout_statistics(rollout), **learner.statistics(rollout, targets)}
        statistics |= {} if self.judged is None else self.judged.statistics()
        if self.gold is not None:
            statistics["gold"] = float(finite(self.gold(episodes), "gold reward", episodes, number).mean())
        if self.parameters.win_rate_every is not None and self.done % self.parameters.win_rate_every == 0:
            statistics["win_rate"] = self._win_rate(episodes)
        self._check_kl(statistics["kl"], rollout)
        factor, self._amid_step = 0.0, True
        for inner_epoch in range(self.parameters.inner_epochs):
            if inner_epoch:
                parts = self.mini_batches(len(episodes), inner_epoch)
            for index, rows in enumerate(parts):
                factor = self._rate_factor(inner_epoch, index, len(parts))
                first = inner_epoch == index == 0
                means = learner.update(rollout, targets, rows, factor, step=number, first=first)
                self.history.add(learner.weight(targets, rows), **means)
        self.done = number
        rate = factor * self.parameters.learning_rate
        self._log(rollout, {**self.history.means(), **statistics, "learning_rate": rate})

    def sample_episodes(self, step: int) -> list[Episode]:
        """Return the episodes of ``step`` (0-based), sampled from the policy as it is; a prompt's are neighbours."""
        parameters = self.parameters
        rows = prompt_rows(step, parameters.prompts_per_step, len(self.prompts), self.seed)
        prompts = [self.prompts[row] for row in rows for _ in range(parameters.responses_per_prompt)]
        if parameters.rollout_engine == "vllm":
            return self._sampled_by_server(prompts, step)
        return self._sampled(self.learner.policy.model, prompts, "rollout", step)

    def _sampled(self, model: nn.Module, prompts: list[Prompt], draws: str, step: int) -> list[Episode]:
        """Return the responses that a model of this process samples; ``draws`` names their random numbers."""
        parameters, own = self.parameters, share(range(len(prompts)))
        longest = max(len(prompt.ids) for prompt in prompts) + parameters.max_response_length
        with autocast(self.limits.device, parameters.dtype):
            responses = sample(
                model,
                [prompts[row].ids for row in own],
                max_new_tokens=parameters.max_response_length,
                temperature=parameters.temperature,
                eos_token_ids=self.tokens.eos,
                pad_token_id=self.tokens.pad,
                generator_seed=derive_seed(self.seed, draws, step),
                batch_size=self.limits.sampling_rows(model, longest),
                numbers=own,
            )
        pairs = zip(prompts, interleaved(responses), strict=True)
        return [Episode(prompt.id, prompt.ids, response.ids, response.finished) for prompt, response in pairs]

    def _sampled_by_server(self, prompts: list[Prompt], step: int) -> list[Episode]:
        """Return the episodes that a server samples, to which one process talks."""
        parameters, responses = self.parameters, list[Sampled]()
        if self.server is not None:
            responses = self.server.sample(
                self.learner.policy.model,
                [prompt.ids for prompt in prompts],
                max_new_tokens=parameters.max_response_length,
                temperature=parameters.temperature,
                eos_token_ids=self.tokens.eos,
                generator_seed=derive_seed(self.seed, "rollout", step),
            )
        pairs = zip(prompts, from_main(responses), strict=True)
        return [Episode(prompt.id, prompt.ids, response.ids, response.finished) for prompt, response in pairs]

    def _win_rate(self, episodes: list[Episode]) -> float:
        """Return how often the step's responses beat the reference's: one to each prompt, sampled alike."""
        k = self.parameters.responses_per_prompt
        prompts = [Prompt(episode.prompt_id, episode.prompt_ids) for episode in episodes[::k]]
        with sampled_from(self.reference) as reference:
            others = self._sampled(reference, prompts, "reference rollout", self.done)
        assert self.compare is not None
        found = (
            outcomes(finite(self.compare(own), "score", own, self.done + 1), own, self.parameters.missing_eos_reward)
            for own in (episodes, others)
        )
        scores_N, others_M = found
        return win_rate(scores_N, others_M.repeat_interleave(k))

    def mini_batches(self, episodes: int, inner_epoch: int) -> list[list[int]]:
        """Return the rows of each mini-batch of an inner epoch of the step that is next; units stay whole."""
        unit = self.learner.unit
        parts = mini_batches(episodes // unit, self.parameters.mini_batch_size, self.seed, self.done + 1, inner_epoch)
        return [[row for index in part for row in range(index * unit, (index + 1) * unit)] for part in parts]

    def evaluate_episodes(self, episodes: list[Episode], parts: list[list[int]]) -> Rollout:
        """Score the episodes and record log-probabilities and values in the micro-batches of ``parts``."""
        scores_N = finite(self.score(episodes), "reward", episodes, self.done + 1)
        chunks = [chunk for rows in parts for chunk in self.limits.chunks(episodes, rows)]
        outcomes_N = outcomes(scores_N, episodes, self.parameters.missing_eos_reward)
        return self.recorder.record(episodes, chunks, scores_N, outcomes_N, self.parameters.responses_per_prompt)

    def save(self, folder: Path) -> None:
        """Write a checkpoint's files: the main process all that is whole, the others their parts."""
        if not is_main():
            self.learner.save_part(folder)
            return
        self.learner.save(folder)
        self.history.save(folder)
        mark(folder, self.sharding)
        counts = {} if self.judged is None else {"judged": self.judged.counts}
        write_json(folder / "state.json", {"step": self.done, "samples": self.samples, **counts})

    def load(self, folder: Path) -> None:
        """Restore a checkpoint."""
        self.learner.load(folder)
        self.history.load(folder)
        state = read_json(folder / "state.json")
        self.done, self.samples = state["step"], state["samples"]
        if self.judged is not None:
            self.judged.counts = state["judged"]

    def _check_processes(self) -> None:
        """Raise StageError where several processes train, and the method or its mini-batches can't be divided."""
        episodes = self.parameters.prompts_per_step * self.parameters.responses_per_prompt
        smallest = episodes // -(-episodes // self.parameters.mini_batch_size)
        if world() > 1 and not (self.learner.divisible and smallest >= world()):
            can = f"mini-batches of {smallest}" if self.learner.divisible else "this method"
            raise StageError(f"{world()} processes can't share {can}", hint="run this stage with one process")

    def _rate_factor(self, inner_epoch: int, index: int, parts: int) -> float:
        """Return the share of the peak learning rate at this optimiser step: warm-up, then constant."""
        inner = self.parameters.inner_epochs
        update = (self.done * inner + inner_epoch) * parts + index
        ratio = self.parameters.warmup_ratio
        return learning_rate_factor(update, steps=self.steps * inner * parts, warmup_ratio=ratio, shape="constant")

    def _check_kl(self, kl: float, rollout: Rollout) -> None:
        limit = self.parameters.stop_at_kl
        if not kl < float("inf") or (limit is not None and kl > limit):
            rows = range(len(rollout.episodes))
            raise StageError(
                f"step {self.done + 1}: the KL from the reference is {kl:.3g} nats, "
                f"allowed: {'any finite' if limit is None else limit}; prompts {rollout.prompt_ids(rows)}",
                hint="hold the policy closer to the reference (a larger coefficient), or lower the learning rate",
            )

    def _log(self, rollout: Rollout, values: dict[str, float]) -> None:
        samples = self.done * len(rollout.episodes)
        self.history.log(self.done, **{"labels": samples * self.labels_per_response, **values}, samples=samples)
        for row in range(min(SAMPLES_PER_STEP, len(rollout.episodes))):
            episode = rollout.episodes[row]
            self.samples.append(
                {
                    "step": self.done,
                    "id": episode.prompt_id,
                    "prompt": self.tokens.decode(episode.prompt_ids),
                    "response": self.tokens.decode(episode.response_ids),
                    "score": float(rollout.scores_N[row]),
                    "finished": episode.finished,
                }
            )


def planned_steps(parameters: RolloutParameters, prompts: int) -> int:
    """Return ``steps``, or as many whole steps as ``epochs`` passes over the prompts hold (a rest is not used)."""
    if parameters.steps is not None:
        return parameters.steps
    steps = parameters.epochs * prompts // parameters.prompts_per_step
    if steps == 0:
        raise StageError(
            f"{parameters.epochs} pass over {prompts} prompts holds no step of {parameters.prompts_per_step} prompts",
            hint="lower prompts_per_step, raise epochs, or set steps (prompts then repeat)",
        )
    return steps


def read_prompts(path: Path) -> list[Prompt]:
    """Return the prompts of ``tokens.parquet``, which holds none that is too long.

    Raises DataError when columns are missing, a prompt is empty or there is none.
    """
    table = pq.read_table(path)
    if missing := {"id", "prompt_ids"} - set(table.column_names):
        raise DataError(
            f"{path} lacks the columns {sorted(missing)}; it has {table.column_names}: no tokenised prompts"
        )
    columns = zip(table.column("id").to_pylist(), table.column("prompt_ids").to_pylist(), strict=True)
    prompts = [Prompt(name, ids) for name, ids in columns]
    if not prompts:
        raise DataError(f"{path} holds no prompt; see the report beside it for what was dropped")
    if empty := [prompt.id for prompt in prompts if not prompt.ids]:
        raise DataError(f"{path}: {len(empty)} prompts have no token, first {empty[0]}")
    return prompts


def check_positions(model: PreTrainedModel, prompts: list[Prompt], max_response_length: int) -> None:
    """Raise StageError when prompt and response may need more positions than the model has."""
    positions = context_length(model)
    longest = max(len(prompt.ids) for prompt in prompts)
    if positions is not None and longest + max_response_length > positions:
        raise StageError(
            f"a prompt of {longest} tokens and max_response_length {max_response_length} need "
            f"{longest + max_response_length} positions; the policy has {positions}",
            hint=f"set max_response_length to at most {max(positions - longest, 0)}, or lower max_prompt_length",
        )


@dataclass(frozen=True)
class OnPolicyStage:
    """What every stage of on-policy training opens, and how it ends."""

    context: StageContext
    tokenizer: PreTrainedTokenizerBase
    policy: PreTrainedModel
    reference: nn.Module
    prompts: list[Prompt]
    tokens: Tokens
    limits: PassLimits

    @classmethod
    def open(cls, context: StageContext, parameters: RolloutParameters, others: Iterable[str] = ()) -> OnPolicyStage:
        """Load the inputs that every method has; the models ``others`` must share the policy's tokenizer.

        Raises DataError where a tokenizer differs, and StageError where a rollout has no room in the policy's context.
        """
        torch.set_num_threads(context.resources.threads)
        roles = ("policy", "reference", *others)
        tokenizer, *compared = (load_tokenizer(context.inputs[role], template=False) for role in roles)
        for other in compared:
            require_same_tokenizer(tokenizer, other)
        prompts = read_prompts(context.inputs["prompts"])
        policy = tuned_policy(context, parameters)
        check_positions(policy, prompts, parameters.max_response_length)
        limits = PassLimits.of(context.resources, int(policy.config.vocab_size))
        policy.to(limits.device)  # type: ignore[arg-type]
        reference = frozen_reference(context, policy, parameters)
        return cls(context, tokenizer, policy, reference, prompts, Tokens.of(policy, tokenizer), limits)

    def judge(self, key: str, dtype: str, value: PreTrainedModel | None = None) -> Score:
        """Return what scores responses: the reward that config ``key`` names, or the input ``reward_model``.

        A reward model reads the policy's own token ids, so it must share its tokenizer (``others`` of :meth:`open`).
        ``value`` is a network that was loaded from the same input: under an adapter it serves as the reward model, too.
        """
        if key in self.context.config:
            return self._named(str(self.context.config[key]))

        def score_of(model: nn.Module, device: torch.device) -> Score:
            return reward_model_score(model, self.tokens.pad, replace(self.limits, device=device), dtype)

        return frozen_score(self.context.inputs["reward_model"], value, self.context.resources, score_of)

    def reader(self, key: str, group: int) -> JudgedEpisodes | None:
        """Return the judge that reads texts, where config ``key`` describes one or the reward model compares two.

        Responses to a prompt are ``group`` neighbours. Else None: then :meth:`judge` says who scores.
        """
        if isinstance(self.context.config.get(key), Mapping):
            score = import_function(ASKED_JUDGE, "the judge")(self.context, self.policy, key, group)
        elif key not in self.context.config and compares_responses(self.context.inputs["reward_model"]):
            score = import_function(COMPARING_MODEL, "the reward model")(self.context, group)
        else:
            return None
        return JudgedEpisodes(score, self._prompts(), self._text, group)

    @property
    def gold(self) -> Score | None:
        """The true reward, where config ``gold`` names it."""
        name = self.context.config.get("gold")
        return None if name is None else self._named(str(name))

    def _named(self, name: str) -> Score:
        rows = read_json_lines(self.context.inputs["prompt_texts"])
        open_named = import_function(find_reward(name).entry, f"the reward {name}")
        reward = open_named(name, rows, self.context.resources)
        return text_score(reward.score, self._prompts(), self._text)

    def _prompts(self) -> dict[str, Messages]:
        rows = read_json_lines(self.context.inputs["prompt_texts"])
        return {row["id"]: tuple(row["prompt"]) for row in rows}

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def train(self, trainer: OnPolicyTrainer) -> dict[str, Any]:
        """Train to the end; write ``model/``, ``history.jsonl`` and ``samples.jsonl``, and return the summary."""
        context = self.context
        if trainer.parameters.rollout_engine == "vllm" and is_main():
            trainer.server = RolloutServer.open(context.resources.rollout_server, self.limits.device)
        trainer.train(context.work, context.previous_work, cadence=Cadence(context.resources.checkpoint_seconds))
        publish(self.policy, self.tokenizer, context.output / "model")
        trainer.history.write(context.output / "history.jsonl")
        lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in trainer.samples]
        (context.output / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
        return {"prompts": len(self.prompts), "steps": trainer.steps, **trainer.history.last}
