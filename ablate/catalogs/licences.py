"""Licences of datasets by identifier, and a policy that says which may be used."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

UNRECORDED = "unrecorded"
"""Stands where a set's licence is not known: no pattern matches it, it is allowed by this name alone."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


def checked_identifiers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the licences of a set; ValueError when one is prose or ``unrecorded`` stands beside others."""
    if not names:
        raise ValueError(f"a set has at least one licence; write {UNRECORDED} where none is known")
    for name in names:
        if not _IDENTIFIER.fullmatch(name):
            raise ValueError(
                f"{name!r} is no licence identifier: write SPDX's (MIT, CC-BY-4.0), LicenseRef-… for terms that have "
                f"none, or {UNRECORDED}, several as a list; words go to licence_note"
            )
    if UNRECORDED in names and len(names) > 1:
        raise ValueError(f"{UNRECORDED} stands alone")
    return names


def not_allowed(licences: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """Return the licences that no entry of ``allowed`` names; all licences of a set apply, so each must be allowed.

    Entries are names or patterns (``CC-BY-[0-9]*``), in any case. ``unrecorded`` matches itself only.
    """
    patterns = [entry.lower() for entry in allowed]
    return [name for name in licences if not any(_matches(name.lower(), pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or (name != UNRECORDED and fnmatch.fnmatchcase(name, pattern))
