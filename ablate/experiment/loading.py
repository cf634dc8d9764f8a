"""From a YAML file to an Experiment: extends, overrides, interpolation, validation with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablate.catalogs.closed import validated
from ablate.catalogs.loading import YamlLoader, read_yaml
from ablate.catalogs.origins import KeyPath, Origins
from ablate.errors import Location, SpecError, UsageError, suggestion
from ablate.experiment.keys import flatten, known_key
from ablate.experiment.own_methods import with_own_methods
from ablate.experiment.sections import Scalar
from ablate.experiment.spec import Experiment, experiment_model
from ablate.experiment.varied import VariedSets, hold_axes, take_varied
from ablate.shipped import find_by_name, search_folders


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment with the places of its keys and the folder its relative paths start from."""

    experiment: Experiment
    file: Path
    origins: Origins
    overrides: tuple[str, ...] = ()
    interpolated: frozenset[str] = frozenset()
    """Keys that other keys take their value from."""
    varied: VariedSets = field(default_factory=VariedSets)
    """The sets of ``datasets`` that take values of axes: cells have them as their own."""

    def flatten(self, key: str, value: Any, place: Location) -> dict[str, Scalar]:
        """Return a value that is written at ``place`` under dotted keys of a cell."""
        return flatten(self.varied.axes, key, value, place)

    def known_key(self, key: str, what: str, place: Location) -> str:
        """Return the key of a cell that a written one means; raises SpecError at ``place``."""
        return known_key(self.varied.axes, key, what, place)


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> LoadedExperiment:
    """Read, merge and validate one specification; raises SpecError naming file, line and key.

    ``extends`` names one or more files this one is merged over (mappings deeply, lists whole); ``overrides`` are
    ``dotted.key=value`` with YAML values; ``${other.key}`` is resolved last, but for ``${axis}`` in ``datasets``.
    """
    return _resolved(*_read_overridden(path, overrides), path, overrides)


def specification_copy(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return what a specification says with all that it extends and its overrides, for :func:`load_copy`."""
    values: Any = OmegaConf.to_container(_read_overridden(path, overrides)[0], resolve=False)
    return dict(values)


def load_copy(copy: Path, path: Path, overrides: Sequence[str]) -> LoadedExperiment:
    """Read a copy as :func:`load_experiment` read the file at ``path`` when the copy was made, whatever it says now."""
    return _resolved(*_read_with_parents(copy, (), None), path, overrides)


def _resolved(written: DictConfig, origins: Origins, path: Path, overrides: Sequence[str]) -> LoadedExperiment:
    held = hold_axes(written)
    try:
        resolved: Any = OmegaConf.to_container(written, resolve=True)
    except OmegaConfBaseException as error:
        message = f"can't resolve: {str(error).splitlines()[0]}"
        raise SpecError(message, location=origins.locate(*_key_path(error.full_key))) from error
    interpolated = frozenset(re.findall(r"(?<!\\)\$\{([\w.]+)\}", OmegaConf.to_yaml(written)))
    return replace(read_values(resolved, origins, path, held), overrides=tuple(overrides), interpolated=interpolated)


def overridden_sections(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the keys at the top of a specification that overrides reach into, as a file writes them."""
    values = specification_copy(path, overrides)
    return {name: values[name] for name in (str(_key_path(item.partition("=")[0])[0]) for item in overrides)}


def read_values(
    values: Any, origins: Origins, path: Path, held: Mapping[str, tuple[str, ...]] | None = None
) -> LoadedExperiment:
    """Validate what a specification at ``path`` says, or would say; ``origins`` tells where each key was written.

    ``held`` are the sets that take values of axes, with the axes.
    """
    named = with_own_methods(values, path.parent, origins)  # first: their sections are known from then on
    varied = take_varied(named, held or {})
    return LoadedExperiment(validated(experiment_model(), named, origins.locate), path, origins, varied=varied)


def _read_overridden(path: Path, overrides: Sequence[str]) -> tuple[DictConfig, Origins]:
    written, origins = _read_with_parents(path, (), None)
    for override in overrides:
        origins = _apply_override(written, override, origins)
    return written, origins


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
        parent, inherited = _read_with_parents(_find_parent(path, name), (*chain, path), place)
        merged, places = _merge(merged, parent), inherited.over(places)
    own = _create(values, origins)
    return (_merge(merged, own), origins.over(places)) if names else (own, origins)


def _find_parent(child: Path, name: str) -> Path:
    """Return the file that ``child`` extends: beside it, else the project's or the shipped experiment of that name."""
    beside = (child.parent / name).resolve()
    try:
        found = None if beside.exists() or Path(name).name != name else find_by_name("experiments", name, Path.cwd())
    except OSError:  # no name of a file: whoever reads it says so
        return beside
    return found.resolve() if found else beside


def _read(path: Path, where: Location | None) -> tuple[dict[str, Any], Origins]:
    try:
        values, origins = read_yaml(path)
    except FileNotFoundError as error:
        folders = [path.parent, *(search_folders("experiments", Path.cwd()) if where else [])]
        known = {file.name for folder in folders for file in folder.glob("*.yaml")}
        hint = suggestion(path.name, known) if known else None
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
    if not text.strip():
        raise UsageError(f"no value is given for {key}", location=place, hint=f"{key}=null asks for none")
    try:
        path = _set(config, key, yaml.load(text, Loader=YamlLoader))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
        raise SpecError(f"can't set {key}: {str(error).splitlines()[0]}", location=place) from error
    return origins.rewritten(path, place)


def _set(config: DictConfig, key: str, value: Any) -> KeyPath:
    """Set one key and return its path: an axis that a block of the grid writes as ``dpo.beta`` is one part of it."""
    path = _key_path(key)
    for end in range(2, len(path) - 1):
        parent, name = OmegaConf.select(config, ".".join(map(str, path[:end]))), ".".join(map(str, path[end:]))
        if isinstance(parent, DictConfig) and name in parent:
            parent[name] = value
            return (*path[:end], name)
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    return path


def _key_path(key: str | None) -> KeyPath:
    """Return the parts of a dotted key; positions in lists are numbers (``grid[0].seed``, ``grid.0.seed``)."""
    parts = re.findall(r"[^.\[\]]+", key or "")
    return tuple(int(part) if part.isdecimal() else part for part in parts)
