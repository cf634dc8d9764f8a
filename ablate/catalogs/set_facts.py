"""What is known about a set of data and changes no stage: its name, its terms, its size, what was done with it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from ablate.catalogs.closed import Names
from ablate.catalogs.licences import checked_identifiers
from ablate.catalogs.loading import Named


class SetFacts(Named):
    """Base of dataset entries: facts that tables, plans and the catalog's reader are told."""

    title: str
    licence: Names
    """SPDX identifiers, all of which apply; ``LicenseRef-…`` for other terms, ``unrecorded`` where none is known."""
    licence_note: str | None = None
    """What the identifiers do not say, in words."""
    size: Mapping[str, int] = {}
    """Rows of each split as released; empty where no number is recorded."""
    columns: Mapping[str, str] = {}
    """Columns of a row and their types."""
    study: str | None = None
    """What Ivison et al. (2024) did with this set."""
    study_rows: int | None = Field(default=None, gt=0)
    """Pairs the study trained on."""
    traps: Names = ()
    """What one should know before using it."""

    @field_validator("licence")
    @classmethod
    def _identifiers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_identifiers(value)
