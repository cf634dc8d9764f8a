"""Finished tables of a store with known numbers: values, spread, tests, gaps, every format."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ablate.errors import SpecError, StoreError, UnknownNameError, UsageError
from ablate.execution.study import find_attempt, stage_statuses
from ablate.liveness import STALE_SECONDS, Owner
from ablate.results.export import export
from ablate.results.layout import Layout, TableLayout, default_layout, load_layout
from ablate.results.long import collect
from ablate.results.report import build_report, render_report, terminal
from ablate.results.tables.build import build_table
from ablate.results.tables.latex import escape_latex, standalone
from ablate.results.tables.table import Cell, Column, Row, Table, cell_text, number_text
from ablate.store import AttemptFolder

ROOT = Path(__file__).resolve().parents[2]


def table_of(store: Any, **changes: Any) -> Table:
    layout: dict[str, Any] = {
        "name": "main", "rows": ["dataset", "algorithm"], "baselines": ["base", "sft"],
        "columns": ["categories", "average", {"category": "gold"}],
    }  # fmt: skip
    return build_table(collect(store, "study"), TableLayout.model_validate(layout | changes))


def cell(table: Table, labels: tuple[str, ...], key: str) -> Cell:
    for row in table.rows:
        if row.kind != "heading" and tuple(item.text for item in row.cells[: len(labels)]) == labels:
            return row.cells[table.column_index(key)]
    raise AssertionError(f"no row {labels}")


def remove(study: Any, label: str, suite: str) -> None:
    entry = next(entry for entry in study.plan["subjects"] if entry["label"] == label)
    shutil.rmtree(study.store.stage(entry["evaluations"][suite]).folder)


def test_long_table_has_a_row_for_every_number(study: Any) -> None:
    table = collect(study.write(), "study").table()
    scores = table[(table.metric == "score") & (table.label == "uf ppo 2")]
    assert sorted(scores.suite) == ["chat", "facts", "gold", "math", "rules"]
    assert set(scores.value) == {0.72} and set(scores.n) == {100} and set(scores.stderr) == {0.1}
    assert set(scores["axis.dataset"]) == {"uf"} and set(scores["axis.seed"]) == {2}
    assert set(scores["health.mean_length"]) == {12.0} and set(scores.subject_stage) == {"train-uf_ppo_2"}
    # 14 policies x 5 suites and 6 reward models x 1, each with its score and one metric
    assert len(table) == 2 * (14 * 5 + 6)


def test_rows_are_means_over_seeds(study: Any) -> None:
    table = table_of(study.write())
    found = cell(table, ("HH_50%", "PPO"), "chat")
    assert found.value == pytest.approx(0.51) and found.sd == pytest.approx(0.01) and found.n == 3
    assert cell(table, ("SFT", ""), "average").value == pytest.approx(0.4)
    assert cell_text(table, table.rows[-2], table.column_index("average")).value == "71.0"


def test_category_is_the_mean_of_suites_and_average_the_mean_of_categories(maker: Any, answers: Any) -> None:
    for name, category in (("a", "chat"), ("b", "chat"), ("c", "safety")):
        maker.suite(name, category)
    axes = {"dataset": "d", "algorithm": "dpo", "seed": 0}
    maker.subject("one", axes, {"a": answers(1, 10), "b": answers(2, 10), "c": answers(9, 10)})
    table = table_of(maker.write(), baselines=[], columns=["categories", "average"])
    assert cell(table, ("d", "DPO"), "chat").value == pytest.approx(0.15)
    # (15 + 90) / 2, not the mean (10 + 20 + 90) / 3 of the suites
    assert cell(table, ("d", "DPO"), "average").value == pytest.approx(0.525)


def test_equal_stages_count_once(maker: Any, answers: Any) -> None:
    maker.suite("a", "chat")
    for seed, stage in ((0, "train-x"), (1, "train-x"), (2, "train-y")):
        axes = {"dataset": "d", "algorithm": "dpo", "seed": seed}
        maker.subject(f"s{seed}", axes, {"a": answers(4 if stage == "train-x" else 6, 10)}, stage=stage)
    found = cell(table_of(maker.write(), baselines=[], columns=["average"]), ("d", "DPO"), "average")
    assert found.n == 2 and found.value == pytest.approx(0.5)


def test_colour_means_significant_not_larger(study: Any) -> None:
    table = table_of(study.write())
    close, far = cell(table, ("HH_50%", "DPO"), "average"), cell(table, ("HH_50%", "PPO"), "average")
    assert close.value == pytest.approx(0.41) and close.mark is None and close.p is not None and close.p > 0.05
    assert far.mark == "better" and far.p is not None and far.p < 0.05
    assert cell(table, ("SFT", ""), "average").p is None


def test_worse_and_lower_is_better(maker: Any, answers: Any) -> None:
    maker.suite("good", "chat")
    maker.suite("bad", "safety", higher_is_better=False)
    empty = {"dataset": None, "algorithm": None, "seed": None}
    maker.subject("sft", empty, {"good": answers(80, 100), "bad": answers(80, 100)}, role="baseline")
    axes = {"dataset": "d", "algorithm": "dpo", "seed": 0}
    maker.subject("one", axes, {"good": answers(30, 100), "bad": answers(30, 100)})
    table = table_of(maker.write(), baselines=["sft"], columns=["categories", "average"])
    assert cell(table, ("d", "DPO"), "chat").mark == "worse"
    assert cell(table, ("d", "DPO"), "safety").mark == "better"
    # an average over both directions has no better side
    assert cell(table, ("d", "DPO"), "average").mark is None


def test_delta_rows_pair_seeds(study: Any) -> None:
    delta = {"axis": "algorithm", "values": ["ppo", "dpo"], "match_on": ["dataset"]}
    table = table_of(study.write(), deltas=[delta])
    kinds = [row.kind for row in table.rows]
    assert kinds == ["baseline"] * 2 + ["cell", "cell", "delta"] * 2 + ["detectable"]
    found = cell(table, ("HH_50%", "Δ PPO − DPO"), "average")
    # the seeds move both methods alike: the difference is 10 points in every one of them
    assert found.value == pytest.approx(0.10) and found.sd == pytest.approx(0.0) and found.n == 3
    assert found.mark == "better"
    assert cell_text(table, table.rows[4], table.column_index("average")).value == "+10.0"


def test_a_gap_is_marked_and_nothing_is_averaged_around_it(study: Any) -> None:
    for seed in range(3):
        remove(study, f"hh ppo {seed}", "rules")
    delta = {"axis": "algorithm", "values": ["ppo", "dpo"], "match_on": ["dataset"]}
    table = table_of(study.write(), deltas=[delta])
    notes = dict(table.notes)
    for key in ("chat", "average"):
        found = cell(table, ("HH_50%", "PPO"), key)
        assert found.value is None and "rules: not run" in notes[found.notes[0]]
        assert cell(table, ("HH_50%", "Δ PPO − DPO"), key).value is None
    assert cell(table, ("HH_50%", "PPO"), "factuality").value == pytest.approx(0.51)


def test_fewer_seeds_are_said(study: Any) -> None:
    remove(study, "uf dpo 1", "facts")
    table = table_of(study.write())
    found = cell(table, ("UltraFeedback & co", "DPO"), "factuality")
    assert found.n == 2 and found.value == pytest.approx(0.61)
    assert dict(table.notes)[found.notes[0]] == "mean over 2 of 3 runs (seed=1: not run)"


def test_a_failure_upstream_is_named(study: Any) -> None:
    entry = next(entry for entry in study.plan["subjects"] if entry["label"] == "uf ppo 1")
    for stage in [entry["stage"], *entry["evaluations"].values()]:
        shutil.rmtree(study.store.stage(stage).folder)
    study.fail(entry["stage"], "out of memory\nsecond line")
    results = collect(study.write(), "study")
    assert {item.suite for item in results.missing} == {"facts", "math", "chat", "rules", "gold"}
    assert {item.reason for item in results.missing} == {"failed: train: out of memory"}
    assert "5 failed: train: out of memory" in build_report(study.store, "study").remarks[0]


def test_stages_of_another_code_are_said(study: Any) -> None:
    facts = {"kind": "evaluate", "label": "grades"}
    study.plan["stages"] = dict.fromkeys(study.plan["subjects"][0]["evaluations"].values(), facts)
    for index, stage in enumerate(study.plan["stages"]):
        done = study.store.stage(stage).done_json
        done.write_text(json.dumps(json.loads(done.read_text()) | {"code": "new" if index else "old"}))
    study.write()
    remark = build_report(study.store, "study").remarks[-1]
    assert remark.startswith("Stages were made by 2 states of the code")
    assert "1 by old" in remark
    for stage in study.plan["stages"]:
        done = study.store.stage(stage).done_json
        done.write_text(json.dumps(json.loads(done.read_text()) | {"code": "new"}))
    assert not any("states of the code" in remark for remark in build_report(study.store, "study").remarks)


def test_running_and_undefined(study: Any) -> None:
    remove(study, "sft", "facts")
    attempt_of(study, "evaluate-facts-train-sft", Owner.current())
    study.evaluation("evaluate-math-train-sft", [None, None], score=None, health={"reason": "no answer was readable"})
    results = collect(study.write(), "study")
    assert [item.reason for item in results.missing] == ["running"]
    table = table_of(study.store)
    assert cell(table, ("SFT", ""), "reasoning").missing == "no answer was readable"
    # the rows are there, but without the baseline's number there is nothing to test them against
    assert cell(table, ("HH_50%", "PPO"), "factuality").p is None


def attempt_of(study: Any, stage: str, owner: Owner) -> AttemptFolder:
    attempt: AttemptFolder = study.store.stage(stage).attempt(1)
    attempt.folder.mkdir(parents=True)
    attempt.owner_json.write_text(json.dumps(vars(owner)))
    attempt.heartbeat.touch()
    return attempt


@pytest.mark.parametrize("how", ["dead", "ended", "elsewhere and silent", "elsewhere"])
def test_status_and_report_agree_on_what_runs(study: Any, how: str) -> None:
    stage = "evaluate-facts-train-sft"
    remove(study, "sft", "facts")
    owner = replace(
        Owner.current(), **({"boot": "other"} if "elsewhere" in how else {"started": "1"} if how == "dead" else {})
    )
    attempt = attempt_of(study, stage, owner)
    if how == "ended":
        attempt.ended_json.write_text("{}")
    if "silent" in how:
        old = time.time() - 2 * STALE_SECONDS  # younger than five minutes
        os.utime(attempt.heartbeat, (old, old))
    wanted = "running" if how == "elsewhere" else "interrupted"
    study.plan["stages"] = {stage: {"kind": "evaluate", "label": "facts"}}
    assert [item.reason for item in collect(study.write(), "study").missing] == [wanted]
    assert [item.status for item in stage_statuses(study.store, "study")] == [wanted]


def test_a_store_of_a_newer_layout_is_refused(study: Any, tmp_path: Path) -> None:
    study.write().marker.write_text(json.dumps({"version": 99}))
    for read in (
        lambda: render_report(study.store, "study", None, tmp_path / "out"),
        lambda: export(study.store, "study", "csv", None),
        lambda: find_attempt(study.store, "evaluate"),
    ):
        with pytest.raises(StoreError, match="layout version 99"):
            read()


def test_seeds_varied_and_fixed_are_told(study: Any) -> None:
    remark = table_of(study.write()).remarks[0]
    assert "n = 3" in remark and "between them the training and the reward model varied; " in remark
    assert "the SFT model did not" in remark


def test_another_protocol_is_footnoted_and_not_tested(study: Any) -> None:
    protocol = {"decoding": "greedy", "made": {"chat": False}}
    study.evaluation("evaluate-facts-train-sft", [1.0] * 40 + [0.0] * 60, protocol=protocol)
    table = table_of(study.write())
    found = cell(table, ("SFT", ""), "factuality")
    note = dict(table.notes)[found.notes[0]]
    assert note == "not the protocol of the column's other rows; different: use of a chat template"
    assert cell(table, ("HH_50%", "PPO"), "factuality").p is None
    assert any("different protocols" in remark and "Factuality" in remark for remark in table.remarks)


def test_a_score_that_is_no_mean_is_not_tested(study: Any) -> None:
    study.evaluation("evaluate-facts-train-sft", [1.0] * 40 + [0.0] * 60, score=0.57)
    table = table_of(study.write())
    assert cell(table, ("HH_50%", "PPO"), "factuality").p is None
    assert any("no mean over examples" in remark for remark in table.remarks)


def pairs_by_subset(study: Any, stage: str, right: dict[str, int]) -> None:
    """Ten pairs of each of two subsets, the score pooled under the task ``overall``, beside a trivial rule."""
    output = study.stage(stage)
    rows, metrics = [], []
    for subset, count in right.items():
        rows += [(f"{subset}{i}", subset, "accuracy", float(i < count)) for i in range(10)]
        rows += [(f"{subset}{i}", subset, "longest", float(i < 5)) for i in range(10)]
        metrics += [{"task": subset, "metric": "accuracy", "value": count / 10, "n": 10, "unit": "proportion"}]
    score = sum(right.values()) / 20
    for metric, value in (("accuracy", score), ("longest", 0.5)):
        metrics.append({"task": "overall", "metric": metric, "value": value, "n": 20, "unit": "proportion"})
    result = {"score": score, "metrics": metrics, "health": {"n": 20}, "protocol": {}}
    (output / "metrics.json").write_text(json.dumps(result))
    names = ("example", "task", "metric", "value")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    columns |= {"cluster": pa.nulls(len(rows), pa.string())}
    pq.write_table(pa.table(columns), output / "examples.parquet")


def test_overall_means_all_tasks_and_subsets_are_columns(maker: Any) -> None:
    maker.suite("llmbar", "reward", subject="reward_model", primary="overall/accuracy")
    for name, right, role in (
        ("good", {"natural": 9, "hard": 10}, "cell"),
        ("bad", {"natural": 2, "hard": 1}, "baseline"),
    ):
        entry = maker.subject(name, {"init": name}, {"llmbar": None}, subject="reward_model", role=role)
        pairs_by_subset(maker, entry["evaluations"]["llmbar"], right)
    columns = [
        "suites",
        {"suite": "llmbar", "task": "natural", "metric": "accuracy"},
        {"suite": "llmbar", "metric": "longest"},
    ]
    table = table_of(
        maker.write(), subject="reward_model", rows=["init"], columns=columns, baselines=["bad"], compare={"to": "bad"}
    )
    assert cell(table, ("good",), "llmbar").value == 0.95
    assert cell(table, ("good",), "llmbar").mark == "better"
    assert cell(table, ("good",), "llmbar/natural/accuracy").value == 0.9
    assert cell(table, ("good",), "llmbar/longest").value == 0.5 and cell(table, ("good",), "llmbar/longest").p == 1.0


def test_different_units_are_never_averaged(study: Any) -> None:
    study.suite("likes", "chat", unit="count")
    with pytest.raises(UsageError, match="different units: count, proportion"):
        table_of(study.write())


def test_an_axis_hidden_in_a_row_is_refused(study: Any) -> None:
    with pytest.raises(UsageError, match="'algorithm' varies within a row"):
        table_of(study.write(), rows=["dataset"])
    table = table_of(study.store, rows=["dataset"], over=["seed", "algorithm"])
    assert cell(table, ("HH_50%",), "average").n == 6


def test_groups_order_attributes_and_health(study: Any) -> None:
    table = table_of(
        study.write(),
        rows=[{"axis": "dataset", "values": {"hh": "HH"}}, {"axis": "algorithm", "order": ["ppo", "dpo"]}],
        groups={"axis": "dataset", "headings": {"Synthetic": ["uf"], "Human": ["hh"]}},
        attributes=["samples", "label_kind"],
        health=["mean_length"],
    )
    names = [row.cells[0].text for row in table.rows if row.kind == "heading"]
    assert names == ["Synthetic", "Human"]
    rows = [[item.text for item in row.cells[:2]] for row in table.rows if row.kind == "cell"]
    assert rows == [["UltraFeedback & co", "PPO"], ["UltraFeedback & co", "DPO"], ["HH", "PPO"], ["HH", "DPO"]]
    assert cell(table, ("HH", "DPO"), "samples").value == 2000
    assert [cell(table, (name, "DPO"), "label_kind").text for name in ("HH", "UltraFeedback & co")] == ["human", "AI"]
    assert cell(table, ("HH", "DPO"), "mean_length").value == 12.0


@pytest.mark.parametrize(
    ("value", "scale", "digits", "signed", "text"),
    [
        (0.5534, 100, 1, False, "55.3"),
        (-0.002, 100, 1, True, "−0.2"),
        (0.002, 100, 1, True, "+0.2"),
        (-0.0001, 100, 1, True, "0.0"),
        (60908, 1, 0, False, "60 908"),
        (-1.005, 1, 2, False, "−1.00"),
        (51.749999999999993, 1, 1, False, "51.8"),
        (0.5175, 100, 1, False, "51.8"),
    ],
)
def test_numbers_become_text(value: float, scale: float, digits: int, signed: bool, text: str) -> None:
    assert number_text(value, Column("k", "K", "number", scale=scale, digits=digits), signed=signed) == text


def test_csv_has_raw_numbers_and_reasons(study: Any, tmp_path: Path) -> None:
    remove(study, "base", "math")
    render_report(study.write(), "study", None, tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/tables/main.csv").read_text())))
    ppo = next(row for row in rows if row["dataset"] == "HH_50%" and row["algorithm"] == "PPO")
    assert float(ppo["average"]) == pytest.approx(51.0) and ppo["average_n"] == "3" and ppo["average_mark"] == "better"
    assert rows[0]["reasoning"] == "" and "reasoning: not run" in rows[0]["missing"]


def test_every_format_is_written_and_shows_the_numbers(study: Any, tmp_path: Path) -> None:
    report = render_report(study.write(), "study", None, tmp_path / "out")
    written = {str(path.relative_to(tmp_path / "out")) for path in report.files}
    assert written == {
        "report.md", "report.html", "results.csv", "figures/main-average.pdf", "figures/main-average.png",
        *(f"tables/{name}{end}" for name in ("main", "reward-models") for end in (".tex", ".standalone.tex", ".csv")),
    }  # fmt: skip
    assert "**51.0** ▲ ± 1.0" in (tmp_path / "out/report.md").read_text()
    assert r"\textcolor{ablatebetter}{51.0$^\uparrow$}{\tiny$\pm$1.0}" in (tmp_path / "out/tables/main.tex").read_text()
    page = (tmp_path / "out/report.html").read_text()
    assert "<span class='better'>51.0" in page and not re.findall(r"(?:src|href)=[\"'](?!#|data:image/png)", page)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(terminal(report))
    assert "51.0▲ ±1.0" in console.export_text()


def test_drawing_again_gives_the_same_files(study: Any, tmp_path: Path) -> None:
    store = study.write()
    for name in ("one", "two"):
        render_report(store, "study", None, tmp_path / name)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path


HOSTILE = "<script>alert(1)</script> 50% of $x_1$ & \\input{/etc/passwd} {#^~} | * ` é 漢"


def hostile_table() -> Table:
    columns = (Column("k", HOSTILE, "label"), Column("v", HOSTILE, "number", scale=100.0))
    rows = (
        Row("heading", (Cell(text=HOSTILE),)),
        Row("cell", (Cell(text=HOSTILE), Cell(value=0.5, sd=0.01, n=2, mark="worse", notes=("a",)))),
        Row("delta", (Cell(text="Δ"), Cell(missing=HOSTILE, notes=("a",)))),
    )
    return Table("hostile", HOSTILE, columns, rows, (("a", HOSTILE),), (HOSTILE,))


def test_hostile_text_stays_text() -> None:
    from ablate.results.page.page import page
    from ablate.results.tables.text import markdown

    html = page(HOSTILE, HOSTILE + "?", [hostile_table()], [], [HOSTILE])
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html
    assert "<script" not in markdown(hostile_table())
    assert escape_latex(r"50%_\x") == r"50\%\_\textbackslash{}x"


@pytest.mark.latex
def test_latex_compiles(study: Any, tmp_path: Path) -> None:
    table = table_of(study.write(), groups={"axis": "dataset", "headings": {"Human & co": ["hh"]}})
    for name, text in (("main", standalone(table)), ("hostile", standalone(hostile_table()))):
        (tmp_path / f"{name}.tex").write_text(text, encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / f"{name}.pdf").stat().st_size > 1000


def test_an_experiment_that_was_never_planned(maker: Any) -> None:
    maker.write()
    with pytest.raises(UnknownNameError, match=r"unknown experiment of this store 'stdy'\n  did you mean 'study'"):
        collect(maker.store, "stdy")


def test_nothing_done_gives_a_table_of_gaps(study: Any) -> None:
    for stage in list(study.store.stages.iterdir()):
        shutil.rmtree(stage)
    report = build_report(study.write(), "study")
    assert all(item.value is None for row in report.tables[0].rows for item in row.cells)
    assert report.remarks[0].startswith("0 of 76 evaluations are done")


GOOD = """\
tables:
  - name: main
    rows: [dataset, algorithm]
    columns: [categories, average]
    baselines: [sft]
    deltas:
      - {axis: algorithm, values: [ppo, dpo], match_on: [dataset]}
figures:
  - {name: bars, table: main}
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("[dataset, algorithm]\n", "[datset, algorithm]\n", 3, "unknown axis 'datset'.*did you mean 'dataset'"),
        ("[categories, average]", "[{category: factualty}]", 4, "unknown category.*'factuality'"),
        ("[categories, average]", "[{suite: math2}]", 4, "unknown suite.*did you mean 'math'"),
        ("[sft]", "[stf]", 5, "unknown baseline.*did you mean 'sft'"),
        ("[ppo, dpo]", "[ppo, dqo]", 7, "unknown value of algorithm.*did you mean 'dpo'"),
        ("match_on: [dataset]", "match_on: [sed]", 7, "unknown axis 'sed'.*did you mean 'seed'"),
        ("table: main", "table: mian", 9, "unknown table.*did you mean 'main'"),
        ("    baselines", "    baseline", 5, "unknown key 'baseline'.*did you mean 'baselines'"),
        ("    rows: [dataset, algorithm]\n", "", 2, "'rows' is required"),
        ("[categories, average]", "[{suite: math, category: chat}]", 4, "a column is one of"),
        ("[categories, average]", "[everything]", 4, "categories.*suites"),
        ("    baselines: [sft]", "    columns: [average]", 5, "duplicate key"),
        ("[categories, average]", "[averge]", 4, "unknown column 'averge'.*did you mean 'average'"),
        ("[categories, average]", "[{suite: math, metric: acuracy}]", 4, "metric of suite math.*mean 'accuracy'"),
        ("[dataset, algorithm]\n", "[dataset]\n", 3, "axis 'algorithm' varies within a row.*add 'algorithm'"),
        ("table: main}", "table: main, columns: [factualty]}", 9, "unknown column.*did you mean 'factuality'"),
        ("table: main}", "table: main, columns: [average, reasoning, math]}", 9, "columns.2: unknown column 'math'"),
    ],
)
def test_a_wrong_report_names_line_key_and_spelling(
    study: Any, tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    assert old in GOOD
    path = tmp_path / "report.yaml"
    path.write_text(GOOD.replace(old, new))
    study.plan["suites"]["math"]["metrics"] = ["accuracy"]
    study.write()
    with pytest.raises(SpecError, match=f"(?s)report.yaml:{line}: .*{words}"):
        load_layout(path, study.plan)


def test_the_good_report_is_good(study: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.yaml"
    path.write_text(GOOD)
    report = build_report(study.write(), "study", path)
    assert [row.kind for row in report.tables[0].rows].count("delta") == 2


@pytest.mark.parametrize("path", sorted((ROOT / "reports").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_report_loads(path: Path) -> None:
    assert isinstance(load_layout(path), Layout)


def test_default_layout_ignores_axes_that_follow_from_the_algorithm(study: Any) -> None:
    for entry in study.plan["subjects"]:
        if entry["role"] == "cell" and entry["subject"] == "policy":
            is_ppo = entry["axes"]["algorithm"] == "ppo"
            entry["axes"] |= {
                "prompts": entry["axes"]["dataset"] if is_ppo else None,
                "ppo.clip": 0.2 if is_ppo else None,
            }
    layout = default_layout(study.plan)
    assert [row.axis for row in layout.tables[0].rows] == ["dataset", "algorithm"]
    assert layout.tables[0].deltas[0].match_on == ("dataset",)
    # a method's own setting that varies makes rows, and no difference: any two settings would be a pair
    next(item for item in study.plan["subjects"] if item["label"] == "hh ppo 0")["axes"]["ppo.clip"] = 0.1
    layout = default_layout(study.plan)
    assert [row.axis for row in layout.tables[0].rows] == ["dataset", "algorithm", "ppo.clip"]
    assert layout.tables[0].deltas == ()


def test_the_report_the_plan_names_is_used(study: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(GOOD.replace("tables:", "title: Mine\ntables:", 1))
    study.plan["report"] = str(path)
    assert build_report(study.write(), "study").title == "Mine"


def test_a_layout_that_has_gone_is_looked_for_by_name(study: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/own.yaml").write_text(GOOD.replace("tables:", "title: Moved\ntables:", 1))
    study.plan["report"] = str(tmp_path / "gone/own.yaml")
    assert build_report(study.write(), "study").title == "Moved"
    (tmp_path / "reports/own.yaml").unlink()
    with pytest.raises(SpecError, match=r"gone/own\.yaml"):
        build_report(study.store, "study")


def test_results_load_no_torch_and_draw_only_when_asked() -> None:
    code = (
        "import sys, json, ablate.results.report, ablate.tracking.interface;"
        "print(json.dumps([name for name in ('torch', 'matplotlib', 'mlflow', 'scipy.stats') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == []
