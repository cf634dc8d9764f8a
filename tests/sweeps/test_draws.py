"""What a sweep draws: nothing twice however often it is stopped, and no more trials than it has, in one process."""

from __future__ import annotations

import importlib.util
import math
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from ablate.experiment.loading import load_experiment
from ablate.store import AttemptFolder
from ablate.sweeps.run import Sweeper
from ablate.trials import counted
from tests.sweeps.conftest import Folder
from tests.sweeps.test_sweep import begin


def end(worker: Sweeper, trial: optuna.Trial, held: AttemptFolder) -> float:
    """Let a trial end with what its beta earns; returns its beta."""
    worker._open(trial, held)
    beta = float(trial.params["dpo.beta"])
    worker._tell(worker.open[trial.number], (-abs(math.log(beta / 0.5)),), TrialState.COMPLETE)
    return beta


def drawn(folder: Path, restarts: int, sampler: Any, trials: int) -> list[float]:
    """The betas of a sweep whose worker is another one after every ``restarts`` trials."""
    made = Folder(folder)
    made.write(sampler=sampler, trials=trials)
    betas: list[float] = []
    worker = begin(made)
    while (begun := worker._begin()) is not None:
        betas.append(end(worker, *begun))
        if len(betas) % restarts == 0:
            worker = begin(made)
    assert len(betas) == trials == len(counted(worker.study))
    return betas


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tpe", {"n_startup_trials": 2}),
        ("nsga_ii", {"population_size": 2}),
        ("qmc", {}),
        pytest.param(
            "cma_es", {"n_startup_trials": 2},
            marks=pytest.mark.skipif(importlib.util.find_spec("cmaes") is None, reason="cmaes is not installed"),
        ),
        pytest.param("gp", {"n_startup_trials": 2}, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_sweep_that_goes_on_draws_what_it_would_have_drawn_and_nothing_twice(
    tmp_path: Path, name: str, arguments: dict[str, Any]
) -> None:
    sampler = {"name": name, "arguments": arguments}
    whole = drawn(tmp_path / "whole", 100, sampler, 4)
    assert len(set(whole)) == 4
    assert drawn(tmp_path / "in-parts", 1, sampler, 4) == whole


def test_workers_that_begin_at_once_begin_with_each_start_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(start=[{"dpo.beta": 0.4}])
    worker = begin(folder)
    for path in (worker.folder.trials_jsonl, worker.folder.plan_json):
        path.unlink()
    add_trial, others = optuna.Study.add_trial, []

    def late(study: optuna.Study, trial: FrozenTrial) -> None:
        monkeypatch.setattr(optuna.Study, "add_trial", add_trial)
        others.append(threading.Thread(target=begin, args=(folder,)))
        others[0].start()
        others[0].join(0.5)  # it waits for this one: all that it may do in this time is too early
        add_trial(study, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", late)
    worker.begin()
    others[0].join()
    assert [trial.system_attrs["fixed_params"] for trial in worker.study.trials] == [{"dpo.beta": 0.4}]


def test_workers_that_take_turns_have_no_more_trials_than_the_sweep(folder: Folder) -> None:
    folder.write(sampler="random", trials=3)
    workers = [begin(folder) for _ in range(2)]
    begun = [trial for _ in range(3) for worker in workers if (trial := worker._begin()) is not None]
    assert len(begun) == 3 == len(counted(workers[0].study))


def test_a_worker_that_is_overtaken_while_it_asks_gives_its_trial_up(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(sampler="random", trials=1)
    slow, fast = begin(folder), begin(folder)
    ask = slow.study.ask

    def overtaken() -> optuna.Trial:
        assert fast._begin() is not None
        return ask()

    monkeypatch.setattr(slow.study, "ask", overtaken)
    assert slow._begin() is None
    assert [trial.state for trial in counted(slow.study)] == [TrialState.RUNNING]
    assert len(slow.study.trials) == 2, "the one too many is on record, and counts for nothing"


def test_a_trial_too_many_whose_worker_died_before_it_saw_that_is_not_taken_over(folder: Folder) -> None:
    folder.write(sampler="random", trials=1)
    fast, dead = begin(folder), begin(folder)
    begun = fast._begin()
    assert begun is not None
    dead.study.ask()
    other = begin(folder)
    assert list(other._orphans()) == []
    assert [trial.number for trial in counted(other.study)] == [begun[0].number]
    assert not other.study.get_trials(states=[TrialState.RUNNING])[1:]


def test_a_sweep_that_has_its_trials_says_so(folder: Folder) -> None:
    folder.write(sampler="random", trials=2)
    worker = begin(folder)
    for _ in range(2):
        begun = worker._begin()
        assert begun is not None and not begin(folder).is_full
        end(worker, *begun)
    assert begin(folder).is_full


def test_the_study_names_its_objectives(folder: Folder) -> None:
    folder.write(maximise=["pocket-validation-gold", "-gold"])
    assert begin(folder).study.metric_names == ["pocket-validation-gold", "gold"]
    begin(folder)
    assert folder.store.experiment("small").trials_jsonl.read_text().count("metric_names") == 1


@pytest.mark.parametrize(("trials", "most"), [(2, 2), (100, 6)])
def test_a_grid_has_no_more_trials_than_points(folder: Folder, trials: int, most: int) -> None:
    """Two choices by three steps, whose ends are points: what reports call all is what will be run."""
    search = {"dpo.beta": {"choice": [0.1, 1.0]}, "dpo.learning_rate": {"uniform": [0.001, 0.002], "step": 0.0005}}
    folder.write(search=search, trials=trials, sampler="grid")
    sweep = load_experiment(folder.folder / "sweep.yaml").experiment.sweep
    assert sweep is not None
    assert sweep.search["dpo.learning_rate"].points == pytest.approx((0.001, 0.0015, 0.002))
    assert (sweep.most, sweep.facts()["trials"], begin(folder).unfinished) == (most, most, most)


def test_other_samplers_have_the_trials_that_are_asked_for(folder: Folder) -> None:
    folder.write(search={"dpo.beta": {"choice": [0.1, 1.0]}}, trials=100, sampler="random")
    assert begin(folder).unfinished == 100
