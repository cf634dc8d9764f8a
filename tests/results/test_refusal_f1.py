"""Refusal F1 is no mean over prompts: its linearised test against a bootstrap and a randomisation test in loop form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.results.layout import default_layout
from ablate.results.long import collect
from ablate.results.tables.build import build_table
from ablate.results.tables.columns import expand_columns
from ablate.results.tables.compare import Comparer

PROMPTS = 240
UNSAFE = [index % 5 < 2 for index in range(PROMPTS)]


def f1(refused: list[bool]) -> float:
    hits = false_alarms = misses = 0
    for said_no, unsafe in zip(refused, UNSAFE, strict=True):
        hits += said_no and unsafe
        false_alarms += said_no and not unsafe
        misses += unsafe and not said_no
    return 2 * hits / (2 * hits + false_alarms + misses)


def refusals(seed: int, unsafe: float, safe: float) -> list[bool]:
    draws = np.random.default_rng(seed).random(PROMPTS)
    return [bool(draw < (unsafe if is_unsafe else safe)) for draw, is_unsafe in zip(draws, UNSAFE, strict=True)]


def write(maker: Any, stage: str, refused: list[bool], *, score: float | None = None) -> None:
    output = maker.stage(stage)
    rows = []
    for index, (said_no, unsafe) in enumerate(zip(refused, UNSAFE, strict=True)):
        rows += [(f"e{index}", "accuracy", float(said_no == unsafe)), (f"e{index}", "refusal", float(said_no))]
    columns: dict[str, Any] = {
        "example": [row[0] for row in rows], "metric": [row[1] for row in rows], "value": [row[2] for row in rows],
        "task": ["xstest"] * len(rows), "cluster": pa.nulls(len(rows), pa.string()),
    }  # fmt: skip
    pq.write_table(pa.table(columns), output / "examples.parquet")
    number = f1(refused) if score is None else score
    metrics = [{"task": "overall", "metric": "refusal_f1", "value": number, "n": PROMPTS, "unit": "proportion"}]
    result = {"score": number, "metrics": metrics, "health": {}, "protocol": {}}
    (output / "metrics.json").write_text(json.dumps(result))


def study_of(maker: Any, sft: list[bool], trained: list[bool], **changes: Any) -> Any:
    maker.suite("xstest", "safety", primary="refusal_f1")
    for label, role, refused in (("sft", "baseline", sft), ("dpo", "cell", trained)):
        axes = {"dataset": None if role == "baseline" else "d", "algorithm": None, "seed": 0}
        entry = maker.subject(label, axes, {"xstest": None}, role=role)
        write(maker, entry["evaluations"]["xstest"], refused, **changes)
    return collect(maker.write(), "study")


@pytest.mark.parametrize(("unsafe", "safe"), [(0.9, 0.3), (0.75, 0.2), (0.72, 0.35)])
def test_it_agrees_with_bootstrap_and_randomisation(maker: Any, unsafe: float, safe: float) -> None:
    sft, trained = refusals(1, 0.7, 0.3), refusals(2, unsafe, safe)
    results = study_of(maker, sft, trained)
    first, second = results.subjects[1], results.subjects[0]
    layout = default_layout(results.plan).tables[0]
    test: Any = Comparer(results).test([(first, second)], expand_columns(layout, results)[0])
    observed = f1(trained) - f1(sft)
    assert test.estimate == pytest.approx(observed)

    rng = np.random.default_rng(0)
    pairs = np.array([trained, sft, UNSAFE]).T
    resampled = []
    for _ in range(2000):
        one, other, bad = pairs[rng.integers(0, PROMPTS, PROMPTS)].T
        resampled.append(
            2 * (one & bad).sum() / (one.sum() + bad.sum()) - 2 * (other & bad).sum() / (other.sum() + bad.sum())
        )
    assert test.stderr == pytest.approx(float(np.std(resampled)), rel=0.08)

    reached = 0
    for _ in range(2000):
        swap = rng.random(PROMPTS) < 0.5
        one, other = np.where(swap, sft, trained), np.where(swap, trained, sft)
        reached += abs(f1(list(one)) - f1(list(other))) >= abs(observed) - 1e-12
    assert test.p == pytest.approx((1 + reached) / 2001, abs=0.04)


def test_a_stored_score_that_is_another_number_is_not_tested(maker: Any) -> None:
    results = study_of(maker, refusals(1, 0.7, 0.3), refusals(2, 0.9, 0.1), score=0.5)
    table = build_table(results, default_layout(results.plan).tables[0])
    assert any("no mean over examples" in remark for remark in table.remarks)
    assert all(cell.p is None for row in table.rows for cell in row.cells)
