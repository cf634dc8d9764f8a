"""What a suite is written from: its data, prompts, decoding, how pairs are read, and who judges the responses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed, unknown_name
from ablate.catalogs.datasets import DatasetEntry
from ablate.catalogs.judges import SELF, Judge, Panel, Positions, WrittenPanel, WrittenTemplate, judges
from ablate.catalogs.suite_code import PROMPTS, complete_options, known_entry
from ablate.catalogs.suite_code.pocket import Skill
from ablate.errors import Location, UsageError, suggestion


class Decoding(Closed):
    """How responses are drawn; temperature 0 is greedy. The batch size is no part of it."""

    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    samples: int = Field(default=1, ge=1, description="responses drawn for each prompt")
    max_new_tokens: int = Field(default=512, ge=1)
    stop: tuple[str, ...] = Field(default=(), description="strings that end a response; they are cut off")
    plain_stop: tuple[str, ...] = Field(default=(), description="more such strings for prompts without a chat template")
    chat_stop: tuple[str, ...] = Field(default=(), description="more such strings for prompts in a chat template")
    seed: int = Field(default=0, ge=0)
    repeats: int = Field(
        default=1, ge=1, description="times that all is answered anew, with one seed: how much a score varies by itself"
    )
    thinking: bool | None = Field(
        default=None, description="whether a model whose template has the switch thinks first; null: as the model does"
    )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, once for each prompt, and no other value is asked for."""
        return (self.temperature, self.top_p, self.samples, self.seed) == (0.0, 1.0, 1, 0)

    def identity(self, *, chat: bool) -> dict[str, Any]:
        """How responses to prompts with or without a chat template are drawn: ``stop`` holds all that end one."""
        defaults = {"thinking": None, "repeats": 1}
        unwritten = {"plain_stop", "chat_stop", *(name for name, own in defaults.items() if getattr(self, name) == own)}
        values = self.model_dump(mode="json", exclude=unwritten)
        return values | {"stop": [*self.stop, *(self.chat_stop if chat else self.plain_stop)]}

    @model_validator(mode="after")
    def _greedy_is_single(self) -> Decoding:
        if self.temperature == 0.0 and self.samples > 1:
            raise PydanticCustomError("greedy_samples", "samples must be 1 at temperature 0: all would be equal")
        return self


class PocketData(Closed):
    """Items of the pocket world; made by a stage of its own."""

    what: Literal["items", "pairs"] = "items"
    name: Literal["all", Skill] = Field(default="all", description="a skill, or all of them")
    n: int = Field(ge=1, description="items or pairs of each skill")
    split: Literal["validation", "test"] = "test"
    seed: int = Field(default=0, ge=0)


class HubFiles(Closed):
    """Files of a data set of the hub, read from a mirror of it under the data root: ``<id>/<file>``."""

    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    files: tuple[str, ...] = Field(min_length=1, description="names in the repository")
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{8,40}$", description="commit; null: not recorded")
    licence: str = "unrecorded"

    @field_validator("files")
    @classmethod
    def _whole_names(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for name in files:
            if "*" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise PydanticCustomError("whole_name", "{name} must be a whole name in the repository", {"name": name})
        return files

    @property
    def names(self) -> tuple[str, ...]:
        """Names under the data root."""
        return tuple(f"{self.id}/{file}" for file in self.files)

    def entry(self) -> DatasetEntry:
        """The repository as an entry of the catalog of datasets, by which files are fetched and found."""
        source = {"hub": {"id": self.id, "files": self.files, "revision": self.revision}}
        facts = {"name": self.id, "title": self.id, "licence": self.licence, "format": "documents"}
        return DatasetEntry.model_validate({**facts, "source": source})


class Data(Closed):
    """Where the prompts come from: the pocket world, files under the data root, or such files of the hub's sets."""

    pocket: PocketData | None = None
    files: tuple[str, ...] = Field(default=(), description="paths relative to the data root, '/' between parts")
    hub: tuple[HubFiles, ...] = Field(default=(), description="data sets of the hub, see `ablate data fetch`")
    origins: dict[str, str] = Field(
        default_factory=dict, description="of files that are easily missed: where they are published, in words"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files under the data root."""
        return (*self.files, *(name for hub in self.hub for name in hub.names))

    @field_validator("files")
    @classmethod
    def _relative(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise PydanticCustomError("not_relative", "{name} must be a path below the data root", {"name": name})
        return files

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if (self.pocket is None) == (not self.names):
            raise PydanticCustomError("one_source", "give either pocket, or files or hub")
        if unknown := [name for name in self.origins if name not in self.files]:
            raise unknown_name("file of this suite", unknown[0], self.files)
        return self


class Prompts(Closed):
    """How rows of data become prompts: a name of ``PROMPTS`` (or ``package.module:function``) and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return known_entry("prompts", value, PROMPTS)

    @field_validator("options")
    @classmethod
    def _complete(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return complete_options(info.data.get("name"), value, PROMPTS)


class Reading(Closed):
    """How much of a prompt with a response a model reads; without it all, up to its context."""

    max_length: int | None = Field(default=None, ge=2, description="tokens; null: the model's context alone limits")
    too_long: Literal["unscored", "cut-start", "cut-end"] = Field(
        default="unscored",
        description="unscored: no score, which is lost; cut-start, cut-end: the tokens there are dropped, and counted "
        "(of a policy's likelihoods: all but the last 128 tokens of the prompt, then the end of the response)",
    )


class Selection(Closed):
    """How one of several responses is picked."""

    rule: Literal["best"] = "best"
    seed: int = Field(default=0, ge=0, description="breaks ties")


OWN_JUDGEMENT = "a policy is not evaluated by its own judgement: name another judge"


def refuse_own_judgement(panel: Panel, place: Location | None = None) -> None:
    """Raise ``UsageError`` at ``place`` where the policy itself is one of the judges of an evaluation."""
    if any(judge.is_self for judge in panel.judges):
        raise UsageError(OWN_JUDGEMENT, location=place, hint=suggestion(SELF, judges()))


class Judging(Closed):
    """Who judges the responses of a suite, and how they are asked; what is written here comes before a judge's own."""

    judge: WrittenPanel = Field(description="A judge, or a panel: {judges: […], vote: …}.")
    template: WrittenTemplate | None = Field(None, description="The question; without one, that of the file.")
    file: str | None = Field(None, description="Questions in FastChat's form, a file below the data root.")
    kind: Literal["single", "pairwise"] = Field(
        "pairwise", description="Which of the file's questions: about one response, or about it and the baseline's."
    )
    temperature: float | None = Field(None, ge=0, le=2, description="Of the judge's sampling.")
    max_tokens: int | None = Field(None, ge=1, description="Longest answer of the judge in tokens.")
    positions: Positions | None = Field(None, description="Order of two responses, as judges have it.")
    instead_of: str = Field("", description="Judge of the published protocol, where another one stands in for it.")

    @model_validator(mode="after")
    def _one_question(self) -> Judging:
        if (self.template is None) == (self.file is None):
            raise PydanticCustomError("question", "give either template or file")
        if any(judge.is_self for judge in self.judge.judges):
            raise PydanticCustomError("self", OWN_JUDGEMENT)
        return self

    @property
    def asked(self) -> tuple[Judge, ...]:
        """The judges, as this suite asks them."""
        names = ("template", "temperature", "max_tokens", "positions")
        written = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return tuple(judge.model_copy(update=written) for judge in self.judge.judges)

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest rating; FastChat's questions ask for 1 to 10."""
        return (1.0, 10.0) if self.template is None else (self.template.lowest, self.template.highest)

    def by(self, panel: Panel, place: Location | None = None) -> Judging:
        """Return this with other judges, which then stand in for those that were written.

        Raises ``UsageError`` at ``place`` for the policy as its own judge.
        """
        refuse_own_judgement(panel, place)
        same = [judge.model for judge in panel.judges] == [judge.model for judge in self.judge.judges]
        instead = self.instead_of if same else self.instead_of or self.judge.shown
        return self.model_copy(update={"judge": panel, "instead_of": instead})

    def config(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """Config of the judge stage; ``digests`` maps files to their sha256."""
        kind = self.kind if self.template is None else self.template.kind
        asked = {"judges": [judge.identity() for judge in self.asked], "vote": self.judge.vote, "kind": kind}
        return asked if self.file is None else {**asked, "files": {self.file: digests[self.file]}}
