"""Kinds and methods whose work is replaced, and the command line with them."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable

from ablate.algorithms.registry import METHODS
from ablate.cli import main
from ablate.plan.kinds import KINDS, Kind


def use(entry: str) -> None:
    """Let every kind and method have this work, `module:function`, from now on."""
    for name in KINDS:
        KINDS[name] = Kind(entry, heavy=False)
    for name, method in METHODS.items():
        METHODS[name] = dataclasses.replace(method, entry=entry)


def run(before: Callable[[], None] = lambda: None) -> None:
    """Run the command line, interruptible, after ``before``."""
    # a shell starts background jobs with SIGINT ignored, and children inherit that: tests may run in one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before()
    main()
