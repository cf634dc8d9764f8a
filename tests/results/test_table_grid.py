"""Headings over several columns, and tables whose columns are printed as rows, in every format."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ablate import console
from ablate.errors import SpecError
from ablate.results.layout import TableLayout, load_layout
from ablate.results.long import collect
from ablate.results.page.page import table_html
from ablate.results.tables.as_json import table_json
from ablate.results.tables.build import build_table
from ablate.results.tables.grid import printed
from ablate.results.tables.latex import fragment, standalone
from ablate.results.tables.table import Cell, CellText, Column, Row, Table, cell_text
from ablate.results.tables.text import markdown, terminal, to_csv


def number(key: str, heading: str, label: str) -> Column:
    return Column(key, label, "number", scale=100).under(heading)


SMALL = Table(
    "small", "Two methods", (
        Column("d", "Data", "label"), Column("m", "Method", "label"),
        number("f", "Knowledge", "Facts"), number("r", "Knowledge", "Maths"), number("a", "", "Average"),
    ), (
        Row("baseline", (Cell(text="SFT"), Cell(text=""), Cell(value=0.4), Cell(value=0.5), Cell(value=0.45))),
        Row("heading", (Cell(text="Human"),)),
        Row("cell", (Cell(text="HH"), Cell(text="DPO", notes=("a",)), *[Cell(value=0.5)] * 2, Cell(missing="failed"))),
        Row("cell", (Cell(text="HH"), Cell(text="PPO"), Cell(value=0.6, mark="better"), *[Cell(value=0.6)] * 2)),
        Row("delta", (Cell(text="HH"), Cell(text="Δ"), *[Cell(value=0.1)] * 2, Cell(value=-0.1))),
    ), (("a", "cut"),),
)  # fmt: skip
TRANSPOSED = Table(SMALL.name, SMALL.title, SMALL.columns, SMALL.rows, SMALL.notes, transpose=True)


def shown(table: Any) -> str:
    console = Console(width=120, file=io.StringIO(), force_terminal=False)
    console.print(terminal(table))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_wide_table_keeps_its_labels_and_digits_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    label, heading = "UltraFeedback with pocket-medium", "Instruction following"
    columns = (Column("d", "Data", "label"), *(number(f"n{i}", "", heading) for i in range(20)))
    row = Row("cell", (Cell(text=label), *(Cell(value=0.55, sd=0.01, n=3) for _ in range(20))))
    monkeypatch.setattr(console, "out", Console(width=160))
    console.print_wide(terminal(Table("wide", "Wide", columns, (row,))))
    lines = capsys.readouterr().out.splitlines()
    assert any(label in line and line.count("55.0 ±1.0") == 20 for line in lines)
    assert any(line.split() == ["Instruction"] * 20 for line in lines) and "…" not in "".join(lines)


def test_a_heading_over_several_columns() -> None:
    text = fragment(SMALL)
    assert r" &  & \multicolumn{2}{c}{Knowledge} &  \\" + "\n" + r"\cmidrule(lr){3-4}" in text
    assert r"Data & Method & Facts & Maths & Average \\" in text
    assert "| Data | Method | Knowledge: Facts | Knowledge: Maths | Average |" in markdown(SMALL)
    assert "<th scope='colgroup' colspan='2' class='number'>Knowledge</th>" in table_html(SMALL)
    assert table_html(SMALL).count("<tr>") == 2
    first, second = re.findall(r".*(?:Knowledge|Average).*\n", shown(SMALL))[:2]
    assert first.split() == ["Knowledge", "Knowledge"]
    assert second.split() == ["Data", "Method", "Facts", "Maths", "Average"]


def test_a_table_without_shared_headings_has_one_line_of_them() -> None:
    columns = tuple(Column(column.key, column.key, column.kind) for column in SMALL.columns)
    plain = Table("plain", "", columns, SMALL.rows)
    assert len(printed(plain).header) == 1 and "cmidrule" not in fragment(plain)


def test_columns_as_rows() -> None:
    grid = printed(TRANSPOSED)
    heads = [[(head.text.plain(), head.width) for head in line] for line in grid.header]
    assert heads == [
        [("", 1), ("", 1), ("", 1), ("Human", 3)],
        [("Data", 1), ("", 1), ("SFT", 1), ("HH", 3)],
        [("Method", 1), ("", 1), ("", 1), ("DPO [a]", 1), ("PPO", 1), ("Δ", 1)],
    ]
    assert [[entry.text.plain() for entry in line.entries] for line in grid.lines] == [
        ["Knowledge", "Facts", "40.0", "50.0", "60.0 ▲", "+10.0"],
        ["", "Maths", "50.0", "50.0", "60.0", "+10.0"],
        ["Average", "", "45.0", "–", "60.0", "−10.0"],
    ]


def test_every_number_stands_where_its_row_and_column_meet() -> None:
    """Against the plain definition: transposing swaps the two places and nothing else."""
    upright, turned = printed(SMALL), printed(TRANSPOSED)
    for line in turned.lines:
        for entry in line.entries[2:]:
            assert entry.text == cell_text(SMALL, SMALL.rows[entry.row], entry.column)
            assert entry in [other for row in upright.lines for other in row.entries]
    assert len({(entry.row, entry.column) for line in turned.lines for entry in line.entries[2:]}) == 4 * 3


def test_transposed_in_every_format() -> None:
    text = fragment(TRANSPOSED)
    assert r"\multicolumn{3}{c}{Human} \\" + "\n" + r"\cmidrule(lr){4-6}" in text
    assert r"\multicolumn{1}{l}{Data} &  & \multicolumn{1}{c}{SFT} & \multicolumn{3}{c}{HH} \\" in text
    assert r"Average &  & 45.0 & -- & 60.0 & $-$10.0 \\" in text
    lines = markdown(TRANSPOSED).splitlines()
    assert lines[2] == r"| Data: Method |  | SFT | Human: HH: DPO \[a\] | Human: HH: PPO | Human: HH: Δ |"
    assert lines[4] == "| Knowledge | Facts | 40.0 | 50.0 | **60.0** ▲ | *+10.0* |"
    html = table_html(TRANSPOSED)
    assert "<th scope='colgroup' colspan='3' class='number'>HH</th>" in html and "class='transposed'" in html
    assert "<td class='delta' data-value='0.1'" in html and "<td class='cell' title='failed'>" in html
    assert ["Average", "45.0", "–", "60.0", "−10.0"] in [line.split() for line in shown(TRANSPOSED).splitlines()]


def test_the_detectable_difference_stands_under_no_group() -> None:
    last = Row("detectable", (Cell(text="Detectable difference"), Cell(text=""), *[Cell(value=0.2)] * 3))
    table = Table(SMALL.name, SMALL.title, SMALL.columns, (*SMALL.rows, last), SMALL.notes, transpose=True)
    groups = printed(table).header[0]
    assert [(head.text.plain(), head.width) for head in groups] == [("", 1), ("", 1), ("", 1), ("Human", 3), ("", 1)]
    assert r"\multicolumn{3}{c}{Human} &  \\" in fragment(table)
    assert markdown(table).splitlines()[2].endswith("| Human: HH: Δ | Detectable difference |")
    assert "colspan='3' class='number'>Human</th><td></td></tr>" in table_html(table)
    assert next(line for line in shown(table).splitlines() if "Human" in line).split() == ["Human"] * 3


def test_files_of_data_are_not_transposed() -> None:
    assert to_csv(TRANSPOSED) == to_csv(SMALL) and table_json(TRANSPOSED) == table_json(SMALL)
    rows = list(csv.DictReader(io.StringIO(to_csv(SMALL))))
    assert [row["f"] for row in rows] == ["40", "50", "60", "10"]


def declared(store: Any, *columns: Any, **more: Any) -> Table:
    layout = {"name": "main", "rows": ["dataset"], "baselines": ["sft"], "columns": list(columns), **more}
    return build_table(collect(store, "study"), TableLayout.model_validate(layout))


def header(table: Table) -> list[list[str]]:
    return [[f"{head.text.value} {head.width}" for head in line] for line in printed(table).header]


def test_headings_of_methods_over_categories(study: Any) -> None:
    table = declared(study.write(), {"all": "categories", "by": "algorithm", "heading": "{value}"})
    assert header(table) == [
        [" 1", "DPO 3", "PPO 3"],
        ["Dataset 1", *["Factuality 1", "Reasoning 1", "Chat 1"] * 2],
    ]
    assert [column.key for column in table.columns[1:3]] == ["factuality[algorithm=dpo]", "reasoning[algorithm=dpo]"]
    assert table.columns[1].label == "DPO: Factuality"


def test_headings_of_categories_over_methods(study: Any) -> None:
    table = declared(
        study.write(),
        {"all": "categories", "by": "algorithm", "heading": "{name}"},
        {"category": "gold", "where": {"algorithm": "ppo"}, "label": "{name}, {value}"},
        attributes=[{"name": "samples", "heading": "Data"}, {"name": "runs", "heading": "Data"}],
    )
    assert header(table) == [
        [" 1", "Data 2", "Factuality 2", "Reasoning 2", "Chat 2", " 1"],
        ["Dataset 1", "# pairs 1", "n 1", *["DPO 1", "PPO 1"] * 3, "Gold, PPO 1"],
    ]


def test_the_length_beside_a_win_rate_stays_below_its_heading(study: Any) -> None:
    study.plan["suites"]["chat"]["primary"] = "win_rate"
    columns = ({"suite": "chat", "where": {"algorithm": "dpo"}, "heading": "Judge"},)
    table = declared(study.write(), *columns, {"suite": "rules", "where": {"algorithm": "dpo"}, "heading": "Judge"})
    assert header(table)[0] == [" 1", "Judge 3"] and header(table)[1][2] == "Length 1"


def test_what_is_said_below_a_table_names_the_whole_heading(study: Any) -> None:
    store = study.write()
    upright = declared(store, {"suite": "facts", "by": "algorithm", "heading": "{name}"})
    turned = declared(store, {"suite": "facts", "by": "algorithm", "heading": "{name}"}, transpose=True)
    assert upright.remarks == turned.remarks[1:] and upright.notes == turned.notes
    assert turned.remarks[0].startswith("Printed with columns as rows")
    assert [entry.text.value for entry in printed(turned).lines[0].entries[:2]] == ["facts", "DPO"]


GOOD = "tables:\n  - name: main\n    rows: [dataset]\n    columns:\n      - {COLUMN}\n"


@pytest.mark.parametrize(
    "column, words",
    [
        ("{category: gold, where: {algorithm: ppo}, heading: '{vlue}'}", "unknown word in braces 'vlue'"),
        ("{category: gold, heading: '{value}'}", "goes with by or where"),
        ("{category: gold, headng: Gold}", "unknown key 'headng'"),
    ],
)
def test_a_wrong_heading_names_line_and_what_is_allowed(study: Any, tmp_path: Path, column: str, words: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(GOOD.replace("{COLUMN}", column))
    results = collect(study.write(), "study")
    with pytest.raises(SpecError, match=words) as raised:
        load_layout(path, results.plan)
    assert "own.yaml:5" in str(raised.value)


def test_notes_of_names_stand_in_the_header() -> None:
    assert printed(TRANSPOSED).header[-1][3].text == CellText("DPO", notes=("a",))
    assert r"DPO\textsuperscript{a} & PPO & $\Delta$ \\" in fragment(TRANSPOSED)


@pytest.mark.latex
@pytest.mark.parametrize("siunitx", [False, True])
def test_both_compile(tmp_path: Path, siunitx: bool) -> None:
    if siunitx and subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True).returncode:
        pytest.skip("this TeX has no siunitx")
    for name, turned in (("upright", False), ("turned", True)):
        table = Table(name, "T", SMALL.columns, SMALL.rows, SMALL.notes, siunitx=siunitx, transpose=turned)
        (tmp_path / f"{name}.tex").write_text(standalone(table))
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
        command = ["pdftotext", "-layout", f"{name}.pdf", "-"]
        text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert "Knowledge" in text.stdout and "60.0" in text.stdout
