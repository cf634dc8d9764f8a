"""Evaluation suites: what is asked of a policy or a reward model, how it is decoded, and how it is graded.

A suite is written in YAML (``evals/*.yaml``), closed and typed here, and split into two identities: what is
generated (:meth:`Suite.generation_config`) and how that is graded (:meth:`Suite.grading_config`). Two suites with
the same prompts and decoding share one generate stage; a change of grader never generates again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed, unknown_name, validated
from ablate.catalogs.datasets import DatasetEntry, data_files, locate
from ablate.catalogs.judges import Panel
from ablate.catalogs.loading import read_yaml
from ablate.catalogs.origins import Origins
from ablate.catalogs.suite_code import GRADERS, complete_options, find_entry, known_entry
from ablate.catalogs.suite_code.pairs import PROMPTS as GIVES_PAIRS
from ablate.catalogs.suite_code.pairs import ImplicitOptions
from ablate.catalogs.suite_code.rewardbench import OF_CANDIDATES
from ablate.catalogs.suite_parts import Data, Decoding, Judging, Prompts, Reading, Selection
from ablate.errors import Location, SpecError, UnknownNameError, UsageError, suggestion

Category = Literal[
    "factuality",
    "reasoning",
    "coding",
    "truthfulness",
    "safety",
    "instruction-following",
    "chat",
    "gold",
    "reward",
    "best-of-n",
]
Subject = Literal["policy", "reward_model"]
Engine = Literal["items", "choices", "lm-eval", "implicit", "pairs", "best-of-n"]
PAIR_ENGINES = ("implicit", "pairs")
"""Engines that ask which response of a pair is the better one: nothing is generated."""


class _Engine(NamedTuple):
    subject: Subject
    keys: frozenset[str]
    """Keys of a suite that it reads, of those that not every engine does."""


_ENGINES: dict[Engine, _Engine] = {
    "items": _Engine("policy", frozenset({"chat", "decoding", "judging"})),
    "choices": _Engine("policy", frozenset({"chat"})),
    "lm-eval": _Engine("policy", frozenset({"chat", "decoding"})),
    "implicit": _Engine("policy", frozenset({"chat", "reading"})),
    "pairs": _Engine("reward_model", frozenset({"reading"})),
    "best-of-n": _Engine("reward_model", frozenset({"chat", "decoding", "select"})),
}
_KEYS_OF_SOME = frozenset().union(*(engine.keys for engine in _ENGINES.values()))

PICK_METRICS = ("random", "oracle")
"""Metrics that picks have beside the grader's: the mean and the best of what was picked from."""


class Suite(Closed):
    """One column of a table: data, prompts, decoding, grader."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    category: Category
    subject: Subject
    engine: Engine
    data: Data
    prompts: Prompts
    chat: bool = Field(default=True, description="render prompts in the model's chat template")
    reading: Reading | None = Field(default=None, description="of pairs: what is longer than a model reads")
    decoding: Decoding = Decoding()
    limit: int | None = Field(default=None, ge=1, description="examples used (for each subset where the data has some)")
    sample_seed: int = Field(default=42, ge=0, description="of the draw of ``limit`` examples")
    grader: str
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True, description="of the grader")
    select: Selection | None = None
    judging: Judging | None = Field(default=None, description="who judges the responses that the grader reads")
    primary: str = Field(description="metric that is the suite's score: 'metric' over all tasks, or 'task/metric'")
    unit: Literal["proportion", "reward", "count", "rating"] = "proportion"
    higher_is_better: bool = True
    protocol: str = Field(default="", description="what differs from the published protocol, in words")

    @field_validator("grader")
    @classmethod
    def _known(cls, value: str) -> str:
        return known_entry("grader", value, GRADERS)

    @field_validator("options")
    @classmethod
    def _complete(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return complete_options(info.data.get("grader"), value, GRADERS)

    @field_validator("primary")
    @classmethod
    def _given_by_the_grader(cls, value: str, info: ValidationInfo) -> str:
        grader, metric = info.data.get("grader"), value.rpartition("/")[2]
        known = find_entry("grader", grader).metrics if grader else None
        if known is not None and metric not in known:
            raise unknown_name(f"metric of grader {grader}", metric, known)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        engine = _ENGINES[self.engine]
        if self.subject != engine.subject:
            message = "engine {engine} evaluates a {expected}, not a {subject}"
            context = {"engine": self.engine, "expected": engine.subject, "subject": self.subject}
            raise PydanticCustomError("subject_of_engine", message, context)
        if unread := sorted((self.model_fields_set & _KEYS_OF_SOME) - engine.keys):
            having = ", ".join(name for name, other in _ENGINES.items() if unread[0] in other.keys)
            message = "engine {engine} does not read {key}, which is for {having}"
            raise PydanticCustomError(
                "key_of_engine", message, {"engine": self.engine, "key": unread[0], "having": having}
            )
        if self.engine == "best-of-n" and self.select is None:
            raise PydanticCustomError("select", "engine best-of-n needs select: how one of the responses is picked")
        if self.engine == "best-of-n" and self.decoding.samples < 2:
            raise PydanticCustomError("samples", "best-of-n needs decoding.samples of 2 or more")
        if self.decoding.repeats > 1 and not self.repeatable:
            raise PydanticCustomError("repeats", "decoding.repeats is for engine items and one response a prompt")
        if self.engine == "lm-eval" and not self.decoding.greedy:
            message = "engine lm-eval is greedy, one response a prompt: no decoding.temperature, top_p, samples or seed"
            raise PydanticCustomError("greedy", message)
        is_implicit = issubclass(find_entry("grader", self.grader).options, ImplicitOptions)
        if (self.engine == "implicit") != is_implicit and ":" not in self.grader:
            raise PydanticCustomError("implicit", "engine implicit and a grader of implicit rewards belong together")
        if self.grader in OF_CANDIDATES and self.prompts.name in GIVES_PAIRS:
            message = "grader {grader} reads several responses to a prompt, and prompts {prompts} has pairs"
            raise PydanticCustomError("candidates", message, {"grader": self.grader, "prompts": self.prompts.name})
        if self.prompts.name in OF_CANDIDATES and self.grader not in OF_CANDIDATES and ":" not in self.grader:
            message = "grader {grader} reads pairs, and prompts {prompts} has several responses to a prompt"
            raise PydanticCustomError("candidates", message, {"grader": self.grader, "prompts": self.prompts.name})
        self._check_skills()
        self._check_k()
        return self

    def _check_skills(self) -> None:
        """Raise for a skill to grade that the pocket data do not have: nothing would be graded."""
        made = self.data.pocket.name if self.data.pocket else "all"
        graded = (self.options["skills"] or ()) if self.grader == "pocket" else ()
        if made != "all" and (absent := [skill for skill in graded if skill != made]):
            message = "the data are items of {made} alone, and options.skills grades {absent}"
            raise PydanticCustomError("skills", message, {"made": made, "absent": absent[0]})

    def with_options(self, changes: Mapping[str, Any]) -> Suite:
        """Return the suite with other options of its grader; raises ``UsageError`` for one that it does not take."""
        if unknown := [name for name in changes if name not in self.options]:
            raise UsageError(
                f"the grader of suite {self.name} has no option {unknown[0]!r}",
                hint=suggestion(unknown[0], self.options),
            )
        options = complete_options(self.grader, {**self.options, **changes}, GRADERS)
        return self.model_copy(update={"options": options})

    def _check_k(self) -> None:
        """Raise for a pass@k that there are too few samples for, or that is the score and not among those asked for."""
        ks = self.options.get("k", ()) if self.grader == "unit-tests" else ()
        if ks and max(ks) > self.decoding.samples:
            message = "options.k asks for pass@{k}, and decoding.samples is {samples}"
            raise PydanticCustomError("samples", message, {"k": max(ks), "samples": self.decoding.samples})
        name = self.primary.rpartition("/")[2]
        if ks and name not in {f"pass@{k}" for k in ks}:
            raise PydanticCustomError("primary", "primary is {name}, and options.k does not ask for it", {"name": name})

    @property
    def repeatable(self) -> bool:
        """Whether its responses can be given anew, to see how much its score varies by itself."""
        return self.engine == "items" and self.decoding.samples == 1

    def repeated(self, times: int) -> Suite:
        """Return this suite with its responses given ``times`` times where that can be, else as it is."""
        decoding = self.decoding.model_copy(update={"repeats": times})
        return self.model_copy(update={"decoding": decoding}) if self.repeatable else self

    def limited(self, limit: int) -> Suite:
        """Return this suite with at most ``limit`` examples, of each task or subset where its data have some."""
        if self.limit is not None and self.limit <= limit:
            return self
        note = f"{self.protocol.strip()} At most {limit} examples of each task, drawn with seed {self.sample_seed}."
        return self.model_copy(update={"limit": limit, "protocol": note.strip()})

    @property
    def asks_likelihoods(self) -> bool:
        """Whether a policy is asked how likely given texts are, and for no response."""
        is_choice = self.engine == "lm-eval" and self.prompts.options.get("rows") == "truthfulqa-mc"
        return self.engine in ("choices", "implicit") or is_choice

    @property
    def metrics(self) -> tuple[str, ...] | None:
        """Names of the metrics that an evaluation has; None where only the grader knows."""
        graded = find_entry("grader", self.grader).metrics
        return graded if graded is None or self.select is None else (*graded, *PICK_METRICS)

    @property
    def files(self) -> tuple[str, ...]:
        """Files that it reads, relative to the data root: data, and questions to a judge."""
        asked = self.judging.file if self.judging else None
        return self.data.names if asked is None else (*self.data.names, asked)

    def judged_by(self, panel: Panel, name: str | None = None, place: Location | None = None) -> Suite:
        """Return this suite with other judges, under its own name or another one; as :meth:`Judging.by` otherwise."""
        assert self.judging is not None
        judging = self.judging.by(panel, place)
        note = f" Judged by {panel.shown}"
        note += f", which stands in for {judging.instead_of}." if judging.instead_of else "."
        own = {"judging": judging, "protocol": self.protocol.strip() + note}
        return self.model_copy(
            update={**own, **({} if name is None else {"name": name, "title": f"{self.title} ({panel.shown})"})}
        )

    def paths(self, root: Path | None, place: Location | None = None) -> dict[str, Path]:
        """Return where each of :attr:`files` is; raises ``DataError`` at ``place`` that says what to put where.

        Files of the hub are checked against the record of what was fetched.
        """
        asked = (self.judging.file,) if self.judging and self.judging.file else ()
        found = {
            name: locate(name, root, f"suite {self.name!r}", place, self.data.origins.get(name))
            for name in (*self.data.files, *asked)
        }
        for hub in self.data.hub:
            data_files(hub.entry(), root, place)
            found |= {name: locate(name, root, f"suite {self.name!r}", place) for name in hub.names}
        return found

    def items_config(self) -> dict[str, Any] | None:
        """Config of the pocket stage that makes this suite's items or pairs; null when the data are files."""
        return None if self.data.pocket is None else self.data.pocket.model_dump(mode="json")

    def data_config(self, files: Mapping[str, str] | None) -> dict[str, Any]:
        """What decides the items or pairs: files by digest, prompts and their options, the draw."""
        digests = dict(files or {})
        if missing := [name for name in self.data.names if name not in digests]:
            raise ValueError(f"suite {self.name}: no digest for {', '.join(missing)}")
        config = {
            "files": {name: digests[name] for name in self.data.names},
            "prompts": self.prompts.model_dump(mode="json"),
            "limit": self.limit,
            **find_entry("prompts", self.prompts.name).versions(),
        }
        return config if self.limit is None else config | {"sample_seed": self.sample_seed}

    def generation_config(self, files: Mapping[str, str] | None = None, *, chat: bool | None = None) -> dict[str, Any]:
        """Config of the generate stage: everything that changes the responses or likelihoods, nothing else.

        ``files`` maps each of :attr:`files` to its sha256. ``chat`` replaces the suite's value (base models get
        ``False``). Raises ``ValueError`` for a suite without a generate stage or a file without a digest.
        """
        if self.engine in PAIR_ENGINES:
            raise ValueError(f"suite {self.name} is about pairs: it has no generate stage")
        engine = "items" if self.engine == "best-of-n" else self.engine
        chat = self.chat if chat is None else chat
        config = self.data_config(files) | {"engine": engine, "chat": chat}
        if engine != "choices":
            config["decoding"] = self.decoding.identity(chat=chat)
        return config

    def score_config(self, files: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Config of the score stage of a reward-model suite: ``what`` is responses (best-of-n) or pairs."""
        if self.subject != "reward_model":
            raise ValueError(f"suite {self.name} evaluates a policy: it has no score stage")
        if self.engine == "best-of-n":
            return {"what": "responses"}
        return {"what": "pairs"} | self.data_config(files) | self._reading_config()

    def likelihoods_config(self, files: Mapping[str, str] | None = None, *, chat: bool | None = None) -> dict[str, Any]:
        """Config of the likelihoods stage of a suite about a policy's implicit reward; ``chat`` as in generation."""
        if self.engine != "implicit":
            raise ValueError(f"suite {self.name} asks for no likelihoods of pairs")
        return self.data_config(files) | {"chat": self.chat if chat is None else chat} | self._reading_config()

    def select_config(self) -> dict[str, Any]:
        """Config of the select stage of a best-of-n suite."""
        if self.select is None:
            raise ValueError(f"suite {self.name} selects nothing")
        return self.select.model_dump(mode="json")

    @cached_property
    def scored_by(self) -> dict[str, str]:
        """Models whose scores the grader reads, by column, as its options name them."""
        named = {column: self.options.get(column) for column in find_entry("grader", self.grader).judges}
        return {column: model for column, model in named.items() if model is not None}

    def grading_config(self) -> dict[str, Any]:
        """Config of the evaluate stage: grader, its options but for the models it reads scores of, primary metric."""
        entry = find_entry("grader", self.grader)
        options = {name: value for name, value in self.options.items() if name not in entry.judges}
        return {"grader": self.grader, "options": options, "primary": self.primary, **entry.versions()}

    def protocol_digest(self, files: Mapping[str, str] | None = None) -> str:
        """Twelve hex digits that are equal exactly when two suites' numbers may share a column."""
        made = self._made(files)
        chosen = self.select and self.select_config()
        parts: tuple[Any, ...] = (made, self.items_config(), self.grading_config(), chosen, self.decoding.plain_stop)
        if self.judging is not None:
            parts = (*parts, self.judging.config(files or {}))
        if self.scored_by:
            parts = (*parts, self.scored_by)
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _made(self, files: Mapping[str, str] | None) -> dict[str, Any]:
        """Config of the stage that asks the model."""
        if self.engine == "implicit":
            return self.likelihoods_config(files)
        return self.score_config(files) if self.engine == "pairs" else self.generation_config(files)

    def _reading_config(self) -> dict[str, Any]:
        return {} if self.reading is None else {"reading": self.reading.model_dump(mode="json")}


def load_suites(folders: Iterable[Path]) -> dict[str, Suite]:
    """All suites of the ``*.yaml`` files in ``folders``, by name; the first folder that has a name wins.

    A file is one suite (with ``name:``), or a :class:`Family`. Raises ``SpecError`` with file, line and key.
    """
    suites: dict[str, Suite] = {}
    for folder in folders:
        found: dict[str, Suite] = {}
        for path in sorted(Path(folder).glob("*.yaml")):
            for value, origins in _documents(path):
                suite = validated(Suite, value, origins.locate)
                if suite.name in found:
                    raise SpecError(f"suite {suite.name!r} is defined twice in {folder}", location=origins.locate())
                found[suite.name] = suite
        suites = found | suites
    return dict(sorted(suites.items()))


def find_suite(suites: Mapping[str, Suite], name: str, location: Location | None = None) -> Suite:
    """The suite called ``name``; raises ``UnknownNameError`` with the nearest one."""
    if name not in suites:
        raise UnknownNameError("suite", name, suites, location=location)
    return suites[name]


def fetchable(
    names: Iterable[str], catalog: Mapping[str, DatasetEntry], suites: Mapping[str, Suite]
) -> tuple[list[str], dict[str, DatasetEntry]]:
    """Return what to fetch for ``names``, and the entries of it: datasets, suites, and repositories that suites read.

    A suite stands for all of its repositories; a name that a dataset and a suite have is the dataset's. Raises
    ``UnknownNameError``, and ``UsageError`` for a suite that reads no file of the hub.
    """
    read = {hub.id: hub.entry() for suite in suites.values() for hub in suite.data.hub}
    known = {**read, **catalog}
    wanted: list[str] = []
    for name in names:
        if name in known:
            wanted.append(name)
        elif name not in suites:
            having = [suite.name for suite in suites.values() if suite.data.hub]
            raise UnknownNameError("dataset or suite", name, [*known, *having])
        elif not suites[name].data.hub:
            origin = "made by this package" if suites[name].data.pocket else "your own, under the data root"
            raise UsageError(f"there is nothing to fetch for suite {name!r}: its files are {origin}")
        else:
            wanted += [hub.id for hub in suites[name].data.hub]
    return wanted, known


class Family(Closed):
    """Several suites in one file: ``common`` are the keys that all of them have, ``suites`` the rest by name."""

    common: dict[str, Any] | None = None
    suites: dict[str, dict[str, Any] | None]


def _documents(path: Path) -> Iterator[tuple[dict[str, Any], Origins]]:
    """Yield the suites of one file, each with where its keys are written."""
    value, origins = read_yaml(path)
    if not isinstance(value, dict):
        raise SpecError("a suite file must be a mapping", location=origins.locate())
    if "suites" not in value:
        yield value, origins
        return
    family, common = validated(Family, value, origins.locate), origins.inside("common")
    for name, own in family.suites.items():
        yield {"name": name} | _merged(family.common or {}, own or {}), origins.inside("suites", name).over(common)


def _merged(base: Any, own: Any) -> Any:
    """``own`` over ``base``: mappings merge key by key, anything else is replaced."""
    if isinstance(base, dict) and isinstance(own, dict):
        return base | {key: _merged(base[key], value) if key in base else value for key, value in own.items()}
    return own


def trained_field(name: str, suites: Collection[str]) -> str | None:
    """Return the field that ``training/FIELD`` names of what training logs; None for the name of anything else."""
    where, _, field = name.partition("/")
    return field if where == "training" and field and where not in suites else None
