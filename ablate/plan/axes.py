"""The axes of models that several cells share: those that name each, and more where two would be called the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ablate.experiment.grid import Values
from ablate.experiment.sections import Scalar


@dataclass(frozen=True)
class SharedModel:
    """A model of a plan's rows: its stages, the axes it is named by, the values of the cells that share it."""

    stages: tuple[str, ...]
    axes: Values
    cells: Sequence[Values]


def tell_apart(models: Sequence[SharedModel], keys: Iterable[str]) -> list[Values]:
    """Return the axes of each model: its own and, where others have the same, those of ``keys`` that differ.

    A key that differs among the cells of one model is null for it: the model does not depend on it.
    """
    alike: dict[tuple[tuple[str, Scalar], ...], list[SharedModel]] = {}
    for model in models:
        alike.setdefault(tuple(model.axes.items()), []).append(model)
    told: dict[int, Values] = {}
    for group in alike.values():
        several = len({model.stages for model in group}) > 1
        found = [_common(model, keys) if several else {} for model in group]
        telling = [key for key in found[0] if len({own[key] for own in found}) > 1]
        for model, own in zip(group, found, strict=True):
            told[id(model)] = {**model.axes, **{key: own[key] for key in telling}}
    return [told[id(model)] for model in models]


def _common(model: SharedModel, keys: Iterable[str]) -> dict[str, Scalar]:
    """Return the keys beside a model's axes, each with the value that all its cells have, or null."""
    found: dict[str, Scalar] = {}
    for key in keys:
        if key not in model.axes:
            values = {values.get(key) for values in model.cells}
            found[key] = values.pop() if len(values) == 1 else None
    return found
