"""Several base or SFT models: each run is held against the one it started from; unequal runs are told."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ablate.errors import UsageError
from ablate.results.layout import TableLayout, default_layout
from ablate.results.long import collect
from ablate.results.tables.build import build_table
from ablate.results.tables.columns import expand_columns
from ablate.results.tables.compare import Comparer
from ablate.results.tables.rows import baseline_pairs, cell_groups, start_units
from ablate.results.tables.table import Cell, Row, Table

LEVELS = (20, 40, 60)
"""Right answers of a hundred after SFT, for each base; training adds ten."""


def grow(maker: Any, answers: Any, axis: str, values: tuple[Any, ...], *, seeds: int = 1) -> TableLayout:
    maker.suite("facts", "factuality")
    maker.plan["axes"] = [axis, "seed"]
    for value, level in zip(values, LEVELS, strict=True):
        for name, right in (("base", level - 10), ("sft", level)):
            entry = maker.subject(
                f"{name} {axis}={value}", {axis: value}, {"facts": answers(right, 100)}, role="baseline"
            )
            entry["baseline"] = name
        for seed in range(seeds):
            axes = {"dataset": "d", "algorithm": "dpo", axis: value, "seed": seed}
            maker.subject(f"{axis}={value} seed={seed}", axes, {"facts": answers(level + 10, 100)})
    return default_layout(maker.plan).tables[0]


def rows(table: Table, kind: str) -> list[Row]:
    return [row for row in table.rows if row.kind == kind]


def number(table: Table, row: Row) -> Cell:
    return row.cells[table.column_index("factuality")]


def test_base_seeds_are_averaged_in_baseline_rows_too(maker: Any, answers: Any) -> None:
    layout = grow(maker, answers, "pretrain.seed", (0, 1, 2))
    table = build_table(collect(maker.write(), "study"), layout)
    base, sft = rows(table, "baseline")
    assert (base.cells[0].text, sft.cells[0].text) == ("Base model", "SFT")
    found = number(table, sft)
    assert (found.value, found.sd, found.n) == (pytest.approx(0.4), pytest.approx(0.2), 3)
    (cell,) = (number(table, row) for row in rows(table, "cell"))
    assert cell.value == pytest.approx(0.5) and cell.n == 3
    # ten points over the SFT model of its own base in each run; over the first base it would be thirty
    assert cell.difference == pytest.approx(0.1) and cell.mark == "better"
    assert "over 3 distinct runs a row (pretrain.seed)" in " ".join(table.remarks).replace("n = 3", "3")
    assert any("baseline of its own policy, pretraining and SFT" in remark for remark in table.remarks)


def test_a_missing_base_is_named_by_its_axis(maker: Any, answers: Any) -> None:
    layout = grow(maker, answers, "pretrain.seed", (0, 1, 2))
    maker.plan["subjects"][4]["evaluations"]["facts"] = "evaluate-nowhere"  # the SFT model of base 1
    table = build_table(collect(maker.write(), "study"), layout)
    found = number(table, rows(table, "baseline")[1])
    assert dict(table.notes)[found.notes[0]] == "mean over 2 of 3 runs (pretrain.seed=1: not run)"


def test_a_policy_axis_gives_a_baseline_row_for_each(maker: Any, answers: Any) -> None:
    layout = grow(maker, answers, "policy", ("s", "m", "l"))
    table = build_table(collect(maker.write(), "study"), layout)
    names = [row.cells[0].text for row in rows(table, "baseline")]
    assert names == [f"{name} (policy={value})" for name in ("Base model", "SFT") for value in "sml"]
    assert [number(table, row).difference for row in rows(table, "cell")] == [pytest.approx(0.1)] * 3
    only = layout.model_copy(update={"rows": (layout.rows[0].model_copy(update={"axis": "policy", "only": ("m",)}),)})
    table = build_table(collect(maker.store, "study"), only)
    assert [row.cells[0].text for row in rows(table, "baseline")] == ["Base model", "SFT"]


def test_base_seeds_as_rows(maker: Any, answers: Any) -> None:
    layout = grow(maker, answers, "pretrain.seed", (0, 1, 2))
    own = TableLayout.model_validate(layout.model_dump() | {"rows": ["pretrain.seed"]})
    table = build_table(collect(maker.write(), "study"), own)
    assert [row.cells[0].text for row in rows(table, "baseline")][3:] == [f"SFT (pretrain.seed={i})" for i in range(3)]
    assert [number(table, row).difference for row in rows(table, "cell")] == [pytest.approx(0.1)] * 3
    with pytest.raises(UsageError, match=r"'pretrain\.seed' varies within a row"):
        build_table(collect(maker.store, "study"), layout.model_copy(update={"over": ("seed",)}))


def test_runs_of_one_base_are_one_unit(maker: Any, answers: Any) -> None:
    layout = grow(maker, answers, "pretrain.seed", (0, 1, 2), seeds=2)
    results = collect(maker.write(), "study")
    (group,) = cell_groups(results, layout)
    pairs = baseline_pairs(results, layout, group)
    assert len(pairs) == 6 and start_units([first for first, _ in pairs]) == [0, 0, 1, 1, 2, 2]
    outcome: Any = Comparer(results).test(pairs, expand_columns(layout, results)[0])
    assert outcome.seeds == 3 and outcome.estimate == pytest.approx(0.1)
    assert any("start from one base" in remark for remark in build_table(results, layout).remarks)


def test_without_its_own_baseline_a_row_is_not_tested(maker: Any, answers: Any) -> None:
    layout = grow(maker, answers, "pretrain.seed", (0, 1, 2))
    del maker.plan["subjects"][4]
    table = build_table(collect(maker.write(), "study"), layout)
    assert number(table, rows(table, "cell")[0]).p is None
    assert any("no sft baseline with the same base and SFT" in remark for remark in table.remarks)


def test_a_chain_is_held_against_the_model_under_it(maker: Any, answers: Any) -> None:
    maker.suite("facts", "factuality")
    maker.plan["axes"] = ["policy"]
    for epochs, right in ((1, 40), (3, 60)):
        axes = {"policy": "s", "sft.epochs": epochs}
        maker.subject(f"sft {epochs}", axes, {"facts": answers(right, 100)}, role="baseline")["baseline"] = "sft"
        cell = maker.subject(f"cell {epochs}", {"policy": f"dpo({epochs})"}, {"facts": answers(right + 10, 100)})
        cell["start"] = axes
    table = build_table(collect(maker.write(), "study"), default_layout(maker.plan).tables[0])
    assert [row.cells[0].text for row in rows(table, "baseline")] == ["SFT (sft.epochs=1)", "SFT (sft.epochs=3)"]
    assert [number(table, row).difference for row in rows(table, "cell")] == [pytest.approx(0.1)] * 2


@pytest.mark.parametrize(
    ("dpo", "ppo", "pairs", "tested"),
    [((0,), (0, 1, 2), 1, True), ((0, 1), (1, 2, 3), 1, True), ((5,), (0, 1), 0, False)],
)
def test_unequal_numbers_of_runs_are_told(
    maker: Any, answers: Any, dpo: tuple[int, ...], ppo: tuple[int, ...], pairs: int, tested: bool
) -> None:
    maker.suite("facts", "factuality")
    for name, seed in [*itertools.product(["dpo"], dpo), *itertools.product(["ppo"], ppo)]:
        axes = {"dataset": "d", "algorithm": name, "seed": seed}
        maker.subject(f"{name} {seed}", axes, {"facts": answers(50 + 10 * seed + 5 * (name == "ppo"), 200)})
    table = build_table(collect(maker.write(), "study"), default_layout(maker.plan).tables[0])
    (delta,) = (number(table, row) for row in rows(table, "delta"))
    note = dict(table.notes)[delta.notes[0]]
    assert (delta.p is not None) == tested and delta.n == pairs
    if tested:
        # the seed both have moves both alike; with the rows' means it would be more
        assert delta.value == pytest.approx(0.025)
        assert f"have {len(ppo)} and {len(dpo)} runs" in note and "1 pair of runs" in note
    else:
        assert delta.value is None and "no seed in common" in note


def test_a_run_in_several_pairs_is_not_tested(maker: Any, answers: Any) -> None:
    maker.suite("facts", "factuality")
    for init in (None, "s", "l"):
        algorithm = "ppo" if init else "dpo"
        axes = {"dataset": "d", "algorithm": algorithm, "reward_model.init": init, "seed": 0}
        maker.subject(f"{algorithm} {init}", axes, {"facts": answers(60 if init else 50, 100)})
    layout = default_layout(maker.plan).tables[0]
    own = TableLayout.model_validate(
        layout.model_dump()
        | {"rows": ["dataset", "algorithm"], "over": ["seed", "reward_model.init"]}
        | {"deltas": [{"axis": "algorithm", "values": ["ppo", "dpo"], "match_on": ["dataset"]}]}
    )
    table = build_table(collect(maker.write(), "study"), own)
    (delta,) = (number(table, row) for row in rows(table, "delta"))
    assert delta.value == pytest.approx(0.1) and delta.p is None and delta.notes
    assert any("one run would be paired with several" in remark for remark in table.remarks)


def test_two_models_that_no_axis_tells_apart_are_no_row(maker: Any, answers: Any) -> None:
    maker.suite("pairs", "reward", subject="reward_model")
    for number in (1, 2):
        axes = {"reward_model.init": "s", "reward_model.dataset": "own", "seed": 0}
        maker.subject(f"round {number}", axes, {"pairs": answers(50 + number, 100)}, subject="reward_model")
    layout = TableLayout.model_validate(
        {"name": "rm", "subject": "reward_model", "rows": ["reward_model.dataset"], "columns": ["categories"]}
    )
    with pytest.raises(UsageError, match=r"'round 2' is train-round_1 and train-round_2: no axis tells them apart"):
        build_table(collect(maker.write(), "study"), layout)
    maker.plan["subjects"][1]["stage"] = maker.plan["subjects"][0]["stage"]  # one model under two labels is one run
    (group,) = cell_groups(collect(maker.write(), "study"), layout)
    assert len(group.members) == 1
