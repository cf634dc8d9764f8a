"""Embedded samples instead of files: what is planned, what is said, and the real table on files of the same schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from ablate.catalogs.datasets import datasets
from ablate.catalogs.suites import load_suites
from ablate.errors import DataError
from ablate.plan.explain import explain
from ablate.plan.plan import Plan
from ablate.pocket.preferences import preference_rows
from ablate.shipped import shipped_folder
from ablate.store import Store

SPEC = """\
    name: study
    policy: pocket-small
    data: {embedded: true}
    datasets:
      strict: {use: shp-2, converter_options: {minimum_score_ratio: 2.0}}
    grid:
      - {dataset: [shp-2, strict, pocket-hh], algorithm: dpo}
    """
TABLE_1 = shipped_folder("experiments") / "table1_dpo_datasets.yaml"


def dataset_stages(made: Plan) -> dict[str, dict[str, object]]:
    return {
        stage.execution.label: dict(stage.identity.config.value)
        for stage in made.stages.values()
        if stage.kind == "dataset"
    }


def test_samples_are_read_through_the_entrys_own_conversion(plan: Callable[..., Plan]) -> None:
    made = plan(SPEC)
    assert made.embedded == ["shp-2", "strict"]
    titles = [facts["title"] for facts in made.datasets.values()]
    assert titles == ["SHP-2 (embedded sample)", "strict (embedded sample)", "Pocket HH"]
    assert {facts["licence"] for facts in made.datasets.values()} == {"Apache-2.0"}
    stages = dataset_stages(made)
    assert stages["shp-2"]["files"] == {}
    assert stages["strict"]["converter_options"] == {"minimum_score_ratio": 2.0}
    made_rows = [dict(stage.identity.config.value) for stage in made.stages.values() if stage.kind == "pocket"]
    assert {"what": "preferences", "name": "shp", "n": 3000, "split": "train", "seed": 0} in made_rows
    assert sum(row.get("name") == "shp" for row in made_rows) == 1, "a sample that two sets read is one stage"


def test_without_embedded_the_files_are_asked_for(plan: Callable[..., Plan]) -> None:
    with pytest.raises(DataError, match=r"study\.yaml:7: dataset: dataset 'shp-2' needs the file stanfordnlp/SHP-2"):
        plan(SPEC, "data.embedded=false")


def test_a_set_without_a_sample_is_named_with_those_that_have_one(plan: Callable[..., Plan]) -> None:
    with pytest.raises(DataError) as caught:
        plan(SPEC.replace("pocket-hh", "llmbar"))
    message = str(caught.value)
    assert "study.yaml:7: dataset: dataset 'llmbar' has no embedded sample" in message
    assert "helpsteer2-preference" in message and "tulu-2.5-ultrafeedback-mean-aspects" in message


def test_the_explanation_says_which_rows_are_embedded(plan: Callable[..., Plan], tmp_path: Path) -> None:
    assert explain(plan(SPEC), Store(tmp_path / "store")).as_json()["embedded"] == ["shp-2", "strict"]


def table_1_root(root: Path) -> Path:
    """Write a few rows of every set of Table 1 and an empty file for every file of its suites."""
    rows = "".join(json.dumps(row) + "\n" for row in islice(preference_rows("tulu-uf", 0, "train"), 3))
    names = [name for entry in datasets().values() if entry.converter == "tulu_2_5" for name in entry.source.names()]
    for name in (*names, *(file for suite in load_suites([shipped_folder("evals")]).values() for file in suite.files)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(rows if name in names else "", encoding="utf-8")
    return root


def test_the_real_table_plans_on_files_and_needs_no_network(plan: Callable[..., Plan], tmp_path: Path) -> None:
    made = plan(TABLE_1, root=table_1_root(tmp_path / "root"))
    assert (made.name, len(made.datasets), made.embedded) == ("table1-dpo-datasets", 14, [])
    assert sum(stage.kind == "train" for stage in made.stages.values()) == 14
    (model,) = [stage for stage in made.stages.values() if stage.kind == "model"]
    assert model.identity.config.value["source"]["hub"] == "allenai/tulu-2-13b"
    (training,) = {json.dumps(stage.identity.config.value) for stage in made.stages.values() if stage.kind == "train"}
    parameters = json.loads(training)["parameters"]
    expected = {"beta": 0.1, "learning_rate": 5e-7, "warmup_ratio": 0.1, "epochs": 3, "batch_size": 32}
    assert {key: parameters[key] for key in expected} == expected, "those of the study"
    assert all(len(files) == 1 for files in (config["files"] for config in dataset_stages(made).values()))  # type: ignore[arg-type]


def test_the_real_table_says_which_file_is_missing(plan: Callable[..., Plan], tmp_path: Path) -> None:
    root = table_1_root(tmp_path / "root")
    missing = datasets()["tulu-2.5-nectar"].source.names()[0]
    (root / missing).unlink()
    place = r"table1_dpo_datasets\.yaml:\d+: dataset: dataset 'tulu-2\.5-nectar' needs the file "
    with pytest.raises(DataError, match=place) as caught:
        plan(TABLE_1, root=root)
    assert missing in str(caught.value) and "put it there under this name" in str(caught.value)
    with pytest.raises(DataError, match=r"suite 'mmlu-unpacking-2024' needs the file"):
        plan(TABLE_1, root=tmp_path)


def test_the_pocket_form_has_the_rows_of_the_real_table(plan: Callable[..., Plan], tmp_path: Path) -> None:
    real = plan(TABLE_1, root=table_1_root(tmp_path / "root"))
    small = plan(shipped_folder("experiments") / "pocket_datasets.yaml")
    released_as = {
        "stack-exchange": "stack-exchange-paired",
        "prm800k": "prm800k-pairs-phase2",
        "alpaca-farm-human": "alpaca-farm-human-pref",
        "alpaca-farm-gpt4": "alpaca-farm-gpt4-pref",
        "ultrafeedback-fine-grained": "ultrafeedback-mean-aspects",
    }
    assert [f"tulu-2.5-{released_as.get(name, name)}" for name in small.datasets] == list(real.datasets)
