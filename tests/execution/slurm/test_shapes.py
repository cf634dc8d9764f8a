"""What stages are given: the table of sizes against the memory that training takes, the profile's own words first."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.catalogs.memory import GIB, choose_sharding
from ablate.catalogs.models import models
from ablate.errors import SpecError, UsageError
from ablate.execution.slurm.profile import LoadedProfile, Profile, load_profile
from ablate.execution.slurm.shapes import SIZES, Shape, on_login, shapes_of
from ablate.experiment.loading import load_experiment
from ablate.plan.facts import gather_facts
from ablate.plan.graph import Graph
from ablate.plan.plan import build_plan
from ablate.plan.stage import Ref, Stage
from ablate.shipped import shipped_folder

GPUS = {"gpu": {"per_node": 8, "cpus": 6, "ram": "50G"}}
STUDY = """\
name: study
policy: allenai/tulu-2-7b@0123456789abcdef0123456789abcdef01234567
grid:
  - {dataset: pocket-hh, algorithm: %s}
"""


def loaded(tmp_path: Path, text: str) -> LoadedProfile:
    (tmp_path / "cluster.yaml").write_text(text)
    return load_profile(str(tmp_path / "cluster.yaml"))


def chain(model: str, **config: object) -> dict[str, Stage]:
    """A model of the hub, its tuning on a set, and what judges it."""
    graph = Graph()
    base = graph.add("model", {"source": model}, label=model, locations={"model": model})
    data = graph.add("dataset", {"set": 1}, label="set")
    inputs = {"model": base.ref(), "data": data.ref()}
    train = graph.add("train", {"algorithm": "dpo", **config}, inputs, label="dpo", entry="x:y")
    generate = graph.add("generate", {}, {"policy": Ref(train.id, "")}, label="responses")
    graph.add("evaluate", {}, {"responses": generate.ref()}, label="grades")
    return graph.stages


def given(tmp_path: Path, text: str, stages: dict[str, Stage]) -> dict[str, tuple[int, int, int, int]]:
    """GPUs, cores, MiB and minutes of each kind."""
    shapes = shapes_of(stages, loaded(tmp_path, text), models())
    return {
        s.kind: (shapes[s.id].gpus, shapes[s.id].cpus, shapes[s.id].memory, shapes[s.id].minutes)
        for s in stages.values()
    }


def trained(tmp_path: Path, text: str, algorithm: str) -> list[Shape]:
    """What the planner's own stages of training are given, one for each cell."""
    (tmp_path / "study.yaml").write_text(STUDY % algorithm)
    study = load_experiment(tmp_path / "study.yaml", ())
    facts = gather_facts(study, evals=[shipped_folder("evals")], digest_cache=tmp_path / "d.json", data_root=None)
    stages = build_plan(study, facts).stages
    shapes = shapes_of(stages, loaded(tmp_path, text), models())
    return [shapes[stage.id] for stage in stages.values() if stage.kind == "train"]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size.parameters / 1e9:g}B")
def test_the_gpus_of_a_size_hold_what_training_it_takes(size: object) -> None:
    parameters, trains = size.parameters, size.trains  # type: ignore[attr-defined]
    assert choose_sharding(parameters, trains, 80 * GIB)
    if trains > 1:
        with pytest.raises(UsageError):
            choose_sharding(parameters, trains // 4, 80 * GIB)


def test_defaults_follow_kind_and_size(tmp_path: Path) -> None:
    text = "gpu: {per_node: 8, cpus: 6, ram: 50G}\n"
    seven = given(tmp_path, text, chain("allenai/tulu-2-7b"))
    assert seven["train"] == (4, 24, 4 * 50 * 1024, 24 * 60)
    assert seven["generate"] == (1, 6, 50 * 1024, 8 * 60)
    assert seven["dataset"] == seven["evaluate"] == (0, 1, 4096, 60)
    assert seven["model"][0] == 0 and seven["model"][2] > 16 * 1024
    assert given(tmp_path, text, chain("somebody/tiny"))["train"] == (1, 6, 50 * 1024, 4 * 60)
    assert given(tmp_path, text, chain("allenai/tulu-2-7b", parameters={"lora_rank": 16}))["train"][0] == 1
    assert given(tmp_path, "{}\n", chain("allenai/tulu-2-7b"))["train"][0] == 0


def test_an_adapter_as_the_planner_writes_it_takes_one_gpu(tmp_path: Path) -> None:
    whole, adapter = trained(tmp_path, "gpu: {per_node: 8}\n", "dpo, dpo.lora_rank: [null, 16]")
    assert (whole.gpus, adapter.gpus) == (4, 1)


def test_what_can_t_be_divided_trains_as_long_in_one_process(tmp_path: Path) -> None:
    text = "gpu: {per_node: 8}\nneeds: {train: {micro_batch: 2}}\n"
    divided, whole = trained(tmp_path, text, "dpo, dpo.implementation: [ablate, trl]")
    assert (divided.gpus, divided.resources().processes) == (4, 4)
    assert (whole.gpus, whole.resources().processes) == (1, 1)
    for shape in (divided, whole):
        assert (shape.minutes, shape.resources().micro_batch) == (24 * 60, 2)


def test_gpus_with_less_memory_are_more(tmp_path: Path) -> None:
    text = "gpu: {per_node: 8, memory: 40}\n"
    assert given(tmp_path, text, chain("allenai/tulu-2-7b"))["train"][0] == 8


def test_a_model_that_no_node_holds_takes_several_with_the_same_of_each(tmp_path: Path) -> None:
    stages = chain("allenai/tulu-2-70b")
    shapes = shapes_of(stages, loaded(tmp_path, "gpu: {per_node: 8, cpus: 6, ram: 50G}\n"), models())
    found = {stage.kind: shapes[stage.id] for stage in stages.values()}
    train = found["train"]
    assert (train.nodes, train.gpus, train.cpus, train.memory) == (4, 8, 48, 8 * 50 * 1024)
    assert (train.resources().nodes, train.resources().processes, train.resources().threads) == (4, 8, 6)
    assert found["generate"].nodes == 1 and found["generate"].gpus == 1


def test_nodes_and_processes_are_written_for_what_trains_and_more_gpus_than_a_node_has_are_refused(
    tmp_path: Path,
) -> None:
    text = "needs:\n  train: {nodes: 2, processes: 3, cpus: 6, sharding: zero2}\n"
    stages = chain("somebody/tiny")
    shapes = shapes_of(stages, loaded(tmp_path, text), models())
    for stage in stages.values():
        own, trains = shapes[stage.id].resources(), stage.kind == "train"
        assert (own.nodes, own.processes, own.sharding) == ((2, 3, "zero2") if trains else (1, 1, None))
    message = r"cluster.yaml:3: needs.train.gpus: train \(dpo\) take 9 GPUs, and a node has 8"
    with pytest.raises(SpecError, match=message):
        given(tmp_path, "gpu: {per_node: 8}\nneeds:\n  train: {gpus: 9}\n", chain("allenai/tulu-2-70b"))
    message = "cluster.yaml:2: needs.train.pack: 2 packed stages of train can't share 2 nodes: each takes all of them"
    with pytest.raises(SpecError, match=message):
        given(tmp_path, "needs:\n  train: {nodes: 2, pack: 2}\n", stages)
    message = r"cluster.yaml:2: container: train \(dpo\) takes 4 nodes: no srun in a container"
    with pytest.raises(SpecError, match=message):
        given(tmp_path, "gpu: {per_node: 8}\ncontainer: apptainer exec x.sif\n", chain("allenai/tulu-2-70b"))


def test_what_is_written_goes_first_and_the_method_before_the_kind(tmp_path: Path) -> None:
    text = "needs:\n  default: {memory: 1G}\n  train: {cpus: 3, time: 30}\n  train.dpo: {time: 45}\n"
    found = given(tmp_path, text, chain("allenai/tulu-2-7b"))
    assert found["train"] == (0, 3, 1024, 45)
    assert found["evaluate"] == (0, 1, 1024, 60)


def test_a_method_of_another_study_may_be_written_down(tmp_path: Path) -> None:
    assert "train.zigzag" in loaded(tmp_path, "needs: {train.zigzag: {cpus: 2}}\n").profile.needs


def test_the_shipped_example_loads() -> None:
    example = load_profile(str(shipped_folder("slurm") / "example.yaml"))
    assert example.profile == Profile()


def test_needs_of_what_asks_servers_outside_come_before_the_default_and_after_the_kind(tmp_path: Path) -> None:
    text = (
        "needs:\n  default: {cpus: 2, time: 5, partitions: main}\n  judge: {cpus: 4}\n"
        "  network: {partitions: transfer, cpus: 3, hub: true}\n"
    )
    graph = Graph()
    judge = graph.add("judge", {}, label="verdicts")
    label = graph.add("label", {}, label="labels", network=True)
    local = graph.add("label", {"own": 1}, label="labels of a reward model")
    shapes = shapes_of(graph.stages, loaded(tmp_path, text), models())
    assert [(s.partitions, s.cpus, s.minutes, s.hub) for s in (shapes[i.id] for i in (judge, label, local))] == [
        (("transfer",), 4, 5, True),
        (("transfer",), 3, 5, True),
        (("main",), 2, 5, False),
    ]


def test_what_runs_on_the_login_node(tmp_path: Path) -> None:
    graph = Graph()
    stages = [graph.add("judge", {}, label="verdicts"), graph.add("model", {}, label="a model")]
    stages += [graph.add("train", {"algorithm": name}, label=name, entry="x:y") for name in ("dpo", "ppo")]

    def here(needs: str) -> list[str]:
        found = on_login(graph.stages, loaded(tmp_path, f"needs: {needs}"))
        return [stage.execution.label for stage in stages if stage.id in found]

    assert here("{network: {runs_on: login}}") == ["verdicts"]
    assert here("{network: {runs_on: login}, judge: {runs_on: nodes}, model: {runs_on: login}}") == ["a model"]
    assert here("{train.ppo: {runs_on: login}}") == ["ppo"]
    assert here("{judge: {cpus: 1}}") == []
    with pytest.raises(SpecError, match=r"(?s)cluster.yaml:1: needs.judge.runs_on: 'node' .*mean 'nodes'"):
        here("{judge: {runs_on: node}}")


def test_a_judge_that_a_service_answers_for_asks_nothing_outside(tmp_path: Path) -> None:
    graph = Graph()
    for names in (("here",), ("here", "far away")):
        graph.add("judge", {"judges": [{"model": name} for name in names]}, label=" and ".join(names))
    text = "needs: {network: {runs_on: login}}\nservices: {own: {model: here, gpus: 0}}\n"
    found = on_login(graph.stages, loaded(tmp_path, text))
    assert [graph.stages[stage].execution.label for stage in found] == ["here and far away"]
