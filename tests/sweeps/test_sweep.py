"""A sweep from its file to its best trial, on light stages: storage, resumption, workers, failures, pruning."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from ablate import liveness
from ablate.cli.sweep import show
from ablate.context import read_json, write_json
from ablate.errors import AblateError, StoreError, UsageError
from ablate.execution import lease
from ablate.execution.local import Change, LocalRun
from ablate.execution.runner import Outcome
from ablate.experiment.loading import load_experiment
from ablate.results.report import build_report
from ablate.store import AttemptFolder, StageFolder
from ablate.sweeps.engine import sampler_of
from ablate.sweeps.figures import write_figures
from ablate.sweeps.run import Sweeper
from ablate.sweeps.show import find_sweep, write_best
from ablate.sweeps.space import Space
from ablate.trials import CAUSE
from tests.sweeps.conftest import Folder


def earned(beta: float) -> float:
    return -abs(math.log(beta / 0.5))


def leases(folder: Folder) -> Path:
    return folder.store.experiment("small").folder / "trials"


def lost_workers(folder: Folder) -> int:
    """How many workers ended without a word about a trial they had."""
    return sum(not (path / "ended.json").exists() for path in leases(folder).glob("*/attempts/*"))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_trials_are_cells_and_the_best_is_found(folder: Folder) -> None:
    folder.write(start=[{"dpo.beta": 0.4}])
    done = folder.sweep()
    assert done.returncode == 0, done.stderr
    trials = folder.trials()
    assert len(trials) == 6 and trials[0]["values"] == {"dpo.beta": 0.4}
    for trial in trials:
        assert trial["state"] == "complete"
        assert trial["results"]["pocket-validation-gold"] == pytest.approx(earned(trial["values"]["dpo.beta"]))
    assert sorted(folder.attempts("sft")) == [1] and sorted(folder.attempts("train")) == [1] * 12
    best = max(trials, key=lambda trial: trial["results"]["pocket-validation-gold"])
    assert f"  trial {best['number']}: " in done.stdout.splitlines()[-1]
    again = folder.sweep()
    assert again.returncode == 0 and "small has all its trials" in again.stdout
    assert len(folder.trials()) == 6 and sorted(folder.attempts("train")) == [1] * 12
    folder.write(start=[{"dpo.beta": 0.4}], trials=8)
    assert folder.sweep().returncode == 0
    assert [trial["values"] for trial in folder.trials()[:6]] == [trial["values"] for trial in trials]
    assert len({trial["values"]["dpo.beta"] for trial in folder.trials()}) == 8


def test_the_best_trial_is_an_experiment(folder: Folder) -> None:
    assert folder.sweep().returncode == 0
    assert folder.run("sweep", "show", "small", "--best", "new/best.yaml").returncode == 0
    file, best_file = folder.folder / "sweep.yaml", folder.folder / "new" / "best.yaml"
    file.rename(folder.folder / "away.yaml")  # what was found is on record
    assert len(folder.trials()) == 6
    (folder.folder / "away.yaml").rename(file)
    best = folder.found()["best"]
    found = find_sweep(folder.store, "small")
    drawn = write_figures(found, folder.store, folder.folder / "figures")
    assert [(one.name, len(one.files)) for one in drawn] == [("history", 2), ("slices", 2)]
    report = build_report(folder.store, "small")
    assert report.tables[0].name == "trials" and all(
        cell.sd == 0.0 for cell in (row.cells[2] for row in report.tables[0].rows)
    )
    written = yaml.safe_load(best_file.read_text())
    assert written["extends"] == "../sweep.yaml"
    assert written["grid"][0]["dpo.beta"] == folder.trials()[best[0]]["values"]["dpo.beta"]
    assert "small-best: nothing to do" in folder.run("run", "new/best.yaml").stdout
    write_best(found, folder.store, best_file)  # its own file is written over, another one is not
    with pytest.raises(UsageError, match="nothing was written"):
        write_best(found, folder.store, file)
    refused = folder.run("run", "sweep.yaml")
    assert refused.returncode == 2 and "sweep.yaml:" in refused.stderr and "small is a sweep" in refused.stderr


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_trials_it_had(folder: Folder) -> None:
    uninterrupted = Folder(folder.folder / "other")
    for kills in range(2):
        process = folder.start(LIGHT_SECONDS="0.5")
        wait_for(lambda least=2 * kills: len(list(folder.store.stages.glob("train-*/done.json"))) > least)  # type: ignore[misc]
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert folder.sweep().returncode == 0 and uninterrupted.sweep().returncode == 0
    trials = folder.trials()
    assert [trial["number"] for trial in trials] == list(range(6))
    assert {trial["state"] for trial in trials} == {"complete"}
    # what is drawn before any result is known is the same, whatever happened since
    beginning = [trial["values"] for trial in trials[:2]]
    assert beginning == [trial["values"] for trial in uninterrupted.trials()[:2]]


@pytest.mark.slow
def test_workers_share_a_sweep(folder: Folder) -> None:
    folder.write(trials=8)
    workers = [folder.start(LIGHT_SECONDS="0.2") for _ in range(2)]
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    trials = folder.trials()
    assert len(trials) == 8 and {trial["state"] for trial in trials} == {"complete"}
    assert sorted(folder.attempts("sft")) == [1]
    assert lost_workers(folder) == 0


def test_a_torn_last_line_is_cut_off_and_a_damaged_file_refused(folder: Folder) -> None:
    assert folder.sweep().returncode == 0
    file = folder.store.experiment("small").folder / "trials.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code": 4, "study')
    assert folder.sweep().returncode == 0 and file.read_bytes().startswith(whole + b'{"op_code":')
    lines = whole.splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:5], b"garbage\n", *lines[6:]]))
    refused = folder.sweep()
    assert refused.returncode == 1
    assert f"{file.name}:6: not a line of Optuna's journal" in " ".join(refused.stderr.split())
    for left in (b"", b"garbage"):
        file.write_bytes(left)
        worker = Sweeper(folder.store, load_experiment(folder.folder / "sweep.yaml"), 1, Deaf())
        with pytest.raises(StoreError, match="has lost its trials"):
            worker.begin()
        assert file.read_bytes() == left


def test_failing_trials_end_a_sweep_with_their_common_cause(folder: Folder) -> None:
    done = folder.sweep(FAILS_FROM="0")
    assert done.returncode == 1
    assert "gave up, no trial has ended well; most often: the loss is NaN" in " ".join(done.stderr.split())
    assert folder.attempts("train")[0] == 2  # each is tried again once
    assert [trial["state"] for trial in folder.trials()][:3] == ["fail"] * 3


def test_a_failed_trial_is_one_of_the_total(folder: Folder) -> None:
    folder.write(start=[{"dpo.beta": 0.2}, {"dpo.beta": 8.0}], retries=0)
    assert folder.sweep(FAILS_FROM="5").returncode == 0
    trials = folder.trials()
    assert len(trials) == 6 and trials[1]["state"] == "fail" and trials[1]["cause"] == "the loss is NaN"
    assert trials[0]["state"] == "complete"


def test_a_trial_that_falls_behind_is_stopped(folder: Folder) -> None:
    pruner = {"name": "median", "value": "reward", "arguments": {"n_startup_trials": 1}}
    folder.write(start=[{"dpo.beta": 0.5}, {"dpo.beta": 0.02}], trials=2, pruner=pruner)
    folder.sweep("--parallel", "1", LIGHT_STEPS="60", LIGHT_STEP_SECONDS="0.1")
    trials = folder.trials()
    assert [trial["state"] for trial in trials] == ["complete", "pruned"]
    assert trials[1]["results"] is None, "what was watched is no result"
    # the second trial's first seed was stopped on its way; the other had no time to end, or never began
    assert len(list(folder.store.stages.glob("train-*/done.json"))) < 4


@pytest.mark.slow
def test_a_training_that_was_stopped_early_goes_on_from_its_checkpoint(folder: Folder) -> None:
    """Successive halving stops a trial at a rung; whoever gives the same cell more budget later loses no step."""
    halving = {"name": "successive_halving", "value": "reward", "arguments": {"min_resource": 4, "reduction_factor": 2}}
    folder.write(start=[{"dpo.beta": 0.5}, {"dpo.beta": 0.02}], trials=2, pruner=halving)
    steps = {"LIGHT_STEPS": "60", "LIGHT_STEP_SECONDS": "0.1"}
    assert folder.sweep("--parallel", "1", **steps).returncode == 0
    assert [trial["state"] for trial in folder.trials()] == ["complete", "pruned"]
    cell = {"dataset": "pocket-ultrafeedback", "algorithm": "dpo", "dpo.beta": 0.02, "seed": 0}
    later = {"extends": "sweep.yaml", "name": "later", "sweep": None, "grid": [cell]}
    (folder.folder / "later.yaml").write_text(yaml.safe_dump(later))
    assert folder.run("run", "later.yaml", LIGHT_STEPS="60").returncode == 0
    planned = folder.store.experiment("later").read_plan()["stages"]
    attempts = folder.store.stage(next(stage for stage in planned if stage.startswith("train-"))).attempts()
    assert [read_json(attempt.ended_json)["status"] for attempt in attempts] == ["interrupted", "done"]
    first, second = ([json.loads(line)["step"] for line in one.events.read_text().splitlines()] for one in attempts)
    assert 4 <= len(first) < 60 and first + second == list(range(1, 61))


@pytest.mark.slow
def test_a_value_that_training_never_reports_stops_the_sweep_and_loses_nothing(folder: Folder) -> None:
    folder.write(trials=3, pruner={"name": "median", "value": "rewards"})
    refused = folder.sweep("--parallel", "1")
    assert refused.returncode == 2, refused.stderr
    error = " ".join(refused.stderr.split())
    assert "sweep.yaml:" in error and "sweep.pruner.value: the training events of train-" in error
    assert "have no field 'rewards': the pruner would stop nothing did you mean 'reward'? allowed: reward;" in error
    trained = {path.parent.name for path in folder.store.stages.glob("train-*/done.json")}
    assert trained and [trial["state"] for trial in folder.trials()] == ["interrupted"]
    again = folder.sweep("--parallel", "1")
    assert again.returncode == 2 and len(folder.trials()) == 1, "nothing is begun to find it out once more"
    folder.write(trials=3, pruner={"name": "median", "value": "reward"})
    assert folder.sweep("--parallel", "1").returncode == 0
    assert [trial["number"] for trial in folder.trials() if trial["state"] in ("complete", "pruned")] == [0, 1, 2]
    assert all(len(folder.store.stage(stage).attempts()) == 1 for stage in trained)
    assert lost_workers(folder) == 0


@pytest.mark.slow
def test_conditional_keys_and_several_objectives(folder: Folder) -> None:
    folder.write(
        search={
            "algorithm": {"choice": ["dpo", "ipo"]},
            "dpo.beta": {"log": [0.01, 10.0]},
            "ipo.beta": {"log": [0.1, 1.0]},
            "dpo.batch_size": {"int": [16, 32], "step": 16, "when": {"algorithm": "dpo"}},
        },
        maximise=["pocket-validation-gold", "-gold"],
        sampler={"name": "nsga_ii", "arguments": {"population_size": 4}},
        trials=8,
    )
    values = yaml.safe_load((folder.folder / "sweep.yaml").read_text())
    values["grid"] = [{"dataset": "pocket-ultrafeedback", "seed": 0}]
    folder.write_values(values)
    done = folder.sweep()
    assert done.returncode == 0, done.stderr
    keys = {"dpo": {"algorithm", "dpo.beta", "dpo.batch_size"}, "ipo": {"algorithm", "ipo.beta"}}
    for trial in folder.trials():
        assert set(trial["values"]) == keys[trial["values"]["algorithm"]]
    assert len(folder.found()["best"]) == 8  # each gains what it loses
    assert folder.run("sweep", "show", "small", "--best", "best.yaml").returncode == 0
    written = yaml.safe_load((folder.folder / "best.yaml").read_text())
    assert [block["algorithm"] for block in written["grid"]] == [t["values"]["algorithm"] for t in folder.trials()]
    assert "small-best: nothing to do" in folder.run("run", "best.yaml").stdout


def test_what_a_key_depends_on_is_drawn_before_it_and_may_be_a_shorthand(folder: Folder) -> None:
    search = {
        "dpo.beta": {"log": [0.1, 1.0], "when": {"dpo.epochs": 2}},
        "dpo.epochs": {"choice": [1, 2]},
        "reward_model.init": {"choice": ["pocket-small", "pocket-medium"]},
        "ppo.kl_coefficient": {"log": [0.01, 0.1], "when": {"reward_model": "pocket-medium"}},
    }
    folder.write(search=search)
    values = yaml.safe_load((folder.folder / "sweep.yaml").read_text())
    values["grid"][0]["algorithm"] = ["dpo", "ppo"]
    folder.write_values(values)
    loaded = load_experiment(folder.folder / "sweep.yaml")
    assert loaded.experiment.sweep is not None
    space = Space(loaded, loaded.experiment.sweep)
    assert list(space.ranges) == ["dpo.epochs", "reward_model.init", "dpo.beta", "ppo.kl_coefficient"]
    first, second = space.corners()
    assert set(first) == {"dpo.epochs", "reward_model.init"}
    assert set(second) == set(space.ranges)


def test_bounds_decide_which_trials_count(folder: Folder) -> None:
    folder.write(start=[{"dpo.beta": 0.5}, {"dpo.beta": 0.25}], trials=2, subject_to={"gold": {"at_most": -0.1}})
    assert folder.sweep().returncode == 0
    assert folder.found()["best"] == [1]


@pytest.mark.slow
def test_weights_of_a_mixture_are_searched(folder: Folder) -> None:
    folder.write(search={"of_hh": {"int": [100, 300], "step": 100}}, trials=5, sampler="grid")
    values = yaml.safe_load((folder.folder / "sweep.yaml").read_text())
    values["datasets"] = {"blend": {"mix": {"pocket-hh": "${of_hh}", "pocket-ultrafeedback": 200}}}
    values["grid"] = [{"dataset": "blend", "algorithm": "dpo", "seed": 0}]
    folder.write_values(values)
    done = folder.sweep()
    assert done.returncode == 0, done.stderr
    assert sorted(trial["values"]["of_hh"] for trial in folder.trials()) == [100, 200, 300]
    assert "small has all its trials: its grid has no more points" in folder.sweep().stdout
    assert len(list(folder.store.stages.glob("mixture-*/done.json"))) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"dpo.bata": {"log": [0.1, 1]}}}, "sweep.search.dpo.bata: unknown searched key 'dpo.bata'"),
        ({"search": {"dpo.bata": {"log": [0.1, 1]}}}, "did you mean 'dpo.beta'"),
        ({"search": {"dpo.beta": {"log": [1, 0.1]}}}, "log needs a lowest value below its highest"),
        ({"search": {"dpo.beta": {"log": [0, 1]}}}, "log needs values above 0"),
        ({"search": {"dpo.beta": {"lag": [0, 1]}}}, "unknown key 'lag'"),
        ({"search": {"dpo.beta": {}}}, "exactly one of uniform, log, int, choice is needed"),
        ({"search": {"dpo.beta": {"uniform": [-1, 1]}}}, "dpo.beta: Input should be greater than 0 (found -1.0)"),
        ({"search": {"seed": {"int": [0, 3]}}}, "seed is searched, and an axis of the grid"),
        (
            {"search": {"dpo.beta": {"log": [0.1, 1], "when": {"ppo.gamma": 1}}}},
            "depends on ppo.gamma, which no trial has",
        ),
        ({"search": {"ipo.beta": {"log": [0.1, 1]}}}, "ipo.beta is searched, and no trial reads it"),
        (
            {"search": {"dpo.beta": {"log": [0.1, 1], "when": {"algorithm": "dpp"}}}},
            "dpo.beta is searched, and no trial reads it",
        ),
        (
            {
                "search": {
                    "dpo.beta": {"log": [0.1, 1], "when": {"dpo.epochs": 2}},
                    "dpo.epochs": {"choice": [1, 2], "when": {"seed": 0}},
                }
            },
            "dpo.beta depends on dpo.epochs, which is drawn after it",
        ),
        ({"maximise": "pocket-validation-gald"}, "no trial has a result 'pocket-validation-gald'"),
        (
            {"maximise": "average"},
            "sweep.maximise: average is a mean over no suite name a suite: pocket-validation-gold",
        ),
        (
            {"maximise": "pocket-validation-gold/goold"},
            "unknown metric of suite pocket-validation-gold 'goold' did you mean 'gold'",
        ),
        ({"subject_to": {"safety": {"at_least": 0.5}}}, "no trial has a result 'safety'"),
        ({"sampler": "tpa"}, "unknown sampler 'tpa'"),
        ({"sampler": {"name": "tpe", "arguments": {"startup": 3}}}, "sampler 'tpe' has no argument 'startup'"),
        ({"sampler": "grid"}, "a grid has points: dpo.beta needs choice, or step"),
        ({"pruner": {"name": "medium", "value": "reward"}}, "unknown pruner 'medium'"),
        ({"start": [{"dpo.beta": 20.0}]}, "20.0 is outside of dpo.beta's range"),
        ({"start": [{"ipo.beta": 0.1}]}, "ipo.beta is not searched"),
        (
            {"search": {"dpo.beta": {"choice": [0.1, 1.0]}}, "sampler": "grid", "start": [{"dpo.beta": 0.1}]},
            "sweep.start: a grid begins with its own points",
        ),
        ({"trials": 0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_told_at_its_line(folder: Folder, changes: dict[str, Any], message: str) -> None:
    folder.write(**changes)
    refused = refusal(folder)
    assert message in " ".join(refused.split()) and "sweep.yaml:" in refused
    assert not folder.store.root.exists() or not list(folder.store.root.glob("experiments/*"))


def refusal(folder: Folder) -> str:
    """What the sweep's opening raises, without a process of its own."""
    with pytest.raises(AblateError) as caught:
        Sweeper(folder.store, load_experiment(folder.folder / "sweep.yaml"), 1, Deaf())
    assert caught.value.exit_code == 2
    return str(caught.value)


def claimed(worker: Sweeper, trial: optuna.Trial) -> AttemptFolder:
    held = lease.claim(worker.folder.leases(trial.number))
    assert held is not None
    return held


class Deaf:
    """Listens to nothing."""

    def began(self, trial: object, *, again: bool) -> None:
        """Hear nothing."""

    def told(self, trial: object) -> None:
        """Hear nothing."""


def test_a_sweep_without_an_ended_trial_has_found_nothing(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    begin(folder)
    show("small", folder.store.root)
    assert capsys.readouterr().out == "small: 0 of 6 trials; nothing found yet\n"


def test_a_begun_sweep_keeps_its_search(folder: Folder) -> None:
    assert folder.sweep().returncode == 0
    folder.write(search={"dpo.beta": {"log": [0.1, 1.0]}})
    refused = folder.sweep()
    assert refused.returncode == 2 and "was begun with another search" in refused.stderr


def test_a_begun_sweep_keeps_its_cells(folder: Folder) -> None:
    folder.write(trials=2)
    assert folder.sweep().returncode == 0
    refused = folder.sweep("dpo.epochs=2")
    assert refused.returncode == 2 and "was begun with another experiment" in refused.stderr
    folder.write(trials=3)
    again = folder.sweep("question=Again?", "evaluate.policy=[pocket-validation-gold, pocket-gold]")
    assert again.returncode == 0, again.stderr  # what is measured beside it changes no trial
    assert len(folder.trials()) == 3


def test_a_begun_sweep_keeps_its_bounds(folder: Folder) -> None:
    """How far trials are beyond them was written down when they ended."""
    folder.write(subject_to={"gold": {"at_most": -0.1}})
    begin(folder)
    folder.write(subject_to={"gold": {"at_most": -0.2}})
    with pytest.raises(UsageError, match="was begun with another subject_to"):
        begin(folder)
    journal = folder.store.experiment("small").trials_jsonl
    journal.write_text(re.sub(r',"subject_to":\{"gold":\{[^}]*\}\}', "", journal.read_text()))
    begin(folder)  # one that was begun before bounds were written there


@pytest.mark.parametrize("override", ["dpo.epochs=3", "ipo.beta=0.7"])
def test_a_begun_sweep_keeps_the_cells_of_every_method_it_chooses_among(folder: Folder, override: str) -> None:
    folder.write(search={"algorithm": {"choice": ["dpo", "ipo"]}, "dpo.beta": {"log": [0.01, 10.0]}})
    values = yaml.safe_load((folder.folder / "sweep.yaml").read_text())
    del values["grid"][0]["algorithm"]
    folder.write_values(values)
    begin(folder)
    with pytest.raises(UsageError, match="was begun with another experiment"):
        begin(folder, override)


def begin(folder: Folder, *overrides: str) -> Sweeper:
    """A worker that has opened the sweep's storage."""
    worker = Sweeper(folder.store, load_experiment(folder.folder / "sweep.yaml", overrides), 1, Deaf())
    folder.store.open()
    worker.begin()
    return worker


@pytest.mark.slow
def test_the_best_trial_has_the_overrides_of_its_sweep(folder: Folder) -> None:
    folder.write(trials=2)
    assert folder.sweep("dpo.epochs=3").returncode == 0
    assert folder.run("sweep", "show", "small", "--best", "best.yaml").returncode == 0
    assert load_experiment(folder.folder / "best.yaml").experiment.model_dump()["dpo"]["epochs"] == 3
    assert "small-best: nothing to do" in folder.run("run", "best.yaml").stdout


def test_a_trial_that_was_stopped_on_request_has_lost_no_worker(folder: Folder) -> None:
    process = folder.start(LIGHT_SECONDS="30")
    wait_for(lambda: bool(list(folder.store.stages.glob("train-*/attempts/1/events.jsonl"))))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert folder.sweep().returncode == 0
    assert lost_workers(folder) == 0
    assert "left" in [read_json(path)["status"] for path in leases(folder).glob("*/attempts/1/ended.json")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maximise", "direction", "states"),
    [
        ("pocket-validation-gold", "minimise", ["complete", "complete"]),
        ("-pocket-validation-gold", "maximise", ["complete", "pruned"]),
    ],
)
def test_a_pruner_goes_the_way_of_what_it_watches(
    folder: Folder, maximise: str, direction: str, states: list[str]
) -> None:
    arguments = {"n_startup_trials": 1}
    pruner = {"name": "median", "value": "reward", "direction": direction, "arguments": arguments}
    folder.write(start=[{"dpo.beta": 0.5}, {"dpo.beta": 0.02}], trials=2, pruner=pruner, maximise=maximise)
    folder.sweep("--parallel", "1", LIGHT_STEPS="40", LIGHT_STEP_SECONDS="0.1")
    assert [trial["state"] for trial in folder.trials()] == states


def test_a_sweep_whose_trials_all_failed_says_so(folder: Folder) -> None:
    folder.write(trials=2, retries=0)
    done = folder.sweep(FAILS_FROM="0")
    assert done.returncode == 1 and "no trial has ended well" in " ".join(done.stderr.split())


def test_a_trial_that_ends_well_after_others_failed_is_no_reason_to_give_up(folder: Folder) -> None:
    starts = [{"dpo.beta": beta} for beta in (0.5, 8.0, 9.0)]
    folder.write(start=starts, trials=5, give_up=2, retries=0)
    values = yaml.safe_load((folder.folder / "sweep.yaml").read_text())
    values["grid"][0]["seed"] = 0
    folder.write_values(values)
    done = folder.sweep("--parallel", "3", FAILS_FROM="5", SLOW_BETA="0.5")
    assert done.returncode == 0, done.stderr
    assert [trial["state"] for trial in folder.trials()][:3] == ["complete", "fail", "fail"]
    assert len(folder.trials()) == 5


def test_draws_follow_from_the_number_of_their_trial(folder: Folder) -> None:
    """Two workers that ask for a trial at the same time draw different values."""
    folder.write(sampler="random", trials=4)
    workers = [begin(folder), begin(folder)]
    for worker in workers:  # neither has seen the other's trial
        worker.study.sampler = sampler_of(worker.sweep, worker.space.ranges, worker.loaded, 0)
    asked = [worker.study.ask() for worker in workers]
    for worker, trial in zip(workers, asked, strict=True):
        worker._open(trial, claimed(worker, trial))
    first, second = (trial.params["dpo.beta"] for trial in workers[0].study.get_trials())
    assert first != second


def test_a_trial_whose_values_are_being_drawn_is_not_planned(folder: Folder) -> None:
    folder.write(search={"dpo.beta": {"log": [0.01, 10.0]}, "dpo.batch_size": {"int": [16, 32], "step": 16}})
    worker = begin(folder)
    trial = worker.study.ask()
    trial.suggest_float("dpo.beta", 0.01, 10.0, log=True)
    worker._record()
    assert not worker.store.experiment("small").read_plan()["subjects"]
    worker._open(trial, claimed(worker, trial))
    assert len(worker.store.experiment("small").read_plan()["subjects"]) == 2


def test_a_worker_on_another_machine_keeps_its_trial_as_long_as_its_heart_beats(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(trials=1)
    there, here = begin(folder), begin(folder)
    assert there.change(LocalRun()).add  # type: ignore[union-attr]
    held = there.open[0].lease
    write_json(held.owner_json, {**read_json(held.owner_json), "host": "elsewhere"})
    assert here.change(LocalRun()) == Change(), "it may have died, and nobody else might be left to find out"
    os.utime(held.heartbeat, (time.time() + 1,) * 2)
    assert here.change(LocalRun()) is None
    os.utime(held.heartbeat, (0, 0))
    monkeypatch.setattr(liveness, "WATCHED_SECONDS", 0.0)
    here.looked = there.looked = 0.0
    taken = here.change(LocalRun())
    assert taken is not None and taken.add.keys() == there.open[0].missing.keys() and list(here.open) == [0]
    late = there.change(LocalRun())
    assert late is not None and set(late.stop) == set(taken.add) and not there.open, "it stood still, and comes back"
    assert there.change(LocalRun()) is None
    here.leave()
    there.looked = 0.0
    assert list(there.change(LocalRun()).add) == list(taken.add)  # type: ignore[union-attr]


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_worker_that_comes_back_leaves_a_trial_that_another_one_ended(folder: Folder, status: str) -> None:
    folder.write(trials=1, retries=0, subject_to={"gold": {"at_most": 0.0}})
    slow, other = begin(folder), begin(folder)
    assert slow.change(LocalRun()).add  # type: ignore[union-attr]
    [item] = slow.open.values()
    lease.end(item.lease, "left")  # as one that is stale, it is another worker's now
    other.looked = 0.0
    assert other.change(LocalRun()).add  # type: ignore[union-attr]
    other._fail(other.open[0], "the other's cause")
    ended = LocalRun({stage: Outcome(stage, "failed", "the loss is NaN") for stage in item.missing})
    if status == "done":
        ended = LocalRun({stage: Outcome(stage, "done") for stage in item.missing})
    assert slow.change(ended) is None and not slow.open
    assert slow.study.trials[0].user_attrs[CAUSE] == "the other's cause"


def test_a_trial_that_was_asked_for_has_one_worker(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between asking for a trial and claiming it, another worker may find it without an owner."""
    folder.write(trials=1)
    slow, fast = begin(folder), begin(folder)
    claim = lease.claim

    def late(leases: StageFolder) -> AttemptFolder | None:
        monkeypatch.setattr(lease, "claim", claim)
        fast.change(LocalRun())
        return claim(leases)

    monkeypatch.setattr(lease, "claim", late)
    assert slow._begin() is None
    assert list(fast.open) == [0] and not slow.open


def test_a_sweep_is_planned_by_a_trial_and_its_size(folder: Folder) -> None:
    folder.write(search={"dpo.beta": {"log": [0.01, 10.0]}, "dpo.epochs": {"choice": [1, 2]}})
    heir = {"extends": "sweep.yaml", "name": "heir", "sweep": {"search": {"dpo.epochs": None}}}
    (folder.folder / "heir.yaml").write_text(yaml.safe_dump(heir))
    said = folder.run("plan", "heir.yaml")
    assert said.returncode == 0, said.stderr
    assert "sweep: 6 trials of dpo.beta by tpe, judged by pocket-validation-gold\n" in said.stdout
    assert "below: one trial, dpo.beta=0.01\n" in said.stdout
    found = json.loads(folder.run("plan", "heir.yaml", "--json").stdout)
    shared, own = found["sweep"]["shared_stages"], found["sweep"]["own_stages"]
    assert found["stages"] == shared + own and own == 6, "training, responses and a score of two policies"
    done = folder.run("sweep", "heir.yaml")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"trial 0: dpo\.beta=[\d.]+ begins", lines[0])
    assert sum(line.endswith(" begins") for line in lines) == 6
    assert len(list(folder.store.stages.iterdir())) == shared + 6 * own
    assert "; 0 to go" in folder.run("plan", "heir.yaml").stdout


def test_a_layout_that_no_trial_can_fill_is_an_error_before_the_first(folder: Folder) -> None:
    row = {"axis": "dpo.bta"}
    table = {"name": "main", "subject": "policy", "rows": [row], "columns": ["average"]}
    (folder.folder / "layout.yaml").write_text(yaml.safe_dump({"tables": [table]}))
    values = yaml.safe_load((folder.folder / "sweep.yaml").read_text())
    folder.write_values({**values, "report": "layout.yaml"})
    for words in (["plan", "sweep.yaml"], ["sweep", "sweep.yaml"]):
        refused = folder.run(*words)
        assert refused.returncode == 2 and "layout.yaml:" in refused.stderr, refused.stderr
        assert "did you mean 'dpo.beta'" in refused.stderr
    assert not folder.store.root.exists()
    row["axis"] = "dpo.beta"
    (folder.folder / "layout.yaml").write_text(yaml.safe_dump({"tables": [table]}))
    assert folder.run("plan", "sweep.yaml").returncode == 0


def test_a_trial_that_nobody_has_is_told_apart(folder: Folder) -> None:
    process = folder.start(LIGHT_SECONDS="30")
    wait_for(lambda: len(list(leases(folder).glob("*/attempts/*/owner.json"))) > 0)
    assert {trial["state"] for trial in folder.trials()} == {"running"}
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert {trial["state"] for trial in folder.trials()} == {"interrupted"}
    first = folder.sweep().stdout.splitlines()[0]
    assert first.startswith("trial 0: ") and first.endswith(" goes on")


def test_what_training_logged_last_is_compared_and_bounded(folder: Folder) -> None:
    folder.write(
        start=[{"dpo.beta": 0.5}, {"dpo.beta": 0.25}, {"dpo.beta": 1.0}, {"dpo.beta": 0.3}],
        maximise=["pocket-validation-gold", "-training/kl"],
        subject_to={"training/kl": {"at_most": 15.0}},
        sampler="nsga_ii",
        trials=4,
    )
    done = folder.sweep()
    assert done.returncode == 0, done.stderr
    last = 19.5  # times beta: the mean over steps 19 and 20
    assert [trial["results"]["-training/kl"] for trial in folder.trials()] == pytest.approx(
        [last * beta for beta in (0.5, 0.25, 1.0, 0.3)]
    )
    assert folder.found()["best"] == [0, 1, 3], "trial 2 is out of bounds"
    table = build_report(folder.store, "small").tables[0]
    assert [column.label for column in table.columns][2:4] == ["Gold reward (validation)", "KL (training)"]
    assert [row.cells[3].value for row in table.rows] == pytest.approx([9.75, 4.875, 19.5, 5.85])
    drawn = write_figures(find_sweep(folder.store, "small"), folder.store, folder.folder / "figures")
    assert "pareto" in [one.name for one in drawn]


def test_a_field_that_training_never_logs_is_told_as_the_cause(folder: Folder) -> None:
    folder.write(maximise="-training/kll", retries=0, give_up=2)
    done = folder.sweep("--parallel", "1")
    assert done.returncode == 1 and "training logged no 'kll' (did you mean 'kl'?" in " ".join(done.stderr.split())
    assert [trial["state"] for trial in folder.trials()] == ["fail", "fail"]


def test_no_trial_begins_when_the_gpu_hours_are_spent(folder: Folder) -> None:
    folder.write(trials=1)
    assert folder.sweep().returncode == 0
    for record in folder.store.stages.glob("train-*/done.json"):
        write_json(record, {**read_json(record), "seconds": 900.0, "gpus": ["0", "1"]})  # two policies: an hour of GPUs
    folder.write(trials=2, max_gpu_hours=1.0)
    assert folder.sweep().returncode == 0 and len(folder.trials()) == 1
    folder.write(trials=2, max_gpu_hours=1.1)
    assert folder.sweep().returncode == 0 and len(folder.trials()) == 2


def test_no_trial_begins_when_the_hours_are_spent(folder: Folder) -> None:
    folder.write(max_hours=1e-4)  # 0.36 seconds
    done = folder.sweep("--parallel", "1", LIGHT_SECONDS="0.3")
    assert done.returncode == 0, done.stderr
    assert [trial["state"] for trial in folder.trials()] == ["complete"]
