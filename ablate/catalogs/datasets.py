"""The catalog of datasets: where each comes from, how its rows are read, what the study did, its traps."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from ablate.catalogs.closed import Names, Strict
from ablate.catalogs.converters import (
    CONVERTER_OPTIONS,
    CONVERTER_REVISIONS,
    PREFERENCE_CONVERTERS,
    Checks,
    VerifiablePromptsOptions,
    complete_options,
    gives_scores,
    known_converter,
)
from ablate.catalogs.digests import DigestCache
from ablate.catalogs.fetched import read_record
from ablate.catalogs.functions import is_function, source_file
from ablate.catalogs.loading import load_folder
from ablate.catalogs.pipelines import REFINEMENT_REVISIONS, Where, WrittenLabel
from ablate.catalogs.set_facts import SetFacts
from ablate.errors import DataError, Location

Format = Literal["preference", "instruction", "prompts", "documents"]
LabelKind = Literal["human", "ai", "construction", "mixed"]
PairingPolicy = Literal["best-vs-random", "best-vs-worst", "all-pairs", "adjacent", "random"]


class Pairing(Strict):
    """How pairs are drawn from k responses."""

    policy: PairingPolicy = "best-vs-random"
    minimum_gap: float = Field(default=0.0, ge=0.0)
    """Pairs with a smaller gap are not made; in the scores' own unit, or in ranks where there are only ranks."""
    ties: Literal["drop", "keep"] = "drop"
    """Whether two responses with equal labels may form a pair (the study kept them where its code did)."""
    seed: int = 42


def _of_policy(value: Any) -> Any:
    return {"policy": value} if isinstance(value, str) else value


WrittenPairing = Annotated[Pairing, BeforeValidator(_of_policy, json_schema_input_type=PairingPolicy | Pairing)]
"""A pairing as YAML may write it."""


class Split(Strict):
    """The part of a set that has only one file; every prompt is wholly in one part."""

    by: Literal["prompt", "opening"] = "prompt"
    """``prompt``: all turns before the response. ``opening``: up to the first user turn, for dialogues cut at
    several places, whose longer prompts contain the shorter ones."""
    part: Literal["train", "heldout"]
    heldout_share: float = Field(gt=0.0, lt=1.0)
    seed: int = 0


class PocketSource(Strict):
    """Made by a pocket stage; the values are the configuration of that stage."""

    what: Literal["corpus", "instructions", "preferences", "items"]
    name: str | None = None
    n: int = Field(gt=0)
    split: Literal["train", "validation", "test"] = "train"
    seed: int = 0
    curtness: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of answers whose author leaves out what the asker seems not to need; instructions alone."""

    @model_validator(mode="after")
    def _named(self) -> PocketSource:
        if self.curtness is not None and self.what != "instructions":
            raise ValueError("curtness is written for what: instructions, and only there")
        if self.what != "items" and (self.what == "preferences") != (self.name is not None):
            raise ValueError("name is written for what: preferences, and for items of one skill alone")
        return self


class HubSource(Strict):
    """Files of a repository of the Hugging Face hub or of GitHub, read from a mirror of it under the data root."""

    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    host: Literal["huggingface", "github"] = "huggingface"
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{8,40}$")
    """Commit the facts of the entry are about, its first digits where no more is recorded; None: not recorded."""
    config: str | None = None
    split: str | None = None
    files: Names = Field(min_length=1)
    """Names in the repository; ``*`` stands for what a name has of digits that differ between revisions."""

    @model_validator(mode="after")
    def _relative(self) -> HubSource:
        _check_relative(self.files)
        return self

    def wanted(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return which of a repository's names each of ``files`` stands for."""
        known = list(names)
        return {file: [name for name in known if _stands_for(file, name)] for file in self.files}

    def url(self) -> str:
        """Return the page that lists the files at the revision."""
        start = "https://huggingface.co/datasets" if self.host == "huggingface" else "https://github.com"
        return f"{start}/{self.id}/tree/{self.revision or 'main'}"


class Sample(Strict):
    """Rows of the pocket world in the schema of a set, which stand for it where its files are not."""

    name: str
    """The pocket preference set."""
    n: int = Field(default=3000, gt=0)
    """Rows; a set whose rows are read in groups needs several for a pair."""


def _of_pocket_set(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


WrittenSample = Annotated[Sample, BeforeValidator(_of_pocket_set, json_schema_input_type=str | Sample)]
"""A sample as YAML may write it."""


class Source(Strict):
    """Where the rows are: exactly one of ``pocket``, ``files`` (under the data root), ``hub``."""

    pocket: PocketSource | None = None
    files: Names | None = None
    hub: HubSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        given = [name for name in ("pocket", "files", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of pocket, files, hub is needed (found {', '.join(given) or 'none'})")
        if self.files is not None:
            _check_relative(self.files)
        return self

    def names(self) -> tuple[str, ...]:
        """Return the names of the files under the data root; a hub's files stand in a folder of its id."""
        if self.hub is not None:
            return tuple(f"{self.hub.id}/{name}" for name in self.hub.files)
        return self.files or ()


class DatasetEntry(SetFacts):
    """One dataset of the catalog; the ``converter_options`` are complete, defaults included."""

    format: Format
    source: Source
    converter: str | None = None
    """A name of ``CONVERTER_OPTIONS``, or the researcher's own ``module:function`` of a row and the options."""
    converter_revision: int = Field(default=1, ge=1)
    """Of a function of one's own: raised when its rows change although its file does not."""
    converter_options: Mapping[str, Any] = Field({}, validate_default=True)
    where: Where | None = None
    label: WrittenLabel | None = None
    """What ranks responses instead of the source's own label: aspects, never another labeller."""
    split: Split | None = None
    pairing: WrittenPairing = Pairing()
    sample: WrittenSample | None = None
    """Embedded rows of the same schema, with ``data.embedded`` read instead of the files."""
    heldout: str | None = None
    """The catalog's name of the held-out rows of this set, where there are any."""
    only_prompts_of: str | None = None
    """Another set of the catalog: rows whose prompt is in none of its examples are dropped."""
    label_kind: LabelKind | None = None
    _laid_over: str | None = PrivateAttr(None)

    @field_validator("converter")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return value if value is None or is_function(value) else known_converter(value, CONVERTER_OPTIONS)

    @field_validator("converter_options")
    @classmethod
    def _complete(cls, value: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        return complete_options(info.data.get("converter"), value)

    @model_validator(mode="after")
    def _consistent(self) -> DatasetEntry:
        if self.format == "documents":
            if self.converter is not None:
                raise ValueError("documents are read as they are: no converter")
        elif self.converter is None:
            raise ValueError(f"a converter is needed; allowed: {', '.join(CONVERTER_OPTIONS)}")
        known = self.own_converter or self.converter in (*PREFERENCE_CONVERTERS, "by_file")
        if self.format == "preference" and not known:
            raise ValueError(f"{self.converter} makes no preferences; allowed: {', '.join(PREFERENCE_CONVERTERS)}")
        if self.converter_revision != 1 and self.own_converter is None:
            raise ValueError("converter_revision belongs to a converter of one's own, module:function")
        if (self.format == "preference") != (self.label_kind is not None):
            raise ValueError("label_kind is written for preference sets, and only for those")
        if self.label is not None and (self.format != "preference" or self.label.aspects is None):
            raise ValueError("a set's label is one or more aspects, for preference sets alone")
        if self.sample is not None and not known:
            raise ValueError("sample names a pocket preference set: its rows need a converter that makes preferences")
        return self

    @property
    def catalog_name(self) -> str:
        """The name under which its files are fetched: that of the entry it is laid over, if any."""
        return self._laid_over or self.name

    def laid_over(self, entry: DatasetEntry) -> DatasetEntry:
        """Return this entry, a variant of an experiment, as one whose files are those of ``entry``."""
        copy = self.model_copy()
        copy._laid_over = entry.catalog_name
        return copy

    @property
    def reads_sample(self) -> bool:
        """Whether the rows are those of the sample."""
        return self.sample is not None and self.source.pocket is not None

    @property
    def checks(self) -> Checks | None:
        """What a verifier can read of each prompt; None where the set carries nothing."""
        if self.converter != "verifiable_prompts":
            return None
        options = VerifiablePromptsOptions.model_validate(dict(self.converter_options))
        return options.checks

    @property
    def has_scores(self) -> bool:
        """Whether its responses can have scores, not ranks alone."""
        return self.converter is not None and gives_scores(self.converter, self.converter_options)

    @property
    def shown_title(self) -> str:
        """The title, marked where the rows are those of the sample."""
        return f"{self.title} (embedded sample)" if self.reads_sample else self.title

    @property
    def own_converter(self) -> str | None:
        """The ``module:function`` that reads the rows; None where a converter of ablate's does."""
        return self.converter if self.converter is not None and is_function(self.converter) else None

    def converter_revisions(self) -> dict[str, int]:
        """Return the revision of all code of its own that reads rows of this entry: converters, filters, labels."""
        if self.converter is None:
            return {}
        if self.own_converter is not None:
            used = {self.own_converter: self.converter_revision}
        else:
            used = {name: CONVERTER_REVISIONS[name] for name in _converters(self.converter, self.converter_options)}
        return used | {name: REFINEMENT_REVISIONS[name] for name in self._refinement()}

    def _refinement(self) -> dict[str, Any]:
        written = {"where": self.where and self.where.identity(), "label": self.label and self.label.aspects}
        return {name: _plain(value) for name, value in written.items() if value is not None}

    def facts(self) -> dict[str, Any]:
        """Return what is known about the set as JSON values, in the order a reader wants."""
        hub = self.source.hub
        return {
            "name": self.name,
            "title": self.shown_title,
            "format": self.format,
            "label_kind": self.label_kind,
            "licence": list(self.licence),
            "licence_note": self.licence_note,
            "from": hub.url() if hub else ("this package" if self.source.pocket else None),
            "revision": hub.revision if hub else None,
            "split": hub.split if hub else None,
            "files": list(self.source.names()),
            "size": dict(self.size),
            "columns": dict(self.columns),
            "converter": self.converter,
            "converter_revision": self.converter_revision if self.own_converter else None,
            "options": _plain(self.converter_options),
            **self._refinement(),
            "pairing": self.pairing.model_dump(mode="json") if self.format == "preference" else None,
            "part": self.split.model_dump(mode="json") if self.split else None,
            "sample": f"{self.sample.name}, {self.sample.n:,} rows" if self.sample else None,
            "heldout": self.heldout,
            "only_prompts_of": self.only_prompts_of,
            "study": self.study,
            "study_rows": self.study_rows,
            "traps": list(self.traps),
        }

    def pocket_config(self) -> dict[str, Any] | None:
        """Return the configuration of the pocket stage that makes the rows; None for files and hub sets."""
        if self.source.pocket is None:
            return None
        values: dict[str, Any] = self.source.pocket.model_dump(mode="json", exclude_none=True)
        return values

    def stage_config(
        self,
        files: Mapping[str, str] | None = None,
        *,
        max_examples: int | None = None,
        seed: int = 42,
        cap: str = "after-filter",
        records: bool = False,
        converter_code: str | None = None,
    ) -> dict[str, Any]:
        """Return the configuration (identity) of the dataset stage for this entry.

        ``files`` are relative names with their sha256 (:func:`file_digests`), empty for pocket sets, whose rows
        come from an input. ``records`` asks for rows with all their responses instead of pairs; ``converter_code`` is
        the sha256 of the file of a converter of one's own. Settings that cannot matter are left out: no sampling seed
        without a sample, no pairing where nothing is paired.
        """
        config: dict[str, Any] = {
            "format": "records" if records else self.format,
            "converter": self.converter,
            "converter_options": _plain(self.converter_options),
            "files": dict(sorted((files or {}).items())),
            "split": self.split.model_dump(mode="json") if self.split else None,
            "max_examples": max_examples,
            **self._refinement(),
        }
        if max_examples is not None:
            config |= {"seed": seed, "cap": cap}
        if converter_code is not None:
            config["converter_code"] = converter_code
        if self.format == "preference" and not records:
            config["pairing"] = self.pairing.model_dump(mode="json")
        return config


def datasets(*folders: Path) -> dict[str, DatasetEntry]:
    """Return the catalog, name to entry: the package's own and the YAML files of ``folders``."""
    return _load((Path(__file__).with_suffix(""), *folders))


def with_sample(
    entry: DatasetEntry, catalog: Mapping[str, DatasetEntry] | None = None, place: Location | None = None
) -> DatasetEntry:
    """Return an entry with its embedded sample as its rows; what is made here anyway is returned as it is.

    Converter, options and pairing are the entry's own; licence and size are those of the sample. An entry without one
    is a :class:`DataError` that lists those of ``catalog`` that have one; ``place`` is where the set is named.
    """
    if entry.source.pocket is not None:
        return entry
    if entry.sample is None:
        having = [other.name for other in (datasets() if catalog is None else catalog).values() if other.sample]
        raise DataError(
            f"dataset {entry.name!r} has no embedded sample",
            location=place,
            hint=f"these have one: {', '.join(having)}",
        )
    rows = PocketSource(what="preferences", name=entry.sample.name, n=entry.sample.n)
    changes = {
        "source": Source(pocket=rows),
        "licence": ("Apache-2.0",),
        "licence_note": "generated by this package",
        "size": {"train": entry.sample.n},
        "only_prompts_of": None,
    }
    return entry.model_copy(update=changes)


def file_digests(
    entry: DatasetEntry, root: Path | None, cache: DigestCache, place: Location | None = None
) -> dict[str, str]:
    """Return the sha256 of every file of ``entry`` under the data root, relative name to digest.

    A pocket set has no files. A missing file is a :class:`DataError` at ``place``, where the set is named.
    """
    return {name: cache.of_file(path) for name, path in data_files(entry, root, place).items()}


def converter_digest(entry: DatasetEntry, cache: DigestCache, place: Location | None = None) -> str | None:
    """Return the sha256 of the file in which the entry's own converter is written; None for ablate's converters.

    A function that is not there is a :class:`DataError` at ``place``, where the set is named.
    """
    return None if entry.own_converter is None else cache.of_file(source_file(entry.own_converter, place))


def data_files(entry: DatasetEntry, root: Path | None, place: Location | None = None) -> dict[str, Path]:
    """Return the files of ``entry`` under the data root, relative name to path.

    A hub's file may be compressed further in a mirror (``.gz`` or ``.zst`` after its name). What is missing is a
    :class:`DataError` that says what to put where; ``place`` is where the set is named.
    """
    needed_by, hub = f"dataset {entry.name!r}", entry.source.hub
    files: dict[str, Path] = {}
    for name in entry.source.names():
        if hub is None:
            files[name] = locate(name, root, needed_by, place)
            continue
        found = _mirrored(name, root) if root is not None else {}
        if not found:
            where = "and no data root is set (ABLATE_DATA or data.root)" if root is None else f"in {_folder(root)}"
            raise DataError(
                f"{needed_by} needs the file {name}, {where}",
                location=place,
                hint=f"ablate data fetch {entry.catalog_name}, or put it there under this name; "
                f"it is among the files of {hub.url()}",
            )
        files |= found
    if hub is not None and root is not None:
        _check_fetched(entry, hub, root, files, place)
    return files


def fetched_revisions(entry: DatasetEntry, root: Path | None) -> dict[str, str]:
    """Return the revision at which each file of the entry under the data root was fetched, where that is recorded."""
    hub = entry.source.hub
    if hub is None or root is None or not root.is_dir():
        return {}
    record = read_record(root / hub.id)
    there = {name for wanted in entry.source.names() for name in _mirrored(wanted, root)}
    recorded = {f"{hub.id}/{name}": file.revision for name, file in record.items()}
    return {name: recorded[name] for name in sorted(there & recorded.keys())}


def _check_fetched(
    entry: DatasetEntry, hub: HubSource, root: Path, files: Mapping[str, Path], place: Location | None
) -> None:
    """Refuse files that were fetched at another revision than the entry's, and a set of which some have gone."""
    record = read_record(root / hub.id)
    for wanted in hub.wanted(record).values():
        for name in wanted:
            found = [path for path in (f"{hub.id}/{name}{suffix}" for suffix in ("", ".gz", ".zst")) if path in files]
            if not found:
                raise DataError(
                    f"dataset {entry.name!r}: {root / hub.id / name} was fetched and is no longer there",
                    location=place,
                    hint=f"ablate data fetch {entry.catalog_name}",
                )
            revision = record[name].revision
            if hub.revision is not None and not revision.startswith(hub.revision):
                raise DataError(
                    f"dataset {entry.name!r} is pinned to revision {hub.revision}, "
                    f"and {files[found[0]]} was fetched at {revision}",
                    location=place,
                    hint=f"move it away and run `ablate data fetch {entry.catalog_name}`, "
                    "or change the entry's revision",
                )


def _mirrored(name: str, root: Path) -> dict[str, Path]:
    """Return the files of a mirror that a name or pattern stands for, as they are or compressed, by name."""
    for suffix in ("", ".gz", ".zst"):
        found = sorted(path for path in root.glob(name + suffix) if path.is_file() and not _hidden(path, root))
        if found:
            return {path.relative_to(root).as_posix(): path for path in found}
    return {}


def _hidden(path: Path, root: Path) -> bool:
    """Whether a file is a record or an unfinished download."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def locate(
    name: str, root: Path | None, needed_by: str, place: Location | None = None, origin: str | None = None
) -> Path:
    """Return the path of a data file; :class:`DataError` says what to put where when it is not there.

    ``place`` is where what needs it is named, ``origin`` in words where it is published.
    """
    if root is None:
        raise DataError(
            f"{needed_by} needs the file {name}, and no data root is set",
            location=place,
            hint="set ABLATE_DATA (or data.root) to a folder that holds files under these relative names",
        )
    path = root / name
    if not path.is_file():
        wanted = f"{path}, which is not there" if root.is_dir() else f"{name} in {_folder(root)}"
        raise DataError(
            f"{needed_by} needs the file {wanted}",
            location=place,
            hint=(f"it is {origin}: " if origin else "")
            + f"put it there, or set ABLATE_DATA (or data.root) to the folder that holds {name}",
        )
    return path


def _folder(root: Path) -> str:
    """Return how an error names a data root, which may be no folder."""
    if root.is_dir():
        return f"the folder {root}"
    return f"the data root {root}, which {'is no folder' if root.exists() else 'is not there'}"


@functools.cache
def _load(folders: tuple[Path, ...]) -> dict[str, DatasetEntry]:
    catalog = load_folder(folders, DatasetEntry)
    for name in catalog.entries:
        catalog.require(name, "heldout", catalog.entries)
        # Of sets that are not cut themselves: no circle, and one look says what is read.
        uncut = [other for other, entry in catalog.entries.items() if entry.only_prompts_of is None and entry.converter]
        catalog.require(name, "only_prompts_of", uncut)
    return catalog.entries


def _converters(name: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield a converter and those it hands rows to."""
    yield name
    if name == "chosen_as_instruction":
        yield options["of"]
    elif name == "by_file":
        for part in options["files"].values():
            yield from _converters(part["converter"], part["options"])


def _stands_for(pattern: str, name: str) -> bool:
    """Whether ``*`` can be read as a part of one folder's or file's name so that the two are equal."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _check_relative(names: tuple[str, ...]) -> None:
    for name in names:
        if not name or name.startswith("/") or ".." in Path(name).parts:
            raise ValueError(f"{name!r} is not a relative file name under the data root")
    if len(set(names)) != len(names) or not names:
        raise ValueError("files must be a non-empty list of different names")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
