"""The split stage: tokenised pairs cut into parts of one size, the easy ones first if so ordered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ablate.context import StageContext, write_json
from ablate.data.records import draw
from ablate.errors import StageError


def run(context: StageContext) -> dict[str, Any]:
    """Write ``part-1.parquet``, ``part-2.parquet``, … of the pairs in ``data``, and ``report.json``.

    Config: ``parts``; ``order``, one of easy-to-hard (by the reference's log-probabilities in the input ``measured``),
    given, random (by ``seed``). Each part has its pairs in the order of the file.
    """
    config = context.config
    table = pq.read_table(context.inputs["data"])
    ids: list[str] = table.column("id").to_pylist()
    if len(ids) < config["parts"]:
        raise StageError(f"{len(ids)} pairs can't be cut into {config['parts']} parts", hint="lower parts")
    margins = _margins(context.inputs["measured"], ids) if config["order"] == "easy-to-hard" else None
    if config["order"] == "random":
        order = sorted(range(len(ids)), key=lambda row: draw(config["seed"], "part", ids[row]))
    else:
        order = easy_to_hard(margins, ids) if margins else list(range(len(ids)))
    report = []
    for number, rows in enumerate(cut(order, config["parts"]), start=1):
        pq.write_table(table.take(sorted(rows)), context.output / f"part-{number}.parquet", compression="zstd")
        report.append({"pairs": len(rows), **(_facts([margins[row] for row in rows]) if margins else {})})
    write_json(context.output / "report.json", {"in": len(ids), "parts": report})
    return {"in": len(ids), "parts": len(report)}


def easy_to_hard(margins: Sequence[float], ids: Sequence[str]) -> list[int]:
    """Return the rows from the highest margin to the lowest; equal ones by their ids."""
    return sorted(range(len(margins)), key=lambda row: (-margins[row], ids[row]))


def cut(order: Sequence[int], parts: int) -> list[Sequence[int]]:
    """Cut rows into consecutive parts whose sizes differ by one at most, the larger ones first."""
    size, more = divmod(len(order), parts)
    ends = [size * number + min(number, more) for number in range(parts + 1)]
    return [order[start:end] for start, end in pairwise(ends)]


def _margins(path: Path, ids: Sequence[str]) -> list[float]:
    """Return log ref(c) - log ref(r) of every pair, sums over tokens."""
    table: Mapping[str, list[Any]] = pq.read_table(path).to_pydict()
    sides = zip(table["id"], table["chosen_logp"], table["rejected_logp"], strict=True)
    margin_of = {identity: chosen - rejected for identity, chosen, rejected in sides}
    missing = [identity for identity in ids if identity not in margin_of]
    if missing:
        raise StageError(f"{path} lacks {len(missing)} of {len(ids)} pairs, the first {missing[0]}")
    return [margin_of[identity] for identity in ids]


def _facts(margins: Sequence[float]) -> dict[str, float]:
    return {
        "mean_margin": sum(margins) / len(margins),
        "reward_accuracy": sum(margin > 0 for margin in margins) / len(margins),
        "lowest_margin": min(margins),
        "highest_margin": max(margins),
    }
