"""Canonical spelling of a stage's config and the digest that names it.

Only JSON's own values can be spelled: anything else (sets, callables, NaN, objects) is refused, never turned into a
string. Key order, Python's hash seed and the machine change nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DIGEST_LENGTH = 16
"""Hexadecimal digits of an identity: 64 bits, a collision among a million stages has probability 3e-8."""

# ``default`` sees the mappings that are no dicts: everything else that JSON lacks has been refused before.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=dict)
_PLAIN = frozenset({str, int, bool, type(None)})


def canonical(value: Any) -> str:
    """Return the one JSON text of ``value``; raises TypeError naming the path of what can't be spelled."""
    _check(value, "config")
    return _ENCODER.encode(value)


def digest(text: str) -> str:
    """Return the first digits of the sha256 of ``text``."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:DIGEST_LENGTH]


@dataclass(frozen=True, slots=True)
class Config:
    """A frozen config: its canonical text and the digest of it."""

    text: str
    digest: str

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Config:
        """Freeze ``value``."""
        text = canonical(value)
        return cls(text, digest(text))

    @property
    def value(self) -> dict[str, Any]:
        """A fresh copy of the config."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed


def _check(value: Any, path: str) -> None:
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind is float:
        if not math.isfinite(value):
            raise TypeError(f"{path} is {value}: not a finite number, so it can't be part of an identity")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{path} has the key {key!r}: keys of a config are strings")
            if type(item) not in _PLAIN:
                _check(item, f"{path}.{key}")
    elif kind in (list, tuple):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
    else:
        raise TypeError(f"{path} is of type {kind.__name__}, which has no canonical spelling")
