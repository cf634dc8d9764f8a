"""The table of evaluation protocols: how every suite asked, and what its number is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ablate.results.long import Evaluation, Results
from ablate.results.tables.notes import Notes
from ablate.results.tables.table import Cell, Column, Row, Table

_COLUMNS = (
    Column("suite", "Suite", "label"),
    Column("category", "Category", "label"),
    Column("metric", "Score", "label"),
    Column("examples", "Examples", "attribute", digits=0),
    Column("prompts", "Prompts", "label"),
    Column("decoding", "Decoding", "label"),
    Column("settings", "Other settings", "label"),
    Column("models", "Models", "attribute", digits=0),
    Column("protocol", "Fingerprint", "label"),
)
_TOLD = ("made.prompts", "made.decoding", "made.chat", "primary", "items", "made.files")
"""Keys of a protocol that the table's columns tell, or that only a program can use."""


def protocol_table(results: Results) -> Table:
    """Return the table: a row for every suite and protocol that a model was measured under.

    A suite that measured nothing yet has a row without a protocol; what a suite's note says is a footnote.
    """
    notes = Notes()
    rows = []
    for suite, about in results.suites.items():
        found: dict[str, list[Evaluation]] = {}
        stages = dict.fromkeys(item.evaluations[suite] for item in results.subjects if suite in item.evaluations)
        for evaluation in (results.evaluations[stage] for stage in stages if stage in results.evaluations):
            found.setdefault(evaluation.protocol_digest, []).append(evaluation)
        note = (notes.key(str(about["note"])),) if about.get("note") else ()
        first = (
            Cell(text=str(about.get("title") or suite), notes=note),
            Cell(text=str(about.get("category", ""))),
            Cell(text=f"{about.get('primary', '')} ({about.get('unit', '')})"),
        )
        rows += [Row("cell", (*first, *_protocol(digest, own))) for digest, own in found.items()]
        if not found:
            gap = Cell(missing="nothing measured yet", notes=(notes.key("nothing measured yet"),))
            rows.append(
                Row("cell", (*first, gap, *(Cell(text="") for _ in range(3)), Cell(value=0.0, n=1), Cell(text="")))
            )
    return Table("protocols", "Evaluation protocols", _COLUMNS, tuple(rows), notes.all())


def _protocol(digest: str, found: list[Evaluation]) -> tuple[Cell, ...]:
    protocol = found[0].protocol
    made: Mapping[str, Any] = protocol.get("made") or {}
    counts = {item.health.get("n") for item in found}
    n = counts.pop() if len(counts) == 1 else None
    settings = "; ".join(f"{key.removeprefix('made.')}: {value}" for key, value in _settings(protocol))
    return (
        Cell(text="differs") if n is None else Cell(value=float(n), n=1),
        Cell(text=_prompts(made)),
        Cell(text=_decoding(made.get("decoding") or {})),
        Cell(text=settings),
        Cell(value=float(len(found)), n=1),
        Cell(text=digest),
    )


def _prompts(made: Mapping[str, Any]) -> str:
    prompts: Mapping[str, Any] = made.get("prompts") or {}
    options = ", ".join(f"{key} {_text(value)}" for key, value in (prompts.get("options") or {}).items())
    chat = {True: "chat template", False: "no chat template"}.get(made.get("chat", ""), "")
    return ", ".join(part for part in (str(prompts.get("name", "")), options, chat) if part)


def _decoding(decoding: Mapping[str, Any]) -> str:
    """Write a decoding: ``greedy, at most 80 tokens``."""
    if not decoding:
        return ""
    temperature, samples = decoding.get("temperature"), decoding.get("samples") or 1
    parts = ["greedy" if not temperature else f"temperature {temperature}"]
    if temperature and decoding.get("top_p", 1.0) != 1.0:
        parts.append(f"top-p {decoding['top_p']}")
    if samples > 1:
        parts.append(f"{samples} samples")
    if decoding.get("max_new_tokens") is not None:
        parts.append(f"at most {decoding['max_new_tokens']} tokens")
    if decoding.get("stop"):
        parts.append(f"stops at {_text(decoding['stop'])}")
    if temperature:
        parts.append(f"seed {decoding.get('seed')}")
    return ", ".join(parts)


def _settings(protocol: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in protocol.items():
        name = f"{prefix}{key}"
        if name in _TOLD or value is None:
            continue
        if isinstance(value, Mapping):
            yield from _settings(value, f"{name}.")
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
