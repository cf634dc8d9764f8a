"""Published tables: read exactly, checked against themselves, printed in their own style."""

from __future__ import annotations

import csv
import io
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.errors import DataError, SpecError, UnknownNameError, UsageError
from ablate.results.layout import Layout, load_layout
from ablate.results.layout.names import published_names
from ablate.results.published.alone import render_published
from ablate.results.published.check import Finding, check, sentences
from ablate.results.published.read import read_published
from ablate.results.published.render import published_table
from ablate.results.report import build_report
from ablate.results.tables.latex import fragment
from ablate.results.tables.table import Table, cell_text
from ablate.results.tables.text import markdown, to_csv
from ablate.shipped import shipped_folder

NAMES = (
    "alpaca-eval/leaderboard", "rewardbench/launch", "rewardbench/subsets",
    "unpacking/table1", "unpacking/table2", "unpacking/table3",
)  # fmt: skip
SOURCES = {
    "alpaca-eval/leaderboard": "alpaca_eval", "rewardbench/launch": "rewardbench_launch_2024_03",
    "rewardbench/subsets": "rewardbench_subsets", "unpacking/table1": "unpacking_table1_dpo_datasets",
    "unpacking/table2": "unpacking_table2_ppo_vs_dpo", "unpacking/table3": "unpacking_table3_reward_models",
}  # fmt: skip

DECLARED = """\
caption: Two methods
source: A paper
date: 2024-05
labels:
  data: {heading: Data}
  method: {heading: Method}
columns:
  a: {heading: A}
  b: {heading: B}
  mean: {heading: Mean, mean_of: [a, b]}
differences: [{column: method, value: delta, first: ppo, second: dpo}]
claims:
  - {text: PPO is 1.5 better, column: mean, of: {method: ppo}, minus: {method: dpo}, equals: 1.5}
  - {text: PPO is better, column: mean, of: {method: ppo}, minus: {method: dpo}, above: 0}
"""
NUMBERS = """\
data,method,a,b,mean
x,dpo,10.0,20.1,15.0
x,ppo,12.0,21.1,16.6
x,delta,2.0,1.0,1.5
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one published table, ``own/table``."""
    folder = tmp_path / "reports/published/own"
    folder.mkdir(parents=True)
    (folder / "table.yaml").write_text(DECLARED)
    (folder / "table.csv").write_text(NUMBERS)
    monkeypatch.chdir(tmp_path)
    return folder


def findings(name: str, verdict: str) -> list[Finding]:
    return [finding for finding in check(read_published(name)) if finding.verdict == verdict]


def row_of(table: Table, *labels: str) -> list[str]:
    for row in table.rows:
        texts = [cell_text(table, row, index).plain() for index in range(len(row.cells))]
        if tuple(texts[: len(labels)]) == labels:
            return texts[len(labels) :]
    raise AssertionError(labels)


def test_the_shipped_ones_are_found() -> None:
    assert set(NAMES) <= set(published_names(Path.cwd()))


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_those_that_were_published(name: str, data_root: Path) -> None:
    source = data_root.parent / "published" / f"{SOURCES[name]}.csv"
    with source.open(encoding="utf-8") as one, (shipped_folder("reports") / f"published/{name}.csv").open() as other:
        wanted, ours = list(csv.DictReader(one)), list(csv.DictReader(other))
    numbers = read_published(name).declared.columns
    assert [{key: row[key] for key in numbers} for row in ours] == [
        {key: row[key] for key in numbers} for row in wanted
    ]


def test_a_mean_within_rounding_is_told_from_one_that_is_not(project: Path) -> None:
    by_name = {finding.what: finding for finding in check(read_published("own/table"))}
    # (10.0 + 20.1) / 2 = 15.05 is printed 15.0 or 15.1; (12.0 + 21.1) / 2 = 16.55 likewise 16.6
    assert by_name["x dpo, Mean"].found == Decimal("15.05") and by_name["x dpo, Mean"].verdict == "agrees"
    # 16.6 - 15.0 = 1.6: unprinted decimals allow 1.5, those of 1.0 - ... allow no 1.7
    assert by_name["x delta, Mean"].found == Decimal("1.6") and by_name["x delta, Mean"].verdict == "rounding"
    assert by_name["PPO is 1.5 better"].verdict == "rounding" and by_name["PPO is better"].verdict == "agrees"
    for printed, verdict in (("15.1", "agrees"), ("15.2", "disagrees"), ("14.9", "disagrees"), ("15.11", "disagrees")):
        (project / "table.csv").write_text(NUMBERS.replace("20.1,15.0", f"20.1,{printed}"))
        assert {finding.what: finding.verdict for finding in check(read_published("own/table"))}[
            "x dpo, Mean"
        ] == verdict


def test_what_is_wrong_is_listed_and_left_as_it_is(project: Path) -> None:
    (project / "table.csv").write_text(NUMBERS.replace("12.0", "18.0"))
    table = published_table(read_published("own/table"))
    text = "\n".join(table.remarks)
    assert "Checked: 1 of 2 averages follow" in text
    assert (
        "DISAGREEMENT that rounding does not explain: x ppo, Mean (printed 16.6, the printed numbers give 19.55)"
        in text
    )
    assert "x delta, A (printed 2.0, the printed numbers give 8.00)" in text
    assert row_of(table, "x", "ppo") == ["18.0", "21.1", "16.6"]


def test_the_caption_of_table_2_claims_more_than_its_averages_give() -> None:
    (claim,) = findings("unpacking/table2", "disagrees")
    # averages of the five sets: PPO 58.4, DPO 57.72
    assert claim.kind == "claim" and claim.found == Decimal("0.68") and claim.printed == "1.2"
    assert all(finding.kind == "difference" for finding in findings("unpacking/table2", "rounding"))


def test_two_averages_of_the_launch_are_explained_by_rounding() -> None:
    assert findings("rewardbench/launch", "disagrees") == []
    explained = {finding.what: finding.found for finding in findings("rewardbench/launch", "rounding")}
    assert explained == {
        "openbmb/UltraRM-13b, Avg": Decimal("71.24"), "HuggingFaceH4/zephyr-7b-beta, Avg": Decimal("70.76"),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "checks", "wrong"), [
    ("unpacking/table1", 17, 0), ("unpacking/table3", 6, 1), ("rewardbench/subsets", 5, 0),
])  # fmt: skip
def test_the_other_tables_are_checked(name: str, checks: int, wrong: int) -> None:
    assert len(check(read_published(name))) == checks
    assert len(findings(name, "disagrees")) == wrong


def test_the_studys_style() -> None:
    table = published_table(read_published("unpacking/table1"))
    assert [row.cells[0].text for row in table.rows if row.kind == "heading"] == ["Web", "Human", "Synthetic"]
    assert row_of(table, "Nectar") == [
        "180 099", "55.3 ▼", "47.8", "43.2 ▼", "68.2 ▲", "93.1 ▲", "47.8 ▲", "59.2 ▲"
    ]  # fmt: skip
    assert [row.kind for row in table.rows[:2]] == ["baseline", "baseline"]
    assert "by plain sign" in table.remarks[0]
    # a published number is no run of ours
    assert {cell.n for row in table.rows for cell in row.cells} == {0}
    second = published_table(read_published("unpacking/table2"))
    rows = [
        [cell_text(second, row, index).plain() for index in (0, 1, 8)] for row in second.rows if row.kind != "heading"
    ]
    assert rows[2:5] == [["StackExchange", "DPO", "56.7"], ["", "PPO", "57.3"], ["", "Δ", "+0.5 ▲"]]


def test_every_format_has_every_number() -> None:
    for name in NAMES:
        published = read_published(name)
        table = published_table(published)
        count = sum(number is not None for row in published.rows for number in row.numbers.values())
        read = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert sum(bool(row[key]) for row in read for key in published.declared.columns) == count
        assert markdown(table).count("\n|") >= len(published.rows) and r"\begin{tabular}" in fragment(table)


@pytest.mark.latex
def test_they_compile(tmp_path: Path) -> None:
    render_published(NAMES, tmp_path)
    for file in sorted((tmp_path / "tables").glob("*.standalone.tex")):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", file.name]
        done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Overfull \\hbox" not in done.stdout


@pytest.mark.parametrize(("old", "new", "line", "words"), [
    ("  a: {heading: A}", "  aa: {heading: A}", 8, "unknown column of table.csv 'aa'"),
    ("mean_of: [a, b]", "mean_of: [a, c]", 10, "unknown column 'c'"),
    ("{method: ppo}, minus", "{method: ppu}, minus", 13, "unknown value of method 'ppu'.*did you mean 'ppo'"),
    ("of: {method: ppo}", "of: {metod: ppo}", 13, "unknown label 'metod'.*did you mean 'method'"),
    ("equals: 1.5", "equals: 1.5, above: 1", 13, "one of equals, above, below"),
    ("source: A paper", "sorce: A paper", 2, "unknown key 'sorce'.*did you mean 'source'"),
    ("date: 2024-05", "date: May", 3, "pattern"),
        ("first: ppo", "first: pro", 11, "differences.0.first: unknown value of method 'pro'.*did you mean 'ppo'"),
        ("of: {method: ppo}", "of: {method: ppo, data: y}", 13, "unknown value of data 'y'"),
        ("claims:", "baselines: [{data: x, method: sft}]\nclaims:", 12, "unknown value of method 'sft'"),
])  # fmt: skip
def test_a_wrong_declaration_names_line_key_and_spelling(
    project: Path, old: str, new: str, line: int, words: str
) -> None:
    assert old in DECLARED
    (project / "table.yaml").write_text(DECLARED.replace(old, new, 1))
    with pytest.raises(SpecError, match=rf"(?s)table\.yaml:{line}: .*{words}"):
        read_published("own/table")


@pytest.mark.parametrize(("old", "new", "words"), [
    ("10.0", "1O.0", r"table\.csv:2: a: '1O\.0' is no number"),
    ("10.0", "nan", r"table\.csv:2: a: 'nan' is no number"),
    ("21.1,16.6", "21.1", r"table\.csv:3: a row has 5 fields"),
    ("a,b,mean", "a,b,mean,c", r"table\.csv:1: column 'c' is not declared"),
])  # fmt: skip
def test_wrong_numbers_name_file_and_line(project: Path, old: str, new: str, words: str) -> None:
    (project / "table.csv").write_text(NUMBERS.replace(old, new, 1))
    with pytest.raises(DataError, match=words):
        read_published("own/table")


def test_a_claim_over_rows_without_a_number_is_refused(project: Path) -> None:
    (project / "table.csv").write_text(NUMBERS.replace("21.1,16.6", "21.1,"))
    with pytest.raises(
        SpecError, match=r"table\.yaml:13: claims\.0\.of: no row of the claim has a number in column 'mean'"
    ):
        read_published("own/table")


def test_names_that_no_row_has_together_are_refused(project: Path) -> None:
    (project / "table.csv").write_text(f"{NUMBERS}y,sft,1.0,1.0,1.0\n")
    (project / "table.yaml").write_text(f"{DECLARED}colour: {{against: {{data: y, method: ppo}}}}\n")
    with pytest.raises(SpecError, match=r"table\.yaml:15: colour\.against: no row has all of these names"):
        read_published("own/table")


def test_a_wrong_name_is_refused_with_the_nearest(project: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'unpacking/table2'"):
        read_published("unpacking/tabel2")
    layout = project.parents[2] / "layout.yaml"
    layout.write_text("published: [own/table, own/tabel]\n")
    with pytest.raises(SpecError, match=r"(?s)layout\.yaml:1: published\.1: .*did you mean 'own/table'"):
        load_layout(layout)
    (project / "table.csv").unlink()
    with pytest.raises(DataError, match=r"table\.csv"):
        read_published("own/table")


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = CliRunner().invoke(app, ["report", "--published", "unpacking/table2", "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "UltraFeedback (FG)" in run.output and "claimed 1.2, the printed numbers give 0.68" in " ".join(
        run.output.split()
    )
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".json", ".md", ".html", ".tex", ".csv"}
    for arguments in (["report"], ["report", "study", "--published", "unpacking/table2"]):
        assert isinstance(CliRunner().invoke(app, arguments).exception, UsageError)


def test_sentences_say_nothing_of_checks_that_were_not_made() -> None:
    assert sentences(check(read_published("alpaca-eval/leaderboard"))) == []


@pytest.mark.parametrize("also", ["tables", "effects", "published"])
def test_files_of_a_report_have_names_of_their_own(study: Any, project: Path, also: str) -> None:
    """A published table ``own/table`` is written as ``own-table``, which no other table may be."""
    for suffix in ("yaml", "csv"):
        (project.parent / f"own-table.{suffix}").write_text((project / f"table.{suffix}").read_text())
    others: dict[str, list[Any]] = {
        "tables": [{"name": "own-table", "rows": ["dataset", "algorithm"], "columns": ["average"]}],
        "effects": [{"name": "own-table", "columns": ["average"], "axes": ["dataset"]}],
        "published": ["own/table", "own-table"],
    }
    report = {"published": ["own/table", "own/table"]} | {also: others[also]}
    file = project.parents[2] / "layout.yaml"
    file.write_text(yaml.safe_dump(report))
    with pytest.raises(SpecError, match=r"layout\.yaml:\d+: \w+\.[01].*'own-table' is used twice"):
        load_layout(file)
    with pytest.raises(SpecError, match="the name of the published table '"):
        build_report(study.write(), "study", Layout.model_validate(report))
    alone = build_report(study.write(), "study", Layout.model_validate({"published": ["own/table", "own/table"]}))
    assert [table.name for table in alone.tables] == ["own-table"]
