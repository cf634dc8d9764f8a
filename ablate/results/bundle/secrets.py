"""Taking secrets out of text that leaves the machine: values of the environment, addresses' passwords, known forms."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

# not KEYBOARD_LAYOUT, TOKENIZERS_PARALLELISM, GIT_AUTHOR_NAME: their values are words of ordinary text
_SECRET_NAME = re.compile(
    r"(?i)(key(?!board)|token(?!iz)|secret|passw|passphrase|credential|auth(?!or)|authoriz|authoris)"
)
_SHORTEST = 8
"""A shorter value of the environment is no secret that could be told from ordinary text."""

_SETTING = r"api[_-]?key|access[_-]?key|secret|passw(?:or)?d|(?:access|auth|api|hf|refresh|bearer)[_-]?token"
_SECRET_KEY = re.compile(rf"(?i){_SETTING}|^authorization$")
_SHORTEST_SETTING = 4

_JSON_NUMBER = r"(?:(?<=\":)|(?<=\": ))-?\d[\d.eE+-]*"
"""Behind the name of a JSON value: a measurement, whatever its name."""

_PATTERNS = (
    # the name and password of an address
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@"), rf"\1{REDACTED}@"),
    # a query, a setting, a header: api_key=…, "password": "…", Authorization: Bearer …
    (
        re.compile(
            rf"(?i)([\w-]*(?:{_SETTING}|(?<=[?&])(?:key|token|sig|signature))[\w-]*[\"']?\s*[=:]\s*[\"']?)"
            rf"(?!\[redacted\]|(?:true|false|null|{_JSON_NUMBER})(?:[\s\"'&,;<>\]}}]|$))"
            rf"[^\s\"'&,;<>]{{{_SHORTEST_SETTING},}}"
        ),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(r"(?i)\b(authorization[\"']?\s*[=:]\s*[\"']?\w+|bearer)\s+(?=[\w.~+/-]{12})[\w.~+/-]+=*"),
        rf"\1 {REDACTED}",
    ),
    # tokens that say what they are
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
            r"|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
        ),
        REDACTED,
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), REDACTED),
)


def secret_values(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the values of the environment's variables whose names say that they are secret, longest first."""
    found = {value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    return sorted((value for value in found if not value.startswith(("/", "~"))), key=len, reverse=True)


def redact(text: str, values: list[str]) -> str:
    """Return the text without these values and without what has the form of a secret."""
    for value in values:
        text = text.replace(value, REDACTED)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_file(suffix: str, text: str, values: list[str]) -> str:
    """Return what :func:`redact` does of a file's text; JSON is redacted value by value and stays JSON."""
    if suffix == ".json":
        return _redact_json(text, values, indent=1)
    if suffix == ".jsonl":
        return "\n".join(_redact_json(line, values) for line in text.split("\n"))
    return redact(text, values)


def _redact_json(text: str, values: list[str], indent: int | None = None) -> str:
    """Redact one JSON value; what is no JSON is redacted as text, and what holds no secret stays as it was written."""
    try:
        value = json.loads(text)
    except ValueError:
        return redact(text, values)
    clean = _redacted(value, values)
    end = text[len(text.rstrip()) :]
    return text if clean == value else json.dumps(clean, indent=indent) + end


def _redacted(value: Any, values: list[str], *, is_secret: bool = False) -> Any:
    """Return a JSON value without secrets; every text under a secret's name is one."""
    if isinstance(value, dict):
        return {
            redact(key, values): _redacted(item, values, is_secret=is_secret or _SECRET_KEY.search(key) is not None)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_redacted(item, values, is_secret=is_secret) for item in value]
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    if is_secret and isinstance(value, str) and len(value) >= _SHORTEST_SETTING:
        return REDACTED
    clean = redact(text, values)
    return value if clean == text else clean
