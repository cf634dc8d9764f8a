"""Correlations of reward models with the policies trained on them, and rows of rules that read nothing."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ablate.errors import SpecError
from ablate.results.layout import CorrelationLayout, Layout, TableLayout, check_layout, load_layout
from ablate.results.long import collect
from ablate.results.report import build_report
from ablate.results.tables.columns import measured_columns
from ablate.results.tables.correlation import Points, build_correlations, correlate, pearson, read_points, spearman
from ablate.results.tables.table import Table

LAYOUT = CorrelationLayout.model_validate(
    {"name": "downstream", "reward_model": [{"suite": "pairs"}], "policy": [{"suite": "facts"}, {"suite": "gold"}]}
)


def points(x: Sequence[float], y: Sequence[float], units: Sequence[int] | None = None) -> Points:
    return Points(np.array(x, float), np.array(y, float), np.array(units or range(len(x))), 0)


def test_coefficients_by_hand_and_against_scipy() -> None:
    # Deviations (-1, 0, 1) and (-1, 1, 0): 1 / sqrt(2 * 2).
    x, y = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 1.0])
    assert pearson(x, y) == pytest.approx(0.5)
    assert spearman(x, 10.0**y) == pytest.approx(0.5)
    assert pearson(x[:2], y[:2]) is None and spearman(x[:2], y[:2]) is None
    assert pearson(x, np.full(3, 0.1)) is None, "without spread there is no correlation"
    assert spearman(np.array([]), np.array([])) is None
    stream = random.Random(1)
    for _ in range(20):
        a = np.array([round(stream.gauss(0, 1), 1) for _ in range(12)])
        b = np.array([round(stream.gauss(0, 1), 1) + value for value in a])
        assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def slow_interval(found: Points, resamples: int, seed: int) -> tuple[float, float]:
    """Whole reward models drawn with replacement, in loops, with the same draws."""
    stream = np.random.default_rng(seed)
    names = sorted(set(found.unit_N.tolist()))
    values = []
    for _ in range(resamples):
        x, y = [], []
        for place in stream.integers(len(names), size=len(names)):
            for row, unit in enumerate(found.unit_N):
                if unit == names[place]:
                    x.append(found.x_N[row])
                    y.append(found.y_N[row])
        if len(set(x)) > 1 and len(set(y)) > 1 and len(x) > 2:
            values.append(float(np.corrcoef(x, y)[0, 1]))
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def test_intervals_resample_reward_models() -> None:
    stream = random.Random(4)
    x = [stream.gauss(0, 1) for _ in range(9)]
    alone = points(x, [value + stream.gauss(0, 0.5) for value in x])
    together = Points(alone.x_N, alone.y_N, np.array([0, 0, 0, 1, 1, 1, 2, 2, 2]), 0)
    for found in (alone, together):
        made = correlate(found, ranks=False, resamples=300, seed=7)
        assert made.value == pytest.approx(np.corrcoef(found.x_N, found.y_N)[0, 1])
        assert (made.low, made.high) == pytest.approx(slow_interval(found, 300, 7))
        assert made.low is not None and made.high is not None and made.low <= made.value <= made.high
    assert correlate(points([1, 2], [1, 2]), ranks=True, resamples=100, seed=0).reason == "2 cells, 3 are needed"
    flat = correlate(points([1, 1, 1], [1, 2, 3]), ranks=False, resamples=100, seed=0)
    assert (flat.value, flat.reason) == (None, "all values are equal")
    one = correlate(points([1, 2, 3], [1, 2, 3], [0, 0, 0]), ranks=False, resamples=100, seed=0)
    assert (one.value, one.low, one.high) == (pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))


def test_cells_are_paired_with_the_reward_model_they_were_trained_on(study: Any) -> None:
    """Reward models have 50 + seed and 70 + seed of 100, and PPO on them the same."""
    results = collect(study.write(), "study")
    (one,) = measured_columns(LAYOUT.reward_model, "reward_model", results)
    other = measured_columns(LAYOUT.policy, "policy", results)[0]
    found = read_points(results, LAYOUT, one, other)
    levels = [0.50, 0.51, 0.52, 0.70, 0.71, 0.72]
    assert sorted(found.x_N.tolist()) == pytest.approx(levels) and found.x_N.tolist() == pytest.approx(
        found.y_N.tolist()
    )
    assert len(set(found.unit_N.tolist())) == 6 and found.lacking == 0
    dpo = LAYOUT.model_copy(update={"algorithms": ("dpo",)})
    assert len(read_points(results, dpo, one, other).x_N) == 0, "methods without a reward model have no points"


def numbers(table: Table, row: int) -> list[float | None]:
    return [cell.value for cell in table.rows[row].cells[2:]]


def test_the_table_says_n_and_what_is_missing(study: Any) -> None:
    results = collect(study.write(), "study")
    table = build_correlations(results, LAYOUT)
    assert [row.cells[1].text for row in table.rows] == ["facts", "gold"]
    cells, models, *rest = numbers(table, 0)
    assert (cells, models) == (6.0, 6.0)
    assert rest == pytest.approx([1.0] * 6)
    few = LAYOUT.model_copy(update={"algorithms": ("dpo",)})
    missing = build_correlations(results, few)
    assert numbers(missing, 0) == [0.0, 0.0, *[None] * 6]
    assert missing.rows[0].cells[4].missing == "0 cells, 3 are needed"
    assert ("a", "0 cells, 3 are needed") in missing.notes


def test_a_cell_without_a_number_is_left_out_and_said(study: Any) -> None:
    gone = next(entry for entry in study.plan["subjects"] if entry["label"] == "uf ppo 0")
    gone["evaluations"]["facts"] = "evaluate-never"
    results = collect(study.write(), "study")
    table = build_correlations(results, LAYOUT)
    assert numbers(table, 0)[:2] == [5.0, 5.0]
    assert "1 more cells lack one of the two numbers" in dict(table.notes).values()


def test_a_report_has_the_table_in_every_format(study: Any, tmp_path: Any) -> None:
    store = study.write()
    layout = Layout(correlations=(LAYOUT,))
    report = build_report(store, "study", layout)
    assert [table.name for table in report.tables] == ["downstream"]
    path = tmp_path / "report.yaml"
    for changes, message in (
        ({"reward_model": [{"suite": "facts"}]}, r"reward_model.0.suite: unknown suite 'facts'"),
        ({"policy": [{"category": "chatter"}]}, r"policy.0.category: unknown category 'chatter'\n.*'chat'"),
        ({"algorithms": ["pppo"]}, r"algorithms.0: unknown algorithm of the experiment 'pppo'\n.*'ppo'"),
    ):
        written = {**LAYOUT.model_dump(mode="json", include={"name"}), "reward_model": [{"suite": "pairs"}]}
        whole = {**written, "policy": [{"suite": "facts"}], **changes}
        path.write_text(json.dumps({"correlations": [whole]}), encoding="utf-8")
        with pytest.raises(SpecError, match=message):
            load_layout(path, study.plan)
    check_layout(layout, study.plan)


def rules_study(maker: Any, *, shortest: float = 0.3) -> Any:
    maker.suite("pairs", "reward", subject="reward_model")
    for seed in range(2):
        entry = maker.subject(
            f"rm {seed}", {"reward_model.init": "x", "seed": seed}, {"pairs": [1.0, 0.0]}, subject="reward_model"
        )
        path = maker.store.stage(entry["evaluations"]["pairs"]).artifact("metrics.json")
        report = json.loads(path.read_text())
        report["metrics"] = [
            {"task": task, "metric": metric, "value": value, "n": 2, "stderr": None, "unit": "proportion"}
            for task, metric, value in (
                ("overall", "accuracy", 0.5), ("overall", "random", 0.4), ("overall", "longest", 0.7),
                ("overall", "shortest", shortest + seed * (shortest != 0.3)),
                ("chat", "accuracy", 0.6), ("chat", "random", 0.45),
            )
        ]  # fmt: skip
        path.write_text(json.dumps(report))
    return maker


def test_trivial_rules_have_rows_beside_reward_models(maker: Any) -> None:
    store = rules_study(maker).write()
    columns = [{"suite": "pairs"}, {"suite": "pairs", "task": "chat", "metric": "accuracy"}]
    table = {"name": "rm", "subject": "reward_model", "rows": ["reward_model.init"], "columns": columns}
    (built,) = build_report(store, "study", Layout(tables=(TableLayout.model_validate(table),))).tables
    shown = [(row.cells[0].text, *(cell.value for cell in row.cells[1:])) for row in built.rows]
    assert shown == [
        ("Random", 0.4, 0.45),
        ("Longest response", 0.7, None),
        ("Shortest response", 0.3, None),
        ("x", 0.5, 0.6),
    ]
    assert [row.kind for row in built.rows][:3] == ["baseline"] * 3
    some = {**table, "columns": [*columns, {"suite": "pairs", "metric": "longest"}]}
    (built,) = build_report(store, "study", Layout(tables=(TableLayout.model_validate(some),))).tables
    assert [row.cells[0].text for row in built.rows] == ["Random", "Shortest response", "x"]
    none = {**table, "rules": []}
    (built,) = build_report(store, "study", Layout(tables=(TableLayout.model_validate(none),))).tables
    assert [row.cells[0].text for row in built.rows] == ["x"]


def test_a_rule_that_is_not_the_same_for_all_models_has_no_number(maker: Any) -> None:
    store = rules_study(maker, shortest=0.1).write()
    table = {"name": "rm", "subject": "reward_model", "rows": ["reward_model.init"], "columns": [{"suite": "pairs"}]}
    (built,) = build_report(store, "study", Layout(tables=(TableLayout.model_validate(table),))).tables
    assert [row.cells[0].text for row in built.rows] == ["Random", "Longest response", "x"]
    assert not math.isnan(built.rows[0].cells[1].value or math.nan)
