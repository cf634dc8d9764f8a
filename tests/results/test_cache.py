"""The kept long table is the one that is collected, and follows the store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

import ablate
from ablate.errors import UnknownNameError
from ablate.results import cache
from ablate.results.cache import cache_file, long_table
from ablate.results.export import export
from ablate.results.long import collect, data_frame


def fresh(store: Any) -> pd.DataFrame:
    return collect(store, "study").table()


def refuse(*unused: object) -> None:
    raise AssertionError("the stages were read although nothing changed")


def test_the_second_time_no_stage_is_read(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = study.write()
    first = ablate.load("study", store.root)
    monkeypatch.setattr(cache, "collect", refuse)
    assert_frame_equal(ablate.load("study", store.root), first)
    assert len(first) == 2 * (14 * 5 + 6) and first["value"].notna().all()


def test_every_number_says_where_it_is_from_and_what_it_took(study: Any) -> None:
    store = study.write()
    stage = store.stage("train-hh_ppo_1")
    stage.done_json.write_text(json.dumps({"stage": stage.id, "seconds": 7200.0, "gpus": [0, 3]}))
    table = ablate.load("study", store.root)
    row = table[(table["label"] == "hh ppo 1") & (table["suite"] == "facts") & (table["metric"] == "score")].iloc[0]
    assert (row["experiment"], row["axis.dataset"], row["axis.algorithm"]) == ("study", "hh", "ppo")
    assert (row["axis.seed"], row["value"]) == (1, 0.51)
    assert row["stage"] == "evaluate-facts-train-hh_ppo_1" and row["subject_stage"] == "train-hh_ppo_1"
    assert (row["seconds"], row["subject_seconds"], row["subject_gpu_hours"]) == (1.0, 7200.0, 4.0)
    assert pd.isna(row["gpu_hours"])  # that record names no GPUs: unknown, not none
    assert table["axis.seed"].dtype == "Int64" and "\n1,0.5" not in str(export(store, "study", "csv", None))


def test_what_is_published_lost_or_made_again_is_seen(study: Any) -> None:
    store = study.write()
    before = ablate.load("study", store.root)
    new = study.subject("hh dpo 9", {"dataset": "hh", "algorithm": "dpo", "seed": 9}, {"facts": None})
    study.write()
    assert_frame_equal(ablate.load("study", store.root), before)
    study.evaluation(new["evaluations"]["facts"], [1.0, 0.0])
    added = ablate.load("study", store.root)
    assert len(added) == len(before) + 2 and added["axis.seed"].max() == 9
    store.stage(new["evaluations"]["facts"]).done_json.unlink()
    assert_frame_equal(ablate.load("study", store.root), before)
    metrics = store.stage("evaluate-facts-train-base").artifact("metrics.json")
    metrics.write_text(metrics.read_text().replace('"score": 0.1', '"score": 0.2'))
    os.utime(store.stage("evaluate-facts-train-base").done_json, ns=(1, 1))
    changed = ablate.load("study", store.root)
    assert_frame_equal(changed, fresh(store))
    assert (changed["value"] == 0.2).sum() == 1


def test_a_stage_published_while_the_table_is_made_is_in_the_next_one(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = study.subject("late", {"dataset": "hh", "algorithm": "dpo", "seed": 9}, {"facts": None})
    store = study.write()

    def collect_then_publish(*arguments: Any) -> Any:
        found = collect(*arguments)
        study.evaluation(late["evaluations"]["facts"], [1.0])
        return found

    with monkeypatch.context() as patched:
        patched.setattr(cache, "collect", collect_then_publish)
        assert "late" not in set(ablate.load("study", store.root)["label"])
    assert "late" in set(ablate.load("study", store.root)["label"])


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "older"])
def test_a_cache_that_cannot_be_read_is_made_again(study: Any, damage: str) -> None:
    store = study.write()
    expected = ablate.load("study", store.root)
    path = cache_file(store, "study")
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other":
        pq.write_table(pa.table({"x": [1]}), path)
    else:
        table = pq.read_table(path)
        metadata = {**table.schema.metadata, b"ablate.format": b"0"}
        pq.write_table(table.select(["experiment"]).replace_schema_metadata(metadata), path)
    assert_frame_equal(ablate.load("study", store.root), expected)
    assert [file.name for file in path.parent.iterdir()] == ["study.parquet"]


def test_a_store_that_cannot_be_written_to_is_read(study: Any) -> None:
    store = study.write()
    store.cache.rmdir()
    store.cache.write_text("a file where the folder would be")
    assert_frame_equal(ablate.load("study", store.root), fresh(store))


def test_an_unknown_name_leaves_no_cache(study: Any) -> None:
    store = study.write()
    with pytest.raises(UnknownNameError, match="did you mean 'study'"):
        ablate.load("studdy", store.root)
    assert not cache_file(store, "studdy").exists()


def test_values_of_several_types_are_text_in_every_format(study: Any, tmp_path: Path) -> None:
    axes = {"dataset": "hh", "algorithm": "dpo", "seed": 0, "sft.replay": 0.5, "flag": True}
    mixed = {"evaluation": {"facts": {"health": {"reasons": {"cut": 1}, "n": 2}}}}
    study.subject("mixed 1", axes, {"facts": [1.0, 0.0]}, **mixed)
    study.subject("mixed 2", {**axes, "sft.replay": "all"}, {"facts": [1.0, 0.0]})
    store = study.write()
    table = ablate.load("study", store.root)
    assert set(table["axis.sft.replay"].dropna()) == {"0.5", "all"}
    assert set(table["health.reasons"].dropna()) == {'{"cut": 1}'} and table["axis.flag"].dtype == "boolean"
    export(store, "study", "parquet", tmp_path / "x.parquet")
    assert_frame_equal(data_frame(pq.read_table(tmp_path / "x.parquet")), table)
    assert json.loads(str(export(store, "study", "json", None)))[-1]["axis.sft.replay"] == "all"


def test_an_experiment_without_results_has_the_columns(study: Any) -> None:
    study.plan["subjects"] = []
    store = study.write()
    columns = {name for name in long_table(store, "study").column_names if not name.startswith(("axis.", "health."))}
    assert len(ablate.load("study", store.root)) == 0
    assert columns >= {"experiment", "suite", "task", "metric", "value", "n", "stderr", "protocol", "stage", "seconds"}
