"""The general layout in words, the folder of a report, and the look of its figures and LaTeX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import SpecError, UsageError
from ablate.results.export import export
from ablate.results.folder import MANIFEST
from ablate.results.layout import Layout, TableLayout, default_layout
from ablate.results.long import collect
from ablate.results.report import build_report, render_report
from ablate.results.tables.build import build_table
from ablate.results.tables.latex import fragment


def tuned(maker: Any, answers: Any) -> Any:
    """DPO at three learning rates and PPO at two, one category."""
    maker.suite("facts", "factuality")
    maker.plan["axes"] = ["algorithm", "dpo.learning_rate", "ppo.kl_coefficient", "seed"]
    empty = {"dataset": None, "algorithm": None, "seed": None}
    maker.subject("sft", empty, {"facts": answers(40, 100)}, role="baseline")
    for algorithm, axis, values in (
        ("dpo", "dpo.learning_rate", (3e-05, 0.0001, 1.0)),
        ("ppo", "ppo.kl_coefficient", (0.1, 0.3)),
    ):
        for value in values:
            settings = {"dpo.learning_rate": None, "ppo.kl_coefficient": None} | {axis: value}
            axes = {"dataset": "d", "algorithm": algorithm, "seed": 0} | settings
            maker.subject(f"{algorithm} {value}", axes, {"facts": answers(50, 100)})
    return maker


def test_settings_of_one_method_make_no_differences(maker: Any, answers: Any) -> None:
    table = build_table(collect(tuned(maker, answers).write(), "study"), default_layout(maker.plan).tables[0])
    assert [row.kind for row in table.rows] == ["baseline", *["cell"] * 5, "detectable"]
    assert [column.label for column in table.columns] == [
        "Dataset", "Algorithm", "DPO learning rate", "PPO KL coefficient", "Factuality"
    ]  # fmt: skip
    assert [row.cells[2].text for row in table.rows[1:4]] == ["0.00003", "0.0001", "1.0"]


def test_a_single_category_is_its_own_average(maker: Any, answers: Any) -> None:
    layout = default_layout(tuned(maker, answers).plan)
    assert [figure.columns for figure in layout.figures] == [("factuality",)]
    maker.suite("math", "reasoning")
    layout = default_layout(maker.plan)
    assert any(column.average is not None for column in layout.tables[0].columns)
    assert [(figure.name, figure.columns) for figure in layout.figures] == [("main-average", ())]


def test_a_suffix_of_no_format_is_refused(study: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.xlsx says no format"):
        export(study.write(), "study", None, tmp_path / "x.xlsx")
    export(study.store, "study", "csv", tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_bytes().startswith(b"exper")


def test_the_suffix_names_the_format(study: Any, tmp_path: Path) -> None:
    store = study.write()
    for name, first in (("x.csv", b"exper"), ("x.json", b"[\n"), ("x.parquet", b"PAR1")):
        assert export(store, "study", None, tmp_path / name) is None
        assert (tmp_path / name).read_bytes().startswith(first), name
    assert (export(store, "study", None, None) or "").startswith("exper")
    with pytest.raises(UsageError, match=r"format csv does not go into .*y\.parquet"):
        export(store, "study", "csv", tmp_path / "y.parquet")
    assert not (tmp_path / "y.parquet").exists()


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_files_of_an_earlier_layout_are_deleted_and_others_kept(study: Any, tmp_path: Path) -> None:
    store, out = study.write(), tmp_path / "out"
    render_report(store, "study", None, out)
    (out / "tables/mine.tex").write_text("mine")
    only = TableLayout.model_validate({"name": "only", "rows": ["dataset", "algorithm"], "columns": ["average"]})
    report = render_report(store, "study", Layout(tables=(only,)), out)
    assert names_in(out) == {*(str(path.relative_to(out)) for path in report.files), "tables/mine.tex", MANIFEST}
    assert not (out / "figures").exists()


def test_a_folder_of_another_experiment_is_refused(study: Any, tmp_path: Path) -> None:
    store, out = study.write(), tmp_path / "out"
    render_report(store, "study", None, out)
    study.plan["name"] = "other"
    study.write()
    before = (out / "report.md").read_bytes()
    with pytest.raises(UsageError, match="holds the report of experiment 'study'"):
        render_report(store, "other", None, out)
    assert (out / "report.md").read_bytes() == before


def test_an_edited_manifest_reaches_nothing_outside(study: Any, tmp_path: Path) -> None:
    store, out, precious = study.write(), tmp_path / "out", tmp_path / "precious.txt"
    out.mkdir()
    precious.write_text("mine")
    (out / MANIFEST).write_text(json.dumps({"experiment": "study", "files": ["../precious.txt", str(precious)]}))
    render_report(store, "study", None, out)
    assert precious.exists()
    (out / MANIFEST).write_text("[]")
    with pytest.raises(UsageError, match="not readable"):
        render_report(store, "study", None, out)


def test_a_layout_is_found_by_its_name(study: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    text = "title: Mine\ntables: [{name: only, rows: [dataset, algorithm], columns: [average]}]\n"
    (tmp_path / "reports/own.yaml").write_text(text)
    store = study.write()
    for name in ("own", "own.yaml", "reports/own.yaml"):
        assert build_report(store, "study", Path(name)).title == "Mine"
    with pytest.raises(
        SpecError, match=r"no report layout owm\.yaml\n  did you mean 'own\.yaml'\? .*pocket_quick\.yaml"
    ):
        build_report(store, "study", Path("owm.yaml"))


def test_latex_marks_survive_print_in_grey(study: Any) -> None:
    table = build_table(collect(study.write(), "study"), default_layout(study.plan).tables[0])
    text = fragment(table)
    assert r"\textcolor{ablatebetter}{51.0$^\uparrow$}" in text
    assert r"Blue $\uparrow$ / orange $\downarrow$: significantly better / worse" in text
    # notes begin where the table begins: both are in one box
    assert text.index(r"\begin{minipage}") < text.index(r"\usebox0\par") < text.index("Holm-corrected")


def test_an_empty_detectable_row_is_left_out(maker: Any, answers: Any) -> None:
    maker.suite("facts", "factuality")
    maker.subject("sft", {"dataset": None, "algorithm": None, "seed": None}, {"facts": answers(5, 10)}, role="baseline")
    maker.subject("one", {"dataset": "d", "algorithm": "dpo", "seed": 0}, {"facts": answers(5, 10)})
    table = build_table(collect(maker.write(), "study"), default_layout(maker.plan).tables[0])
    assert [row.kind for row in table.rows] == ["baseline", "cell"]
    assert not any("Detectable" in remark for remark in table.remarks)
