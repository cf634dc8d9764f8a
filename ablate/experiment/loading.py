"""From a YAML file to an Experiment: extends, overrides, interpolation, validation with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablate.catalogs.closed import validated
from ablate.catalogs.loading import YamlLoader, read_yaml
from ablate.catalogs.origins import KeyPath, Origins
from ablate.errors import Location, SpecError, UsageError, suggestion
from ablate.experiment.spec import EXPERIMENT, Experiment


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment with the places of its keys and the folder its relative paths start from."""

    experiment: Experiment
    file: Path
    origins: Origins
    overrides: tuple[str, ...] = ()


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> LoadedExperiment:
    """Read, merge and validate one specification; raises SpecError naming file, line and key.

    ``extends`` names one or more files this one is merged over (mappings deeply, lists whole); ``overrides`` are
    ``dotted.key=value`` with YAML values; ``${other.key}`` is resolved last.
    """
    written, origins = _read_with_parents(path, (), None)
    for override in overrides:
        origins = _apply_override(written, override, origins)
    try:
        resolved = OmegaConf.to_container(written, resolve=True)
    except OmegaConfBaseException as error:
        message = f"can't resolve: {str(error).splitlines()[0]}"
        raise SpecError(message, location=origins.locate(*_key_path(error.full_key))) from error
    return LoadedExperiment(validated(EXPERIMENT, resolved, origins.locate), path, origins, tuple(overrides))


def _read_with_parents(path: Path, chain: tuple[Path, ...], where: Location | None) -> tuple[DictConfig, Origins]:
    """Return a file merged over those that it extends; ``where`` the last of ``chain`` names it."""
    if path in chain:
        circle = " -> ".join(str(item) for item in (*chain, path))
        raise SpecError(f"extends itself: {circle}", location=where)
    values, origins = _read(path, where)
    parents: Any = values.pop("extends", [])
    names = parents if isinstance(parents, list) else [parents]
    if not all(isinstance(name, str) and name.isprintable() and name for name in names):
        raise SpecError("extends is a file name or a list of file names", location=origins.locate("extends"))
    merged, places = OmegaConf.create({}), Origins()
    for index, name in enumerate(names):
        place = origins.locate("extends", *([index] if parents is names else []))
        parent, inherited = _read_with_parents((path.parent / name).resolve(), (*chain, path), place)
        merged, places = _merge(merged, parent), inherited.over(places)
    own = _create(values, origins)
    return (_merge(merged, own), origins.over(places)) if names else (own, origins)


def _read(path: Path, where: Location | None) -> tuple[dict[str, Any], Origins]:
    try:
        values, origins = read_yaml(path)
    except FileNotFoundError as error:
        beside = [file.name for file in path.parent.glob("*.yaml")]
        hint = suggestion(path.name, beside) if beside else None
        raise UsageError(f"no specification file {path}", location=where, hint=hint) from error
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", location=where) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SpecError("a specification is a mapping of keys", location=origins.locate())
    return values, origins


def _merge(below: DictConfig, above: DictConfig) -> DictConfig:
    merged = OmegaConf.merge(below, above)
    assert isinstance(merged, DictConfig)
    return merged


def _create(values: dict[str, Any], origins: Origins) -> DictConfig:
    try:
        return OmegaConf.create(values)
    except OmegaConfBaseException as error:
        raise SpecError(str(error).splitlines()[0], location=origins.locate(*_key_path(error.full_key))) from error


def _apply_override(config: DictConfig, override: str, origins: Origins) -> Origins:
    """Set one key of ``config``; return the origins after it."""
    place = Location(file=f"override {override!r}")
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError("not of the form key=value", location=place, hint="example: dpo.beta=0.05")
    section = key.split(".")[0]
    if section not in EXPERIMENT.model_fields:
        raise SpecError(f"unknown key {section!r}", location=place, hint=suggestion(section, EXPERIMENT.model_fields))
    try:
        value = yaml.load(text, Loader=YamlLoader)
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
        raise SpecError(f"can't set {key}: {str(error).splitlines()[0]}", location=place) from error
    return origins.rewritten(_key_path(key), place)


def _key_path(key: str | None) -> KeyPath:
    """Return the parts of a dotted key; positions in lists are numbers (``grid[0].seed``, ``grid.0.seed``)."""
    parts = re.findall(r"[^.\[\]]+", key or "")
    return tuple(int(part) if part.isdecimal() else part for part in parts)
