"""The ``sweep`` section of a specification: what is searched, for what, by which sampler, and when it ends."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qs

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ablate.catalogs.closed import Closed, Names
from ablate.experiment.sections import Scalar

Pair = Annotated[tuple[float, float], Field(strict=False)]
_DATABASE = re.compile(
    r"(?P<scheme>[\w+.-]+)://([^:/@]*(?P<password>:[^/@]+)?:?@)?[^/@?]*/(?P<name>/*[^/?][^?]*)\??(?P<query>.*)"
)
"""A URL as SQLAlchemy reads it; the user may be redacted, as in a bundle."""


class Range(Closed):
    """The values a key may take: one of ``uniform``, ``log``, ``int`` and ``choice``; bounds are included."""

    uniform: Pair | None = Field(None, description="Lowest and highest of numbers that are equally likely.")
    log: Pair | None = Field(None, description="Lowest and highest of numbers whose logarithms are equally likely.")
    int: Pair | None = Field(None, description="Lowest and highest of whole numbers.")
    choice: tuple[Scalar, ...] | None = Field(None, min_length=1, description="Values without an order.")
    step: float | None = Field(None, gt=0, description="Of uniform and int: values are lowest + a multiple of it.")
    when: Mapping[str, Scalar | tuple[Scalar, ...]] = Field(
        {}, description="The key is searched only where these keys have these values (or one of a list)."
    )

    @model_validator(mode="after")
    def _is_one_range(self) -> Range:
        given = [name for name in ("uniform", "log", "int", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of uniform, log, int, choice is needed (found {', '.join(given) or 'none'})")
        if self.step is not None and given[0] not in ("uniform", "int"):
            raise ValueError("step goes with uniform or int")
        if given == ["choice"]:
            return self
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
            raise ValueError(f"{given[0]} needs a lowest value below its highest (found {low:g}, {high:g})")
        if given == ["log"] and low <= 0:
            raise ValueError(f"log needs values above 0 (found {low:g})")
        if given == ["int"] and not all(value.is_integer() for value in (low, high, self.step or 1.0)):
            raise ValueError("int needs whole numbers")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of a range of numbers."""
        pair = self.uniform or self.log or self.int
        assert pair is not None
        return pair

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """Every choice, or the lowest and the highest number: if these are allowed, all are."""
        if self.choice is not None:
            return self.choice
        low, high = self.bounds
        return (int(low), int(high)) if self.int else (low, high)

    @property
    def points(self) -> tuple[Scalar, ...] | None:
        """Every value, where there are so many: of a choice, whole numbers, or a range in steps; None of another."""
        if self.choice is not None:
            return self.choice
        if self.step is None and self.int is None:
            return None
        (low, high), step = self.bounds, self.step or 1.0
        values = [low + step * index for index in range(int((high - low) / step + 1e-9) + 1)]
        return tuple(int(value) for value in values) if self.int is not None else tuple(values)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Named(Closed):
    """A sampler or pruner of Optuna by its name, with its arguments beside it."""

    name: str
    arguments: Mapping[str, Any] = Field({}, description="Arguments of Optuna's class, by their names there.")


class Watch(Named):
    """A pruner, and what it looks at while a trial's policies are trained."""

    value: str = Field(description="Field of the training events, e.g. reward, loss, accuracy.")
    direction: Literal["maximise", "minimise"] = "maximise"


class Bound(Closed):
    """What a column may be at least or at most for a trial to count as feasible."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Bound:
        if self.at_least is None and self.at_most is None:
            raise ValueError("at_least or at_most is needed")
        return self


class Sweep(Closed):
    """A search over keys of the grid: every trial is the grid's blocks with one value for each searched key."""

    section: ClassVar[str] = "sweep"
    called: ClassVar[str] = "sweep"
    """The key of a specification that it is written under, and what messages call it."""

    search: Mapping[str, Range] = Field(min_length=1, description="Dotted key to the values it may take.")
    maximise: Names = Field(
        min_length=1,
        description="A result: average, a category, a suite, suite/metric, or training/FIELD for what training logged "
        "last, with a minus before it to have it small; several give a Pareto front.",
    )
    trials: int = Field(ge=1, strict=True, description="Trials in all; a repeated call goes on to this number.")
    sampler: Annotated[Named, BeforeValidator(_named)] = Field(
        Named(name="tpe"), description="tpe, random, qmc, grid, gp, cma_es, nsga_ii, …, with its arguments."
    )
    seed: int = Field(0, ge=0, strict=True, description="Seed of the sampler.")
    pruner: Watch | None = Field(None, description="Stops trials that fall behind; only with one objective.")
    start: tuple[Mapping[str, Scalar], ...] = Field((), description="Trials to begin with, e.g. a paper's values.")
    subject_to: Mapping[str, Bound] = Field({}, description="Results that a trial must reach to count as feasible.")
    retries: int = Field(1, ge=0, strict=True, description="Times that a trial's failed stages are run again.")
    give_up: int = Field(3, ge=1, strict=True, description="Failed trials to stop at, where none has ended well.")
    max_hours: float | None = Field(
        None, gt=0, description="Hours that the stages of all trials may take together; no trial begins after them."
    )
    max_gpu_hours: float | None = Field(None, gt=0, description="The same in hours of GPUs, which stages hold.")
    storage: str | None = Field(None, description="URL of a database of Optuna; default: a journal in the store.")

    @field_validator("storage")
    @classmethod
    def _is_one_database_for_all(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = _DATABASE.fullmatch(url)
        if parts is None:
            raise ValueError("a database's URL is needed, as postgresql://user@host/name or sqlite:////folder/file.db")
        if parts["scheme"].startswith("sqlite") and not parts["name"].startswith("/"):
            raise ValueError("workers run in folders of their own: write the whole path, sqlite:////folder/file.db")
        if parts["password"] or any("passw" in key.lower() for key in parse_qs(parts["query"])):
            raise ValueError(
                "a specification is no place for a password: leave it to the driver (~/.pgpass, ~/.my.cnf)"
            )
        return url

    @field_validator("search", mode="before")
    @classmethod
    def _without_those_taken_out(cls, search: Any) -> Any:
        is_mapping = isinstance(search, Mapping)
        return {key: given for key, given in search.items() if given is not None} if is_mapping else search

    @property
    def most(self) -> int:
        """How many trials there are in all: those asked for, or as many as a grid has points."""
        return self.trials if self.points is None else min(self.trials, self.points)

    @property
    def points(self) -> int | None:
        """How many points a grid has; None where values are drawn otherwise."""
        points = [given.points for given in self.search.values()]
        if self.sampler.name != "grid" or None in points:
            return None
        return math.prod(len(values) for values in points if values is not None)

    def facts(self) -> dict[str, Any]:
        """Return what a report must know of the search: for what, how many keys, how its trials are drawn."""
        drawn = {"sampler": self.sampler.name, "seed": self.seed, "trials": self.most}
        return {"maximise": list(self.maximise), "search": list(self.search), **drawn}

    @model_validator(mode="after")
    def _prunes_one_objective(self) -> Sweep:
        if self.pruner is not None and len(self.maximise) > 1:
            raise ValueError("a pruner compares one number: it goes with one objective")
        return self


class Tune(Sweep):
    """A search for every group of the grid's cells, before these are run with the values that were found."""

    section: ClassVar[str] = "tune"
    called: ClassVar[str] = "tuning"

    over: Names = Field(
        ("dataset", "algorithm"), min_length=1, description="Axes whose values make the groups that are tuned apart."
    )
    suites: Names = Field(
        (), description="Validation suites that average and categories in maximise and subject_to are taken over."
    )
    trials: int = Field(ge=1, strict=True, description="Trials of each group in all; a repeated call goes on to it.")
    seed: int = Field(0, ge=0, strict=True, description="The one seed of the trials' cells, and of the sampler.")
    max_hours: float | None = Field(
        None, gt=0, description="Hours that the stages of a group's trials may take together; no trial begins after."
    )

    @property
    def limits(self) -> dict[str, float | None]:
        """What may end the search of a group before it has its trials."""
        return {"give_up": self.give_up, "max_hours": self.max_hours, "max_gpu_hours": self.max_gpu_hours}

    @model_validator(mode="after")
    def _finds_one_winner(self) -> Tune:
        if len(self.maximise) > 1:
            raise ValueError("a group has one winner: maximise is one result, others can be bounds in subject_to")
        return self
