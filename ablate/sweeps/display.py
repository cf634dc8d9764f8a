"""What a sweep shows: a line a trial that ends, and on a terminal what runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.status import Status

from ablate.execution import runner
from ablate.experiment.sweep import Sweep, Tune
from ablate.experiment.tuning import Group, Outcome
from ablate.plan.stage import Stage
from ablate.sweeps.space import spelled
from ablate.trials import trial_facts


class StageDisplay:
    """Told how stages end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.running: dict[str, str] = {}
        self.ended_count: Counter[str] = Counter()
        self.status = Status("", console=console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.status:
            self.status.stop()

    def started(self, stage: Stage) -> None:
        """Show the stage as running."""
        self.running[stage.id] = stage.execution.label

    def waiting(self, stage: Stage) -> None:
        """Show that another process runs it."""
        self.running.pop(stage.id, None)

    def ended(self, stage: Stage, outcome: runner.Outcome) -> None:
        """Print a failure; what ends well is told with its trial."""
        self.running.pop(stage.id, None)
        self.ended_count[outcome.status] += 1
        if outcome.status == "failed":
            self._print(f"failed: {stage.execution.label} ({stage.id}): {outcome.message}")

    def tick(self) -> None:
        """Show what runs."""
        if self.status:
            names = ", ".join(list(self.running.values())[:3])
            self.status.update(f"{self.ended_count['done']} stages done; {names}")

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class SweepDisplay(StageDisplay):
    """Told how the trials of a sweep begin and end."""

    def __init__(self, console: Console, sweep: Sweep) -> None:
        super().__init__(console)
        self.sweep = sweep

    def began(self, trial: FrozenTrial, *, again: bool) -> None:
        """Print a trial with its values."""
        self._print(begin_line(trial, again=again))

    def told(self, trial: FrozenTrial) -> None:
        """Print a trial with its values and what it reached."""
        self._print(trial_line(trial_facts(trial, self.sweep.maximise)))


class TuningDisplay(StageDisplay):
    """Told how the trials of groups begin and end, and how the groups end."""

    def __init__(self, console: Console, tune: Tune) -> None:
        super().__init__(console)
        self.tune = tune

    def began(self, group: Group, trial: FrozenTrial, *, again: bool) -> None:
        """Print a trial with its group and its values."""
        self._print(f"{group.label}: {begin_line(trial, again=again)}")

    def told(self, group: Group, trial: FrozenTrial) -> None:
        """Print a trial with its group, its values and what it reached."""
        self._print(f"{group.label}: {trial_line(trial_facts(trial, self.tune.maximise))}")

    def settled(self, group: Group, outcome: Outcome) -> None:
        """Print what was found for a group."""
        self._print(outcome_line(group, outcome, self.tune))


def outcome_line(group: Group, outcome: Outcome, tune: Tune) -> str:
    """Return in a line what was found for a group, or why nothing."""
    if outcome.result is None:
        return f"{group.label}: nothing found: {outcome.cause}"
    found, name = spelled(list(outcome.values.items())), tune.maximise[0].removeprefix("-")
    return f"{group.label}: {found}, {name} {outcome.result:.4f}, the best of {sum(outcome.ended.values())} trials"


def begin_line(trial: FrozenTrial, *, again: bool) -> str:
    """Return in a line that a trial begins, or goes on."""
    return f"trial {trial.number}: {spelled(list(trial.params.items()))} {'goes on' if again else 'begins'}"


def trial_line(facts: Mapping[str, Any]) -> str:
    """Return what :func:`ablate.trials.trial_facts` has of a trial in a line."""
    if facts["results"] is None:
        outcome = facts["state"] + (f": {facts['cause']}" if facts["cause"] else "")
    else:
        outcome = ", ".join(f"{name.removeprefix('-')} {value:.4f}" for name, value in facts["results"].items())
    return f"trial {facts['number']}: {spelled(list(facts['values'].items()))} → {outcome}"
