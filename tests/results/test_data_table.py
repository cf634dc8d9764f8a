"""The table of the data an experiment reads, from a store with known reports."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import SpecError, UsageError
from ablate.results.layout import Layout, default_layout
from ablate.results.long import collect
from ablate.results.page.page import table_html
from ablate.results.report import build_report, render_report, terminal
from ablate.results.tables.data_table import build_data_table
from ablate.results.tables.table import Table, cell_text
from ablate.results.tables.text import markdown, to_csv

WORDS = {"prompt": 10.04, "chosen": 20.0, "rejected": 15.55, "distinct_prompts": 9.0}


def about(name: str, roles: list[str], stage: str, **changes: Any) -> dict[str, Any]:
    facts = {
        "name": name, "title": name.title(), "roles": roles, "stage": stage, "label_kind": "human",
        "licence": ["MIT"], "licence_note": None, "revision": "embedded",
    }  # fmt: skip
    return facts | changes


def add_report(maker: Any, stage: str, **report: Any) -> None:
    output = maker.stage(stage)
    (output / "report.json").write_text(json.dumps(report))


@pytest.fixture
def reading(study: Any) -> Any:
    """A study that reads four sets: pairs (also for the reward model and prompts), SFT, one failed, one not run."""
    study.plan["data"] = [
        about("sft", ["SFT"], "dataset-sft", label_kind=None, licence=["unrecorded"], licence_note="see the card"),
        about("pairs_1%", ["prompts"], "dataset-pairs"),
        about("pairs_1%", ["preferences", "reward model"], "dataset-pairs", revision="6e87e7ba" + "1" * 32),
        about("broken", ["preferences"], "dataset-broken", licence=["CC-BY-4.0", "CC-BY-NC-4.0"]),
        about("later", ["preferences"], "dataset-later", revision="sha256 0123456789ab"),
    ]
    add_report(study, "dataset-pairs", **{
        "in": 12345, "kept": 2000, "dropped": {"tied": 45, "not-sampled": 10300}, "prompts": 1900,
        "examples": {"made": 12300, "written": 2000, "not_sampled": 10300}, "mean_words": WORDS,
    })  # fmt: skip
    add_report(study, "dataset-sft", **{
        "in": 100, "kept": 100, "dropped": {}, "prompts": 90,
        "examples": {"made": 250, "written": 240, "not_sampled": 10}, "mean_words": {"prompt": 3.0, "response": 7.28},
    })  # fmt: skip
    study.fail("dataset-broken", "rows.jsonl, row 7: not valid JSON\nfetch it again")
    return study


def texts(table: Table) -> list[list[str]]:
    return [[cell_text(table, row, index).plain() for index in range(len(table.columns))] for row in table.rows]


def test_every_set_has_a_row_by_hand(reading: Any) -> None:
    table = build_data_table(collect(reading.write(), "study"))
    assert [column.label for column in table.columns] == [
        "Set", "Used for", "Labels", "Licence", "Revision", "Rows", "Used", "Prompt", "Chosen", "Rejected",
    ]  # fmt: skip
    assert texts(table) == [
        ["Pairs_1%", "preferences, reward model", "human", "MIT", "6e87e7ba",
         "12 345", "2 000 [a]", "10.0", "20.0", "15.6"],
        ["Broken", "preferences", "human", "CC-BY-4.0, CC-BY-NC-4.0", "embedded", *["– [b]"] * 5],
        ["Later", "preferences", "human", "MIT", "sha256 0123456789ab", *["– [c]"] * 5],
        ["Sft", "SFT", "", "unrecorded [d]", "embedded", "100", "240 [e]", "3.0", "7.3", ""],
        ["Pairs_1%", "prompts", "human", "MIT", "embedded", "12 345", "1 900 [a]", "9.0", "", ""],
    ]  # fmt: skip
    assert dict(table.notes) == {
        "a": "rows dropped: not-sampled 10 300, tied 45",
        "b": "failed: dataset: rows.jsonl, row 7: not valid JSON",
        "c": "not run",
        "d": "licence: see the card",
        "e": "250 examples of 100 rows; 10 of them not sampled",
    }


def test_a_report_without_lengths_says_so(reading: Any) -> None:
    path = reading.store.stage("dataset-sft").artifact("report.json")
    report = json.loads(path.read_text())
    del report["mean_words"]
    path.write_text(json.dumps(report))
    table = build_data_table(collect(reading.write(), "study"))
    row = next(row for row in table.rows if row.cells[0].text == "Sft")
    assert [cell.missing for cell in row.cells[7:]] == ["made by a version that counted no words"] * 3
    assert row.cells[6].value == 240.0


def test_it_is_written_in_every_format(reading: Any, tmp_path: Path) -> None:
    store = reading.write()
    report = render_report(store, "study", None, tmp_path / "out", data=True)
    assert [table.name for table in report.tables][-1] == "data"
    table = report.tables[-1]
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert (rows[0]["rows"], rows[0]["used"], rows[0]["rejected"]) == ("12345", "2000", "15.55")
    assert rows[1]["missing"].startswith("rows: failed: dataset: rows.jsonl, row 7")
    assert "| Pairs\\_1% | preferences, reward model | human | MIT | 6e87e7ba | 12 345 |" in markdown(table)
    assert "unrecorded<sup class='spread'>d</sup></th>" in table_html(table)
    assert "<sup class='spread'>a</sup>" in table_html(table) and "title='not run'" in table_html(table)
    for name in ("data.tex", "data.csv", "data.standalone.tex"):
        assert (tmp_path / "out/tables" / name).is_file()
    assert "Data of study" in (tmp_path / "out/report.md").read_text()
    assert terminal(report)
    render_report(store, "study", None, tmp_path / "out")
    assert not (tmp_path / "out/tables/data.csv").exists()


@pytest.mark.latex
def test_its_latex_compiles(reading: Any, tmp_path: Path) -> None:
    render_report(reading.write(), "study", None, tmp_path, data=True)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "data.standalone.tex"]
    made = subprocess.run(command, cwd=tmp_path / "tables", capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:]
    assert "Overfull" not in made.stdout


def test_a_layout_asks_for_it_and_an_experiment_without_suites_has_it(reading: Any) -> None:
    store = reading.write()
    asked = default_layout(reading.plan).model_copy(update={"data": True})
    assert build_report(store, "study", asked).tables[-1].name == "data"
    assert [table.name for table in build_report(store, "study", Layout(data=True)).tables] == ["data"]
    reading.plan["suites"] = {}
    with pytest.raises(SpecError, match="evaluates nothing"):
        default_layout(reading.plan)
    assert default_layout(reading.plan, data=True).tables == ()


def test_a_table_of_its_name_and_an_older_plan_are_refused(study: Any, reading: Any) -> None:
    store = reading.write()
    layout = default_layout(reading.plan)
    named = layout.tables[0].model_copy(update={"name": "data"})
    with pytest.raises(SpecError, match="has the name of the table of data"):
        build_report(store, "study", layout.model_copy(update={"tables": (named,), "figures": (), "data": True}))
    del study.plan["data"]
    with pytest.raises(UsageError, match="recorded by an earlier version"):
        build_data_table(collect(study.write(), "study"))
