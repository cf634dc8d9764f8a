"""From a YAML file to an Experiment: extends, overrides, interpolation, validation with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ablate.catalogs.loading import YamlLoader, read_yaml, spec_error
from ablate.errors import Location, SpecError, UsageError, suggestion
from ablate.experiment.spec import EXPERIMENT, Experiment

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Origins:
    """Where every key of a merged specification was written."""

    file: Path
    places: Mapping[KeyPath, Location] = field(default_factory=dict)

    def locate(self, *path: str | int) -> Location:
        """Return the place of a key path, or of its nearest parent that was written."""
        key = ".".join(str(part) for part in path)
        for end in range(len(path), 0, -1):
            place = self.places.get(path[:end])
            if place is not None:
                return Location(file=place.file, line=place.line, key=key)
        return Location(file=str(self.file), key=key or None)


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment with the places of its keys and the folder its relative paths start from."""

    experiment: Experiment
    origins: Origins
    overrides: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The YAML file it was read from."""
        return self.origins.file


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> LoadedExperiment:
    """Read, merge and validate one specification; raises SpecError naming file, line and key.

    ``extends`` names one or more files this one is merged over (mappings deeply, lists whole); ``overrides`` are
    ``dotted.key=value`` with YAML values; ``${other.key}`` is resolved last.
    """
    values, places = _read_with_parents(path, ())
    origins = Origins(path, places)
    merged = _apply_overrides(values, overrides, path, places)
    try:
        resolved = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        message = f"can't resolve: {str(error).splitlines()[0]}"
        raise SpecError(message, location=origins.locate(*_key_path(error.full_key))) from error
    try:
        experiment = EXPERIMENT.model_validate(resolved)
    except ValidationError as error:
        raise _located(error, origins) from error
    return LoadedExperiment(experiment, origins, tuple(overrides))


def _read_with_parents(path: Path, chain: tuple[Path, ...]) -> tuple[DictConfig, dict[KeyPath, Location]]:
    if path in chain:
        circle = " -> ".join(str(item) for item in (*chain, path))
        raise SpecError(f"extends itself: {circle}", location=Location(file=str(chain[-1]), key="extends"))
    where = Location(file=str(chain[-1]), key="extends") if chain else None
    try:
        values, lines = read_yaml(path)
    except FileNotFoundError as error:
        raise UsageError(f"no specification file {path}", location=where) from error
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", location=where) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SpecError("a specification is a mapping of keys", location=Location(file=str(path)))
    own = {key: Location(file=str(path), line=line) for key, line in lines.items()}
    parents: Any = values.pop("extends", [])
    names = parents if isinstance(parents, list) else [parents]
    if not all(isinstance(name, str) and name.isprintable() and name for name in names):
        place = Location(file=str(path), line=lines.get(("extends",)), key="extends")
        raise SpecError("extends is a file name or a list of file names", location=place)
    merged, places = OmegaConf.create({}), dict[KeyPath, Location]()
    for name in names:
        parent, inherited = _read_with_parents((path.parent / name).resolve(), (*chain, path))
        merged, places = _merge(merged, places, parent, inherited)
    above = _create(values, Origins(path, own))
    return _merge(merged, places, above, own) if names else (above, own)


def _merge(
    below: DictConfig, below_places: dict[KeyPath, Location], above: DictConfig, above_places: dict[KeyPath, Location]
) -> tuple[DictConfig, dict[KeyPath, Location]]:
    # A list above replaces the one below, so the places inside the lower one are gone.
    replaced = {key[:-1] for key in above_places if isinstance(key[-1], int)}
    kept = {key: place for key, place in below_places.items() if not any(key[: len(r)] == r for r in replaced)}
    merged = OmegaConf.merge(below, above)
    assert isinstance(merged, DictConfig)
    return merged, {**kept, **above_places}


def _create(values: dict[str, Any], origins: Origins) -> DictConfig:
    try:
        return OmegaConf.create(values)
    except OmegaConfBaseException as error:
        raise SpecError(str(error).splitlines()[0], location=origins.locate(*_key_path(error.full_key))) from error


def _apply_overrides(
    config: DictConfig, overrides: Sequence[str], path: Path, places: dict[KeyPath, Location]
) -> DictConfig:
    known = EXPERIMENT.model_fields
    for override in overrides:
        place = Location(file=f"override {override!r}")
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UsageError(f"override {override!r} is not of the form key=value", hint="example: dpo.beta=0.05")
        if key.split(".")[0] not in known:
            raise SpecError(
                f"unknown key {key.split('.')[0]!r}", location=place, hint=suggestion(key.split(".")[0], known)
            )
        try:
            value = yaml.load(text, Loader=YamlLoader)
            OmegaConf.update(config, key, value, merge=False, force_add=True)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
            raise SpecError(f"can't set {key}: {str(error).splitlines()[0]}", location=place) from error
        written = _key_path(key)
        for inside in [item for item in places if item[: len(written)] == written]:
            del places[inside]  # lines of what was there before
        places[written] = place
    return config


def _located(error: ValidationError, origins: Origins) -> SpecError:
    lines = {key[:end]: 0 for key in origins.places for end in range(1, len(key) + 1)}
    converted = spec_error(error, EXPERIMENT, origins.file, lines)
    key = converted.location.key if converted.location else None
    return SpecError(converted.message, location=origins.locate(*_key_path(key)), hint=converted.hint)


def _key_path(key: str | None) -> KeyPath:
    """Return the parts of a dotted key; positions in lists are numbers (``grid[0].seed``, ``grid.0.seed``)."""
    parts = re.findall(r"[^.\[\]]+", key or "")
    return tuple(int(part) if part.isdecimal() else part for part in parts)
