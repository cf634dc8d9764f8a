"""The appendix says what differs from defaults, what it took, and what sharing saved."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ablate.cli.options import READERS
from ablate.execution.study import make_plan
from ablate.results.appendix.compute import compute_table
from ablate.results.appendix.hyperparameters import hyperparameter_tables
from ablate.results.appendix.protocols import protocol_table
from ablate.results.appendix.software import seed_table, software_table
from ablate.results.appendix.stages import read_stages
from ablate.results.appendix.write import write_appendix
from ablate.results.long import collect
from ablate.results.report import render_report
from ablate.results.tables.table import Table, cell_text
from ablate.store import Store

VERSIONS = {"python": "3.11.7", "commit": "c0ffee", "packages": {"torch": "2.13", "trl": "1.16_x"}}


def texts(table: Table) -> list[list[str]]:
    return [[cell_text(table, row, index).value for index in range(len(table.columns))] for row in table.rows]


class Recorder:
    """Fills a maker's store with stages as they are recorded, by kind."""

    def __init__(self, maker: Any) -> None:
        self.maker = maker

    def stage(
        self,
        stage: str,
        config: dict[str, Any],
        inputs: tuple[str, ...] = (),
        *,
        hours: float | None = 1.0,
        **more: Any,
    ) -> str:
        folder = self.maker.store.stage(stage)
        folder.output.mkdir(parents=True, exist_ok=True)
        wired = {f"role-{index}": {"stage": other, "artifact": ""} for index, other in enumerate(inputs)}
        folder.stage_json.write_text(json.dumps({"id": stage, "config": config, "inputs": wired}))
        self.maker.plan["stages"][stage] = {"kind": folder.kind, "label": stage}
        if hours is None:
            folder.done_json.unlink(missing_ok=True)
        else:
            done = {"stage": stage, "attempt": 2, "seconds": 3600 * hours, "cpu_seconds": 1800 * hours, "gpus": [0, 1]}
            folder.done_json.write_text(json.dumps(done))
            attempt = folder.attempt(2)
            attempt.folder.mkdir(parents=True)
            attempt.environment_json.write_text(json.dumps(VERSIONS | more))
        return stage


@pytest.fixture
def recorded(maker: Any, answers: Any) -> Any:
    """Two DPO cells from one SFT model; the second has not been evaluated."""
    maker.suite("facts", "factuality", note="Asked_once.")
    protocol = {
        "grader": "exact", "primary": "accuracy", "options": {"case": False},
        "made": {"chat": True, "prompts": {"name": "qa", "options": {"shots": 5}}, "files": {}, "limit": None,
                 "decoding": {"temperature": 0.7, "samples": 4, "top_p": 0.9, "max_new_tokens": 64, "seed": 3}},
    }  # fmt: skip
    one = {"evaluation": {"facts": {"protocol": protocol}}}
    maker.subject("sft", {"algorithm": None}, {}, role="baseline", stage="sft-1")
    maker.subject("a", {"algorithm": "dpo", "seed": 0}, {"facts": answers(3, 4)}, stage="train-1", **one)
    maker.subject("b", {"algorithm": "dpo", "seed": 1}, {"facts": None}, stage="train-2")
    recorder = Recorder(maker)
    recorder.stage("sft-1", {"parameters": {"learning_rate": 1e-3, "epochs": 2}, "seed": 7}, hours=2.0)
    recorder.stage("tokenise-1", {"format": "pairs", "max_length": 256}, hours=0.0)
    for number, beta in ((1, 0.3), (2, 0.05)):
        config = {"algorithm": "dpo", "parameters": {"beta": beta, "epochs": 3, "lora_rank": None}, "seed": number}
        recorder.stage(f"train-{number}", config, ("sft-1", "tokenise-1"), hours=1.0, python=f"3.1{number}")
    recorder.stage("evaluate-facts-train-1", {"options": {"seed": 5}}, ("train-1",), hours=0.5)
    recorder.stage("evaluate-facts-train-2", {"options": {"seed": 5}}, ("train-2",), hours=None)
    maker.plan["defaults"] = {
        "train.dpo": {"beta": 0.1, "epochs": 3, "max_length": 4096, "lora_rank": None, "lora_alpha": 16},
        "sft": {"epochs": 2},
    }
    return maker


def test_hyperparameters_are_those_that_differ(recorded: Any) -> None:
    results = collect(recorded.write(), "study")
    sft, dpo = hyperparameter_tables(results, read_stages(results))
    assert (sft.name, sft.title) == ("hyperparameters-sft", "Hyperparameters: SFT")
    assert texts(sft) == [["learning_rate", "0.001", ""]] and sft.remarks == (
        "1 further settings are at their defaults.",
    )
    assert (dpo.name, dpo.title) == ("hyperparameters-train-dpo", "Hyperparameters: DPO")
    assert texts(dpo) == [["beta", "0.05, 0.3", "0.1"], ["max_length", "256", "4096"]]
    assert dpo.remarks == ("2 further settings are at their defaults.",)


def test_without_recorded_defaults_all_are_listed(recorded: Any) -> None:
    del recorded.plan["defaults"]
    results = collect(recorded.write(), "study")
    dpo = hyperparameter_tables(results, read_stages(results))[1]
    assert texts(dpo) == [
        ["beta", "0.05, 0.3", ""], ["epochs", "3", ""], ["lora_rank", "none", ""], ["max_length", "256", ""]
    ]  # fmt: skip
    assert "`ablate run` records it again" in dpo.remarks[0]


def test_a_plan_records_the_defaults_of_what_it_trains(tmp_path: Path) -> None:
    plan = make_plan("pocket_quick", [], Store(tmp_path / "store"), READERS).as_json()
    assert set(plan["defaults"]) >= {"pretrain", "sft", "reward_model", "train.dpo", "train.ppo"}
    dpo = plan["defaults"]["train.dpo"]
    assert (dpo["beta"], dpo["epochs"], dpo["lora_rank"], dpo["scheduler"]) == (0.1, 3, None, "linear")
    assert plan["defaults"]["train.ppo"]["gamma"] == 1.0
    json.dumps(plan["defaults"], allow_nan=False)


def test_compute_and_what_sharing_saved(recorded: Any) -> None:
    """SFT (2 h on two GPUs) serves the baseline and both cells: two more runs would take 8 GPU-hours."""
    results = collect(recorded.write(), "study")
    table = compute_table(results, read_stages(results))
    assert [column.key for column in table.columns[1:]] == [
        "stages", "uses", "gpu_hours", "cpu_hours", "gpu_saved", "cpu_saved"
    ]  # fmt: skip
    rows = {row.cells[0].text: [cell.value for cell in row.cells[1:]] for row in table.rows}
    assert rows["sft"] == [1, 3, 4.0, 1.0, 8.0, 2.0]
    assert rows["train"] == [2, 2, 4.0, 1.0, 0.0, 0.0]
    assert rows["evaluate-facts-train"] == [1, 1, 1.0, 0.25, 0.0, 0.0]
    assert rows["tokenise"] == [1, 2, 0.0, 0.0, 0.0, 0.0]
    assert rows["all"] == [5, 8, 9.0, 2.25, 8.0, 2.0]
    assert list(rows)[-1] == "all" and "5 of 6 stages are done" in table.remarks[1]


def test_protocols_are_said_in_words(recorded: Any) -> None:
    table = protocol_table(collect(recorded.write(), "study"))
    (row,) = texts(table)
    assert row[:4] == ["facts", "factuality", "accuracy (proportion)", "4"]
    assert row[4] == "qa, shots 5, chat template"
    assert row[5] == "temperature 0.7, top-p 0.9, 4 samples, at most 64 tokens, seed 3"
    assert row[6] == "grader: exact; options.case: false" and row[7] == "1" and len(row[8]) == 12
    assert table.notes == (("a", "Asked_once."),)


def test_a_suite_that_measured_nothing_says_so(maker: Any) -> None:
    maker.suite("facts", "factuality")
    maker.subject("a", {"algorithm": "dpo"}, {"facts": None})
    table = protocol_table(collect(maker.write(), "study"))
    assert texts(table)[0][3] == "–" and table.notes == (("a", "nothing measured yet"),)


def test_versions_that_differ_are_counted_and_seeds_listed(recorded: Any) -> None:
    stages = read_stages(collect(recorded.write(), "study"))
    assert texts(software_table(stages)) == [
        ["Python", "3.11.7 (3 stages), 3.11 (1 stages), 3.12 (1 stages)"], ["ablate (commit)", "c0ffee"],
        ["torch", "2.13"], ["trl", "1.16_x"],
    ]  # fmt: skip
    assert texts(seed_table(stages)) == [
        ["evaluate-facts-train", "options.seed", "5"], ["sft", "seed", "7"], ["train", "seed", "1, 2"]
    ]  # fmt: skip


def test_a_report_has_the_appendix_where_it_is_asked_for(recorded: Any, tmp_path: Path) -> None:
    store, out = recorded.write(), tmp_path / "out"
    files = {path.name for path in render_report(store, "study", None, out, appendix=True).files}
    assert {"appendix.md", "appendix.tex", "appendix.standalone.tex"} <= files
    text = (out / "appendix.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [f"## {title}" for title in
                        ("Hyperparameters", "Evaluation protocols", "Compute", "Software", "Seeds")]  # fmt: skip
    render_report(store, "study", None, out)
    assert not (out / "appendix.md").exists()


def test_tables_stand_below_their_headings(recorded: Any, tmp_path: Path) -> None:
    write_appendix(collect(recorded.write(), "study"), tmp_path)
    text = (tmp_path / "appendix.tex").read_text()
    assert text.count(r"\caption{") == text.count(r"\begin{minipage}{\linewidth}") and r"\begin{table}" not in text


@pytest.mark.latex
def test_the_document_compiles(recorded: Any, tmp_path: Path) -> None:
    write_appendix(collect(recorded.write(), "study"), tmp_path)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "appendix.standalone.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
