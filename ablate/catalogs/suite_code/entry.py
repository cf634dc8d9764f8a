"""A named piece of evaluation code: where it is, what options it takes, what its results hang on."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.catalogs.closed import Closed


class NoOptions(Closed):
    """Takes no options."""


@dataclass(frozen=True)
class Entry:
    """A named piece of evaluation code: where it is (``module:function``) and what options it takes."""

    entry: str
    options: type[Closed] = NoOptions
    revision: int = 1
    """Raised when its results change: stages that use it then run again."""
    heavy: bool = False
    """Whether it imports the training stack."""
    package: str | None = None
    """An installed package whose version changes its results (prompts, metrics)."""
    metrics: tuple[str, ...] | None = None
    """Names of the metrics that a grader gives; None: they are known when it has run."""
    gold: str | None = None
    """Of a grader: ``module:function`` that gives a right response to an item, where items have one."""
    judges: Mapping[str, str] = field(default_factory=dict)
    """Of a grader that reads scores of models: the column of each, named as the option that names its model, and the
    ``module:function`` that asks it."""
    repeated: bool = False
    """Whether a file of outputs may have several rows for one item: its samples, as graders of pass@k take them."""
    marks: tuple[str, ...] = ("sample",)
    """Columns that tell rows for one item apart, where a file of outputs has several."""
    alone: str | None = None
    """``module:function`` that grades a file of outputs which says all itself, without the suite's items."""

    judge: str | None = None
    """Template in which a judge compares the pairs of a suite with this grader; the grader then reads its verdicts."""

    def versions(self) -> dict[str, Any]:
        """Key ``packages`` of a config that names this entry: the installed version, where it matters."""
        return {"packages": {self.package: _version(self.package)}} if self.package else {}


@functools.cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)
