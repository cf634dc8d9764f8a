"""A project's own datasets in a plan: found, identified by their code, and sets that are cut to another's prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablate.errors import DataError, SpecError, UnknownNameError, UsageError
from ablate.execution.study import make_plan
from ablate.plan.plan import Plan
from ablate.store import Store

CATALOG = """\
mine:
  title: Mine
  format: preference
  source: {files: [rows.jsonl]}
  converter: my_rows:convert
  label_kind: human
  licence: MIT
cut:
  title: Cut
  format: preference
  source: {files: [others.jsonl]}
  converter: columns
  label_kind: human
  licence: CC-BY-4.0
  only_prompts_of: mine
"""
SPEC = """\
name: study
policy: pocket-small
data: {root: data}
datasets: {all-of-mine: {use: mine, pairing: all-pairs}}
grid: [{dataset: [mine, all-of-mine, cut], algorithm: dpo}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("datasets", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "datasets/mine.yaml").write_text(CATALOG)
    (tmp_path / "my_rows.py").write_text("def convert(row, options): ...\n")
    for name in ("rows", "others"):
        (tmp_path / f"data/{name}.jsonl").write_text("{}\n")
    (tmp_path / "study.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*overrides: str) -> Plan:
    return make_plan("study.yaml", overrides, Store(Path("store")))


def dataset_ids(plan: Plan) -> dict[str, str]:
    return {stage.execution.label: stage.id for stage in plan.stages.values() if stage.kind == "dataset"}


def test_sets_of_the_project_are_planned_beside_the_catalogs(project: Path) -> None:
    plan = planned("sft.dataset=pocket-instructions")
    assert set(dataset_ids(plan)) == {"mine", "all-of-mine", "cut", "pocket-instructions"}
    assert plan.datasets["cut"]["licence"] == "CC-BY-4.0"


def test_changed_code_is_another_dataset(project: Path) -> None:
    before = dataset_ids(planned())
    (project / "my_rows.py").write_text("def convert(row, options): ... # the same\n")
    edited = dataset_ids(planned())
    assert all(edited[name] != before[name] for name in ("mine", "all-of-mine", "cut")), "cut hangs on mine"
    (project / "my_rows.py").write_text("def convert(row, options): ...\n")
    assert dataset_ids(planned()) == before


def test_a_raised_revision_is_another_dataset(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dataset_ids(planned())
    (project / "other/datasets").mkdir(parents=True)  # a folder of datasets is read once a process
    raised = CATALOG.replace("my_rows:convert\n", "my_rows:convert\n  converter_revision: 2\n")
    (project / "other/datasets/mine.yaml").write_text(raised)
    for name in ("my_rows.py", "study.yaml", "data"):
        (project / "other" / name).symlink_to(project / name)
    monkeypatch.chdir(project / "other")
    assert {name for name, stage in dataset_ids(planned()).items() if stage not in before.values()} == set(before)


def test_the_cut_is_an_input(project: Path) -> None:
    plan = planned()
    ids = dataset_ids(plan)
    (role, ref) = plan.stages[ids["cut"]].identity.inputs[0]
    assert (role, ref.stage, ref.artifact) == ("only_prompts", ids["mine"], "prompts.jsonl")


def test_both_sets_need_their_files_and_a_licence(project: Path) -> None:
    with pytest.raises(SpecError, match=r"dataset=\[cut\]': dataset: the licence of 'mine' is MIT"):
        planned("grid.0.dataset=[cut]", "data.allow_licences=[CC-BY-4.0, Apache-2.0]")
    (project / "data/rows.jsonl").unlink()
    with pytest.raises(DataError, match=r"dataset 'mine' needs the file .*rows\.jsonl"):
        planned("grid.0.dataset=[cut]")


def test_a_function_that_is_not_there_is_said_where_the_set_is_named(project: Path) -> None:
    (project / "my_rows.py").write_text("def convert_rows(row, options): ...\n")
    with pytest.raises(UnknownNameError, match=r"study\.yaml:5: dataset: unknown function of .*my_rows\.py 'convert'"):
        planned()
    (project / "my_rows.py").unlink()
    with pytest.raises(DataError, match=r"study\.yaml:5: dataset: there is no Python file of the module 'my_rows'"):
        planned()


def test_a_variant_may_not_take_the_name_of_a_set_of_the_project(project: Path) -> None:
    (project / "study.yaml").write_text(SPEC.replace("all-of-mine", "cut"))
    with pytest.raises(UsageError, match=r"study\.yaml:4: datasets\.cut: 'cut' is the catalog's own"):
        planned()


def test_the_config_is_json_and_names_the_code(project: Path) -> None:
    plan = planned()
    stage = plan.stages[dataset_ids(plan)["mine"]]
    config = json.loads(json.dumps(stage.identity.config.value))
    assert config["converter"] == "my_rows:convert" and len(config["converter_code"]) == 64
    assert dict(stage.identity.parts) == {"my_rows:convert": 1}
    assert "converter_code" not in plan.stages[dataset_ids(plan)["cut"]].identity.config.value
