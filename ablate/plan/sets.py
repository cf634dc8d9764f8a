"""The sets an experiment can name: catalog entries, its own variants of them, pipelines and mixtures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ablate.algorithms.registry import METHODS, find_method
from ablate.catalogs.closed import validated
from ablate.catalogs.converters import Checks
from ablate.catalogs.datasets import DatasetEntry, Format, LabelKind
from ablate.catalogs.judges import SELF
from ablate.catalogs.origins import Origins
from ablate.errors import Location, SpecError, UnknownNameError, UsageError
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sections import SHORTHANDS
from ablate.experiment.spec import DatasetVariant

WRITER = "responses.from"
"""Key under which the model that writes a set's responses is named."""


@dataclass(frozen=True)
class Pipeline:
    """A set that several stages make: responses of a policy, labels given anew, an online run's pairs, or a mixture.

    ``parts`` are the sets whose rows or prompts it uses, and ``origins`` say where its keys are written.
    """

    name: str
    title: str
    format: Format
    label_kind: LabelKind | None
    variant: DatasetVariant
    parts: tuple[NamedSet, ...]
    origins: Origins

    @property
    def shown_title(self) -> str:
        """The title: that its sets are embedded samples is theirs to say."""
        return self.title

    @property
    def licence(self) -> tuple[str, ...]:
        """The licences that apply, each once: those of all sets whose rows it uses."""
        return tuple(dict.fromkeys(name for entry in self.entries() for name in entry.licence))

    @property
    def licence_note(self) -> str | None:
        """Nothing beyond what its sets say."""
        return None

    def entries(self) -> Iterator[DatasetEntry]:
        """Yield the catalog entries whose rows it uses, each once."""
        found: dict[str, DatasetEntry] = {}
        for part in self.parts:
            found |= {entry.name: entry for entry in entries_of(part)}
        yield from found.values()


NamedSet: TypeAlias = DatasetEntry | Pipeline
CELLS_OWN = ("policy", "base")
"""What a set's responses may come from that is no name: the models of the cell that uses the set."""


def entries_of(named: NamedSet) -> Iterator[DatasetEntry]:
    """Yield the catalog entries whose rows a set uses."""
    if isinstance(named, Pipeline):
        yield from named.entries()
    else:
        yield named


def checks_of(named: NamedSet) -> dict[str, Checks | None]:
    """Return what verifiers can read of a set's prompts, by the sets that they are handed on from.

    A set that several stages make has prompts that were answered or labelled on the way, as texts alone; a mixture has
    those of its parts.
    """
    if isinstance(named, DatasetEntry):
        return {named.name: named.checks}
    if named.variant.mix is None:
        return {named.name: None}
    return {name: checks for part in named.parts for name, checks in checks_of(part).items()}


def without_scores(named: NamedSet) -> Iterator[str]:
    """Yield the names of a set's parts whose responses have ranks alone; labels given anew are scores."""
    if isinstance(named, DatasetEntry):
        yield from () if named.has_scores else (named.name,)
    elif named.variant.mix is not None:
        for part in named.parts:
            yield from without_scores(part)


def answered_prompts(named: NamedSet) -> Iterator[tuple[DatasetEntry, Location]]:
    """Yield the catalog entries to whose prompts a policy responds while the set is made, and where each is named."""
    if isinstance(named, DatasetEntry):
        return
    for part in named.parts:
        yield from answered_prompts(part)
        if named.variant.responses is not None:
            yield from ((entry, named.origins.locate("prompts")) for entry in entries_of(part))


def takes_part(named: NamedSet) -> Iterator[tuple[str, str, Location]]:
    """Yield what takes part in making a set beside its rows: a cell's key, the name it is given, and where."""
    if isinstance(named, DatasetEntry):
        return
    for part in named.parts:
        yield from takes_part(part)
    label, responses = named.variant.label, named.variant.responses
    for key, value in (named.variant.replay or {}).items():
        yield SHORTHANDS.get(key, key), str(value), named.origins.locate("replay", key)
    if label is not None and label.by is not None and label.by.reward_model is not None:
        for key, name in (("init", label.by.reward_model.init), ("dataset", label.by.reward_model.dataset)):
            yield f"reward_model.{key}", name, named.origins.locate("label", "by", "reward_model", key)
    if responses is None:
        return
    place = named.origins.inside("responses", "from")
    if not isinstance(responses.source, str):
        for key, value in responses.source.items():
            yield SHORTHANDS.get(key, key), str(value), place.locate(key)
    elif responses.source not in CELLS_OWN:
        yield WRITER, responses.source, place.locate()


def asks_for_a_cell(named: NamedSet) -> bool:
    """Whether making the set takes a model, so that it depends on the cell that uses it."""
    if isinstance(named, DatasetEntry):
        return False
    return named.variant.mix is None or any(map(asks_for_a_cell, named.parts))


def sets_of(loaded: LoadedExperiment, catalog: Mapping[str, DatasetEntry]) -> dict[str, NamedSet]:
    """Return the catalog with the experiment's variants laid over it; a variant uses sets written above it."""
    known: dict[str, NamedSet] = dict(catalog)
    for name in (*loaded.experiment.datasets, *loaded.varied.by_name):
        if name in catalog:
            place = loaded.origins.locate("datasets", name)
            raise UsageError(f"{name!r} is the catalog's own: give the variant another name", location=place)
    for name, variant in loaded.experiment.datasets.items():
        known[name] = _Variant(loaded, name, variant, known).read()
    return known


class OwnSets:
    """The sets that cells have as their own, each read when it is first asked for."""

    def __init__(self, loaded: LoadedExperiment, known: Mapping[str, NamedSet]) -> None:
        self._loaded = loaded
        self._known = known
        self._read: dict[str, NamedSet] = {}

    @property
    def names(self) -> Iterable[str]:
        """The names under which a specification has them."""
        return self._loaded.varied.by_name

    def find(self, name: str, location: Location | None = None) -> NamedSet | None:
        """Return a cell's own set, None for the name of none; SpecError where it is named without a cell."""
        if name in self.names:
            _refuse_varied(self._loaded, name, location)
        own = self._loaded.varied.made.get(name)
        if own is None:
            return None
        if name not in self._read:
            origins = self._loaded.origins.inside("datasets", own.written)
            variant = validated(DatasetVariant, own.text, origins.locate)
            self._read[name] = _Variant(self._loaded, name, variant, self._known, own.written).read()
        return self._read[name]


def _refuse_varied(loaded: LoadedExperiment, name: str, place: Location | None) -> None:
    axes = ", ".join(f"${{{axis}}}" for axis in loaded.varied.by_name[name].axes)
    raise SpecError(
        f"{name!r} takes {axes} of a cell, so only cells can use it: as dataset, prompts, reward_model.dataset or "
        "sft.dataset",
        location=place or loaded.origins.locate("datasets", name),
    )


@dataclass(frozen=True)
class _Variant:
    loaded: LoadedExperiment
    name: str
    variant: DatasetVariant
    known: Mapping[str, NamedSet]
    written: str | None = None
    """Its name in the specification, where it is the own set of some cells."""

    def read(self) -> NamedSet:
        variant = self.variant
        if variant.mix is not None:
            return self._mixture(tuple(self._found(part, "mix", part) for part in variant.mix))
        if variant.replay is not None:
            return self._replayed(variant.replay)
        if variant.use is not None:
            entry = self._entry(variant.use, "use")
            by = variant.label is not None and variant.label.by is not None
            return self._relabelled(entry) if by else self._overlaid(entry, {"title": variant.title or self.name})
        assert variant.prompts is not None
        entry = self._entry(variant.prompts, "prompts")
        if variant.responses is None:
            changes = {"title": variant.title or self.name, "format": "prompts", "label_kind": None, "label": None}
            return self._overlaid(entry, changes)
        part = self._first_step(entry, "prompts") if self._first_filters() else entry
        return self._pipeline("preference", self._label_kind(), (part,))

    def _relabelled(self, entry: DatasetEntry) -> Pipeline:
        if entry.format != "preference":
            raise SpecError(f"{entry.name!r} holds {entry.format} data: nothing to label", location=self._place("use"))
        return self._pipeline("preference", self._label_kind(), (self._first_step(entry, "responses"),))

    def _first_step(self, entry: DatasetEntry, what: str) -> DatasetEntry:
        """Return the rows that a pipeline starts from; without filters of its own, those of ``entry`` hold."""
        where = self._first_filters()
        return self._overlaid(entry, {"where": where} if where else {}, f"{what} of {self.name}", without=_LAST_STEP)

    def _first_filters(self) -> dict[str, Any] | None:
        """Return the filters of a pipeline's first step, None for none: all but the gap, which is of the new scores."""
        written = self.variant.where.model_dump(mode="python", exclude_none=True) if self.variant.where else {}
        filters = {name: value for name, value in written.items() if name != "score_gap"}
        return filters if filters.keys() - {"refusals"} or filters.get("refusals") == "drop" else None

    def _replayed(self, run: Mapping[str, Any]) -> Pipeline:
        """Return the pairs of an online run, whose prompts are those of the sets that it names."""
        method = find_method(str(run["algorithm"]), location=self._place("replay", "algorithm"))
        if not method.leaves_pairs:
            online = ", ".join(name for name, other in METHODS.items() if other.leaves_pairs)
            raise SpecError(
                f"{method.title} learns from no pairs of its own, so there is nothing to replay",
                location=self._place("replay", "algorithm"),
                hint=f"allowed: {online}",
            )
        named = [key for key in ("dataset", "prompts") if run.get(key) is not None]
        parts = dict.fromkeys(str(run[key]) for key in named)
        judged = str(run.get("annotator", "reward_model")) in ("reward_model", SELF)
        found = tuple(self._found(name, "replay") for name in parts)
        return self._pipeline("preference", "ai" if judged else "construction", found)

    def _mixture(self, parts: tuple[NamedSet, ...]) -> Pipeline:
        formats = {part.format for part in parts}
        if len(formats) > 1 or "documents" in formats:
            found = ", ".join(f"{part.name}: {part.format}" for part in parts)
            raise SpecError(f"the sets of a mixture hold one kind of data ({found})", location=self._place("mix"))
        kinds = {part.label_kind for part in parts}
        return self._pipeline(parts[0].format, kinds.pop() if len(kinds) == 1 else "mixed", parts)

    def _pipeline(self, format: Format, label_kind: LabelKind | None, parts: tuple[NamedSet, ...]) -> Pipeline:
        title = self.variant.title or self.name
        return Pipeline(self.name, title, format, label_kind, self.variant, parts, self._origins())

    def _label_kind(self) -> LabelKind:
        assert self.variant.label is not None and self.variant.label.by is not None
        return "construction" if self.variant.label.by.reward else "ai"

    def _overlaid(
        self, entry: DatasetEntry, changes: Mapping[str, Any], name: str | None = None, without: tuple[str, ...] = ()
    ) -> DatasetEntry:
        """Return an entry with the variant's keys over its own, then ``changes``."""
        left = {*_PIPELINE_KEYS, *without}
        own = self.variant.model_dump(mode="python", exclude_none=True, exclude=left)
        written = {**entry.model_dump(mode="python"), **own, **changes, "name": name or self.name}
        return validated(DatasetEntry, written, self._origins().locate).laid_over(entry)

    def _entry(self, name: str, key: str) -> DatasetEntry:
        found = self._found(name, key)
        if isinstance(found, Pipeline):
            message = f"{name!r} is made by several stages: {key} takes a set of the catalog, or a variant with use"
            raise SpecError(message, location=self._place(key))
        return found

    def _found(self, name: str, *path: str) -> NamedSet:
        if name in self.known:
            return self.known[name]
        if name in self.loaded.varied.by_name:
            _refuse_varied(self.loaded, name, self._place(*path))
        if name in self.loaded.experiment.datasets:
            message = (
                f"{name!r} is this set itself" if name == self.name else f"{name!r} is written below {self.name!r}"
            )
            hint = "a set can use those of the catalog and those written above it"
            raise SpecError(message, location=self._place(*path), hint=hint)
        raise UnknownNameError("dataset", name, self.known, location=self._place(*path))

    def _place(self, *path: str) -> Location:
        return self._origins().locate(*path)

    def _origins(self) -> Origins:
        return self.loaded.origins.inside("datasets", self.written or self.name)


_PIPELINE_KEYS = ("use", "prompts", "mix", "replay", "responses", "temperature", "caps", "order")
"""Keys of a variant that an entry does not have."""
_LAST_STEP = ("label", "pairing", "where")
"""Keys of a pipeline that say something about the labels it gives; what its filters say of its source is apart."""
