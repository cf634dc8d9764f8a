"""The specification a researcher writes: one question, its fixed settings, its grid."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, create_model, field_validator, model_validator

from ablate.algorithms.registry import METHODS
from ablate.catalogs.closed import Closed, Names
from ablate.catalogs.datasets import Split, WrittenPairing
from ablate.catalogs.judges import JudgeChoice
from ablate.catalogs.pipelines import Mix, Responses, Where, WrittenLabel
from ablate.catalogs.served import WrittenServed
from ablate.experiment.sections import DataSection, Scalar
from ablate.experiment.sweep import Sweep, Tune

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class DatasetVariant(Closed):
    """A set under a name of its own: a changed entry, responses of a policy, pairs of an online run, or a mixture."""

    use: str | None = Field(None, description="Set whose rows are used: the catalog's or one of this section's.")
    prompts: str | None = Field(None, description="Set whose prompts are used, its responses left aside.")
    mix: Mapping[str, int | float] | Names | None = Field(
        None, description="Sets put together: examples of each, fractions that add up to 1, or a list by temperature."
    )
    replay: Mapping[str, Scalar] | None = Field(
        None,
        description="Keys of a cell whose online run made pairs, algorithm and dataset among them; its other keys are "
        "those of the cell that uses the set.",
    )
    title: str | None = Field(None, description="How tables call it; default: its name.")
    where: Where | None = Field(None, description="Which rows, and which of their responses.")
    label: WrittenLabel | None = Field(None, description="Aspects that rank responses, or {by: …}: another labeller.")
    responses: Responses | None = Field(None, description="Responses of a policy to the prompts.")
    pairing: WrittenPairing | None = Field(None, description="How pairs are drawn from k responses.")
    converter_options: Mapping[str, Any] | None = Field(None, description="Options of the entry's converter.")
    split: Split | None = Field(None, description="Which part of the rows.")
    temperature: float | None = Field(None, ge=1, description="Of a mixture of a list; 1 takes everything.")
    caps: Mapping[str, int] = Field({}, description="Most examples of a set that a mixture may use.")
    order: Literal["kept", "shuffled"] | None = Field(
        None, description="Whether batches come in the order in which the online run learnt; default: shuffled."
    )

    @model_validator(mode="after")
    def _one_start(self) -> DatasetVariant:
        given = [name for name in _READS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(_READS)} is needed (found {', '.join(given) or 'none'})")
        allowed = _READS[given[0]]
        for name in type(self).model_fields:
            if name not in (given[0], "title", *allowed) and getattr(self, name) not in (None, {}):
                raise ValueError(f"{name!r} says nothing about {given[0]!r}; beside it: title, {', '.join(allowed)}")
        if (self.responses is not None) != (self.label is not None and self.label.by is not None and self.use is None):
            raise ValueError("responses of a policy and the label they get, {by: …}, are written together")
        if self.prompts is not None and self.responses is None and self.pairing is not None:
            raise ValueError("prompts alone have nothing to pair: add responses and label")
        missing = [key for key in ("algorithm", "dataset") if self.replay is not None and key not in self.replay]
        if missing:
            raise ValueError(f"replay names the run whose pairs are used: {', '.join(missing)} is missing")
        if self.mix is not None:
            Mix.read(self.mix, self.temperature, self.caps)
        return self


_READS = {
    "use": ("where", "label", "pairing", "converter_options", "split"),
    "prompts": ("where", "responses", "label", "pairing"),
    "mix": ("temperature", "caps"),
    "replay": ("order",),
}
"""What a variant can start from, with the keys that say something about each."""


class Rule(Closed):
    """A conditional: cells that match ``if`` get the keys of ``set``."""

    condition: Mapping[str, Any] = Field(alias="if", description="Key to value, or to a list of values.")
    set: Mapping[str, Any] = Field(description="Key to the value it gets; never a key that varies in the cell's block.")


class Evaluations(Closed):
    """Suites by subject."""

    policy: tuple[str, ...] = Field((), description="Suites every policy, baselines included, is evaluated on.")
    reward_model: tuple[str, ...] = Field((), description="Suites every reward model of the grid is evaluated on.")
    judge: JudgeChoice | None = Field(
        None,
        description="Who judges in suites that have a judge, in place of theirs; each of a list is a column of its "
        "own, suite@judge, and no policy is trained twice.",
    )
    repeats: int = Field(
        1,
        ge=1,
        strict=True,
        description="Times that policies respond anew, with one seed: how much a score varies by itself, as it may in "
        "bfloat16 or on a server. Suites of likelihoods or of several samples are as they are.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Most examples of each suite, of each task or subset where its data have some, for a quick look; "
        "a suite that asks fewer is as it is.",
    )
    without_data: Literal["error", "gap"] = Field(
        "error", description="What a suite is whose data files are not there: an error, or a gap with the reason."
    )
    endpoints: Mapping[str, WrittenServed] = Field(
        default_factory=dict,
        description="Policies that are evaluated as they are, with the server that responds in their place: its "
        "address, or {url, model, key}.",
    )


class DataSettings(DataSection):
    """How preference sets are sampled, and where files are."""

    root: str | None = Field(None, description="Folder of data files; default: the environment's ABLATE_DATA.")
    embedded: bool = Field(
        False,
        strict=True,
        description="Whether sets with an embedded sample are read from it: rows of the pocket world in their schema.",
    )
    allow_licences: Names | None = Field(
        None, min_length=1, description="Licences, or patterns of them, that a set may have; null: any."
    )


class CellScalars(Closed):
    """The keys of a cell that stand alone, fixed here for every cell; each can be an axis of the grid instead."""

    policy: str | Mapping[str, Any] | None = Field(
        None, description="Model: a catalog name, a hub id with @revision, ./folder; or {from: …}, {merge: […]}."
    )
    dataset: str | None = Field(None, description="Preference set, when it is no axis.")
    algorithm: str | None = Field(None, description="Method, when it is no axis.")
    seed: int | None = Field(
        None, ge=0, strict=True, description="Seed of reward model, training and sampling, when it is no axis."
    )
    rounds: int | None = Field(
        None, ge=1, strict=True, description="Times the method is run, each from the policy of the round before."
    )
    prompts: str | None = Field(
        None, description="Set whose prompts on-policy methods use; default: the cell's dataset."
    )
    reference: str | None = Field(
        None, description="Frozen reference: a model, or sft, what training starts from; default: sft."
    )
    reward: str | Mapping[str, Any] | None = Field(
        None,
        description="What scores the responses of policy-gradient methods: reward_model, a formula, a verifier, "
        "{judge: …}, or self; default: reward_model.",
    )
    annotator: str | Mapping[str, Any] | None = Field(
        None,
        description="What orders the pairs that online DPO and D2PO make of their own samples: a name as reward has "
        "it, {judge: …}, or self, the policy as its own judge; default: reward_model.",
    )


class Experiment(CellScalars):
    """One experiment: a question and the grid that answers it.

    Sections (``sft``, ``reward_model``, ``pretrain``, one a method) are fixed parameters of every cell that
    reads them; any of their keys, dotted, can be an axis of the grid instead.
    """

    name: str = Field(pattern=NAME_PATTERN, description="Name of the experiment: letters, digits, dot, dash.")
    question: str = Field("", description="The question the grid answers; tables carry it.")
    data: DataSettings = Field(default_factory=DataSettings, description="Sampling of preference sets.")
    datasets: Mapping[str, DatasetVariant] = Field({}, description="Variants, pipelines and mixtures of sets.")
    pretrain: Mapping[str, Any] = Field({}, description="Overrides of a scratch model's base training.")
    sft: Mapping[str, Any] | None = Field(
        None, description="Supervised fine-tuning; null: the policy is used as it is."
    )
    reward_model: Mapping[str, Any] | str = Field({}, description="Reward model's init, dataset and parameters.")
    reward_models: tuple[str, ...] = Field(
        (),
        description="Reward models as they are, ./folder or a hub id with @revision: rows beside those of the grid.",
    )
    grid: tuple[Mapping[str, Any], ...] = Field(
        (), validate_default=True, description="Blocks; each a product of its axes, the cells their union."
    )
    when: tuple[Rule, ...] = Field((), description="Conditionals: one pass, later wins.")
    exclude: tuple[Mapping[str, Any], ...] = Field((), description="Cells that match any of these are left out.")
    baselines: tuple[Literal["base", "sft"], ...] = Field((), description="Rows that are no cells.")
    evaluate: Evaluations = Field(default_factory=Evaluations, description="Suites by subject.")
    report: str | None = Field(None, description="Layout of the tables, relative to this file or to the project.")
    claims: tuple[Mapping[str, Any], ...] = Field((), description="Sentences about the numbers that reports judge.")
    sweep: Sweep | None = Field(None, description="A search over keys of the grid, for `ablate sweep`.")
    tune: Tune | None = Field(None, description="A search for each group of cells, before they run with what it found.")

    @field_validator("grid")
    @classmethod
    def _not_empty(cls, value: tuple[Mapping[str, Any], ...], info: ValidationInfo) -> tuple[Mapping[str, Any], ...]:
        if not value and not info.data.get("reward_models"):
            raise ValueError("the grid needs at least one block")
        return value

    @model_validator(mode="after")
    def _searches_once(self) -> Experiment:
        if self.sweep is not None and self.tune is not None:
            raise ValueError("a specification has a sweep, whose trials are its rows, or is tuned: not both")
        return self


def experiment_model() -> type[Experiment]:
    """Return the model that specifications are validated with: Experiment with a section for every method there is."""
    return _with_sections(tuple(METHODS))


@functools.cache
def _with_sections(methods: tuple[str, ...]) -> type[Experiment]:
    sections: dict[str, Any] = {
        name: (Mapping[str, Any], Field({}, description=f"Parameters of {METHODS[name].title}.")) for name in methods
    }
    return create_model("Experiment", __base__=Experiment, **sections)
