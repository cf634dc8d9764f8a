"""What a declared table may ask for: order, best numbers, spreads, colours, columns and differences by axis values."""

from __future__ import annotations

import csv
import io
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ablate.errors import SpecError, UsageError
from ablate.results.layout import Layout, TableLayout, load_layout
from ablate.results.long import collect
from ablate.results.page.page import table_html
from ablate.results.report import build_report
from ablate.results.tables.build import build_table
from ablate.results.tables.latex import fragment, standalone
from ablate.results.tables.table import Cell, Column, Row, Table, cell_text
from ablate.results.tables.text import markdown, terminal, to_csv

PPO_LESS_DPO = {"average": [], "where": {"algorithm": "ppo"}, "minus": {"where": {"algorithm": "dpo"}}}
KEY = "average[algorithm=ppo]-[algorithm=dpo]"


def table_of(store: Any, **changes: Any) -> Table:
    layout: dict[str, Any] = {
        "name": "main", "rows": ["dataset", "algorithm"], "baselines": ["base", "sft"],
        "columns": ["categories", "average", {"category": "gold"}],
    }  # fmt: skip
    return build_table(collect(store, "study"), TableLayout.model_validate(layout | changes))


def by_label(table: Table, key: str) -> dict[str, Cell]:
    """Cells of one column by the texts of the columns of labels."""
    labels = [index for index, column in enumerate(table.columns) if column.kind == "label"]
    rows = [row for row in table.rows if row.kind != "heading"]
    return {
        " ".join(filter(None, (row.cells[index].text for index in labels))): row.cells[table.column_index(key)]
        for row in rows
    }


def shown(table: Table, key: str) -> dict[str, str]:
    """Texts of one column by the texts of the columns of labels."""
    index = table.column_index(key)
    rows = (row for row in table.rows if row.kind != "heading")
    return dict(zip(by_label(table, key), (cell_text(table, row, index).plain() for row in rows), strict=True))


def ranks(table: Table, key: str) -> dict[str, str]:
    return {name: cell.rank for name, cell in by_label(table, key).items() if cell.rank}


def test_best_and_second_best_of_each_column(study: Any) -> None:
    table = table_of(study.write(), best=2)
    assert ranks(table, "average") == {"UltraFeedback & co PPO": "best", "UltraFeedback & co DPO": "second"}
    assert ranks(table_of(study.store, best=1), "average") == {"UltraFeedback & co PPO": "best"}
    assert not table_of(study.store).is_ranked
    # numbers that are printed alike are equal, and a column that says no better side has no best
    alike = table_of(study.store, best=2, format={"digits": 0, "percent": False})
    assert set(ranks(alike, "average").values()) == {"best", "second"} and len(ranks(alike, "average")) == 6
    metric = table_of(study.store, best=2, columns=[{"suite": "math", "metric": "accuracy"}])
    assert ranks(metric, "math/accuracy") == {}
    assert any(cell.p is not None for row in metric.rows for cell in row.cells)
    assert any("never marked" in remark and ": accuracy;" in remark for remark in metric.remarks)


def test_the_best_of_a_column_where_lower_is_better(maker: Any, answers: Any) -> None:
    maker.suite("toxic", "safety", higher_is_better=False)
    for name, right in (("a", 30), ("b", 10), ("c", 20)):
        maker.subject(name, {"dataset": name, "algorithm": "dpo", "seed": 0}, {"toxic": answers(right, 100)})
    assert ranks(table_of(maker.write(), best=2, baselines=[], columns=["categories"]), "safety") == {
        "b DPO": "best", "c DPO": "second"
    }  # fmt: skip


def test_a_number_of_another_protocol_is_no_best(study: Any) -> None:
    study.evaluation("evaluate-facts-train-base", [1.0] * 99 + [0.0], protocol={"decoding": "sampled"})
    assert ranks(table_of(study.write(), best=1), "factuality") == {"UltraFeedback & co PPO": "best"}


def test_bold_means_the_best_in_every_format(study: Any) -> None:
    table = table_of(study.write(), best=2)
    assert "**71.0** ▲" in markdown(table) and "<u>61.0</u> ▲" in markdown(table) and "| 51.0 ▲" in markdown(table)
    assert r"\textcolor{ablatebetter}{\textbf{71.0}$^\uparrow$}" in fragment(table)
    assert r"\underline{61.0}" in fragment(table)
    assert "<b>71.0</b>" in table_html(table) and "<u>61.0</u>" in table_html(table)
    assert {row["average_rank"] for row in csv.DictReader(io.StringIO(to_csv(table)))} == {"best", "second", ""}
    console = Console(width=200, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(terminal(table))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1;" in text and "\x1b[4;" in text


def test_spreads(study: Any) -> None:
    """Three runs at 50, 51 and 52: sd 1, standard error 1 / sqrt(3), interval 4.3027 (t, 2 df) times that."""
    store, name = study.write(), "HH_50% PPO"
    texts = {
        "sd": "51.0 ± 1.00 ▲", "stderr": f"51.0 ± {1 / math.sqrt(3):.2f} ▲",
        "ci": f"51.0 ± {4.30265 / math.sqrt(3):.2f} ▲", "none": "51.0 ▲",
    }  # fmt: skip
    for spread, text in texts.items():
        table = table_of(store, format={"spread": spread}, columns=[{"category": "factuality", "digits": 2}])
        assert shown(table, "factuality")[name].replace("51.00", "51.0") == text
        assert by_label(table, "factuality")[name].sd == pytest.approx(0.01)
    assert "half a 95 % interval" in table_of(store, format={"spread": "ci"}).remarks[0]


def test_runs_are_a_column(study: Any) -> None:
    table = table_of(study.write(), attributes=["runs"])
    assert shown(table, "runs") | {} == {
        "Base model": "1", "SFT": "1", **dict.fromkeys(
            (f"{data} {method}" for data in ("HH_50%", "UltraFeedback & co") for method in ("DPO", "PPO")), "3"
        ), "Detectable difference": "",
    }  # fmt: skip


def test_colour_by_plain_sign(study: Any) -> None:
    delta = {"axis": "algorithm", "values": ["dpo", "ppo"], "match_on": ["dataset"]}
    table = table_of(study.write(), compare={"colour": "sign"}, deltas=[delta])
    cells = by_label(table, "average")
    # one point above SFT is no significant difference, and is blue all the same
    assert cells["HH_50% DPO"].mark == "better" and cells["HH_50% DPO"].p is not None and cells["HH_50% DPO"].p > 0.05
    assert cells["HH_50% Δ DPO − PPO"].mark == "worse" and cells["SFT"].mark is None
    assert any("by plain sign; no test is meant" in remark for remark in table.remarks)
    assert not any("significantly" in remark for remark in table.remarks)
    assert "aria-label='better'" in table_html(table) and "significantly" not in table_html(table)
    # a difference that is printed as zero has no sign
    zero = table_of(study.store, compare={"colour": "sign"}, columns=[{"category": "factuality", "digits": 0}])
    assert by_label(zero, "factuality")["HH_50% DPO"].mark == "better"
    few = table_of(study.store, compare={"colour": "sign"}, format={"percent": False, "digits": 1})
    assert by_label(few, "factuality")["HH_50% DPO"].mark is None
    # scores that no test can be made of have a sign as well
    study.evaluation("evaluate-facts-train-sft", [1.0] * 40 + [0.0] * 60, score=0.9)
    assert by_label(table_of(study.store, compare={"colour": "sign"}), "factuality")["HH_50% PPO"].mark == "worse"
    assert by_label(table_of(study.store, compare={"colour": "none"}), "average")["HH_50% PPO"].mark is None


def test_rows_by_their_numbers_within_headings(study: Any) -> None:
    store = study.write()
    table = table_of(store, sort="average", baselines=[])
    assert list(by_label(table, "average"))[:4] == [
        "UltraFeedback & co PPO", "UltraFeedback & co DPO", "HH_50% PPO", "HH_50% DPO"
    ]  # fmt: skip
    groups = {"axis": "algorithm", "headings": {"Offline": ["dpo"], "Online": ["ppo"]}}
    table = table_of(store, sort={"column": "gold", "descending": False}, baselines=[], groups=groups)
    assert list(by_label(table, "gold"))[:4] == [
        "HH_50% DPO", "UltraFeedback & co DPO", "HH_50% PPO", "UltraFeedback & co PPO"
    ]  # fmt: skip
    for seed in range(3):
        shutil.rmtree(study.store.stage(f"evaluate-gold-train-uf_ppo_{seed}").folder)
    assert list(by_label(table_of(store, sort="gold", baselines=[]), "gold"))[:4][-1] == "UltraFeedback & co PPO"


def test_columns_of_an_axis(study: Any) -> None:
    columns = [
        {"average": [], "by": "algorithm"},
        PPO_LESS_DPO,
    ]
    table = table_of(study.write(), rows=["dataset"], columns=columns)
    assert [column.label for column in table.columns[1:]] == ["Average (DPO)", "Average (PPO)", "Δ Average"]
    keys = ["average[algorithm=dpo]", "average[algorithm=ppo]", "average[algorithm=ppo]-[algorithm=dpo]"]
    assert [column.key for column in table.columns[1:]] == keys
    values = [by_label(table, key)["HH_50%"] for key in keys]
    assert [cell.value for cell in values] == pytest.approx([0.41, 0.51, 0.10]) and {cell.n for cell in values} == {3}
    # the seeds move both methods alike: the spread of the difference is that of paired runs
    assert values[2].sd == pytest.approx(0.0) and values[2].mark == "better" and values[0].mark is None
    # the baseline was trained by neither: its number stands in both columns, and differs from itself by nothing
    assert [shown(table, key)["SFT"] for key in keys] == ["40.0", "40.0", ""]
    assert shown(table, keys[2])["HH_50%"] == "+10.0 ± 0.0 ▲"
    # a number is over the runs of its column, not over those of the whole row
    assert table.remarks[0].startswith("Mean ± standard deviation over n = 3 distinct runs a row (seed)")


def test_a_column_of_differences_equals_rows_of_differences(study: Any) -> None:
    delta = {"axis": "algorithm", "values": ["ppo", "dpo"], "match_on": ["dataset"]}
    compare = {"correction": "none"}
    study.evaluation("evaluate-facts-train-hh_ppo_1", [1.0] * 30 + [0.0] * 70)
    one = by_label(table_of(study.write(), columns=["average"], deltas=[delta], compare=compare), "average")
    other = by_label(
        table_of(study.store, rows=["dataset"], columns=[PPO_LESS_DPO], compare=compare),
        KEY,
    )
    wanted, found = one["HH_50% Δ PPO − DPO"], other["HH_50%"]
    assert (found.value, found.sd, found.n, found.p) == pytest.approx((wanted.value, wanted.sd, wanted.n, wanted.p))


def test_differences_across_rows_agree_on_named_axes(study: Any) -> None:
    """Every row less the DPO row of its dataset, though DPO has no reward model."""
    for entry in study.plan["subjects"]:
        if entry["role"] == "cell" and entry["subject"] == "policy":
            entry["axes"]["reward_model.init"] = "tiny" if entry["axes"]["algorithm"] == "ppo" else None
    column = {"average": [], "minus": {"where": {"algorithm": "dpo"}}, "match_on": ["dataset"], "label": "Δ DPO"}
    table = table_of(study.write(), rows=["dataset", "algorithm", "reward_model.init"], columns=["average", column])
    texts = shown(table, "average-[algorithm=dpo]")
    assert texts["HH_50% PPO tiny"] == texts["UltraFeedback & co PPO tiny"] == "+10.0 ± 0.0 ▲"
    assert texts["HH_50% DPO"] == "" and texts["SFT"] == ""


def test_differences_of_two_suites_of_one_model(study: Any) -> None:
    column = {"suite": "math", "minus": {"suite": "facts"}}
    for seed in range(3):
        study.evaluation(f"evaluate-math-train-hh_dpo_{seed}", [1.0] * (20 + seed) + [0.0] * (80 - seed))
    table = table_of(study.write(), columns=[column])
    cell = by_label(table, "math-facts")["HH_50% DPO"]
    assert cell.value == pytest.approx(-0.20) and cell.n == 3 and cell.mark is None
    assert any("a difference of two measures of the same run" in remark for remark in table.remarks)
    shutil.rmtree(study.store.stage("evaluate-facts-train-hh_dpo_1").folder)
    cell = by_label(table_of(study.store, columns=[column]), "math-facts")["HH_50% DPO"]
    assert cell.value == pytest.approx(-0.20) and cell.n == 2


def test_a_column_over_several_models_is_refused(study: Any) -> None:
    columns = [{"average": [], "where": {"algorithm": "ppo"}}, "average"]
    with pytest.raises(UsageError, match="would be one run"):
        table_of(study.write(), rows=["dataset"], columns=columns)


@pytest.mark.parametrize(("column", "words"), [
    ("{average: [], where: {algoritm: ppo}}", "columns.0.where.algoritm: unknown axis.*did you mean 'algorithm'"),
    ("{average: [], where: {algorithm: pppo}}", "unknown value of algorithm 'pppo'.*did you mean 'ppo'"),
    ("{average: [], by: sede}", "columns.0.by: unknown axis 'sede'.*did you mean 'seed'"),
    ("{average: [], minus: {where: {algorithm: dp}}}", "columns.0.minus.where.algorithm: unknown value"),
    ("{average: [], minus: {}}", "minus says what is subtracted"),
    ("{average: [], minus: {suite: math}}", "go with a column of a suite"),
    ("{average: [], match_on: [dataset]}", "match_on goes with minus"),
    ("{average: []}\n    sort: averge", "sort: unknown column 'averge'.*did you mean 'average'"),
    ("{average: []}\n    best: 3", "best: .*less than or equal to 2"),
    ("{average: []}\n    format: {spread: se}", "'se' is not allowed.*stderr"),
    ("{average: []}\n    compare: {colour: signs}", "did you mean 'sign'"),
])  # fmt: skip
def test_wrong_options_name_line_and_spelling(study: Any, tmp_path: Path, column: str, words: str) -> None:
    path = tmp_path / "report.yaml"
    path.write_text(f"tables:\n  - name: main\n    rows: [dataset, algorithm]\n    columns:\n      - {column}\n")
    study.write()
    with pytest.raises(SpecError, match=f"(?s)report.yaml:[4-6]: .*{words}"):
        load_layout(path, study.plan)


def test_nothing_is_compared_with_a_baseline_that_has_not_run(study: Any) -> None:
    for suite in ("facts", "math", "chat", "rules", "gold"):
        shutil.rmtree(study.store.stage(f"evaluate-{suite}-train-sft").folder)
    table = table_of(study.write())
    assert any("Nothing is compared: the SFT row has no number (not run)" in remark for remark in table.remarks)
    assert not any("Nothing is compared" in remark for remark in table_of(study.store, compare={"to": None}).remarks)


def test_a_study_without_a_finished_cell_is_a_table_of_gaps(study: Any) -> None:
    for entry in study.plan["subjects"]:
        for stage in entry["evaluations"].values():
            shutil.rmtree(study.store.stage(stage).folder, ignore_errors=True)
    report = build_report(study.write(), "study")
    table = report.tables[0]
    assert [row.kind for row in table.rows] == ["baseline"] * 2 + ["cell", "cell", "delta"] * 2
    assert {cell_text(table, row, table.column_index("average")).value for row in table.rows} == {"–"}
    assert report.remarks[0].startswith("0 of 76 evaluations are done. Missing: 76 not run")


FACTS = Table(
    "wide", "Numbers", (
        Column("d", "Data_", "label"), Column("samples", "# pairs", "attribute", digits=0),
        Column("a", "Average", "number", scale=100), Column("x", "Δ", "number", scale=100, is_difference=True),
    ), (
        Row("baseline", (Cell(text="SFT"), Cell(text=""), Cell(value=0.553, rank="second"), Cell(text=""))),
        Row("cell", (
            Cell(text="Nectar & co"), Cell(value=180099.0),
            Cell(value=0.6123, sd=0.004, n=3, mark="better", rank="best", notes=("a",)), Cell(value=-0.1),
        )),
        Row("cell", (Cell(text="HH"), Cell(missing="x"), Cell(missing="failed", notes=("a",)), Cell(value=0.02))),
    ), (("a", "failed: 100 % of it"),), siunitx=True,
)  # fmt: skip


def test_numbers_in_columns_of_siunitx() -> None:
    text = fragment(FACTS)
    assert "table-format=6]" in text and "table-format=+2.1]" in text and r"table-format=2.1,table-space" in text
    assert r"& 180099 & \color{ablatebetter}\bfseries 61.2{$^\uparrow$" in text and r"& -10.0 \\" in text
    assert r"HH & {--} & {--\textsuperscript{a}} & +2.0 \\" in text and r"{\underline{55.3}}" in text
    assert r"\usepackage{siunitx}" in standalone(FACTS)
    assert "siunitx" not in standalone(Table("n", "", FACTS.columns, FACTS.rows))


@pytest.mark.latex
def test_siunitx_compiles(tmp_path: Path) -> None:
    if subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True).returncode:
        pytest.skip("this TeX has no siunitx")
    (tmp_path / "wide.tex").write_text(standalone(FACTS))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "wide.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize(
    "values, labels",
    [
        ([4.085322038872442, 0.00012345678, 0.1, 1.0], ["4.085", "0.0001235", "0.1", "1.0"]),
        ([123456.789, 100000.0, 2], ["123457", "100000", "2"]),
        ([0.12341, 0.12342, 4.085322038872442], ["0.12341", "0.12342", "4.085322038872442"]),  # alike when short
    ],
)
def test_numbers_that_name_rows_are_short_where_that_tells_them_apart(
    maker: Any, answers: Any, values: list[float], labels: list[str]
) -> None:
    maker.suite("facts", "factuality")
    for value in values:
        axes = {"algorithm": "dpo", "dpo.beta": value, "seed": 0}
        maker.subject(f"beta={value}", axes, {"facts": answers(3, 4)})
    layout = {"name": "t", "rows": ["dpo.beta"], "columns": [{"suite": "facts"}]}
    (table,) = build_report(maker.write(), "study", Layout.model_validate({"tables": [layout]})).tables
    assert [row.cells[0].text for row in table.rows if row.kind == "cell"] == labels
