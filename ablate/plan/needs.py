"""What methods need beside the model they start from, and the shared stages that provide it: one function a need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ablate.algorithms.reward_model import TOKENS_OF_LOSS
from ablate.algorithms.steerlm import attributes_of
from ablate.catalogs.judges import JUDGE_REVISION, Judge, JudgeName, locations_of
from ablate.catalogs.rewards import GOLD, REWARD_MODEL, RewardEntry, find_reward
from ablate.experiment.grid import Cell, Section
from ablate.plan.data import DataPlanner
from ablate.plan.stage import Ref, Stage


@dataclass(frozen=True)
class Start:
    """A model before preference tuning: its stage, the tokenizer it shares with all that grows from it."""

    name: str
    model: Stage
    tokenizer: Ref
    chat: bool


class SharedStages(Protocol):
    """The stages that cells share: a request made twice is answered with one stage."""

    data: DataPlanner
    pairs: Callable[[Stage, Ref, int, str], Stage]
    rankings: Callable[[Stage, Ref, int, str], Stage]
    conversations: Callable[[Ref, str, Ref, int, str], Stage]
    split: Callable[[Ref, Ref | None, int, str, int], Stage]
    prompts: Callable[[Stage, Ref, int], Stage]
    reference_logprobs: Callable[[Start, Start, Ref, Section], Stage]
    reward_model: Callable[[Section, tuple[Section, Section], Stage, int], Stage]

    @property
    def answers(self) -> dict[str, str]:
        """Where answers of judges are kept, as a stage's locations spell it."""

    def start_of(self, cell: Cell) -> Start:
        """Return the model that a cell's training starts from."""

    def reference_of(self, cell: Cell) -> Start:
        """Return the frozen reference of a cell."""

    def sft_of(self, cell: Cell) -> Start:
        """Return the named model under a cell, after its SFT."""


@dataclass
class Order:
    """A cell's training stage while it is put together: what it is given, and the stages that is made from.

    ``applied`` names parameters that a stage before it has applied: they are in that stage's identity only.
    ``config`` is what its identity has beside algorithm, parameters and seed, ``parts`` the revisions of code.
    """

    shared: SharedStages
    cell: Cell
    start: Start
    parameters: dict[str, Any]
    inputs: dict[str, Ref] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    applied: set[str] = field(default_factory=set)
    config: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    locations: dict[str, str] = field(default_factory=dict)
    network: bool = False
    """Whether its training asks a server outside the machine."""
    measured: Ref | None = None
    """What the reference's pass is over, where that is more than ``data``."""
    reward_model: Stage | None = None

    def __post_init__(self) -> None:
        """Give every method what all start from: the policy, and the set of the cell where the method reads one."""
        self.inputs["policy"] = self.start.model.ref("model")
        if self.cell.learns_from_set:
            self.made_from["dataset"] = self.dataset("dataset", records=self._learns_from_records()).id
        self.made_from["sft"] = self.start.model.id

    def _learns_from_records(self) -> bool:
        """Return whether the cell's set is used as rankings: by its method, or by the reward model it makes alone."""
        method = self.cell.method
        alone = not method.entry and learns_from_records(self.cell.sections().get("reward_model", ()))
        return alone or "rankings" in method.needs

    def dataset(self, key: str, *, records: bool = False) -> Stage:
        """Return the set that the cell names under ``key``; ``records``: its prompts with all their responses."""
        data = self.cell.sections()["data"]
        return self.shared.data.dataset(str(self.cell.values[key]), data, self.cell, records=records)


def pairs(order: Order) -> None:
    """Provide ``data``: the tokens of the set's pairs."""
    longest, truncation = order.parameters["max_length"], order.parameters["truncation"]
    tokens = order.shared.pairs(order.dataset("dataset"), order.start.tokenizer, longest, truncation)
    order.inputs["data"] = tokens.ref("tokens.parquet")
    order.applied |= {"max_length", "truncation"}


def rankings(order: Order) -> None:
    """Provide ``data``: the tokens of the set's prompts with all their responses and ranks."""
    longest, truncation = order.parameters["max_length"], order.parameters["truncation"]
    records = order.dataset("dataset", records=True)
    order.inputs["data"] = order.shared.rankings(records, order.start.tokenizer, longest, truncation).ref(
        "tokens.parquet"
    )
    order.applied |= {"max_length", "truncation"}


def reference_logprobs(order: Order) -> None:
    """Provide ``reference_logprobs``: the reference's pass over ``data``, one for all who learn from both.

    Where the reference is not what training starts from, its ``reference`` is provided too: the first loss differs.
    """
    other = order.shared.reference_of(order.cell)
    if other.model is not order.start.model:
        order.inputs["reference"] = other.model.ref("model")
    order.inputs["reference_logprobs"] = _reference_pass(order, other, order.measured or order.inputs["data"])


def mismatched_logprobs(order: Order) -> None:
    """Provide ``mismatched_logprobs``: the reference's pass over ``data`` with completions of other prompts."""
    other = order.shared.reference_of(order.cell)
    order.inputs["mismatched_logprobs"] = _reference_pass(order, other, order.inputs["data"], completions="mismatched")


def _reference_pass(order: Order, reference: Start, data: Ref, **differs: str) -> Ref:
    how = {"dtype": order.parameters["dtype"], **differs}
    if quantisation := order.parameters.get("quantisation"):
        how["quantisation"] = quantisation
    return order.shared.reference_logprobs(reference, order.start, data, tuple(how.items())).ref("logprobs.parquet")


def reference(order: Order) -> None:
    """Provide ``reference``: the frozen model that the policy is held to."""
    order.inputs["reference"] = order.shared.reference_of(order.cell).model.ref("model")


def part(order: Order) -> None:
    """Cut ``data`` to the part of this round; the first reference's pass over all of it, which orders it, is shared."""
    whole, ordering = order.inputs["data"], order.parameters["order"]
    measured = None
    if ordering == "easy-to-hard":
        measured = _reference_pass(order, order.shared.reference_of(order.cell.at_round(1)), whole)
        if order.cell.rounds == 1:
            order.measured = whole
    seed = dict(order.cell.sections()["data"]).get("seed") or 0
    assert isinstance(seed, int)
    parts = order.shared.split(whole, measured, order.parameters["parts"], ordering, seed)
    order.inputs["data"] = parts.ref(f"part-{order.cell.rounds}.parquet")
    order.applied |= {"parts", "order"}


def answers(order: Order) -> None:
    """Provide ``data``: the tokens of the set's conversations, or of the chosen responses to its prompts."""
    dataset = order.dataset("dataset")
    is_pairs = dataset.identity.config.value["format"] == "preference"
    file, form = ("pairs.jsonl", "answers") if is_pairs else ("conversations.jsonl", "conversations")
    _imitate(order, dataset.ref(file), form, dataset.execution.label)


def best_responses(order: Order) -> None:
    """Provide ``data``: the tokens of the policy's own responses to the prompts that score best."""
    source, parameters = order.dataset("prompts"), order.parameters
    label = f"{order.start.model.execution.label} for {source.execution.label}"
    decoding = {name: parameters[name] for name in ("n", "temperature", "top_p")}
    decoding |= {"max_new_tokens": parameters["max_response_length"], "seed": order.cell.values["seed"]}
    responses = order.shared.data.respond(
        order.start.model, source, {**decoding, "chat": order.start.chat}, label=f"responses of {label}"
    )
    scored = _scored(order, responses, source, f"labels of {label}")
    best = order.shared.data.best(scored, parameters["top_share"], label=f"best responses of {label}")
    order.made_from["prompts"] = source.id
    order.applied |= {"n", "temperature", "top_p", "max_response_length", "top_share"}
    _imitate(order, best.ref("answers.jsonl"), "answers", best.execution.label)


def conditioned_answers(order: Order) -> None:
    """Provide ``data``: the tokens of all responses, behind prompts that say what a reward model rates them."""
    records, names = order.dataset("dataset", records=True), ("condition", "lowest", "highest")
    label = records.execution.label
    model = _trained_reward_model(order)
    rated = order.shared.data.rate(records.ref("records.jsonl"), model.ref("model"), label=f"ratings of {label}")
    config: dict[str, Any] = {name: order.parameters[name] for name in names}
    config["attributes"] = list(attributes_of(config["condition"]))
    answers = order.shared.data.condition(rated, config, label=f"conditions of {label}")
    order.applied |= {"lowest", "highest", "max_length"}
    tokenizer = order.shared.sft_of(order.cell).tokenizer  # without the condition of a policy that is asked already
    tokens = order.shared.conversations(
        answers.ref("answers.jsonl"), "answers", tokenizer, order.parameters["max_length"], answers.execution.label
    )
    order.inputs["data"] = tokens.ref("tokens.parquet")


def _scored(order: Order, responses: Stage, prompts: Stage, label: str) -> Stage:
    """Return responses scored by what the axis ``reward`` names: the reward model, a formula or a verifier."""
    name, records = order.cell.values["reward"], responses.ref("records.jsonl")
    assert isinstance(name, str)
    if isinstance(name, JudgeName):
        return order.shared.data.asked(records, name.judge, (order.start.model, order.start.chat), label=label)
    if name == REWARD_MODEL:
        by = {"reward_model": _trained_reward_model(order).ref("model")}
        return order.shared.data.label(records, {"closed_form": None}, by, label=label)
    return order.shared.data.scored(records, find_reward(name), prompts, label=label)


def _imitate(order: Order, data: Ref, form: str, label: str) -> None:
    tokens = order.shared.conversations(data, form, order.start.tokenizer, order.parameters["max_length"], label)
    order.inputs["data"] = tokens.ref("tokens.parquet")
    order.applied.add("max_length")


def reward_model(order: Order) -> None:
    """Provide ``reward_model``, trained with the cell's seed."""
    order.inputs["reward_model"] = _trained_reward_model(order).ref("model")


def _trained_reward_model(order: Order) -> Stage:
    cell = order.cell
    seed = cell.values["seed"]
    assert isinstance(seed, int)
    dataset = order.dataset("reward_model.dataset", records=learns_from_records(cell.sections()["reward_model"]))
    made = order.shared.reward_model(cell.sections()["reward_model"], starts_of(cell), dataset, seed)
    order.made_from["reward_model"] = made.id
    order.reward_model = made
    return made


def reward(order: Order) -> None:
    """Provide what scores responses: the reward model, a judge, or the name of a formula or a verifier."""
    judge(order, "reward")


def annotator(order: Order) -> None:
    """Provide what orders the pairs of an online method: the reward model, or the name of a formula or a verifier."""
    judge(order, "annotator")


def discriminator(order: Order) -> None:
    """Provide what D2PO's discriminator starts from, where that is the reward model."""
    if order.cell.has_reward_model:
        reward_model(order)


def judge(order: Order, axis: str) -> None:
    """Provide what the cell names under ``axis``: a reward model, or config ``axis`` and what that reads."""
    name = order.cell.values[axis]
    assert isinstance(name, str)
    if name == REWARD_MODEL:
        reward_model(order)
    elif isinstance(name, JudgeName):
        _asked_judge(order, axis, name.judge)
    else:
        _named_reward(order, axis, find_reward(name))


def _asked_judge(order: Order, key: str, asked: Judge) -> None:
    """Provide a judge that is asked in words; one that is the policy itself needs nobody else."""
    order.config[key] = {"judge": asked.identity()}
    order.parts["judge"] = JUDGE_REVISION
    order.locations |= {**locations_of([asked]), **order.shared.answers}
    order.network = not asked.is_self
    prompt_texts(order)


def _named_reward(order: Order, key: str, entry: RewardEntry) -> None:
    order.config |= {key: entry.name, **entry.identity()}
    order.parts |= entry.parts()
    prompt_texts(order)


def prompts(order: Order) -> None:
    """Provide ``prompts``: the tokens of the prompts that responses are sampled to.

    Where they are items of the pocket world, the gold reward of the responses is logged: config ``gold``.
    """
    source = order.dataset("prompts")
    longest = order.parameters["max_prompt_length"]
    order.inputs["prompts"] = order.shared.prompts(source, order.start.tokenizer, longest).ref("tokens.parquet")
    order.made_from["prompts"] = source.id
    order.applied.add("max_prompt_length")
    if order.shared.data.checks(str(order.cell.values["prompts"])) == {"pocket"}:
        order.config["gold"] = GOLD
        order.parts = LOGGED | order.parts
        prompt_texts(order)


def prompt_texts(order: Order) -> None:
    """Provide ``prompt_texts``: the prompts as text, with what verifiers read of each."""
    order.inputs["prompt_texts"] = order.dataset("prompts").ref("prompts.jsonl")


LOGGED = {f"reward {GOLD}": 1, "grader pocket": 1}
"""Parts of a policy whose gold is logged. They stay as they are when the grader's revision is raised: nothing is learnt
from it, and a policy that is trained again would be the same one."""


@dataclass(frozen=True)
class Need:
    """One thing that methods need: the function that provides it, and what that asks of the method.

    ``parameters`` are those of the method that it is made by or checked with, ``axes`` those of a cell; ``of`` is the
    need whose data it is about, which stands before it, as those of ``after`` do where a method has them. ``judge`` is
    the axis that the method is judged by, empty for none, None for any. ``rounds`` is the parameter that says how many
    rounds the method has. ``is_data``: it provides ``data``.
    """

    provide: Callable[[Order], None]
    parameters: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    of: str | None = None
    after: tuple[str, ...] = ()
    judge: str | None = None
    rounds: str | None = None
    is_data: bool = False


_LENGTHS = ("max_length", "truncation")
_JUDGED = ("dataset", "prompts", "reward_model")
_SAMPLED = ("max_length", "n", "temperature", "top_p", "max_response_length", "top_share")
_CONDITIONED = ("max_length", "condition", "lowest", "highest")
NEEDS: dict[str, Need] = {
    "pairs": Need(pairs, _LENGTHS, ("dataset",), is_data=True),
    "rankings": Need(rankings, _LENGTHS, ("dataset",), is_data=True),
    "answers": Need(answers, ("max_length",), ("dataset",), is_data=True),
    "best_responses": Need(best_responses, _SAMPLED, _JUDGED, judge="reward", is_data=True),
    "conditioned_answers": Need(conditioned_answers, _CONDITIONED, ("dataset", "reward_model"), judge="", is_data=True),
    "part": Need(part, ("parts", "order", "dtype"), of="pairs", rounds="parts"),
    "reference_logprobs": Need(reference_logprobs, ("dtype",), of="pairs", after=("part",)),
    "mismatched_logprobs": Need(mismatched_logprobs, ("dtype",), of="pairs", after=("part",)),
    "reference": Need(reference),
    "prompts": Need(prompts, ("max_prompt_length", "max_response_length"), ("prompts",)),
    "prompt_texts": Need(prompt_texts, (), ("prompts",)),
    "reward_model": Need(reward_model, (), ("dataset", "reward_model"), judge=""),
    "reward": Need(reward, (), _JUDGED, judge="reward"),
    "annotator": Need(annotator, (), _JUDGED, judge="annotator"),
    "discriminator": Need(discriminator, (), ("dataset", "reward_model")),
}
"""By name; a method lists its needs in the order in which they are provided: the reference's pass is over ``data``."""


def learns_from_records(section: Section) -> bool:
    """Return whether the loss of a reward model's section is over prompts with all their responses, not over pairs."""
    written = dict(section).get("loss")
    return written in TOKENS_OF_LOSS and TOKENS_OF_LOSS[written] != "pairs"


def starts_of(cell: Cell) -> tuple[Section, Section]:
    """Return how the models that a cell starts from are made: base training and SFT."""
    sections = cell.sections()
    return sections.get("pretrain", ()), sections.get("sft", ())
