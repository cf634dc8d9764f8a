"""From a cell to the stages that make its policy: base, SFT, data, reward model, reference pass, training."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ablate.algorithms.base import Method
from ablate.algorithms.registry import METHODS
from ablate.algorithms.reward_model import LOSS_REVISIONS, TOKENS_OF_LOSS, RewardModelParameters, TokensOf
from ablate.algorithms.sft import SFTParameters
from ablate.catalogs.closed import validated
from ablate.catalogs.models import ModelEntry
from ablate.catalogs.origins import Origins
from ablate.catalogs.parameters import Parameters, PretrainParameters, quantisation_parts
from ablate.catalogs.pipelines import RewardModelLabels
from ablate.errors import Location, SpecError, UnknownNameError, UsageError
from ablate.experiment.chains import Merged, Trained, title_of
from ablate.experiment.grid import OWN_START, Cell, Grid, Section, place_of, related_cell, written_at
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sections import RewardModelSection, Scalar
from ablate.plan.checks import check_cell, check_margins
from ablate.plan.data import DataPlanner, order_of
from ablate.plan.facts import Facts, has_chat_template, local_path
from ablate.plan.graph import Graph
from ablate.plan.needs import NEEDS, Order, Start, learns_from_records, starts_of
from ablate.plan.sets import CELLS_OWN
from ablate.plan.stage import Ref, Stage

OWN_STEP = "ablate.training.own:run"
"""Runs the training step of a researcher's own method."""
TRL_STEP = "ablate.training.trl_preference:run"
"""Trains with TRL's own trainer, whose version is in the identity."""
UNMATCHED = {"data.match": None}
"""Models that take part in making data learn from whole sets: the sizes of matched ones depend on that data."""

TRAINED: dict[str, type[Parameters]] = {
    "pretrain": PretrainParameters,
    "sft": SFTParameters,
    "reward_model": RewardModelParameters,
}
"""Kinds of stages that train something other than a cell's policy."""


@dataclass(frozen=True)
class Made:
    """What a cell makes, and the shared stages it was made from."""

    policy: Stage
    inputs: dict[str, str] = field(default_factory=dict)
    reward_model: Stage | None = None
    chat: bool = True
    """Whether the policy knows a chat template."""


class TrainingPlanner:
    """Turns cells into stages. Every request is answered once; what cells share is one stage."""

    def __init__(self, loaded: LoadedExperiment, facts: Facts, graph: Graph, grid: Grid) -> None:
        self._loaded = loaded
        self._facts = facts
        self._graph = graph
        self._grid = grid
        self.data = DataPlanner(facts, graph, self, matched_sets(grid, facts))
        self.cell: Callable[[Cell], Made] = functools.cache(self._cell)
        self.base = functools.cache(self._base)
        self.start = functools.cache(self._start)
        self.pairs: Callable[[Stage, Ref, int, str], Stage] = functools.cache(functools.partial(self._tokens, "pairs"))
        self.rankings: Callable[[Stage, Ref, int, str], Stage] = functools.cache(
            functools.partial(self._tokens, "rankings")
        )
        self.conversations: Callable[[Ref, str, Ref, int, str], Stage] = functools.cache(self._conversation_tokens)
        self.split: Callable[[Ref, Ref | None, int, str, int], Stage] = functools.cache(self._split)
        self.prompts: Callable[[Stage, Ref, int], Stage] = functools.cache(self._prompt_tokens)
        self.reference_logprobs: Callable[[Start, Start, Ref, Section], Stage] = functools.cache(
            self._reference_logprobs
        )
        self.reward_model: Callable[[Section, tuple[Section, Section], Stage, int], Stage] = functools.cache(
            self._reward_model
        )
        self._parameters = functools.cache(_method_parameters)

    def _cell(self, cell: Cell) -> Made:
        """Return the stages of one cell."""
        start = self.start_of(cell)
        if not cell.method.entry and not cell.method.needs:  # nothing is trained
            return Made(start.model, {"sft": start.model.id}, chat=start.chat)
        order = Order(self, cell, start, self._parameters(cell.method.name, _own_section(cell)))
        for need in cell.method.needs:
            NEEDS[need].provide(order)
        if not cell.method.entry:
            return Made(start.model, order.made_from, order.reward_model, chat=start.chat)
        own = _without(order.parameters, *order.applied)
        step = _step_of(cell.method, order.parameters)
        config = {"algorithm": cell.method.name, "parameters": own, "seed": cell.values["seed"]}
        policy = self._graph.add(
            "train",
            {**config, **order.config, **step.config},
            order.inputs,
            label=self._label(cell),
            entry=step.entry,
            locations={**step.locations, **order.locations},
            parts={cell.method.name: cell.method.revision, **quantisation_parts(own), **order.parts},
            divisible=step.divisible,
            network=order.network,
        )
        return Made(policy, order.made_from, order.reward_model)

    @property
    def answers(self) -> dict[str, str]:
        """Where answers of judges are kept, as a stage's locations spell it."""
        return self._facts.answers

    def _label(self, cell: Cell) -> str:
        """Name a cell by its method, its dataset and what else varies."""
        others = (axis for axis in self._grid.axes if axis not in ("algorithm", "dataset"))
        words = [f"{axis}={_word(cell.values[axis])}" for axis in others if cell.values.get(axis) is not None]
        words += [f"round {cell.rounds}"] if cell.rounds > 1 and "rounds" not in self._grid.axes else []
        learns = f"{cell.method.title} on {cell.values['dataset']}" if cell.learns_from_set else cell.method.title
        return learns + (f" ({', '.join(words)})" if words else "")

    def start_of(self, cell: Cell) -> Start:
        """Return the model that a cell's training starts from: its policy, or what the round before made of it."""
        start = self._policy(cell.policy, cell)
        for number in range(1, cell.rounds):  # one after the other, so that no round is asked for inside the next
            start = _tuned(start, cell, self.cell(cell.at_round(number)))
        return start

    def _policy(self, policy: str, cell: Cell) -> Start:
        """Return the model that a cell calls ``policy``: made by the chain, or the named one after SFT."""
        if isinstance(policy, Trained):
            other = self.related(policy, cell)
            return replace(_tuned(self.start_of(other), other, self.cell(other)), name=policy)
        if isinstance(policy, Merged):
            starts = [self._policy(part, cell) for part in policy.policies]
            model = self._graph.add(
                "merge",
                {"weights": list(policy.weights)},
                {f"model-{index}": start.model.ref("model") for index, start in enumerate(starts)},
                label=policy.shown,
            )
            return replace(starts[0], name=policy, model=model)
        return self.start(policy, *starts_of(cell))

    def related(self, policy: Trained, cell: Cell) -> Cell:
        """Return the cell whose policy a chain means where ``cell`` uses it; it is checked like one of the grid."""
        return self._related(policy.written, policy.origins, cell)

    def _related(self, written: Mapping[str, Any], origins: Origins, cell: Cell) -> Cell:
        other = related_cell(self._loaded, self._grid, cell, written, origins)

        def locate(key: str) -> Location:
            return written_at(origins, key) if key in written else place_of(self._loaded, cell.block, key)

        check_cell(self._facts, other, locate)
        return other

    def roots(self, cell: Cell) -> Iterator[Cell]:
        """Yield the cells in which a cell's chain ends: those that start from a model by its name."""
        yield from self._roots(cell.policy, cell)

    def _roots(self, policy: str, cell: Cell) -> Iterator[Cell]:
        if isinstance(policy, Trained):
            yield from self.roots(self.related(policy, cell))
        elif isinstance(policy, Merged):
            for part in policy.policies:
                yield from self._roots(part, cell)
        else:
            yield cell if policy == cell.policy else replace(cell, values={**cell.values, "policy": policy})

    def sft_of(self, cell: Cell) -> Start:
        """Return the named model under a cell, after its SFT; of a merge, the first one."""
        root = next(self.roots(cell))
        return self.start(root.policy, *starts_of(root))

    def reference_of(self, cell: Cell) -> Start:
        """Return a cell's frozen reference: what its training starts from, or the model it names.

        A model made here is used after the cell's own base training and SFT, as the reward model's init is; one of
        the hub or of a folder as it is.
        """
        name = str(cell.values.get("reference", OWN_START))  # a method without one is compared with its start
        if name == OWN_START:
            return self.start_of(cell)
        entry = self._facts.models.get(name)
        made_here = entry is not None and entry.scratch is not None
        return self.start(name, *(starts_of(cell) if made_here else ((), ())))

    def base_of(self, cell: Cell) -> Start:
        """Return the named model under a cell, before its SFT; of a merge, the first one."""
        root = next(self.roots(cell))
        return self.base(root.policy, root.sections().get("pretrain", ()))

    def _base(self, name: str, overrides: Section) -> Start:
        entry = self._facts.models.get(name)
        if entry is not None and entry.scratch is not None:
            return self._scratch(entry, dict(overrides))
        if overrides:
            raise SpecError(
                f"pretrain belongs to models trained here from scratch; {name!r} is not one",
                location=self._loaded.origins.locate("pretrain"),
            )
        return self.released(name, self._loaded.origins.locate("policy"))

    def released(self, name: str, place: Location, *, scores: bool = False, template: bool = True) -> Start:
        """Return a model of the hub or of a folder as it is, a reward model with ``scores``; ``place`` names it.

        Without ``template`` it needs no chat template: it is no policy.
        """
        config, locations = self._model_source(name, self._facts.models.get(name), place)
        config |= {"scores": True} if scores else {}
        config |= {} if template else {"chat": False}
        stage = self._graph.add("model", config, label=name, locations=locations)
        return Start(name, stage, stage.ref("model"), bool(config.get("chat", True)))

    def check_model(self, name: str, place: Location, others: tuple[str, ...] = ()) -> None:
        """Raise a UsageError at ``place`` unless ``name`` is a model that can be had; ``others`` may be meant, too."""
        entry = self._facts.models.get(name)
        if entry is None or entry.scratch is None:
            self._model_source(name, entry, place, others)

    def _model_source(
        self, name: str, entry: ModelEntry | None, place: Location, others: tuple[str, ...] = ()
    ) -> tuple[dict[str, Any], dict[str, str]]:
        if name.startswith((".", "/", "~")):
            folder = local_path(name, self._loaded.file.parent, place).resolve()
            if not (folder / "config.json").is_file():
                raise UsageError(f"{folder} is no model folder: it has no config.json", location=place)
            chat = {} if has_chat_template(folder) else {"chat": False}
            return {"source": {"digest": self._facts.digest_cache.of_folder(folder)}, **chat}, {"model": str(folder)}
        hub_id, _, revision = name.partition("@")
        if entry is not None and entry.hub is not None:
            hub_id, revision = entry.hub.id, entry.hub.revision or ""
        elif "/" not in hub_id:
            raise UnknownNameError("model", name, (*self._facts.models, *others), location=place)
        if len(revision) != 40:
            raise SpecError(
                f"model {hub_id} has no pinned revision",
                location=place,
                hint=f"write policy: {hub_id}@<full commit, 40 hexadecimal digits>, or ./folder with its files",
            )
        config: dict[str, Any] = {"source": {"hub": hub_id, "revision": revision}}
        if entry is not None and not entry.chat:
            config["chat"] = False  # a base model may have no template
        return config, {"model": hub_id}

    def _scratch(self, entry: ModelEntry, overrides: dict[str, Scalar]) -> Start:
        assert entry.scratch is not None
        config = entry.pretrain_config()
        values = {key: config.pop(key) for key in list(config) if key in PretrainParameters.model_fields}
        corpus = self._corpus(entry.scratch.corpus)
        tokenizer = self._graph.add(
            "tokenizer", entry.tokenizer_config(), {"corpus": corpus}, label=f"tokenizer of {entry.name}"
        )
        parameters = PretrainParameters.model_validate({**values, **overrides})
        model = self._graph.add(
            "pretrain",
            {**config, **parameters.identity()},
            {"tokenizer": tokenizer.ref("tokenizer"), "corpus": corpus},
            label=f"base {entry.name} (seed {parameters.seed})",
        )
        return Start(entry.name, model, tokenizer.ref("tokenizer"), chat=False)

    def _corpus(self, name: str) -> Ref:
        entry = self._facts.entry(name)
        if entry.format == "documents":
            return self.data.source(entry).ref("data")
        return self.data.dataset(name, ()).ref("conversations.jsonl")

    def _start(self, name: str, pretrain: Section, sft: Section) -> Start:
        base = self.base(name, pretrain)
        if not sft:
            return base
        values = dict(sft)
        dataset_name, seed, max_examples = (
            values.pop("dataset"),
            values.pop("seed", 0),
            values.pop("max_examples", None),
        )
        parameters = SFTParameters.model_validate(values)
        data = self.data.dataset(str(dataset_name), (("max_examples", max_examples), ("seed", seed)))
        tokens = self.conversations(
            data.ref("conversations.jsonl"), "conversations", base.tokenizer, parameters.max_length, str(dataset_name)
        )
        model = self._graph.add(
            "sft",
            {"parameters": _without(parameters.identity(), "max_length"), "seed": seed},
            {"model": base.model.ref("model"), "data": tokens.ref("tokens.parquet")},
            label=f"SFT of {name} on {dataset_name}",
            parts=quantisation_parts(parameters.identity()),
        )
        return Start(name, model, base.tokenizer, chat=True)

    def _tokens(self, format: TokensOf, dataset: Stage, tokenizer: Ref, max_length: int, truncation: str) -> Stage:
        return self._graph.add(
            "tokenise",
            {"format": format, "max_length": max_length, "truncation": truncation, **order_of(dataset)},
            {"data": dataset.ref("pairs.jsonl" if format == "pairs" else "records.jsonl"), "tokenizer": tokenizer},
            label=f"tokens of {dataset.execution.label}",
        )

    def _conversation_tokens(self, data: Ref, form: str, tokenizer: Ref, max_length: int, label: str) -> Stage:
        return self._graph.add(
            "tokenise",
            {"format": form, "max_length": max_length, "truncation": "keep-start"},
            {"data": data, "tokenizer": tokenizer},
            label=f"tokens of {label}",
        )

    def _split(self, data: Ref, measured: Ref | None, parts: int, ordering: str, seed: int) -> Stage:
        return self._graph.add(
            "split",
            {"parts": parts, "order": ordering, **({"seed": seed} if ordering == "random" else {})},
            {"data": data, **({} if measured is None else {"measured": measured})},
            label=f"pairs in {parts} parts, {ordering}",
        )

    def _prompt_tokens(self, dataset: Stage, tokenizer: Ref, max_prompt_length: int) -> Stage:
        return self._graph.add(
            "tokenise",
            {"format": "prompts", "max_prompt_length": max_prompt_length},
            {"data": dataset.ref("prompts.jsonl"), "tokenizer": tokenizer},
            label=f"prompts of {dataset.execution.label}",
        )

    def _reference_logprobs(self, reference: Start, start: Start, data: Ref, how: Section) -> Stage:
        shared = {} if reference.tokenizer == start.tokenizer else {"tokenizer": start.tokenizer}
        completions = dict(how).get("completions")
        return self._graph.add(
            "reference_logprobs",
            dict(how),
            {"model": reference.model.ref("model"), "data": data, **shared},
            label=f"reference log-probabilities{f' of {completions} completions' if completions else ''}",
        )

    def _reward_model(self, section: Section, starts: tuple[Section, Section], dataset: Stage, seed: int) -> Stage:
        values = dict(section)
        init, dataset_name = str(values.pop("init")), str(values.pop("dataset"))
        parameters = RewardModelParameters.model_validate(values)
        start = self.start(init, *starts)
        format, own = TOKENS_OF_LOSS[parameters.loss], parameters.identity()
        revisions = {f"loss {loss}": number for loss, number in LOSS_REVISIONS.items() if loss == parameters.loss}
        tokens = self._tokens(format, dataset, start.tokenizer, parameters.max_length, parameters.truncation)
        return self._graph.add(
            "reward_model",
            {"parameters": _without(own, "max_length", "truncation"), "seed": seed},
            {"model": start.model.ref("model"), "data": tokens.ref("tokens.parquet")},
            label=f"reward model {init} on {dataset_name} (seed {seed})",
            parts={**revisions, **quantisation_parts(own)},
        )

    def writer(self, source: str | Mapping[str, Scalar], cell: Cell, origins: Origins) -> tuple[Stage, bool]:
        """Return the policy that writes responses for a pipeline, and whether it knows a chat template."""
        if isinstance(source, Mapping):
            made = self.cell(self._related({**source, **UNMATCHED}, origins, cell))
            return made.policy, made.chat
        own = {"base": self.base_of, "policy": self.start_of}
        start = own[source](cell) if source in CELLS_OWN else self.start(source, *starts_of(cell))
        return start.model, start.chat

    def labeller(self, labels: RewardModelLabels, cell: Cell, origins: Origins) -> Stage:
        """Return the reward model that labels responses; what it does not say is the experiment's section."""
        fixed = {
            key.removeprefix("reward_model."): value
            for key, value in self._grid.fixed.items()
            if key.startswith("reward_model.")
        }
        values = {**fixed, **labels.parameters, "init": labels.init, "dataset": labels.dataset}
        validated(RewardModelSection, values, origins.inside("parameters").locate, strict=True)
        check_margins(self._facts, values.get("loss"), labels.dataset, origins.locate("dataset"))
        sampling = tuple((name, value) for name, value in cell.sections()["data"] if name != "match")
        section = tuple(sorted(values.items()))
        data = self.data.dataset(labels.dataset, sampling, cell, records=learns_from_records(section))
        return self.reward_model(section, starts_of(cell), data, labels.seed)


def _tuned(start: Start, cell: Cell, made: Made) -> Start:
    """Return what training a cell from ``start`` makes of it, with the tokenizer of a policy that has its own."""
    tokenizer = made.policy.ref("model") if cell.method.conditions_prompts else start.tokenizer
    return replace(start, model=made.policy, tokenizer=tokenizer, chat=made.chat)


def matched_sets(grid: Grid, facts: Facts) -> tuple[str, ...]:
    """Return the preference sets that cells of the grid learn from, each once."""
    learnt = [cell for cell in grid.cells if "dataset" in cell.values and not cell.scored_without_model]
    names = dict.fromkeys(str(cell.values["dataset"]) for cell in learnt)
    known = {name: facts.datasets.get(name) or facts.own_sets.find(name) for name in names}
    return tuple(name for name, found in known.items() if found is None or found.format == "preference")


def _method_parameters(name: str, section: Section) -> dict[str, Any]:
    return METHODS[name].parameters.model_validate(dict(section)).identity()


@dataclass(frozen=True)
class _Step:
    """Which code trains, what of it is identity, and whether several processes can do it together."""

    entry: str
    divisible: bool
    config: Mapping[str, Any] = field(default_factory=dict)
    locations: Mapping[str, str] = field(default_factory=dict)


def _step_of(method: Method, parameters: Mapping[str, Any]) -> _Step:
    if method.own_code is not None:
        return _Step(
            OWN_STEP, method.divisible, {"code": dict(method.own_code.digests)}, {"step": method.own_code.step}
        )
    if parameters.get("implementation") == "trl":
        return _Step(TRL_STEP, False, {"packages": {"trl": importlib.metadata.version("trl")}})
    return _Step(method.entry, method.divisible)


def _without(parameters: Mapping[str, Any], *names: str) -> dict[str, Any]:
    # What an earlier stage has already applied is in that stage's identity, not again in this one's.
    return {key: value for key, value in parameters.items() if key not in names}


def _own_section(cell: Cell) -> Section:
    return cell.sections().get(cell.method.name, ())


def _word(value: Scalar) -> str:
    return title_of(value) if isinstance(value, str) else str(value)
