"""Cells that are tuned before they run: groups, winners, the split of suites, resumption, and what tables say."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from ablate.cli.options import READERS
from ablate.cli.tune import describe_tuning, show_tuning
from ablate.context import write_json, write_text
from ablate.errors import AblateError, UsageError
from ablate.execution.study import make_plan
from ablate.execution.tuned import read_tuning, what_group_is_asked
from ablate.experiment.grid import expand
from ablate.experiment.loading import load_experiment
from ablate.experiment.tuning import Group, groups_of
from ablate.plan.plan import Plan
from ablate.results.appendix.hyperparameters import hyperparameter_tables
from ablate.results.appendix.stages import read_stages
from ablate.results.long import collect
from ablate.results.report import build_report
from ablate.sweeps.engine import tell
from ablate.sweeps.tuning import Tuner
from ablate.tracking.wanted import wanted_runs
from tests.sweeps.conftest import HELPERS, ROOT, Folder
from tests.sweeps.test_sweep import wait_for

BEST = {
    ("pocket-hh", "dpo"): ("dpo.beta", 0.1),
    ("pocket-hh", "ppo"): ("ppo.kl_coefficient", 0.05),
    ("pocket-ultrafeedback", "dpo"): ("dpo.beta", 1.0),
    ("pocket-ultrafeedback", "ppo"): ("ppo.kl_coefficient", 0.5),
}
"""Where policies earn the most on the validation split, as the light work has it; on the test split it is reversed."""


class Tuned(Folder):
    """A researcher's folder with an experiment that is tuned."""

    def write(self, **tune: Any) -> None:
        """Write the specification anew; ``tune`` are keys of its section, null leaves one out."""
        self.write_whole({}, **tune)

    def write_whole(self, changes: dict[str, Any], **tune: Any) -> None:
        """Write the specification anew with other keys of it, too."""
        search = {
            "dpo.beta": {"choice": [0.03, 0.1, 1.0]},
            "ppo.kl_coefficient": {"choice": [0.05, 0.5]},
        }
        section = {"search": search, "maximise": "pocket-validation-gold", "trials": 3, "sampler": "grid", **tune}
        values = {
            "extends": str(ROOT / "experiments/pocket_quick.yaml"),
            "name": "tuned",
            "grid": [
                {"dataset": ["pocket-hh", "pocket-ultrafeedback"], "algorithm": ["dpo", "ppo"], "seed": [0, 1]},
            ],
            "baselines": [],
            "evaluate": {"policy": ["pocket-gold"], "reward_model": []},
            "report": None,
            "tune": {key: value for key, value in section.items() if value is not None},
            **changes,
        }
        self.write_values({key: value for key, value in values.items() if value != "leave out"})

    def line(self, *words: str) -> list[str]:
        """The command, with light stages in place of all that computes."""
        return [*super().line(*words)[:1], str(HELPERS / "light_tuning.py"), *words]

    def tune(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the experiment."""
        return self.run("run", "sweep.yaml", "--jobs", "2", *words, **variables)

    def start_run(self, **variables: str) -> subprocess.Popen[str]:
        """Begin the experiment and return at once."""
        settings = self.settings(**variables)
        words = self.line("run", "sweep.yaml", "--jobs", "2")
        return subprocess.Popen(
            words, cwd=self.folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def outcome(self, group: str) -> dict[str, Any]:
        """What the store keeps of a group."""
        found = self.store.experiment("tuned").group(group).read_outcome()
        assert found is not None
        return found

    def plan(self, *overrides: str) -> Plan:
        """The plan of the experiment, in this process."""
        return make_plan(str(self.folder / "sweep.yaml"), overrides, self.store, READERS)

    def note(self, dataset: str, algorithm: str, values: dict[str, float], **changes: Any) -> None:
        """Keep an outcome of a group as a run would."""
        loaded = load_experiment(self.folder / "sweep.yaml")
        tune = loaded.experiment.tune
        assert tune is not None
        groups = groups_of(loaded, expand(loaded))
        [group] = [one for one in groups if one.axes == {"dataset": dataset, "algorithm": algorithm}]
        folder = self.store.experiment("tuned").group(group.name)
        outcome = {
            "state": "tuned", "cause": "", "trials": tune.trials, "ended": {"complete": tune.trials}, "policies": 1,
            "best": {"number": 1, "values": values, "result": 1.5, "ties": []}, "stages": {},
            "asked": what_group_is_asked(tune, group),
        }  # fmt: skip
        folder.folder.mkdir(parents=True)
        write_json(folder.outcome_json, outcome | changes)
        write_text(folder.trials_jsonl, "")


@pytest.fixture
def tuned(tmp_path: Path) -> Tuned:
    return Tuned(tmp_path)


def beta_of(plan: Plan, stage: str) -> float:
    config = plan.stages[stage].identity.config.value["parameters"]
    return float(config.get("beta", config.get("kl_coefficient")))


@pytest.mark.slow
def test_every_group_gets_its_own_best_value_and_the_test_suites_see_it_last(tuned: Tuned) -> None:
    done = tuned.tune()
    assert done.returncode == 0, done.stderr
    for (dataset, algorithm), (key, best) in BEST.items():
        outcome = tuned.outcome(f"{dataset},{algorithm}")
        assert outcome["best"]["values"] == {key: best} and outcome["best"]["result"] == pytest.approx(0)
        judged = [facts["label"] for stage, facts in outcome["stages"].items() if stage.startswith("evaluate")]
        assert set(judged) == {"pocket-validation-gold"}
    lines = csv.DictReader(io.StringIO(tuned.run("results", "tuned").stdout))
    found = {(row["axis.dataset"], row["axis.algorithm"], row["axis.seed"]): row for row in lines}
    assert len(found) == 8
    for (dataset, algorithm, _), row in found.items():
        key, best = BEST[dataset, algorithm]
        assert float(row[f"axis.{key}"]) == best and row["suite"] == "pocket-gold" and float(row["value"]) == 0
    # trials have one seed, and what a winner was trained as is not trained again
    trained = {stage.name for stage in tuned.store.stages.glob("train-*")}
    assert len(trained) == 3 + 2 + 3 + 2 + 4
    shown = tuned.run("report", "tuned").stdout
    text = " ".join(shown.split())
    assert "beta 0.1 [a]" in text and "kl_coefficient 0.05 [b]" in text
    assert "[a] the best of 3 trials on pocket-validation-gold (seed 0)" in text
    assert "[b] the best of 2 trials on pocket-validation-gold (seed 0)" in text
    results = collect(tuned.store, "tuned")
    tables = {table.title: table for table in hyperparameter_tables(results, read_stages(results))}
    shown = {row.cells[0].text: row.cells[1].text for table in tables.values() for row in table.rows}
    assert shown["beta"] == "0.1, 1.0" and shown["kl_coefficient"] == "0.05, 0.5"
    assert "Tuning budgets differ: dataset=pocket-hh algorithm=dpo: 3 trials; dataset=pocket-hh algorithm=pp" in text
    assert tuned.run("bundle", "tuned", "--out", "tuned.zip").returncode == 0
    names = zipfile.ZipFile(tuned.folder / "tuned.zip").namelist()
    assert [name for name in names if name.endswith("tuned/tuning/pocket-hh,dpo/outcome.json")]
    again = tuned.tune()
    assert again.returncode == 0 and "nothing to do" in again.stdout and "trial" not in again.stdout
    for words in (["plan", "sweep.yaml"], ["run", "sweep.yaml"]):
        refused = tuned.run(*words, "sft.epochs=1")
        assert refused.returncode == 2
        assert "tuned/tuning/pocket-hh,dpo was begun with another experiment" in refused.stderr
    assert {stage.name for stage in tuned.store.stages.glob("train-*")} == trained


def test_one_command_tunes_and_runs_and_a_group_without_a_searched_key_runs_as_written(tuned: Tuned) -> None:
    grid = [{"dataset": "pocket-hh", "algorithm": ["dpo", "ppo"], "seed": [0, 1]}]
    tuned.write_whole({"grid": grid}, search={"dpo.beta": {"choice": [1.0, 0.1]}}, trials=2)
    done = tuned.tune()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tuned: 1 group (dataset × algorithm) × 2 trials, judged by pocket-validation-gold")
    assert [line for line in lines if line.startswith("dataset=pocket-hh algorithm=dpo: dpo.beta=0.1, pocket-val")]
    plan = tuned.plan()
    cells = [item.stage for item in plan.subjects if item.subject == "policy"]
    assert [beta_of(plan, stage) for stage in cells] == [0.1, 0.1, 0.3, 0.3]
    tags = [run.tags for run in wanted_runs(tuned.store, tuned.store.experiment("tuned").read_plan())]
    assert [own["axis.dpo.beta"] for own in tags if "axis.dpo.beta" in own] == ["0.1", "0.1"]
    [table] = build_report(tuned.store, "tuned").tables
    assert "Not tuned, for they have no searched parameter: dataset=pocket-hh algorithm=ppo." in table.remarks
    assert [row.cells[2].text for row in table.rows if row.kind == "cell"] == ["beta 0.1", "not tuned"]


@pytest.mark.slow
def test_a_killed_tuning_goes_on_and_a_larger_budget_continues_it(tuned: Tuned) -> None:
    search = {"dpo.beta": {"log": [0.01, 10.0]}, "ppo.kl_coefficient": {"log": [0.01, 10.0]}}
    grid = [{"dataset": "pocket-hh", "algorithm": ["dpo", "ppo"], "seed": [0, 1]}]
    tuned.write_whole({"grid": grid}, search=search, sampler="tpe")
    for kills in range(2):
        process = tuned.start_run(LIGHT_SECONDS="0.5")
        wait_for(lambda least=2 * kills: len(list(tuned.store.stages.glob("train-*/done.json"))) > least)  # type: ignore[misc]
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    during = json.loads(tuned.run("plan", "sweep.yaml", "--json").stdout)["tuning"]["groups"]
    assert {group["state"] for group in during} == {"open"}
    report = tuned.run("report", "tuned").stdout
    assert "its tuning is not finished" in report, report
    assert tuned.tune().returncode == 0
    first = {name: tuned.outcome(f"pocket-hh,{name}")["all"] for name in ("dpo", "ppo")}
    assert all([trial["number"] for trial in trials] == [0, 1, 2] for trials in first.values())
    tuned.write_whole({"grid": grid}, search=search, sampler="tpe", trials=4)
    assert "3 of 4 trials have ended" in tuned.run("plan", "sweep.yaml").stdout
    assert tuned.tune().returncode == 0
    for name, trials in first.items():
        outcome = tuned.outcome(f"pocket-hh,{name}")
        assert outcome["all"][:3] == trials and len(outcome["all"]) == 4
        best = max(outcome["all"], key=lambda trial: trial["results"]["pocket-validation-gold"])
        assert outcome["best"]["number"] == best["number"]
    assert all(len(tuned.store.stage(stage.name).attempts()) <= 3 for stage in tuned.store.stages.iterdir())


@pytest.mark.slow
def test_a_group_that_fails_is_named_and_the_others_go_on(tuned: Tuned) -> None:
    tuned.write(retries=0)
    done = tuned.tune(FAILS="ppo-hh")
    assert done.returncode == 1
    cause = "dataset=pocket-hh algorithm=ppo: its tuning failed: the loss is NaN; its cells do not run"
    assert cause in " ".join(done.stderr.split())
    assert tuned.outcome("pocket-hh,ppo")["state"] == "failed"
    plan = tuned.plan()
    waiting = [item.axes["algorithm"] for item in plan.subjects if item.tuned is not None and item.tuned.waits]
    assert waiting == ["ppo", "ppo"] and plan.tuning is not None and not plan.tuning.to_go
    text = " ".join(tuned.run("report", "tuned").stdout.split())
    assert "Without results: dataset=pocket-hh algorithm=ppo (its tuning failed: the loss is NaN)" in text
    assert tuned.run("status", "tuned", "--exit-code").returncode == 0  # failed trials are nobody's any more
    assert "dataset=pocket-hh algorithm=ppo: nothing found: the loss is NaN" in tuned.run("plan", "sweep.yaml").stdout


@pytest.mark.slow
def test_two_workers_tune_together(tuned: Tuned) -> None:
    workers = [tuned.start_run(LIGHT_SECONDS="0.2") for _ in range(2)]
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    for (dataset, algorithm), (key, best) in BEST.items():
        assert tuned.outcome(f"{dataset},{algorithm}")["best"]["values"] == {key: best}


def test_cells_have_the_values_of_their_group_and_are_what_a_grid_of_these_values_makes(tuned: Tuned) -> None:
    for (dataset, algorithm), (key, best) in BEST.items():
        tuned.note(dataset, algorithm, {key: best})
    plan = tuned.plan()
    written = [
        {"dataset": dataset, "algorithm": algorithm, "seed": [0, 1], key: best}
        for (dataset, algorithm), (key, best) in BEST.items()
    ]
    tuned.write_whole({"grid": written, "tune": None})
    by_hand = tuned.plan()
    assert [item.stage for item in plan.subjects] == [item.stage for item in by_hand.subjects]
    assert plan.stages.keys() == by_hand.stages.keys()
    assert [dict(item.tuned.values) for item in plan.subjects if item.tuned][::2] == [
        {key: best} for key, best in BEST.values()
    ]


def test_a_group_that_is_not_finished_has_rows_and_no_stages_and_what_it_shares_is_there(tuned: Tuned) -> None:
    suites = {"policy": ["pocket-gold"], "reward_model": ["pocket-pairs"]}
    tuned.write_whole({"baselines": ["sft"], "evaluate": suites})
    tuned.note("pocket-hh", "dpo", {"dpo.beta": 0.1})
    plan = tuned.plan()
    trained = [stage for stage in plan.stages.values() if stage.kind == "train"]
    assert [beta_of(plan, stage.id) for stage in trained] == [0.1, 0.1]
    rows = [item for item in plan.subjects if item.subject == "policy" and item.role == "cell"]
    assert len(rows) == 8 and sum(item.stage in plan.stages for item in rows) == 2
    assert {item.tuned.waits for item in rows if item.tuned and item.stage not in plan.stages} == {
        f"its tuning is not finished: 0 of {points} trials have ended" for points in (3, 2)
    }
    assert sum(stage.kind == "reward_model" for stage in plan.stages.values()) == 4
    assert [item.role for item in plan.subjects if item.role != "cell"] == ["sft"]
    # where what they share is tuned, it can't be there
    tuned.write_whole({"baselines": ["sft"], "evaluate": suites}, search={"sft.epochs": {"choice": [1, 2]}})
    assert not tuned.plan().stages


def test_the_size_that_the_plan_tells_is_that_of_all_trials_together(tuned: Tuned) -> None:
    plan = tuned.plan()
    assert plan.tuning is not None
    tuner = Tuner(tuned.store, plan.loaded, plan.tuning, 1, Deaf())
    stages: set[str] = set()
    for sweeper in tuner.sweepers.values():
        [(key, given)] = sweeper.space.ranges.items()
        assert given.choice is not None
        stages |= sweeper.planner.all({key: value} for value in given.choice).stages.keys()
    assert tuner.most_stages() == len(stages)


def test_the_size_of_a_grid_is_its_points(tuned: Tuned) -> None:
    tuned.write(trials=8)
    assert describe_tuning(tuned.store, tuned.plan())[0].startswith("tuning: 4 groups (dataset × algorithm) × 2 or 3 ")


def test_cells_that_have_none_of_the_axes_are_a_group_with_a_name(tuned: Tuned) -> None:
    grid = [{"dataset": "pocket-hh", "algorithm": ["dpo", "ppo"]}]
    tuned.write_whole({"grid": grid}, over=["reward_model.dataset"], search={"dpo.beta": {"choice": [0.1, 1.0]}})
    lines = describe_tuning(tuned.store, tuned.plan())
    assert lines[1] == "  no reward_model.dataset: its tuning is not finished: 0 of 2 trials have ended"
    loaded = load_experiment(tuned.folder / "sweep.yaml")
    assert [group.name for group in groups_of(loaded, expand(loaded))] == ["none", "pocket-hh"]


def test_groups_of_long_names_have_folders_apart(tmp_path: Path) -> None:
    names = [Group({"policy": "ü" * 200 + end, "dataset": "hh"}, (), {}).name for end in ("a", "b")]
    for name in names:
        (tmp_path / name).mkdir()
    assert Group({"policy": "p/1", "dataset": "hh"}, (), {}).name == "p_1,hh"


@pytest.mark.parametrize("moment", ["while it is judged", "while it is written"])
def test_what_is_kept_of_a_group_is_never_behind_its_trials(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another worker ends the last trial, the best one, while this one keeps what there was."""
    tuner = begun(tuned, most=2)
    [sweeper] = tuner.sweepers.values()
    asked = [sweeper.study.ask() for _ in range(2)]
    for trial in asked:
        sweeper.space.suggest(trial)
    sweeper.study.tell(asked[0], 1.0)
    written: list[tuple[str, int | None]] = []
    is_over = sweeper.is_over

    def late_is_over() -> bool:
        if moment == "while it is judged":
            sweeper.study.tell(asked[1], 2.0, skip_if_finished=True)
        return is_over()

    def late_write(path: Path, value: dict[str, Any]) -> None:
        sweeper.study.tell(asked[1], 2.0, skip_if_finished=True)
        write_json(path, value)
        written.append((value["state"], value["best"]["number"]))

    monkeypatch.setattr(sweeper, "is_over", late_is_over)
    monkeypatch.setattr("ablate.sweeps.tuning.write_json", late_write)
    tuner._note("pocket-hh,dpo")
    assert written[-1] == ("tuned", 1) and ("tuned", 0) not in written


def begun(tuned: Tuned, *trials: float, most: int) -> Tuner:
    """A worker that has heard of new trials of the one group by what they reached, and asks for ``most``."""
    grid = [{"dataset": "pocket-hh", "algorithm": "dpo"}]
    tuned.write_whole({"grid": grid}, trials=most, sampler="random", search={"dpo.beta": {"choice": [0.1, 1.0]}})
    plan = tuned.plan()
    assert plan.tuning is not None
    tuned.store.open()
    tuner = Tuner(tuned.store, plan.loaded, plan.tuning, 1, Deaf())
    tuner.begin()
    [sweeper] = tuner.sweepers.values()
    for reached in trials:
        trial = sweeper.study.ask()
        sweeper.space.suggest(trial)
        sweeper.study.tell(trial, reached)
    tuner._note("pocket-hh,dpo")
    return tuner


def test_a_run_that_asked_for_fewer_trials_opens_no_group_again(tuned: Tuned) -> None:
    earlier = begun(tuned, 1.0, most=1)
    begun(tuned, 3.0, 3.0, most=3)
    earlier._note("pocket-hh,dpo")  # the last to write
    assert tuned.outcome("pocket-hh,dpo")["best"] | {"values": {}} == {
        "number": 1, "values": {}, "result": 3.0, "ties": [2]
    }  # fmt: skip
    tuning = tuned.plan().tuning
    assert tuning is not None and not tuning.to_go
    begun(tuned, most=4)
    tuning = tuned.plan().tuning
    assert tuning is not None and tuning.reason(tuning.groups[0]).endswith("3 of 4 trials have ended")


def test_what_is_shown_of_a_grid_has_as_many_trials_as_points(tuned: Tuned, capsys: pytest.CaptureFixture[str]) -> None:
    search = {"dpo.beta": {"choice": [0.03, 0.1, 1.0]}}
    tuned.write_whole({"grid": [{"dataset": "pocket-hh", "algorithm": "dpo"}]}, trials=8, search=search)
    plan = tuned.plan()
    assert plan.tuning is not None and plan.tuning.reason(plan.tuning.groups[0]).endswith(": 0 of 3 trials have ended")
    tuned.store.open()
    tuner = Tuner(tuned.store, plan.loaded, plan.tuning, 1, Deaf())
    tuner.begin()
    [sweeper] = tuner.sweepers.values()
    while (asked := sweeper._begin()) is not None:
        values = sweeper.space.suggest(asked[0])
        tell(sweeper.study, asked[0], [values["dpo.beta"]], TrialState.COMPLETE)
    tuner._note("pocket-hh,dpo")
    show_tuning(tuned.store, "tuned", as_json=False, other=None)
    lines = capsys.readouterr().out.splitlines()
    reached = "pocket-hh,dpo: trial {}: dpo.beta={:g} → pocket-validation-gold {:.4f}"
    betas = [trial["values"]["dpo.beta"] for trial in tuned.outcome("pocket-hh,dpo")["all"]]
    assert lines[:3] == [reached.format(number, beta, beta) for number, beta in enumerate(betas)]
    assert lines[3] == f"pocket-hh,dpo: 3 of 3 trials; best: trial {betas.index(1.0)}"


class Deaf:
    """Listens to nothing."""

    def began(self, group: object, trial: object, *, again: bool) -> None:
        """Hear nothing."""

    def told(self, group: object, trial: object) -> None:
        """Hear nothing."""

    def settled(self, group: object, outcome: object) -> None:
        """Hear nothing."""


def test_what_was_found_counts_for_the_search_that_found_it_alone(tuned: Tuned) -> None:
    tuned.note("pocket-hh", "dpo", {"dpo.beta": 0.1})
    loaded = load_experiment(tuned.folder / "sweep.yaml")
    assert len(read_tuning(loaded, tuned.store).to_go) == 3
    tuned.write(seed=3)
    assert len(read_tuning(load_experiment(tuned.folder / "sweep.yaml"), tuned.store).to_go) == 4
    tuned.write(trials=4)  # a grid has three points for it, and all were tried
    assert len(read_tuning(load_experiment(tuned.folder / "sweep.yaml"), tuned.store).to_go) == 3
    tuned.write(trials=4, sampler="random")
    assert len(read_tuning(load_experiment(tuned.folder / "sweep.yaml"), tuned.store).to_go) == 4
    tuned.write()
    tuned.store.experiment("tuned").group("pocket-hh,dpo").trials_jsonl.unlink()  # as the error of another search says
    assert len(read_tuning(load_experiment(tuned.folder / "sweep.yaml"), tuned.store).to_go) == 4


def test_a_search_that_a_limit_ended_goes_on_with_another_limit(tuned: Tuned) -> None:
    def to_go(**tune: Any) -> int:
        tuned.write(sampler="random", **tune)
        return len(read_tuning(load_experiment(tuned.folder / "sweep.yaml"), tuned.store).to_go)

    tuned.write(max_hours=1.0)
    limits = {"give_up": 3, "max_hours": 1.0, "max_gpu_hours": None}
    tuned.note("pocket-hh", "dpo", {"dpo.beta": 0.1}, ended={"complete": 1, "fail": 1}, limited_by=limits)
    tuned.note("pocket-hh", "ppo", {"ppo.kl_coefficient": 0.5})
    assert (to_go(max_hours=1.0), to_go(max_hours=2.0), to_go(), to_go(max_hours=1.0, give_up=4)) == (2, 3, 3, 3)


SEARCH = {"dpo.beta": {"log": [0.1, 1.0]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maximise": "pocket-gold"}, "pocket-gold is one of the suites that are reported"),
        ({"maximise": "pocket-gold"}, "did you mean 'pocket-validation-gold'?"),
        ({"maximise": "pocket-safety"}, "pocket-gold reads the test split of the pocket world, too"),
        (
            {"subject_to": {"pocket-chat": {"at_least": 0.2}}},
            "tune.subject_to.pocket-chat: pocket-chat is no validation suite",
        ),
        ({"maximise": "pocket-validation-gald"}, "no trial has a result 'pocket-validation-gald'"),
        ({"maximise": "training/kl"}, "no trial has a result 'training/kl'"),
        ({"maximise": "average"}, "average is taken over suites, and tune.suites has none for it"),
        ({"maximise": "safety", "suites": ["pocket-validation-if"]}, "safety is taken over suites"),
        ({"maximise": "average", "suites": ["pocket-validation-chat", "pocket-if"]}, "tune.suites.1: pocket-if is no"),
        ({"suites": ["pocket-pairs"]}, "no suite of policies is called 'pocket-pairs'"),
        ({"maximise": ["pocket-validation-gold", "-pocket-validation-nouns"]}, "a group has one winner"),
        ({"search": {"dpo.bata": {"log": [0.1, 1]}}}, "did you mean 'dpo.beta'"),
        (
            {"search": {**SEARCH, "ipo.beta": {"log": [0.1, 1]}}},
            "ipo.beta is searched, and no cell of the grid reads it",
        ),
        ({"search": {"seed": {"int": [0, 3]}}}, "seed names what is compared: it can't be tuned"),
        ({"search": {"reward_model.init": {"choice": ["pocket-small"]}}}, "reward_model.init names what is compared"),
        ({"search": SEARCH, "over": ["datset"]}, "unknown axis 'datset' did you mean 'dataset'?"),
        ({"search": SEARCH, "over": ["seed"]}, "trials have one seed"),
        ({"search": SEARCH, "start": [{"dpo.epochs": 1}]}, "dpo.epochs is not searched"),
        ({"search": SEARCH, "sampler": "tpe", "start": [{"dpo.beta": 5.0}]}, "5.0 is outside of dpo.beta's range"),
        ({"search": {"dpo.beta": {"uniform": [-1, 1]}}, "sampler": "tpe"}, "should be greater than 0 (found -1.0)"),
        ({"search": SEARCH}, "tune.sampler: a grid has points: dpo.beta needs choice, or step"),
        ({"sampler": "tpa"}, "tune.sampler: unknown sampler 'tpa'"),
        ({"trials": 0}, "greater than or equal to 1"),
        ({"tryals": 2}, "unknown key 'tryals'"),
    ],
)
def test_what_makes_no_sense_is_told_at_its_line(tuned: Tuned, changes: dict[str, Any], message: str) -> None:
    tuned.write(**changes)
    error = refusal(tuned)
    assert message in " ".join(error.split()) and re.match(r"\S*sweep.yaml:\d+: (tune|dpo.beta)", error), error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": [{"dataset": "pocket-hh", "algorithm": "dpo", "dpo.beta": [0.1, 1]}]}, "is searched, and an axis of"),
        ({"when": [{"if": {"dataset": "pocket-hh"}, "set": {"dpo": {"beta": 1.0}}}]}, "set by a rule of `when` at"),
        (
            {"grid": [{"policy": {"from": {"algorithm": "dpo"}}, "dataset": "pocket-hh", "algorithm": ["dpo", "ppo"]}]},
            "from which cells start, is made with it tuning does not reach policies of other cells",
        ),
        ({"sweep": {"search": SEARCH, "maximise": "pocket-gold", "trials": 1}}, "a sweep, whose trials are its rows"),
    ],
)
def test_a_searched_key_is_said_nowhere_else(tuned: Tuned, changes: dict[str, Any], message: str) -> None:
    tuned.write_whole(changes)
    assert message in " ".join(refusal(tuned).split())


def test_an_override_of_a_searched_key_is_refused(tuned: Tuned) -> None:
    with pytest.raises(UsageError, match=r"'dpo\.beta' is tuned, so this override would change no cell"):
        tuned.plan("dpo.beta=0.2")


def test_a_copy_of_a_test_file_is_no_validation_suite(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same examples under another name are found by their content; other examples are allowed."""
    (tuned.folder / "evals").mkdir()
    common = {"subject": "policy", "engine": "items", "prompts": "gsm8k", "grader": "gsm8k", "primary": "exact_match"}
    suites = {}
    for name, question in (("mine-test", "1 + 1?"), ("mine-copy", "1 + 1?"), ("mine-other", "2 + 2?")):
        (tuned.folder / f"{name}.jsonl").write_text(json.dumps({"question": question, "answer": "#### 2"}) + "\n")
        suites[name] = {"title": name, "category": "reasoning", "data": {"files": [f"{name}.jsonl"]}}
    written = yaml.safe_dump({"common": common, "suites": suites})
    (tuned.folder / "evals/mine.yaml").write_text(written)
    monkeypatch.chdir(tuned.folder)
    monkeypatch.setenv("ABLATE_DATA", str(tuned.folder))
    evaluate = {"evaluate": {"policy": ["mine-test"], "reward_model": []}}
    tuned.write_whole(evaluate, maximise="mine-copy")
    error = " ".join(refusal(tuned).split())
    assert "mine-copy is no validation suite: mine-test reads mine-test.jsonl, too" in error
    assert "did you mean 'mine-other'?" in error
    tuned.write_whole(evaluate, maximise="mine-other")
    assert tuned.plan().tuning is not None


def test_groups_search_what_their_cells_read(tuned: Tuned) -> None:
    search = {
        "dpo.beta": {"log": [0.1, 1]},
        "reward_model.learning_rate": {"log": [1e-4, 1e-3]},
        "ppo.gamma": {"uniform": [0.9, 1], "when": {"dataset": "pocket-hh"}},
        "ppo.kl_coefficient": {"log": [0.1, 1], "when": {"ppo.gamma": 1}},
    }
    grid = [{"dataset": ["pocket-hh", "pocket-shp"], "algorithm": ["dpo", "ppo", "ipo"]}]
    tuned.write_whole({"grid": grid}, search=search)
    loaded = load_experiment(tuned.folder / "sweep.yaml")
    groups = groups_of(loaded, expand(loaded))
    assert {group.name: list(group.search) for group in groups} == {
        "pocket-hh,dpo": ["dpo.beta"],
        "pocket-hh,ppo": ["reward_model.learning_rate", "ppo.gamma", "ppo.kl_coefficient"],
        "pocket-hh,ipo": [],
        "pocket-shp,dpo": ["dpo.beta"],
        "pocket-shp,ppo": ["reward_model.learning_rate"],
        "pocket-shp,ipo": [],
    }


def refusal(tuned: Tuned) -> str:
    """What planning the experiment and its tuning raises, without a process of its own."""
    with pytest.raises(AblateError) as caught:
        describe_tuning(tuned.store, tuned.plan())
    assert caught.value.exit_code == 2
    assert not list(tuned.store.root.glob("experiments/*"))
    return str(caught.value)
