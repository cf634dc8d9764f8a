"""What is looked at before anything is queued: the profile, the budget, nodes, times, the store, its disk."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.cli import plan as cli_plan
from ablate.execution.slurm import storage
from ablate.execution.slurm.profile import load_profile
from ablate.execution.slurm.submit import cause_of
from ablate.plan import explain
from tests.execution.slurm.conftest import PROFILE

SPEC = """\
name: small
policy: pocket-small
sft: {dataset: pocket-instructions}
grid:
  - {dataset: [pocket-hh, pocket-ultrafeedback], algorithm: dpo, dpo.beta: [0.1, 0.2]}
evaluate: {policy: [pocket-gold]}
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_dry_run_keeps_to_the_budget(ablate: Run, tmp_path: Path) -> None:
    text = "gpu: {per_node: 4}\nlimits: {gpu_hours: 3}\nneeds: {train: {gpus: 2, time: '1:30'}}\n"
    (tmp_path / "cluster.yaml").write_text(text)
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", "--dry-run")
    assert answer.returncode == 2 and "cluster.yaml:2: limits.gpu_hours: up to 12.0 GPU hours" in answer.stderr


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("partition: main\n", "cluster.yaml:1: partition: unknown key 'partition'\n  did you mean 'partitions'?"),
        ("needs: {trian: {cpus: 1}}\n", "did you mean 'train'?"),
        (
            "needs:\n  train: {cpus: 1}\n  train.dop: {cpus: 1}\n",
            "cluster.yaml:3: needs.train.dop: unknown method 'dop'\n  did you mean 'dpo'?",
        ),
        ("needs:\n  train: {memory: 16}\n", "cluster.yaml:2: needs.train.memory: an amount of memory is a number with"),
        ("limits: {time: soon}\n", "a time is minutes, 'hours:minutes' or 'days-hours:minutes' (found 'soon')"),
        ("needs:\n  dataset: {gpus: 1}\n", "cluster.yaml:2: needs.dataset.gpus: dataset"),
        (
            "gpu: {per_node: 4}\nneeds: {train: {gpus: 8}}\n",
            "cluster.yaml:2: needs.train.gpus: train (DPO on pocket-hh",
        ),
        ("limits: {time: 60}\nneeds:\n  sft: {time: '2:00'}\n", "cluster.yaml:3: needs.sft.time: sft asks for 120"),
        ("flags: -p main\n", "cluster.yaml:1: flags: not an option of sbatch: -p main"),
        ("template: mine.j2\n", "cluster.yaml:1: template: no batch script mine.j2"),
        ("- main\n", "a profile is a mapping of keys"),
    ],
)
def test_what_is_wrong_in_a_profile(ablate: Run, tmp_path: Path, profile: str, words: str) -> None:
    (tmp_path / "cluster.yaml").write_text(profile)
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", "--dry-run")
    assert answer.returncode == 2
    assert words in answer.stderr


def test_a_template_that_asks_for_what_there_is_not(ablate: Run, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("template: mine.j2\n")
    (tmp_path / "mine.j2").write_text("#!/bin/bash\n#SBATCH --job-name={{ nam }}\n")
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", "--dry-run")
    assert answer.returncode == 2 and "mine.j2: the template asks for what there is not: 'nam'" in answer.stderr
    (tmp_path / "mine.j2").write_text("#!/bin/bash\n{% if %}\n")
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", "--dry-run")
    assert answer.returncode == 2 and "mine.j2:2: no valid Jinja" in answer.stderr


def test_a_budget_of_gpu_hours_refuses_before_anything_is_queued(ablate: Run, standin: Any, tmp_path: Path) -> None:
    text = "gpu: {per_node: 4}\nlimits: {gpu_hours: 3}\nneeds: {train: {gpus: 2, time: '1:30'}}\n"
    (tmp_path / "cluster.yaml").write_text(text)
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 2
    assert "cluster.yaml:2: limits.gpu_hours: up to 12.0 GPU hours would be asked for" in answer.stderr
    assert not standin.jobs()


def test_nodes_where_jobs_were_lost_are_left_out(ablate: Run, standin: Any, tmp_path: Path) -> None:
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    standin.change(lambda job: {"state": "NODE_FAIL"})
    record = next((tmp_path / "store" / "slurm").glob("*/*-dataset"))
    index = next(iter(json.loads((record / "array.json").read_text())["elements"]))
    (record / f"{index}.jsonl").write_text('{"what": "lost", "node": "n7"}\n' * 2 + '{"what": "lost", "node": "n8"}\n')
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 0 and "not sent to n7, where jobs were lost before" in answer.stdout
    newest = max((tmp_path / "store" / "slurm").glob("2*"))
    assert "#SBATCH --exclude=n7\n" in next(newest.glob("*/stage.sbatch")).read_text()


def test_what_ran_out_of_time_is_given_more_where_the_profile_says_so(
    ablate: Run, standin: Any, tmp_path: Path
) -> None:
    (tmp_path / "cluster.yaml").write_text(PROFILE + "retries: {time_factor: 2}\n")
    ablate("run", "small.yaml", "--on", "cluster.yaml")
    standin.change(lambda job: {"state": "TIMEOUT"})
    record = next((tmp_path / "store" / "slurm").glob("*/*-sft"))
    (record / "0.jsonl").write_text('{"what": "timeout", "minutes": 10}\n{"what": "timeout", "minutes": 20}\n')
    assert ablate("retry", "small", "--on", "cluster.yaml").returncode == 0
    newest = max((tmp_path / "store" / "slurm").glob("2*"))
    limits = {
        path.parent.name.partition("-")[2]: re.findall("--time=(.*)", path.read_text())
        for path in newest.glob("*/stage.sbatch")
    }
    assert limits.pop("sft") == ["40"] and set(map(tuple, limits.values())) == {("10",)}
    standin.change(lambda job: {"state": "TIMEOUT"})
    (tmp_path / "cluster.yaml").write_text(PROFILE.replace("12}", "12, time: 30}") + "retries: {time_factor: 2}\n")
    assert ablate("retry", "small", "--on", "cluster.yaml").returncode == 0
    newest = max((tmp_path / "store" / "slurm").glob("2*"))
    assert "--time=30\n" in next(newest.glob("*-sft/stage.sbatch")).read_text()


def test_losses_are_counted_over_all_submissions_of_a_store(ablate: Run, standin: Any, tmp_path: Path) -> None:
    for number, place in enumerate(("*-dataset", "*-pocket", "*-tokenise")):
        if number == 2:  # a node's losses may be another experiment's
            (tmp_path / "small.yaml").write_text(SPEC.replace("name: small", "name: other"))
        answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
        assert answer.returncode == 0 and ("not sent to n7" in answer.stdout) == (number == 2)
        standin.change(lambda job: {"state": "NODE_FAIL"})
        newest = max((tmp_path / "store" / "slurm").glob("2*"))
        record = next(newest.glob(place))
        index = next(iter(json.loads((record / "array.json").read_text())["elements"]))
        (record / f"{index}.jsonl").write_text('{"what": "lost", "node": "n7"}\n')


def test_a_store_or_python_that_nodes_do_not_see_is_refused_before_anything_is_written(
    ablate: Run, standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "file_system", lambda path: "ext4")
    standin.set("nodes", "n1\nn2\n")
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 2 and "jobs run on n1 and 1 more; nothing is queued" in answer.stderr
    assert not standin.jobs() and not (tmp_path / "store").exists()
    (tmp_path / "cluster.yaml").write_text(PROFILE + f"shared: {tmp_path}\n")
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml")
    assert answer.returncode == 2 and "the Python that submits" in answer.stderr
    (tmp_path / "cluster.yaml").write_text(PROFILE + f"shared: ['{tmp_path}', '{sys.prefix}']\n")
    assert ablate("run", "small.yaml", "--on", "cluster.yaml").returncode == 0 and standin.jobs()


def test_more_than_the_disk_has_is_submitted_when_confirmed(
    ablate: Run, standin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_plan, "free_bytes", lambda folder: 1000)
    monkeypatch.setattr(explain, "measured", lambda store: ({}, {"sft": 2.5e6}))
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", said="n\n")
    assert answer.returncode == 1 and "about 2.5 MB of disk are needed, and 0.0 MB are free" in answer.stdout
    assert "submit nevertheless? [y/N]" in answer.stdout and not standin.jobs()
    assert ablate("run", "small.yaml", "--on", "cluster.yaml", said="").returncode == 1 and not standin.jobs()
    assert ablate("run", "small.yaml", "--on", "cluster.yaml", said="y\n").returncode == 0 and standin.jobs()


def test_no_slurm_here(ablate: Run) -> None:
    answer = ablate("run", "small.yaml", "--on", "cluster.yaml", PATH="/nowhere")
    assert answer.returncode == 2 and "there is no sbatch on this machine" in answer.stderr


@pytest.mark.parametrize(
    ("written", "words", "key"),
    [
        ("", "Memory specification can not be satisfied", "needs.default.memory"),
        ("", "CPU count per node can not be satisfied", "needs.default.cpus"),
        ("gpu: {per_node: 4}", "Memory specification can not be satisfied", "gpu"),
        ("needs: {default: {cpus: 1}}", "Requested node configuration is not available", "needs.default"),
        ("needs: {train: {cpus: 1}}", "Memory specification can not be satisfied", "needs.default.memory"),
        ("partitions: [debug]", "invalid partition specified: debug", "partitions"),
    ],
)
def test_a_refusal_names_the_key_that_is_its_cause(tmp_path: Path, written: str, words: str, key: str) -> None:
    (tmp_path / "cluster.yaml").write_text("python: python3\n" + written)
    loaded = load_profile(str(tmp_path / "cluster.yaml"))
    path = cause_of(words, "tokenizer", loaded)
    assert ".".join(path) == key and loaded.origins.locate(*path).key == key
