"""The catalog of models: made here from scratch, or on the Hugging Face hub."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ablate.catalogs.closed import Strict
from ablate.catalogs.datasets import datasets
from ablate.catalogs.loading import Named, load_folder
from ablate.catalogs.parameters import PretrainParameters
from ablate.errors import SpecError, UnknownNameError


class Architecture(Strict):
    """The shape of a Llama model."""

    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    ffn_size: int = Field(gt=0)
    max_positions: int = Field(gt=0)
    tie_embeddings: bool = True
    rope_theta: float = Field(default=10000.0, gt=0.0)
    """Base of the rotary embeddings; a short context learns positions sooner from a small one."""
    initializer_range: float = Field(default=0.02, gt=0.0)
    """Standard deviation of the initial weights; 1/sqrt(hidden_size) suits models this small."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Architecture:
        # Rotary embeddings turn pairs of coordinates, so a head's size is also even.
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not an even multiple of heads {self.heads}")
        return self


class TokenizerRecipe(Strict):
    """A tokenizer trained on the model's corpus; the values are the configuration of the tokenizer stage."""

    type: Literal["words", "bytes", "bpe"]
    vocab_size: int | None = Field(default=None, gt=0)
    """Needed by ``bpe``; ``words`` takes the closed vocabulary of its corpus, ``bytes`` has 256 and the specials."""
    template: str = "tulu"

    @property
    def reads_corpus(self) -> bool:
        """Whether the tokenizer depends on the model's corpus; ``words`` of the pocket template are a fixed list."""
        return self.type == "bpe" or (self.type == "words" and self.template != "pocket")

    @model_validator(mode="after")
    def _size(self) -> TokenizerRecipe:
        if (self.type == "bpe") != (self.vocab_size is not None):
            raise ValueError("vocab_size is written for type bpe, and only for it")
        return self


class Scratch(Strict):
    """A model trained here, by a tokenizer stage and a pretrain stage."""

    architecture: Architecture
    tokenizer: TokenizerRecipe
    corpus: str
    """A dataset of the catalog with format documents or instruction."""
    pretrain: PretrainParameters

    @model_validator(mode="after")
    def _fits(self) -> Scratch:
        if self.pretrain.max_length > self.architecture.max_positions:
            raise ValueError(
                f"pretrain.max_length {self.pretrain.max_length} is more than "
                f"architecture.max_positions {self.architecture.max_positions}"
            )
        return self


class HubModel(Strict):
    """A model repository of the Hugging Face hub."""

    id: str
    revision: str | None = Field(default=None, min_length=40, max_length=40)
    """The full commit; without one a specification names the model as id@commit."""
    gated: bool = False


class ModelEntry(Named):
    """One model of the catalog: exactly one of ``scratch`` and ``hub``."""

    title: str
    scratch: Scratch | None = None
    hub: HubModel | None = None
    chat: bool = False
    """Whether it was tuned on conversations; a base model is evaluated without the chat template."""
    parameters: int | None = Field(default=None, gt=0)
    """Number of parameters, for cost estimates; for models from scratch it follows from the architecture."""
    licence: str
    note: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ModelEntry:
        if (self.scratch is None) == (self.hub is None):
            raise ValueError("exactly one of scratch, hub is needed")
        return self

    def tokenizer_config(self) -> dict[str, Any]:
        """Return the configuration of the tokenizer stage of a model from scratch."""
        return self._scratch().tokenizer.model_dump(mode="json")

    def pretrain_config(self) -> dict[str, Any]:
        """Return the configuration of the pretrain stage of a model from scratch."""
        scratch = self._scratch()
        corpus = datasets()[scratch.corpus]
        return {
            "architecture": scratch.architecture.model_dump(mode="json"),
            **scratch.pretrain.model_dump(mode="json"),
            "text": "documents" if corpus.format == "documents" else "conversations",
        }

    def _scratch(self) -> Scratch:
        if self.scratch is None:
            raise ValueError(f"model {self.name!r} is on the hub, not made from scratch")
        return self.scratch


def models(*folders: Path) -> Mapping[str, ModelEntry]:
    """Return the catalog, name to entry: the package's own and the YAML files of ``folders``."""
    return _load((Path(__file__).with_suffix(""), *folders))


@functools.cache
def _load(folders: tuple[Path, ...]) -> dict[str, ModelEntry]:
    entries = load_folder(folders, ModelEntry).entries
    known = datasets()
    for entry in entries.values():
        if entry.scratch is None:
            continue
        if entry.scratch.corpus not in known:
            raise UnknownNameError(f"dataset (corpus of model {entry.name!r})", entry.scratch.corpus, known)
        if known[entry.scratch.corpus].format not in ("documents", "instruction"):
            raise SpecError(f"the corpus of model {entry.name!r} must hold documents or conversations")
    return entries
