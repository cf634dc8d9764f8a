"""Analyses as declared: which axis explains how much of a column, and how sure the order of a table's rows is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ablate.catalogs.closed import Closed, Names
from ablate.catalogs.origins import Origins
from ablate.results.layout.columns import Column, check_columns
from ablate.results.layout.names import SEED_AXES, axis_names, refuse_unknown, varying_axes


class EffectsLayout(Closed):
    """A table of the main effects and interactions of axes on columns."""

    name: str = Field(default="effects", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name of its files")
    title: str = ""
    subject: Literal["policy", "reward_model"] = "policy"
    columns: tuple[Column, ...] = Field(min_length=1, description="as in a table")
    axes: Names = Field(default=(), description="axes whose effects are told; empty: all that vary but seeds")

    def factors(self, plan: Mapping[str, Any]) -> list[str]:
        """Return the axes to analyse."""
        entries = [entry for entry in plan["subjects"] if entry["subject"] == self.subject]
        varying = [axis for axis in varying_axes(entries) if axis not in SEED_AXES]
        # Axes that follow another (a reward model's data are its policy's) are not in the grid.
        named = [axis for axis in varying if axis in plan.get("axes", ()) and self.subject == "policy"]
        return list(self.axes) or named or varying


class RankingLayout(Closed):
    """A table of how sure the order of another table's rows is in one column."""

    name: str = Field(default="ranking", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name of its files")
    title: str = ""
    table: str = Field(description="name of a table of this report, whose rows are ordered")
    column: str = Field(default="average", description="key of its column that they are ordered by")
    resamples: int = Field(default=2000, ge=100)
    seed: int = Field(default=0, ge=0)


def check_effects(layout: EffectsLayout, plan: Mapping[str, Any], origins: Origins) -> None:
    """Raise :class:`SpecError` for a column or an axis that the experiment does not have."""
    entries = [entry for entry in plan["subjects"] if entry["subject"] == layout.subject]
    check_columns(layout.columns, layout.subject, plan, origins.inside("columns"))
    for i, axis in enumerate(layout.axes):
        refuse_unknown("axis", axis, axis_names(entries), origins.locate("axes", i))
