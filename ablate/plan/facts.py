"""What the planner looks names up in: datasets with the experiment's variants, models, suites, digests of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ablate.catalogs.closed import validated
from ablate.catalogs.datasets import DatasetEntry, datasets, file_digests, locate, with_sample
from ablate.catalogs.digests import DigestCache
from ablate.catalogs.models import ModelEntry, models
from ablate.catalogs.suites import Suite, load_suites
from ablate.errors import Location, UnknownNameError, UsageError
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.spec import DatasetVariant


@dataclass(frozen=True)
class Facts:
    """Everything outside the specification that a plan depends on."""

    datasets: Mapping[str, DatasetEntry]
    models: Mapping[str, ModelEntry]
    suites: Mapping[str, Suite]
    root: Path | None
    digest_cache: DigestCache
    embedded: bool = False

    def dataset(self, name: str, location: Location | None = None) -> DatasetEntry:
        """Return a dataset or a variant of one; with embedded data a preference set needs a sample."""
        if name not in self.datasets:
            raise UnknownNameError("dataset", name, self.datasets, location=location)
        entry = self.datasets[name]
        if self.embedded and entry.format == "preference":
            return with_sample(entry, self.datasets, location)
        return entry

    def digests(self, entry: DatasetEntry, location: Location | None = None) -> dict[str, str]:
        """Return relative file name to sha256 for the files of a dataset that is named at ``location``."""
        return file_digests(entry, self.root, self.digest_cache, location)

    def require_files(self, suite: Suite, location: Location) -> None:
        """Raise DataError unless the files of a suite that is named at ``location`` are there."""
        for name in suite.files:
            locate(name, self.root, f"suite {suite.name!r}", location)

    def locations(self, files: object) -> dict[str, str]:
        """Return the data root for a stage that reads files, nothing for one that doesn't."""
        return {"root": str(self.root)} if files and self.root is not None else {}


def gather_facts(loaded: LoadedExperiment, *, evals: list[Path], digest_cache: Path, data_root: str | None) -> Facts:
    """Read the catalogs and lay the experiment's variants over them.

    ``data_root`` is used when the specification names none (``data.root``, relative to its file).
    """
    catalog = dict(datasets())
    for name, variant in loaded.experiment.datasets.items():
        catalog[name] = _variant(loaded, name, variant, catalog)
    written = loaded.experiment.data.root
    place = loaded.origins.locate("data", "root")
    root = local_path(written, loaded.file.parent, place) if written else (Path(data_root) if data_root else None)
    root = root.absolute() if root else None
    embedded = loaded.experiment.data.embedded
    return Facts(catalog, models(), load_suites(evals), root, DigestCache(digest_cache), embedded)


def _variant(
    loaded: LoadedExperiment, name: str, variant: DatasetVariant, catalog: Mapping[str, DatasetEntry]
) -> DatasetEntry:
    place = loaded.origins.locate("datasets", name)
    if name in datasets():
        raise UsageError(f"{name!r} is the catalog's own: give the variant another name", location=place)
    if variant.use not in catalog:
        raise UnknownNameError("dataset", variant.use, catalog, location=loaded.origins.locate("datasets", name, "use"))
    base = catalog[variant.use].model_dump(mode="python")
    changes = variant.model_dump(mode="python", exclude_none=True, exclude={"use"})
    written = {**base, "title": name, **changes, "name": name}
    return validated(DatasetEntry, written, loaded.origins.inside("datasets", name).locate)


def local_path(written: str, folder: Path, place: Location) -> Path:
    """Return a path as a specification writes it: relative to the specification's folder, ``~`` for a home."""
    try:
        path = folder / Path(written).expanduser()
        path.exists()
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"{written!r} can't be a path: {error}", location=place) from error
    return path
