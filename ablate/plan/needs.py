"""What methods need beside the model they start from, and the shared stages that provide it: one function a need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

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
    conversations: Callable[[Ref, str, Ref, int, str], Stage]
    split: Callable[[Ref, Ref | None, int, str, int], Stage]
    prompts: Callable[[Stage, Ref, int], Stage]
    reference_logprobs: Callable[[Stage, Ref, str], Stage]
    reward_model: Callable[[Section, tuple[Section, Section], Stage, int], Stage]

    def start_of(self, cell: Cell) -> Start:
        """Return the model that a cell's training starts from."""


@dataclass
class Order:
    """A cell's training stage while it is put together: what it is given, and the stages that is made from.

    ``applied`` names parameters that a stage before it has applied: they are in that stage's identity only.
    """

    shared: SharedStages
    cell: Cell
    start: Start
    parameters: dict[str, Any]
    inputs: dict[str, Ref] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    applied: set[str] = field(default_factory=set)
    measured: Ref | None = None
    """What the reference's pass is over, where that is more than ``data``."""
    reward_model: Stage | None = None

    def __post_init__(self) -> None:
        """Give every method what all start from: the policy, and the preference set of the cell."""
        self.inputs["policy"] = self.start.model.ref("model")
        self.made_from |= {"dataset": self.dataset("dataset").id, "sft": self.start.model.id}

    def dataset(self, key: str) -> Stage:
        """Return the set that the cell names under ``key``."""
        return self.shared.data.dataset(str(self.cell.values[key]), self.cell.sections()["data"], self.cell)


def pairs(order: Order) -> None:
    """Provide ``data``: the tokens of the set's pairs."""
    longest, truncation = order.parameters["max_length"], order.parameters["truncation"]
    tokens = order.shared.pairs(order.dataset("dataset"), order.start.tokenizer, longest, truncation)
    order.inputs["data"] = tokens.ref("tokens.parquet")
    order.applied |= {"max_length", "truncation"}


def reference_logprobs(order: Order) -> None:
    """Provide ``reference_logprobs``: the reference's pass over ``data``, one for all who learn from both."""
    data = order.measured or order.inputs["data"]
    logprobs = order.shared.reference_logprobs(order.start.model, data, order.parameters["dtype"])
    order.inputs["reference_logprobs"] = logprobs.ref("logprobs.parquet")


def part(order: Order) -> None:
    """Cut ``data`` to the part of this round; the first reference's pass over all of it, which orders it, is shared."""
    whole, ordering = order.inputs["data"], order.parameters["order"]
    measured = None
    if ordering == "easy-to-hard":
        first = order.shared.start_of(order.cell.at_round(1)).model
        measured = order.shared.reference_logprobs(first, whole, order.parameters["dtype"]).ref("logprobs.parquet")
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
    """Provide ``data``: the tokens of the policy's own responses that the reward model likes best."""
    source, parameters = order.dataset("prompts"), order.parameters
    label = f"{order.start.model.execution.label} for {source.execution.label}"
    decoding = {name: parameters[name] for name in ("n", "temperature", "top_p")}
    decoding |= {"max_new_tokens": parameters["max_response_length"], "seed": order.cell.values["seed"]}
    responses = order.shared.data.respond(
        order.start.model, source, {**decoding, "chat": order.start.chat}, label=f"responses of {label}"
    )
    judge, records = _trained_reward_model(order), responses.ref("records.jsonl")
    scored = order.shared.data.label(records, judge, label=f"labels of {label}")
    best = order.shared.data.best(scored, parameters["top_share"], label=f"best responses of {label}")
    order.made_from["prompts"] = source.id
    order.applied |= {"n", "temperature", "top_p", "max_response_length", "top_share"}
    _imitate(order, best.ref("answers.jsonl"), "answers", best.execution.label)


def _imitate(order: Order, data: Ref, form: str, label: str) -> None:
    tokens = order.shared.conversations(data, form, order.start.tokenizer, order.parameters["max_length"], label)
    order.inputs["data"] = tokens.ref("tokens.parquet")
    order.applied.add("max_length")


def reward_model(order: Order) -> None:
    """Provide ``reward_model``, trained with the cell's seed, and ``reference``, the model training starts from."""
    made = _trained_reward_model(order)
    order.inputs |= {"reference": order.start.model.ref("model"), "reward_model": made.ref("model")}


def _trained_reward_model(order: Order) -> Stage:
    cell = order.cell
    seed = cell.values["seed"]
    assert isinstance(seed, int)
    dataset = order.dataset("reward_model.dataset")
    made = order.shared.reward_model(cell.sections()["reward_model"], starts_of(cell), dataset, seed)
    order.made_from["reward_model"] = made.id
    order.reward_model = made
    return made


def prompts(order: Order) -> None:
    """Provide ``prompts``: the tokens of the prompts that responses are sampled to."""
    source = order.dataset("prompts")
    longest = order.parameters["max_prompt_length"]
    order.inputs["prompts"] = order.shared.prompts(source, order.start.tokenizer, longest).ref("tokens.parquet")
    order.made_from["prompts"] = source.id
    order.applied.add("max_prompt_length")


PROVIDERS: dict[str, Callable[[Order], None]] = {
    "pairs": pairs,
    "part": part,
    "reference_logprobs": reference_logprobs,
    "answers": answers,
    "best_responses": best_responses,
    "reward_model": reward_model,
    "prompts": prompts,
}
"""By need; a method lists its needs in the order in which they are provided: the reference's pass is over ``data``."""


def starts_of(cell: Cell) -> tuple[Section, Section]:
    """Return how the models that a cell starts from are made: base training and SFT."""
    sections = cell.sections()
    return sections.get("pretrain", ()), sections.get("sft", ())
