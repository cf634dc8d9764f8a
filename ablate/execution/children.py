"""Forked processes that end when their parent does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def forked(work: Callable[[], int]) -> int:
    """Fork a process that ends with the code that ``work`` returns, or when its parent does; returns its id."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _die_with(parent)
        code = work()
    finally:
        os._exit(code)  # whatever happened, the child never returns into its parent's code


def _die_with(parent: int) -> None:
    """Let this process be killed when ``parent`` ends; it leaves Ctrl-C to the supervisor and ends on other signals."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
