"""Taking secrets out of text that leaves the machine: values of the environment, addresses' passwords, known forms."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

REDACTED = "[redacted]"

# not KEYBOARD_LAYOUT, TOKENIZERS_PARALLELISM, GIT_AUTHOR_NAME: their values are words of ordinary text
_SECRET_NAME = re.compile(
    r"(?i)(key(?!board)|token(?!iz)|secret|passw|passphrase|credential|auth(?!or)|authoriz|authoris)"
)
_SHORTEST = 8
"""A shorter value of the environment is no secret that could be told from ordinary text."""

_PATTERNS = (
    # the name and password of an address
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@"), rf"\1{REDACTED}@"),
    # a query, a setting, a header: api_key=…, "password": "…", Authorization: Bearer …
    (
        re.compile(
            r"(?i)([\w-]*(?:api[_-]?key|access[_-]?key|secret|passw(?:or)?d|(?:access|auth|api|hf|refresh|bearer)[_-]?token"
            r"|(?<=[?&])(?:key|token|sig|signature))[\w-]*[\"']?\s*[=:]\s*[\"']?)(?!\[redacted\])[^\s\"'&,;<>]{4,}"
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
