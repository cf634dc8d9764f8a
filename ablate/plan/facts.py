"""What the planner looks names up in: datasets with the experiment's variants, models, suites, digests of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ablate.catalogs.datasets import DatasetEntry, converter_digest, datasets, file_digests, with_sample
from ablate.catalogs.digests import DigestCache
from ablate.catalogs.models import ModelEntry, models
from ablate.catalogs.pins import Pins
from ablate.catalogs.suites import Suite, load_suites
from ablate.errors import Location, SpecError, UnknownNameError, UsageError
from ablate.experiment.loading import LoadedExperiment
from ablate.plan.sets import NamedSet, OwnSets, Pipeline, sets_of

Supply = Callable[[DatasetEntry, Path | None], None]


@dataclass(frozen=True)
class Facts:
    """Everything outside the specification that a plan depends on."""

    datasets: Mapping[str, NamedSet]
    models: Mapping[str, ModelEntry]
    suites: Mapping[str, Suite]
    root: Path | None
    digest_cache: DigestCache
    own_sets: OwnSets
    answers_folder: Path | None = None
    """Where answers of judges are kept, for all stages of a store."""
    supply: Supply = lambda entry, root: None
    """Called with a set and the data root before the set's files are looked for there."""

    @cached_property
    def tested(self) -> Mapping[str, str]:
        """What suites test on, files and splits of the pocket world in words; of several suites the shortest name."""
        found: dict[str, str] = {}
        for suite in sorted(self.suites.values(), key=lambda suite: len(suite.name)):
            pocket = suite.data.pocket
            for name in [*suite.files, *([f"the {pocket.split} split of the pocket world"] if pocket else [])]:
                found.setdefault(name, suite.name)
        return found

    def dataset(self, name: str, location: Location | None = None) -> NamedSet:
        """Return a set of the catalog, of the experiment, or of some of its cells."""
        found = self.datasets.get(name) or self.own_sets.find(name, location)
        if found is None:
            raise UnknownNameError("dataset", name, (*self.datasets, *self.own_sets.names), location=location)
        return found

    def entry(self, name: str, location: Location | None = None) -> DatasetEntry:
        """Return a set that one stage makes of its files."""
        found = self.dataset(name, location)
        if isinstance(found, Pipeline):
            raise SpecError(f"{name!r} is made by several stages; a set of the catalog is needed", location=location)
        return found

    def digests(self, entry: DatasetEntry, location: Location | None = None) -> dict[str, str]:
        """Return relative file name to sha256 for the files of a dataset that is named at ``location``."""
        self.supply(entry, self.root)
        return file_digests(entry, self.root, self.digest_cache, location)

    def converter_code(self, entry: DatasetEntry, location: Location | None = None) -> str | None:
        """Return the sha256 of the file of a converter of one's own, for a dataset that is named at ``location``."""
        return converter_digest(entry, self.digest_cache, location)

    def require_files(self, suite: Suite, location: Location) -> None:
        """Raise DataError unless the files of a suite that is named at ``location`` are there."""
        for hub in suite.data.hub:
            self.supply(hub.entry(), self.root)
        suite.paths(self.root, location)

    @property
    def answers(self) -> dict[str, str]:
        """Where answers of judges are kept, as a stage's locations spell it."""
        return {} if self.answers_folder is None else {"answers": str(self.answers_folder.absolute())}

    def locations(self, files: object) -> dict[str, str]:
        """Return the data root for a stage that reads files, nothing for one that doesn't."""
        return {"root": str(self.root)} if files and self.root is not None else {}


def has_chat_template(folder: Path) -> bool:
    """Return whether the tokenizer of a model's folder knows how conversations are written."""
    config = folder / "tokenizer_config.json"
    written = config.read_text(encoding="utf-8") if config.is_file() else ""
    return (folder / "chat_template.jinja").is_file() or '"chat_template"' in written


def gather_facts(
    loaded: LoadedExperiment,
    *,
    evals: list[Path],
    digest_cache: Path,
    data_root: str | None,
    catalogs: Sequence[Path] = (),
    pins: Pins | None = None,
) -> Facts:
    """Read the catalogs, the project's own folders of ``catalogs`` too, and lay the experiment's variants over them.

    Their repositories are at the commits of the project's ``pins``.

    ``data_root`` is used when the specification names none (``data.root``, relative to its file).
    """
    catalog = (pins or Pins()).over(datasets(*catalogs))
    if loaded.experiment.data.embedded:
        catalog = {name: with_sample(entry) if entry.sample else entry for name, entry in catalog.items()}
    sets = sets_of(loaded, catalog)
    written = loaded.experiment.data.root
    place = loaded.origins.locate("data", "root")
    root = local_path(written, loaded.file.parent, place) if written else (Path(data_root) if data_root else None)
    return Facts(
        sets,
        models(),
        load_suites(evals),
        root.absolute() if root else None,
        DigestCache(digest_cache),
        OwnSets(loaded, sets),
        digest_cache.with_name("answers"),
    )


def local_path(written: str, folder: Path, place: Location) -> Path:
    """Return a path as a specification writes it: relative to the specification's folder, ``~`` for a home."""
    try:
        path = folder / Path(written).expanduser()
        path.exists()
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"{written!r} can't be a path: {error}", location=place) from error
    return path
