"""Who has a trial of a sweep, and whether that worker is still there: leases, which are like those on stages."""

from __future__ import annotations

from ablate.context import read_json
from ablate.execution import lease
from ablate.liveness import Owner, is_running
from ablate.store import AttemptFolder, ExperimentFolder

LOSSES = 5
"""Workers that may die over one trial before it counts as failed: it may be what kills them."""


class TrialLeases:
    """The leases on a sweep's trials, as one of its workers takes and sees them."""

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._heard: dict[int, float] = {}

    def claim(self, number: int) -> AttemptFolder | None:
        """Take a trial; None where another worker has it."""
        return lease.claim(self._folder.leases(number))

    def holds(self, number: int, held: AttemptFolder) -> bool:
        """Say that this worker is alive; tell whether a trial is still its: others take over what stands still."""
        lease.beat(held)
        return self._all(number)[-1].number == held.number

    def earlier(self, number: int) -> list[AttemptFolder]:
        """Return the leases on a trial but for the last."""
        return self._all(number)[:-1]

    def is_open(self, number: int) -> bool:
        """Tell whether a trial may be without a worker.

        The death of one on another machine is certain only after minutes; a sign of life meanwhile is enough.
        """
        attempts = self._all(number)
        return not attempts or not is_running(attempts[-1]) or self._is_quiet(number, attempts[-1])

    def listen_anew(self) -> None:
        """Count only signs of life from now on: this worker has something to do again."""
        self._heard.clear()

    def _all(self, number: int) -> list[AttemptFolder]:
        return self._folder.leases(number).attempts()

    def _is_quiet(self, number: int, attempt: AttemptFolder) -> bool:
        """Tell whether a worker on another machine has given no sign of life since this one has nothing to do."""
        modified = attempt.heartbeat.stat().st_mtime
        is_here = Owner(**read_json(attempt.owner_json)).is_here
        return not is_here and self._heard.setdefault(number, modified) == modified
