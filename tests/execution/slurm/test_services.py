"""Which stages ask a service of the profile, and what their jobs are given for it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.models import models
from ablate.errors import SpecError
from ablate.execution.slurm.profile import LoadedProfile, Service, load_profile
from ablate.execution.slurm.script import options
from ablate.execution.slurm.services import shell_line
from ablate.execution.slurm.shapes import Shape, services_of, shapes_of
from ablate.plan.graph import Graph
from ablate.plan.stage import Stage

PROFILE = """\
gpu: {per_node: 4, cpus: 6, ram: 50G}
services:
  first: {model: m, gpus: 2, cpus: 3, memory: 10G}
  other: {model: n}
  rollouts: {command: "vllm serve {model} --port {port} --dev", gpus: 1, cpus: 2, memory: 8G}
"""


def loaded(folder: Path, text: str = PROFILE) -> LoadedProfile:
    (folder / "cluster.yaml").write_text(text)
    return load_profile(str(folder / "cluster.yaml"))


def stage(kind: str, **config: object) -> Stage:
    entry = "x:y" if kind == "train" else None
    return Graph().add(kind, config, label=kind, **({"entry": entry} if entry else {}))


def shape_of(one: Stage, profile: LoadedProfile) -> Shape:
    return shapes_of({one.id: one}, profile, models())[one.id]


def test_a_stage_asks_the_services_of_its_judges_and_of_its_rollouts(tmp_path: Path) -> None:
    profile = loaded(tmp_path).profile
    vllm = {"rollout_engine": "vllm"}
    asked = {
        ("first",): stage("judge", judges=[{"model": "m"}, {"model": "gpt-4-0613"}]),
        ("other",): stage("label", judge={"model": "n"}),
        ("first", "rollouts"): stage("train", annotator={"judge": {"model": "m"}}, algorithm="d", parameters=vllm),
        ("rollouts",): stage("train", algorithm="ppo", annotator="pocket-gold", parameters=vllm),
        (): stage("label", judge={"model": "self"}),
    }
    assert {services_of(one, profile): one.id for one in asked.values()} == {k: one.id for k, one in asked.items()}
    assert services_of(stage("train", algorithm="ppo", parameters={"rollout_engine": "in-process"}), profile) == ()


def test_a_job_asks_for_what_its_services_take_beside_its_stages(tmp_path: Path) -> None:
    profile = loaded(tmp_path, PROFILE + "needs: {judge: {pack: 3}}\n")
    judge = shape_of(stage("judge", judges=[{"model": "m"}]), profile)
    written = options(judge, profile.profile)
    assert {"--gres=gpu:2", "--cpus-per-task=6", f"--mem={3 * 4096 + 10 * 1024}M"} <= set(written)
    train = shape_of(stage("train", algorithm="ppo", parameters={"rollout_engine": "vllm"}), profile)
    written = options(train, profile.profile)
    assert {"--gres=gpu:2", "--cpus-per-task=8", f"--mem={58 * 1024}M"} <= set(written)
    assert (train.services, train.resources().gpus) == (("rollouts",), (0,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            PROFILE + "needs:\n  train: {gpus: 4}\n",
            r"cluster.yaml:7: needs.train.gpus: train with rollouts \(train\) take 5 GPUs, and a node has 4",
        ),
        (
            PROFILE + "needs:\n  train: {pack: 2}\n",
            r"cluster.yaml:7: needs.train.pack: 2 packed stages of train can't share service rollouts",
        ),
        ("services:\n  a: {command: serve it}\n", r"cluster.yaml:2: services.a.command: .* \{port\}"),
        ("services:\n  a: {modle: m}\n", r"cluster.yaml:2: services.a.modle: .*\n.*model"),
        ("services:\n  a: {health: health}\n", r"cluster.yaml:2: services.a.health"),
    ],
)
def test_what_cannot_be_served_is_refused_at_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        shape_of(stage("train", algorithm="ppo", parameters={"rollout_engine": "vllm"}), loaded(tmp_path, text))


@pytest.mark.slurm
def test_a_study_on_a_cluster_has_its_judge_served(study: Any) -> None:
    server = Path(__file__).parents[1] / "helpers" / "judge_service.py"
    command = f"{sys.executable} {server} {{port}} {{model}} {study.folder}"
    study.profile(services={"judge": {"model": "local", "command": command, "gpus": 0, "cpus": 1, "memory": "200M"}})
    spec = study.folder / "small.yaml"
    spec.write_text(spec.read_text().replace("[pocket-gold]", "[pocket-gold, pocket-judged]"))
    submitted = study.submit()
    assert submitted.returncode == 0, submitted.stderr
    study.wait(120)
    study.check_done_once()
    summaries = {stage.id: stage.read_done()["summary"] for stage in study.stages()}
    judged = [summary for name, summary in summaries.items() if name.startswith("judge-")]
    assert judged and all(summary == {"served": {"local": 200}} for summary in judged)
    assert all(summary["served"] == {} for name, summary in summaries.items() if not name.startswith("judge-"))
    pids = [int(pid) for path in study.folder.glob("pids-*") for pid in path.read_text().split()]
    assert len(pids) == 2 * len(judged)
    deadline = time.monotonic() + 30  # an ended process is there until its parent asks for it
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a server outlives its job"
        time.sleep(0.05)


def test_the_command_runs_in_an_environment_of_its_own() -> None:
    service = Service(model="a b", setup="source envs/vllm/bin/activate\n", container="apptainer exec --nv x.sif")
    line = "source envs/vllm/bin/activate\nexec apptainer exec --nv x.sif vllm serve 'a b' --port 81"
    assert shell_line(service, "a b", 81) == line
