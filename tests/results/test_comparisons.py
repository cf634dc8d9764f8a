"""What a table says of its comparisons and rows unasked: what is matched, cut data, fewer runs, lengths, health."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import SpecError
from ablate.results.layout import TableLayout, load_layout
from ablate.results.long import collect
from ablate.results.tables.build import build_table
from ablate.results.tables.effort import Effort, read_effort
from ablate.results.tables.table import Table, cell_text

DELTA = {"axis": "algorithm", "values": ["ppo", "dpo"], "match_on": ["dataset"]}


def table_of(store: Any, **changes: Any) -> Table:
    layout: dict[str, Any] = {
        "name": "main", "rows": ["dataset", "algorithm"], "baselines": ["sft"], "columns": ["average"],
    }  # fmt: skip
    return build_table(collect(store, "study"), TableLayout.model_validate(layout | changes))


def texts(table: Table) -> list[list[str]]:
    return [
        [cell_text(table, row, index).plain() for index in range(len(row.cells))]
        for row in table.rows
        if row.kind != "heading"
    ]


def trained(study: Any, *, cut: int = 0) -> Any:
    """What the trainings of the study say they took: DPO 94 steps, PPO 12 on 3,072 samples after a reward model."""
    for dataset, kept in (("hh", 2990), ("uf", 3000)):
        report = {"in": 3000, "kept": kept, "truncated": cut, "dropped": {"too-long": 3000 - kept} if cut else {}}
        (study.stage(f"tokenise-{dataset}") / "report.json").write_text(json.dumps(report))
        for seed in range(3):
            for kind, inputs, summary, seconds in (
                (f"train-{dataset}_dpo_{seed}", {"data": f"tokenise-{dataset}"}, {"step": 94}, 360.0),
                (f"train-{dataset}_ppo_{seed}", {}, {"step": 12, "samples": 3072}, 720.0),
                (f"reward_model-{dataset}-{seed}", {"data": f"tokenise-{dataset}"}, {"step": 94}, 180.0),
            ):
                study.stage(kind, inputs=inputs)
                done = {
                    "stage": kind,
                    "seconds": seconds,
                    "cpu_seconds": 0.5 * seconds,
                    "gpus": ["0", "1"],
                    "summary": summary,
                }
                study.store.stage(kind).done_json.write_text(json.dumps(done))
    return study


def test_what_training_took(study: Any) -> None:
    results = collect(trained(study).write(), "study")
    subjects = {subject.label: subject for subject in results.subjects}
    assert read_effort(results, subjects["hh dpo 0"]) == Effort(
        trained_pairs=2990, steps=94, policy_samples=0, gpu_hours=0.2, cpu_hours=0.05
    )
    # 2 GPUs for 720 s, and for the 180 s of the reward model
    assert read_effort(results, subjects["hh ppo 0"]) == Effort(
        trained_pairs=2990, steps=12, policy_samples=3072, gpu_hours=0.5, cpu_hours=0.125
    )
    assert read_effort(results, subjects["sft"]) == Effort()


def test_a_difference_says_what_is_matched(study: Any) -> None:
    table = table_of(trained(study).write(), deltas=[DELTA])
    assert (
        "Δ PPO − DPO: matched on dataset; equal: pairs after truncation (2 990 to 3 000); not matched: optimiser steps"
        " (12 against 94), policy samples (3 072 against 0), GPU-hours with the reward model's (0.500 against 0.200),"
        " CPU-hours with the reward model's (0.125 against 0.050)."
    ) in table.remarks
    column = {"average": [], "where": {"algorithm": "ppo"}, "minus": {"where": {"algorithm": "dpo"}}}
    table = table_of(study.store, rows=["dataset"], columns=[column])
    assert any(remark.startswith("Δ Average: matched on dataset; equal: pairs") for remark in table.remarks)


def test_hours_that_round_to_nothing_are_told_apart_from_none(study: Any) -> None:
    store = trained(study).write()
    for name in ("train-hh_ppo_", "train-uf_ppo_", "reward_model-hh-", "reward_model-uf-"):
        for seed in range(3):
            if (done := store.stage(f"{name}{seed}").done_json).exists():
                done.write_text(json.dumps({**json.loads(done.read_text()), "cpu_seconds": 0.5}))
    remarks = " ".join(table_of(store, deltas=[DELTA]).remarks)
    assert "CPU-hours with the reward model's (below 0.001 against 0.050)" in remarks


def test_a_difference_of_stages_that_record_nothing_says_so(study: Any) -> None:
    table = table_of(study.write(), deltas=[DELTA])
    assert "Δ PPO − DPO: matched on dataset; what training took is not recorded." in table.remarks


def test_what_training_took_as_columns(study: Any) -> None:
    table = table_of(trained(study).write(), attributes=["trained_pairs", "steps", "policy_samples", "gpu_hours"])
    assert texts(table)[1][2:6] == ["2 990", "94", "0", "0.200"] and texts(table)[2][2:6] == [
        "2 990",
        "12",
        "3 072",
        "0.500",
    ]
    assert texts(table)[0][2:6] == ["–"] * 4


def test_data_that_was_cut_is_a_footnote_of_its_rows(study: Any) -> None:
    table = table_of(trained(study, cut=7).write())
    notes = dict(table.notes)
    rows = [row for row in table.rows if row.kind == "cell"]
    assert [[notes[key] for key in row.cells[0].notes] for row in rows] == [
        *[["of its 2990 training examples 7 were cut to the maximum length and 10 more were left out"]] * 2,
        *[["of its 3000 training examples 7 were cut to the maximum length"]] * 2,
    ]
    assert table_of(trained(study).write()).notes == ()


def test_a_row_with_fewer_runs_says_so(study: Any) -> None:
    study.plan["subjects"] = [
        entry for entry in study.plan["subjects"] if entry["label"] not in ("hh ppo 1", "hh ppo 2")
    ]
    table = table_of(study.write())
    row = next(row for row in table.rows if [cell.text for cell in row.cells[:2]] == ["HH_50%", "PPO"])
    assert [dict(table.notes)[key] for key in row.cells[0].notes] == ["n = 1; other rows have 3 runs"]
    assert cell_text(table, row, 2).spread == "" and row.cells[2].n == 1


def test_one_run_where_a_spread_is_asked(study: Any) -> None:
    study.plan["subjects"] = [entry for entry in study.plan["subjects"] if entry["axes"].get("seed") in (None, 0)]
    table = table_of(study.write(), format={"spread": "ci"})
    assert table.remarks[0] == "One run a row (n = 1): the spread over seeds is not known."
    assert not any("±" in text for row in texts(table) for text in row)


def test_a_win_rate_has_the_length_beside_it(study: Any) -> None:
    study.plan["suites"]["rules"]["primary"] = "overall/length_controlled_win_rate"
    columns = [{"suite": "facts"}, {"suite": "rules"}, "average"]
    table = table_of(study.write(), columns=columns)
    assert [column.key for column in table.columns] == [
        "dataset", "algorithm", "facts", "rules", "mean_length(rules)", "average"
    ]  # fmt: skip
    assert [row[4] for row in texts(table)[:2]] == ["12.0", "12.0"] and texts(table)[2][5] == "51.0 ± 1.0"
    health = [{"field": "mean_length", "suite": "rules", "label": "Words"}]
    table = table_of(study.store, columns=columns, health=health)
    assert [column.label for column in table.columns][-1] == "Words" and len(table.columns) == 6


def test_health_that_no_column_shows_is_told(study: Any) -> None:
    health = {"truncated": 30, "responses": 100, "no_eos": 0}
    study.evaluation("evaluate-facts-train-hh_dpo_1", [1.0] * 41 + [0.0] * 59, health=health)
    remark = "Health of the responses: responses that the length limit cut up to 30% (facts, HH_50% DPO)."
    assert remark in table_of(study.write()).remarks
    assert not any("Health" in text for text in table_of(study.store, health=["truncated"]).remarks)
    study.evaluation("evaluate-facts-train-hh_dpo_1", [1.0] * 41 + [0.0] * 59, health=health | {"truncated": 0})
    assert not any("Health" in text for text in table_of(study.store).remarks)


def test_a_field_or_metric_that_nothing_reports_is_named_with_the_nearest(study: Any) -> None:
    columns = [
        "average",
        {"suite": "facts", "metric": "acuracy"},
        {"suite": "facts", "task": "u", "metric": "accuracy"},
    ]
    table = table_of(study.write(), health=["mean_lenght"], columns=columns)
    (remark,) = [text for text in table.remarks if "reports" in text]
    assert remark.startswith("No suite of this table reports 'mean_lenght': did you mean 'mean_length'?")
    notes = [text for _, text in table.notes]
    assert any("no value of acuracy (did you mean 'accuracy'?" in text for text in notes)
    assert any("no value of accuracy of task 'u' (allowed: t)" in text for text in notes)
    assert texts(table)[1][2] == "41.0 ± 1.0"


BESIDE = {
    "table": "own/table",
    "rows": {"data": {"axis": "dataset", "values": {"hh": "HH"}}, "method": {"axis": "algorithm"}},
    "baselines": {"sft": {"data": "SFT", "method": ""}},
    "columns": {"average": "mean"},
}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reports/published/own"
    folder.mkdir(parents=True)
    declared = {
        "caption": "Theirs", "source": "A paper", "date": "2024",
        "labels": {"data": {"heading": "Data"}, "method": {"heading": "Method"}},
        "columns": {"mean": {"heading": "Mean"}},
    }  # fmt: skip
    (folder / "table.yaml").write_text(json.dumps(declared))
    (folder / "table.csv").write_text("data,method,mean\nSFT,,56.8\nHH,dpo,57.8\nHH,ppo,\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("published")
def test_published_numbers_as_rows_beside_ours(study: Any) -> None:
    table = table_of(study.write(), published=BESIDE, best=1)
    assert texts(table)[:7] == [
        ["SFT", "", "40.0"], ["published: SFT", "", "56.8"], ["HH_50%", "DPO", "41.0 ± 1.0"],
        ["published: HH dpo", "", "57.8"], ["HH_50%", "PPO", "51.0 ± 1.0 ▲"], ["published: HH ppo", "", "–"],
        ["UltraFeedback & co", "DPO", "61.0 ± 1.0 ▲"],
    ]  # fmt: skip
    assert "Published: A paper, 2024." in table.remarks
    assert "Without a published row: UltraFeedback & co DPO, UltraFeedback & co PPO." in table.remarks
    # published numbers take no part in tests, marks and the best of a column
    assert {cell.rank for row in table.rows if row.kind == "published" for cell in row.cells} == {None}


@pytest.mark.usefixtures("published")
def test_published_numbers_as_differences(study: Any) -> None:
    found = texts(table_of(study.write(), published=BESIDE | {"show": "difference"}))
    assert found[1] == ["Δ ours − published", "", "−16.8"] and found[3] == ["Δ ours − published", "", "−16.8"]
    assert found[5] == ["Δ ours − published", "", "–"]
    number = {"percent": False, "digits": 3}
    found = texts(table_of(study.store, published=BESIDE | {"show": "difference"}, format=number))
    assert found[:2] == [["SFT", "", "0.400"], ["Δ ours − published", "", "−0.168"]]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(("old", "new", "words"), [
    ("own/table", "own/tabel", "published.table: unknown published table 'own/tabel'.*did you mean 'own/table'"),
    ('"average"', '"avrage"', "published.columns.avrage: unknown column 'avrage'.*did you mean 'average'"),
    ('"dataset"', '"datset"', "published.rows.data.axis: unknown axis.*did you mean 'dataset'"),
    ('"show"', '"shwo"', "unknown key 'shwo'.*did you mean 'show'"),
])  # fmt: skip
def test_wrong_names_of_published_numbers(study: Any, tmp_path: Path, old: str, new: str, words: str) -> None:
    table = {"name": "main", "rows": ["seed"], "columns": ["average"], "over": ["dataset", "algorithm"]}
    text = json.dumps({"tables": [table | {"published": BESIDE | {"show": "rows"}}]}, indent=1)
    head, _, tail = text.partition('"published"')
    path = tmp_path / "report.yaml"
    path.write_text(f'{head}"published"{tail.replace(old, new)}')
    study.write()
    with pytest.raises(SpecError, match=rf"(?s)report\.yaml:\d+: .*{words}"):
        load_layout(path, study.plan)


@pytest.mark.usefixtures("published")
def test_a_column_that_the_published_table_lacks(study: Any) -> None:
    with pytest.raises(SpecError, match=r"unknown published column 'maen'\n  did you mean 'mean'"):
        table_of(study.write(), published=BESIDE | {"columns": {"average": "maen"}})
    shutil.rmtree("reports")
