"""The prompts and graders that suites name: one module a family, merged here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ablate.catalogs.closed import unknown_name
from ablate.catalogs.suite_code import answers, coding, harness, judged, pairs, pocket, rewardbench, safety
from ablate.catalogs.suite_code.entry import Entry
from ablate.errors import UnknownNameError

_FAMILIES = (pocket, answers, coding, safety, pairs, rewardbench, harness, judged)

PROMPTS: dict[str, Entry] = {name: entry for family in _FAMILIES for name, entry in family.PROMPTS.items()}
GRADERS: dict[str, Entry] = {name: entry for family in _FAMILIES for name, entry in family.GRADERS.items()}


def known_entry(kind: str, name: str, known: Mapping[str, Entry]) -> str:
    """Return the name if it is in ``known``, or ``package.module:function``; else raise an error of validation."""
    if ":" not in name and name not in known:
        raise unknown_name(kind, name, known)
    return name


def complete_options(name: str | None, options: dict[str, Any], known: Mapping[str, Entry]) -> dict[str, Any]:
    """Return options with defaults written out; a ``module:function`` of the user's own takes any."""
    if name is None or ":" in name:
        return options
    return known[name].options.model_validate(options).model_dump(mode="json")


def find_entry(kind: Literal["prompts", "grader"], name: str) -> Entry:
    """What is behind a prompts or grader name; ``package.module:function`` is an entry of the user's own."""
    known = PROMPTS if kind == "prompts" else GRADERS
    if ":" in name:
        return Entry(name, heavy=True)
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def resolve_entry(kind: Literal["prompts", "grader"], name: str) -> str:
    """``module:function`` behind a prompts or grader name."""
    return find_entry(kind, name).entry
