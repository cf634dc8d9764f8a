"""Effects of axes against statsmodels and by hand; how sure an order is, against a loop; both from a store."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.anova import anova_lm

from ablate.errors import SpecError, UsageError
from ablate.results.layout import EffectsLayout, Layout
from ablate.results.long import collect
from ablate.results.report import build_report
from ablate.results.statistics.anova import analyse, nested_in
from ablate.results.statistics.paired import PairedSuite
from ablate.results.statistics.ranks import rank_stability, ranks
from ablate.results.tables.effects import build_effects, effects_of
from ablate.results.tables.table import Table


def grid(*levels: int, repeats: int = 1) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(count) for count in levels), range(repeats)))


def names(rows: list[tuple[int, ...]], place: int) -> list[str]:
    return [f"v{row[place]}" for row in rows]


def test_a_balanced_two_way_analysis_by_hand() -> None:
    # cells 0 2 / 4 6, two runs each of +-1: rows differ by 4, columns by 2, nothing together
    rows = grid(2, 2, repeats=2)
    value_N = np.array([4 * a + 2 * b + (1 if repeat else -1) for a, b, repeat in rows], dtype=float)
    found = analyse(value_N, {"a": names(rows, 0), "b": names(rows, 1)})
    by_term = {effect.factors: effect for effect in found.effects}
    squares = {term: effect.squares for term, effect in by_term.items()}
    assert squares == pytest.approx({("a",): 32.0, ("b",): 8.0, ("a", "b"): 0.0, (): 8.0})
    assert by_term["a",].share == pytest.approx(32 / 48) and by_term["a",].f == pytest.approx(32 / (8 / 4))
    assert by_term["a",].omega == pytest.approx((32 - 2) / (48 + 2))
    assert by_term["a", "b"].p == pytest.approx(1.0) and by_term["a", "b"].omega == 0.0
    assert sum(effect.df for effect in found.effects) == len(rows) - 1


def test_unbalanced_analysis_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    rows = [row for row in grid(3, 2, 2, repeats=3) if rng.random() < 0.8]
    value_N = rng.normal(size=len(rows)) + np.array([row[0] + row[1] * row[2] for row in rows])
    frame = pd.DataFrame({"y": value_N, **{name: names(rows, place) for place, name in enumerate("abc")}})
    expected = anova_lm(ols("y ~ (C(a) + C(b) + C(c)) ** 2", frame).fit(), typ=2)
    found = analyse(value_N, {name: list(frame[name]) for name in "abc"})
    for effect in found.effects:
        row = expected.loc[":".join(f"C({name})" for name in effect.factors) or "Residual"]
        assert effect.squares == pytest.approx(row["sum_sq"], rel=1e-6)
        assert effect.df == row["df"]
        if effect.factors:
            assert (effect.f, effect.p) == pytest.approx((row["F"], row["PR(>F)"]), rel=1e-6)


def test_seeds_as_blocks_are_those_of_the_mixed_model() -> None:
    """In a balanced grid a random intercept for each seed gives the axis the same test."""
    rng = np.random.default_rng(1)
    rows = grid(2, 12)
    noise = rng.normal(size=12)
    value_N = np.array([0.8 * row[0] + 2 * noise[row[1]] for row in rows]) + 0.5 * rng.normal(size=len(rows))
    found = analyse(value_N, {"a": names(rows, 0)}, {"seed": names(rows, 1)})
    effect = next(item for item in found.effects if item.factors == ("a",))
    design = np.column_stack([np.ones(len(rows)), [row[0] for row in rows]])
    fit = MixedLM(value_N, design, groups=[row[1] for row in rows]).fit()
    assert effect.f == pytest.approx(fit.tvalues[1] ** 2, rel=0.01)
    assert effect.f == pytest.approx(stats.ttest_rel(value_N[12:], value_N[:12]).statistic ** 2)


def test_an_axis_that_only_some_read_is_tested_within_those() -> None:
    """DPO has no reward model: the size's effect is among PPO's runs alone, the algorithm's over both."""
    rng = np.random.default_rng(2)
    algorithm = ["dpo"] * 6 + ["ppo"] * 12
    size = [None] * 6 + ["small"] * 6 + ["large"] * 6
    value_N = rng.normal(size=18) + np.array([0.0] * 6 + [3.0] * 6 + [5.0] * 6)
    assert nested_in({"algorithm": algorithm, "size": size}, "size") == ["algorithm"]
    found = analyse(value_N, {"algorithm": algorithm, "size": size})
    by_term = {effect.factors: effect for effect in found.effects}
    assert set(by_term) == {("algorithm",), ("size",), ()} and not found.aliased
    of_size = 3 * (value_N[6:12].mean() - value_N[12:].mean()) ** 2
    of_algorithm = 4 * (value_N[:6].mean() - value_N[6:].mean()) ** 2
    assert by_term["size",].squares == pytest.approx(of_size)
    assert by_term["algorithm",].squares == pytest.approx(of_algorithm)
    assert sum(effect.share for effect in found.effects) == pytest.approx(1.0)


def test_what_a_grid_cannot_tell_apart_is_named() -> None:
    value_N = np.arange(8, dtype=float)
    same = ["x", "y"] * 4
    found = analyse(value_N, {"a": same, "b": [{"x": "p", "y": "q"}[value] for value in same]})
    assert ("a",) in found.aliased and ("b",) in found.aliased
    single = analyse(np.array([1.0, 2.0, 4.0, 9.0]), {"a": ["x", "x", "y", "y"], "b": ["p", "q", "p", "q"]})
    assert single.pooled == (("a", "b"),) and single.effects[-1].df == 1
    flat = analyse(np.ones(4), {"a": ["x", "x", "y", "y"]})
    assert [effect.share for effect in flat.effects] == [0.0, 0.0]
    with pytest.raises(ValueError, match="two runs"):
        analyse(np.ones(1), {"a": ["x"]})


def test_effects_reject_at_their_rate_and_find_what_is_there() -> None:
    rng = np.random.default_rng(3)
    rows = grid(3, 2, 3)
    factors = {"a": names(rows, 0), "b": names(rows, 1)}
    blocks = {"seed": names(rows, 2)}
    shift = np.array([row[1] for row in rows]) * 1.5
    p_null, p_real = [], []
    for _ in range(300):
        noise = rng.normal(size=len(rows)) + rng.normal(size=3)[[row[2] for row in rows]]
        p_null += [effect.p for effect in analyse(noise, factors, blocks).effects if effect.factors]
        found = analyse(noise + shift, factors, blocks).effects
        p_real += [effect.p for effect in found if effect.factors == ("b",)]
    of_axes = [p for index, p in enumerate(p_null) if index % 4]  # the first is that of the seeds, which vary
    assert np.mean(np.array(of_axes) < 0.05) == pytest.approx(0.05, abs=0.02)
    noncentral = 18 * 0.75**2  # sum of squares of the means over the variance of a run
    expected = stats.ncf.sf(stats.f.ppf(0.95, 1, 10), 1, 10, noncentral)
    assert np.mean(np.array(p_real) < 0.05) == pytest.approx(expected, abs=0.07)


def scores(rng: np.random.Generator, levels: list[float], seeds: int = 3, examples: int = 50) -> list[Any]:
    easy_E = rng.normal(size=examples)
    rows = []
    for level in levels:
        value_SE = level + 0.1 * rng.normal(size=(seeds, 1)) + easy_E + 0.2 * rng.normal(size=(seeds, examples))
        rows.append([(1.0, PairedSuite(value_SE, np.full(examples, 1 / examples), np.arange(examples)))])
    return rows


def test_the_order_of_rows_that_lie_apart_is_sure_and_that_of_equal_ones_is_not() -> None:
    rng = np.random.default_rng(4)
    apart = rank_stability(scores(rng, [0.0, 3.0, 6.0]), resamples=500)
    assert list(apart.rank_R) == [3, 2, 1] and list(apart.low_R) == list(apart.high_R) == [3, 2, 1]
    assert apart.tau == 1.0 and apart.best_R[2] == 1.0 and apart.above_RR[2, 0] == 1.0
    down = rank_stability(scores(rng, [0.0, 3.0, 6.0]), resamples=200, higher_is_better=False)
    assert list(down.rank_R) == [1, 2, 3]
    above = [rank_stability(scores(rng, [0.0, 0.0]), resamples=200, seed=i).above_RR[0, 1] for i in range(60)]
    assert np.mean(above) == pytest.approx(0.5, abs=0.15) and np.std(above) > 0.2
    with pytest.raises(ValueError, match="two rows"):
        rank_stability(scores(rng, [0.0]))


def test_ranks_and_tau_are_those_of_scipy() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(20, 6))
    for row, own in zip(values, ranks(values), strict=True):
        assert list(own) == list(stats.rankdata(-row, method="min").astype(int))
    found = rank_stability(scores(rng, [0.0, 0.05, 0.1, 0.15]), resamples=300)
    assert np.allclose(found.above_RR + found.above_RR.T, 1.0)
    assert -1 <= found.tau_low <= found.tau <= found.tau_high <= 1


def test_examples_are_drawn_for_all_rows_at_once() -> None:
    """Two models that differ by the same on every example are ordered in every resample, however hard these are."""
    hard_E = 100 * np.random.default_rng(6).normal(size=40)
    rows = [[(1.0, PairedSuite((hard_E + level)[None], np.full(40, 1 / 40), np.arange(40)))] for level in (0.0, 0.01)]
    assert rank_stability(rows, resamples=200).above_RR[1, 0] == 1.0


def test_base_models_that_all_rows_share_are_drawn_once_for_all() -> None:
    base_S = np.array([0.0, 10.0, 20.0])  # what a base model gives to every run that starts from it
    rows = [
        [(1.0, PairedSuite((base_S + level)[:, None] + np.zeros((1, 20)), np.full(20, 1 / 20), np.arange(20)))]
        for level in (0.0, 0.5)
    ]
    assert rank_stability(rows, resamples=300, same_seeds=True).above_RR[1, 0] == 1.0
    assert rank_stability(rows, resamples=300).above_RR[1, 0] < 0.9


def test_a_ranking_knows_rows_that_share_base_models(maker: Any, answers: Any) -> None:
    maker.suite("facts", "factuality")
    maker.plan["axes"] = ["dataset", "pretrain.seed"]
    for dataset, more in (("a", 0), ("b", 1)):
        for base in range(3):
            axes = {"dataset": dataset, "algorithm": "dpo", "pretrain.seed": base}
            maker.subject(f"{dataset} {base}", axes, {"facts": answers(30 + 20 * base + more, 100)})
    layout = Layout.model_validate({
        "tables": [{"name": "t", "rows": ["dataset"], "columns": [{"suite": "facts"}]}],
        "rankings": [{"table": "t", "column": "facts"}],
    })  # fmt: skip
    ranking = build_report(maker.write(), "study", layout).tables[-1]
    above = ranking.rows[0].cells[ranking.column_index("above_next")].value
    # one answer more: above where its example is drawn, 0.89; about 0.5 if the bases of the rows were drawn apart
    assert above is not None and above > 0.8


@pytest.mark.parametrize(
    "column, is_said", [({"suite": "facts"}, False), ({"suite": "facts", "metric": "accuracy"}, True)]
)
def test_a_ranking_says_that_a_column_has_no_known_direction(study: Any, column: dict[str, str], is_said: bool) -> None:
    layout = Layout.model_validate({
        "tables": [{"name": "t", "rows": ["dataset", "algorithm"], "columns": [column]}],
        "rankings": [{"table": "t", "column": "/".join(column.values())}],
    })  # fmt: skip
    ranking = build_report(study.write(), "study", layout).tables[-1]
    assert len(ranking.rows) == 4
    sentence = "accuracy has no direction that is known: the highest number is ranked first."
    assert (sentence in ranking.remarks) == is_said


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"protocol": {"decoding": "sampled"}}, "measured under different protocols"),
        ({}, "not the same examples"),
    ],
)
def test_rows_of_other_examples_or_protocols_are_not_ranked(
    maker: Any, answers: Any, changed: dict[str, Any], reason: str
) -> None:
    maker.suite("facts", "factuality")
    for dataset, right in (("a", 30), ("b", 60)):
        axes = {"dataset": dataset, "algorithm": "dpo", "seed": 0}
        own = {"facts": changed} if dataset == "b" else None
        maker.subject(dataset, axes, {"facts": answers(right, 100)}, evaluation=own)
    if not changed:
        path = maker.store.stage("evaluate-facts-train-b").output / "examples.parquet"
        table = parquet.read_table(path)
        names = pa.array([f"other-{name}" for name in table["example"].to_pylist()])  # as many, but others
        parquet.write_table(table.set_column(table.schema.get_field_index("example"), "example", names), path)
    layout = Layout.model_validate({
        "tables": [{"name": "t", "rows": ["dataset"], "columns": [{"suite": "facts"}]}],
        "rankings": [{"table": "t", "column": "facts"}],
    })  # fmt: skip
    ranking = build_report(maker.write(), "study", layout).tables[-1]
    assert (ranking.rows, ranking.remarks) == ((), (f"Not ranked: {reason}.",))


def build(study: Any, layout: dict[str, Any]) -> Table:
    return build_effects(collect(study.write(), "study"), EffectsLayout.model_validate(layout))


def test_effects_of_a_store(study: Any) -> None:
    table = build(study, {"columns": ["average"]})
    rows = {row.cells[0].text: row for row in table.rows}
    share = table.column_index("share")
    # twelve runs, 40 + seed on hh and 60 + seed on uf, PPO 10 more: 20, 10 and 1 apart, nothing else
    of_data, of_algorithm, of_seed = 12 * 10**2, 12 * 5**2, 4 * 2
    total = of_data + of_algorithm + of_seed
    assert rows["dataset"].cells[share].value == pytest.approx(of_data / total)
    assert rows["algorithm"].cells[share].value == pytest.approx(of_algorithm / total)
    assert rows["seed"].cells[share].value == pytest.approx(of_seed / total)
    assert rows["dataset × algorithm"].cells[share].value == pytest.approx(0.0, abs=1e-9)
    assert dict(table.notes)["a"] == "12 runs"


def test_effects_on_an_average_that_is_none_name_the_columns(maker: Any) -> None:
    maker.suite("g", "gold")
    for algorithm in ("dpo", "ppo"):
        maker.subject(algorithm, {"algorithm": algorithm}, {"g": [0.5, 0.6]})
    results = collect(maker.write(), "study")
    with pytest.raises(UsageError, match="no suite of study is in an average") as caught:
        effects_of(results, ["average"], [])
    assert caught.value.hint == "name a --column: g, gold"


def test_effects_and_rankings_in_a_report(study: Any) -> None:
    layout = Layout.model_validate({
        "tables": [{"name": "t", "rows": ["dataset", "algorithm"], "columns": ["average"]}],
        "effects": [{"columns": ["average"], "axes": "dataset"}],
        "rankings": [{"table": "t"}],
    })  # fmt: skip
    report = build_report(study.write(), "study", layout)
    effects, ranking = report.tables[1:]
    assert (effects.name, ranking.name) == ("effects", "ranking")
    assert [row.cells[1].text for row in ranking.rows] == ["UltraFeedback & co"] * 2 + ["HH_50%"] * 2
    assert [row.cells[ranking.column_index("rank")].value for row in ranking.rows] == [1, 2, 3, 4]
    assert ranking.rows[-1].cells[-1].text == ""


def test_a_ranking_is_of_the_runs_of_its_column(study: Any) -> None:
    columns = [{"category": "factuality", "by": "algorithm"}]
    layout = Layout.model_validate({
        "tables": [{"name": "t", "rows": ["dataset"], "columns": columns}],
        "rankings": [{"table": "t", "column": "factuality[algorithm=ppo]"}],
    })  # fmt: skip
    table, ranking = build_report(study.write(), "study", layout).tables
    key = "factuality[algorithm=ppo]"
    shown = sorted(row.cells[table.column_index(key)].value or 0.0 for row in table.rows if row.kind == "cell")
    assert sorted(row.cells[ranking.column_index(key)].value or 0.0 for row in ranking.rows) == pytest.approx(shown)


@pytest.mark.parametrize(
    "more",
    [
        {"sort": "truncated"},
        {"groups": {"patterns": [{"heading": "long", "at_least": {"truncated": 1}}]}},
        {"rankings": [{"table": "t", "column": "truncated"}]},
        {"rankings": [{"table": "t", "column": "average-[algorithm=ppo]"}]},
    ],
)
def test_rows_have_no_order_by_health_and_no_rank_by_differences(study: Any, more: dict[str, Any]) -> None:
    columns = ["average", {"average": [], "minus": {"where": {"algorithm": "ppo"}}, "match_on": ["dataset"]}]
    table = {"name": "t", "rows": ["dataset", "algorithm"], "columns": columns, "health": ["truncated"]}
    rankings = {"rankings": more["rankings"]} if "rankings" in more else {}
    own = {key: value for key, value in more.items() if key != "rankings"}
    with pytest.raises(SpecError, match="unknown column"):
        build_report(study.write(), "study", Layout.model_validate({"tables": [{**table, **own}], **rankings}))


def test_a_number_that_is_missing_is_left_out_and_told(study: Any) -> None:
    for subject in study.plan["subjects"]:
        if subject["subject"] == "policy":
            subject["evaluations"]["facts"] = "evaluate-nowhere"
    table = build(study, {"columns": ["average", {"suite": "math"}]})
    gap = table.rows[1].cells[1]
    assert gap.missing == "0 of 12 runs have this number, 2 are needed"
    assert math.isfinite(table.rows[3].cells[2].value or math.nan)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            {"effects": [{"columns": ["average"], "axes": ["datset"]}]},
            "unknown axis 'datset'\n  did you mean 'dataset'",
        ),
        ({"effects": [{"columns": [{"suite": "fcts"}]}]}, "unknown suite 'fcts'\n  did you mean 'facts'"),
        ({"rankings": [{"table": "t", "column": "gld"}]}, "unknown column 'gld'"),
    ],
)
def test_unknown_names_are_errors(study: Any, layout: dict[str, Any], message: str) -> None:
    table = {"name": "t", "rows": ["dataset", "algorithm"], "columns": ["average", {"category": "gold"}]}
    with pytest.raises(SpecError, match=message):
        build_report(study.write(), "study", Layout.model_validate({"tables": [table], **layout}))
