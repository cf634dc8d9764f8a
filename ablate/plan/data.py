"""From the name of a set to the stages that make it: rows, responses of a policy, labels, mixtures, matched sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ablate.catalogs.converters import CONVERTER_REVISIONS, Checks
from ablate.catalogs.datasets import DatasetEntry, Pairing
from ablate.catalogs.judges import JUDGE_REVISION, Judge, locations_of
from ablate.catalogs.origins import Origins
from ablate.catalogs.pipelines import REFINEMENT_REVISIONS, Label, Mix, Responses, RewardModelLabels
from ablate.catalogs.rewards import RewardEntry, find_reward
from ablate.errors import SpecError
from ablate.experiment.grid import Cell, Section
from ablate.experiment.sections import Scalar
from ablate.plan.facts import Facts
from ablate.plan.graph import Graph
from ablate.plan.sets import NamedSet, Pipeline, asks_for_a_cell, checks_of
from ablate.plan.stage import Ref, Stage

SAMPLING = {"sampling": 2}
"""Revision of how ``max_examples`` are drawn."""


class Models(Protocol):
    """Where pipelines get the models that write and label responses."""

    def writer(self, source: str | Mapping[str, Scalar], cell: Cell, origins: Origins) -> tuple[Stage, bool]:
        """Return the stage of a policy, whose keys are written at ``origins``, and whether it knows a template."""

    def labeller(self, labels: RewardModelLabels, cell: Cell, origins: Origins) -> Stage:
        """Return the stage of a reward model that labels responses, whose keys are written at ``origins``."""


class DataPlanner:
    """Turns sets into stages. Every request is answered once; what sets share is one stage.

    ``matched`` are the preference sets that ``match: smallest`` makes equal in size.
    """

    def __init__(self, facts: Facts, graph: Graph, models: Models, matched: Sequence[str]) -> None:
        self._facts = facts
        self._graph = graph
        self._models = models
        self._matched = tuple(matched)
        self.named: dict[str, dict[str, NamedSet]] = {}
        """Id of a stage to the sets that it makes, by the names that the experiment calls them."""
        self._made: dict[tuple[str, Section, Cell | None, bool], Stage] = {}
        self._open: dict[tuple[str, Cell | None], None] = {}

    def dataset(self, name: str, data: Section, cell: Cell | None = None, *, records: bool = False) -> Stage:
        """Return the stage that leaves the examples of a set; ``data`` says how it is sampled.

        A set that a model takes part in depends on the ``cell`` that uses it. With ``records`` a preference set leaves
        prompts with all their responses, which are sampled and matched in number as pairs are.
        """
        settings, named = dict(data), self._facts.dataset(name)
        matched = settings.pop("match", None) is not None and name in self._matched
        own = self._set(named, _section(settings), cell, records=records)
        return self._note(named, self._cut(name, own, settings, cell, records=records) if matched else own)

    def _note(self, named: NamedSet, stage: Stage) -> Stage:
        self.named.setdefault(stage.id, {})[named.name] = named
        return stage

    def _cut(self, name: str, own: Stage, settings: Mapping[str, Scalar], cell: Cell | None, *, records: bool) -> Stage:
        found = [self._facts.dataset(other) for other in self._matched]
        others = {self._set(other, _section(settings), cell, records=records).id for other in found}
        sizes = {f"set-{index}": Ref(other, "report.json") for index, other in enumerate(sorted(others))}
        return self._graph.add(
            "match",
            {"format": _format("preference", records), "seed": settings.get("seed") or 0, **order_of(own)},
            {"data": own.ref(), **sizes},
            label=f"{name}, as many as the smallest",
        )

    def checks(self, name: str) -> set[Checks | None]:
        """Return what verifiers can read of the prompts of a set, a kind for each set that hands prompts on."""
        return set(checks_of(self._facts.dataset(name)).values())

    def source(self, entry: DatasetEntry) -> Stage:
        """Return the stage that makes the rows of a pocket set."""
        config = entry.pocket_config()
        assert config is not None
        return self._graph.add("pocket", config, label=f"rows of {entry.catalog_name}")

    def _set(self, named: NamedSet, data: Section, cell: Cell | None, *, records: bool = False) -> Stage:
        key = (named.name, data, cell if asks_for_a_cell(named) else None, records)
        if key not in self._made:
            with self._opened(named, key[2]):
                settings = dict(data)
                self._made[key] = (
                    self._entry(named, settings, records=records)
                    if isinstance(named, DatasetEntry)
                    else self._pipeline(named, settings, cell, records=records)
                )
        return self._made[key]

    @contextmanager
    def _opened(self, named: NamedSet, cell: Cell | None) -> Iterator[None]:
        key = (named.name, cell)
        if key in self._open:
            names = [name for name, _ in self._open]
            circle = " → ".join((*names[list(self._open).index(key) :], named.name))
            place = named.origins.locate() if isinstance(named, Pipeline) else None
            raise SpecError(f"making this set takes the set itself: {circle}", location=place)
        self._open[key] = None
        try:
            yield
        finally:
            del self._open[key]

    def _entry(self, entry: DatasetEntry, settings: Mapping[str, Scalar], *, records: bool = False) -> Stage:
        files = self._facts.digests(entry)
        max_examples = _whole(settings.get("max_examples"))
        config = entry.stage_config(
            files,
            max_examples=max_examples,
            seed=_whole(settings.get("seed")) or 0,
            cap=str(settings.get("cap") or "after-filter"),
            records=records,
            converter_code=self._facts.converter_code(entry),
        )
        inputs = {"source": self.source(entry).ref("data")} if entry.source.pocket is not None else {}
        if entry.only_prompts_of is not None:
            whole = self.dataset(entry.only_prompts_of, ())
            inputs["only_prompts"] = whole.ref("prompts.jsonl")
        return self._graph.add(
            "dataset",
            config,
            inputs,
            label=entry.name,
            parts=entry.converter_revisions() | (SAMPLING if max_examples is not None else {}),
            locations=self._facts.locations(files),
        )

    def _pipeline(self, made: Pipeline, settings: Mapping[str, Scalar], cell: Cell | None, *, records: bool) -> Stage:
        variant = made.variant
        if variant.mix is not None:
            mix = Mix.read(variant.mix, variant.temperature, variant.caps)
            return self._mixture(made, mix, settings, cell, records=records)
        if cell is None:
            message = f"{made.name!r} takes a model to make, so only cells can use it: as dataset, prompts or "
            raise SpecError(message + "reward_model.dataset", location=made.origins.locate())
        if variant.replay is not None:
            return self._replay(made, variant.replay, settings, cell, records=records)
        assert variant.label is not None
        (part,) = made.parts
        if variant.responses is None:
            assert isinstance(part, DatasetEntry)
            rows = prompts = self._entry(part, settings, records=True)
        else:
            prompts = self._set(part, _section(settings), cell)
            rows = self._respond(made, variant.responses, prompts, cell)
        labelled = self._label(made, variant.label, rows.ref("records.jsonl"), prompts, cell)
        return self._from_labels(made, labelled, records=records)

    def _replay(
        self,
        made: Pipeline,
        run: Mapping[str, Scalar],
        settings: Mapping[str, Scalar],
        cell: Cell,
        *,
        records: bool,
    ) -> Stage:
        """Return the pairs that another cell's online run learnt from, as rows of a set."""
        online, _ = self._models.writer(run, cell, made.origins.inside("replay"))
        config: dict[str, Any] = {
            "format": _format("preference", records),
            "converter": "online_pairs",
            "converter_options": {},
            "files": {},
            "split": None,
            "max_examples": settings.get("max_examples"),
        }
        if not records:
            config["pairing"] = Pairing().model_dump(mode="json")
        if made.variant.order == "kept":
            config["order"] = "kept"
        if config["max_examples"] is not None:
            config |= {"seed": settings.get("seed") or 0, "cap": settings.get("cap") or "after-filter"}
        return self._graph.add(
            "dataset",
            config,
            {"source": online.ref("pairs.jsonl")},
            label=made.name,
            parts=_revisions("online_pairs") | (SAMPLING if config["max_examples"] is not None else {}),
        )

    def _respond(self, made: Pipeline, responses: Responses, prompts: Stage, cell: Cell) -> Stage:
        policy, chat = self._models.writer(responses.source, cell, made.origins.inside("responses", "from"))
        label = f"responses of {policy.execution.label} for {made.name}"
        config = {**responses.identity(cell.rounds), "chat": chat}
        if responses.gold and made.parts[0].format != "preference":
            message = f"{made.parts[0].name!r} has no chosen responses to its prompts"
            raise SpecError(message, location=made.origins.locate("responses", "gold"))
        return self.respond(policy, prompts, config, label=label, gold=responses.gold)

    def respond(
        self, policy: Stage, prompts: Stage, config: Mapping[str, Any], *, label: str, gold: bool = False
    ) -> Stage:
        """Return the stage of a policy's responses to the prompts of a set; ``config`` says how they are sampled.

        With ``gold`` the chosen responses of the set's pairs join them.
        """
        inputs = {"policy": policy.ref("model"), "prompts": prompts.ref("prompts.jsonl")}
        if gold:
            inputs["gold"] = prompts.ref("pairs.jsonl")
        return self._graph.add("respond", config, inputs, label=label)

    def label(
        self,
        records: Ref,
        config: Mapping[str, Any],
        by: Mapping[str, Ref],
        *,
        label: str,
        locations: Mapping[str, str] | None = None,
        parts: Mapping[str, int] | None = None,
    ) -> Stage:
        """Return the stage that scores responses as its config says, by what other stages made of whoever scores."""
        return self._graph.add(
            "label",
            config,
            {"records": records, **by},
            label=label,
            locations=locations,
            parts=parts,
            network="judge" in config and "policy" not in by,
        )

    def scored(self, records: Ref, reward: RewardEntry, prompts: Stage, *, label: str) -> Stage:
        """Return the stage that scores responses by a formula, or by a verifier of what their prompts carry."""
        if reward.formula:  # which reads no prompt; its first revision is not spelt
            parts = reward.parts() if reward.revision > 1 else {}
            return self.label(records, {"closed_form": reward.name}, {}, label=label, parts=parts)
        config, texts = {"closed_form": None, "reward": reward.name}, {"prompt_texts": prompts.ref("prompts.jsonl")}
        return self.label(records, {**config, **reward.identity()}, texts, label=label, parts=reward.parts())

    def asked(self, records: Ref, judge: Judge, own: tuple[Stage, bool] | None, *, label: str) -> Stage:
        """Return the stage that asks a judge about responses; ``own`` is a policy that judges, with its template."""
        config: dict[str, Any] = {"closed_form": None, "judge": judge.identity()}
        by: dict[str, Ref] = {}
        if judge.is_self and own is not None:
            by["policy"], config["chat"] = own[0].ref("model"), own[1]
        locations = {**locations_of([judge]), **self._facts.answers}
        return self.label(records, config, by, label=label, locations=locations, parts={"judge": JUDGE_REVISION})

    def best(self, labelled: Stage, top_share: float | None, *, label: str) -> Stage:
        """Return the stage of the responses with the highest scores, as answers to imitate."""
        inputs = {"records": labelled.ref("records.jsonl")}
        return self._graph.add("best", {"top_share": top_share}, inputs, label=label)

    def rate(self, records: Ref, model: Ref, *, label: str) -> Stage:
        """Return the stage of records whose responses a reward model of attributes has rated."""
        return self._graph.add("rate", {}, {"records": records, "reward_model": model}, label=label)

    def condition(self, rated: Stage, config: Mapping[str, Any], *, label: str) -> Stage:
        """Return the stage of rated responses as answers to prompts that say their ratings."""
        return self._graph.add("condition", config, {"records": rated.ref("records.jsonl")}, label=label)

    def _label(self, made: Pipeline, label: Label, records: Ref, prompts: Stage, cell: Cell) -> Stage:
        assert label.by is not None
        if label.by.reward is not None:
            return self.scored(records, find_reward(label.by.reward), prompts, label=f"labels of {made.name}")
        by: dict[str, Ref] = {}
        config: dict[str, Any] = {"closed_form": None}
        if label.by.reward_model is not None:
            origins = made.origins.inside("label", "by", "reward_model")
            by["reward_model"] = self._models.labeller(label.by.reward_model, cell, origins).ref("model")
        judge = label.by.asked
        if judge is None:
            return self.label(records, config, by, label=f"labels of {made.name}")
        own = self._models.writer("policy", cell, made.origins) if judge.is_self else None
        return self.asked(records, judge, own, label=f"labels of {made.name}")

    def _from_labels(self, made: Pipeline, labelled: Stage, *, records: bool) -> Stage:
        """Return the pairs that are drawn from labelled records, or the records themselves."""
        variant = made.variant
        gap = variant.where.identity().get("score_gap") if variant.where else None
        pairing = variant.pairing or _pairing_of(made.parts[0], own_labels=variant.responses is None)
        source: dict[str, Any] = {"files": {}, "split": None, "max_examples": None}
        format = _format("preference", records)
        entry = {"format": format, "converter": "records", "converter_options": {}, **source}
        paired = {} if records else {"pairing": pairing.model_dump(mode="json")}
        return self._graph.add(
            "dataset",
            {**entry, **paired, **({"where": {"score_gap": gap}} if gap else {})},
            {"source": labelled.ref("records.jsonl")},
            label=made.name,
            parts=_revisions("records", *(["where"] if gap else [])),
        )

    def _mixture(
        self, made: Pipeline, mix: Mix, settings: Mapping[str, Scalar], cell: Cell | None, *, records: bool
    ) -> Stage:
        total, whole = sum(mix.counts or ()), _whole(settings.get("max_examples"))
        if whole is not None and total > whole:
            raise SpecError(
                f"the mixture's counts add up to {total}, more than data.max_examples {whole}",
                location=made.origins.locate("mix"),
                hint="write fractions, or raise data.max_examples",
            )
        parts = [self._note(part, self._set(part, (), cell, records=records)) for part in made.parts]
        sampling = {"max_examples": settings.get("max_examples"), "seed": settings.get("seed") or 0}
        return self._graph.add(
            "mixture",
            {"format": _format(made.format, records), **mix.identity(), **sampling},
            {f"part-{index}": part.ref() for index, part in enumerate(parts)},
            label=made.name,
        )


def _format(format: str, records: bool) -> str:
    """Return what a stage makes of a set's format: of preferences pairs, or records where they are asked for."""
    return "records" if records and format == "preference" else format


def _revisions(converter: str, *refinements: str) -> dict[str, int]:
    """Return the revisions of what makes pairs of another stage's rows."""
    return {converter: CONVERTER_REVISIONS[converter], **{name: REFINEMENT_REVISIONS[name] for name in refinements}}


def order_of(dataset: Stage) -> dict[str, str]:
    """Return the order in which batches take a set's rows, as a stage's config spells it; nothing: a seeded one."""
    order = dataset.identity.config.value.get("order")
    return {} if order is None else {"order": str(order)}


def _pairing_of(part: NamedSet, *, own_labels: bool) -> Pairing:
    """Return the pairing of a relabelled set, which is its source's; responses of a policy have the default one."""
    return part.pairing if own_labels and isinstance(part, DatasetEntry) else Pairing()


def _section(settings: Mapping[str, Scalar]) -> Section:
    return tuple(sorted(settings.items()))


def _whole(value: Scalar) -> int | None:
    assert value is None or isinstance(value, int)
    return value
