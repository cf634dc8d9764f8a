"""The specification a researcher writes: one question, its fixed settings, its grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, create_model, field_validator

from ablate.algorithms.registry import METHODS
from ablate.catalogs.closed import Closed
from ablate.catalogs.datasets import Pairing, Split
from ablate.experiment.sections import DataSection

Scalar = str | int | float | bool | None
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class DatasetVariant(Closed):
    """A catalog entry under a name of its own, with something changed."""

    use: str = Field(description="Name of the catalog's entry.")
    title: str | None = Field(None, description="How tables call it; default: its name.")
    pairing: Pairing | None = Field(None, description="How pairs are drawn from k responses.")
    converter_options: Mapping[str, Any] | None = Field(None, description="Options of the entry's converter.")
    split: Split | None = Field(None, description="Which part of the rows.")

    @field_validator("pairing", mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"policy": value} if isinstance(value, str) else value


class Rule(Closed):
    """A conditional: cells that match ``if`` get the keys of ``set``."""

    condition: Mapping[str, Any] = Field(alias="if", description="Key to value, or to a list of values.")
    set: Mapping[str, Any] = Field(description="Key to the value it gets; never a key that varies in the cell's block.")


class Evaluations(Closed):
    """Suites by subject."""

    policy: tuple[str, ...] = Field((), description="Suites every policy, baselines included, is evaluated on.")
    reward_model: tuple[str, ...] = Field((), description="Suites every reward model of the grid is evaluated on.")


class DataSettings(DataSection):
    """How preference sets are sampled, and where files are."""

    root: str | None = Field(None, description="Folder of data files; default: the environment's ABLATE_DATA.")
    embedded: bool = Field(False, description="Read the embedded samples of preference sets instead of their files.")


class Experiment(Closed):
    """One experiment: a question and the grid that answers it.

    Sections (``sft``, ``reward_model``, ``pretrain``, one a method) are fixed parameters of every cell that
    reads them; any of their keys, dotted, can be an axis of the grid instead.
    """

    name: str = Field(pattern=NAME_PATTERN, description="Name of the experiment: letters, digits, dot, dash.")
    question: str = Field("", description="The question the grid answers; tables carry it.")
    policy: str | None = Field(None, description="Model: a catalog name, a hub id with @revision, or ./folder.")
    dataset: str | None = Field(None, description="Preference set, when it is no axis.")
    algorithm: str | None = Field(None, description="Method, when it is no axis.")
    seed: int | None = Field(
        None, ge=0, strict=True, description="Seed of reward model, training and sampling, when it is no axis."
    )
    prompts: str | None = Field(
        None, description="Set whose prompts on-policy methods use; default: the cell's dataset."
    )
    data: DataSettings = Field(default_factory=DataSettings, description="Sampling of preference sets.")
    datasets: Mapping[str, DatasetVariant] = Field({}, description="Variants of catalog entries.")
    pretrain: Mapping[str, Any] = Field({}, description="Overrides of a scratch model's base training.")
    sft: Mapping[str, Any] | None = Field(
        None, description="Supervised fine-tuning; null: the policy is used as it is."
    )
    reward_model: Mapping[str, Any] | str = Field({}, description="Reward model's init, dataset and parameters.")
    grid: tuple[Mapping[str, Any], ...] = Field(
        description="Blocks; each a product of its axes, the cells their union."
    )
    when: tuple[Rule, ...] = Field((), description="Conditionals: one pass, later wins.")
    exclude: tuple[Mapping[str, Any], ...] = Field((), description="Cells that match any of these are left out.")
    baselines: tuple[Literal["base", "sft"], ...] = Field((), description="Rows that are no cells.")
    evaluate: Evaluations = Field(default_factory=Evaluations, description="Suites by subject.")
    report: str | None = Field(None, description="Layout of the tables, relative to this file or to the project.")

    @field_validator("grid")
    @classmethod
    def _not_empty(cls, value: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
        if not value:
            raise ValueError("the grid needs at least one block")
        return value


def _with_methods() -> type[Experiment]:
    """Return Experiment with a section for every method there is."""
    sections: dict[str, Any] = {
        name: (Mapping[str, Any], Field({}, description=f"Parameters of {method.title}."))
        for name, method in METHODS.items()
    }
    return create_model("Experiment", __base__=Experiment, **sections)


EXPERIMENT = _with_methods()
"""The model that specifications are validated with."""
