"""Servers that the stages of a job ask (a vLLM that judges, or samples): started with the job, ended with it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ablate.errors import AblateError, StopRequested
from ablate.execution.children import forked
from ablate.execution.slots import visible_gpus
from ablate.execution.slurm.profile import Service

PAUSE_SECONDS = 0.5
GRACE_SECONDS = 20.0
"""Between asking a server to end and killing it."""


class ServiceError(AblateError):
    """A server that did not come up."""


def shell_line(service: Service, model: str, port: int) -> str:
    """Return what starts a server, for bash."""
    command = service.command.replace("{model}", shlex.quote(model)).replace("{port}", str(port))
    return "\n".join(filter(None, (service.setup.rstrip(), f"exec {service.container} {command}")))


@contextmanager
def running(
    name: str, service: Service, model: str, gpus: Sequence[int], log: Path, stopped: Callable[[], bool]
) -> Iterator[str]:
    """Start a server on some of the job's GPUs, wait until it answers, and give its address; end it with the block.

    What it prints goes to ``log``. Raises ServiceError where it ends, or does not answer within its ``start``;
    StopRequested where the job is ``stopped`` meanwhile.
    """
    port = _free_port()
    server = forked(lambda: _become(shell_line(service, model, port), gpus, log))
    try:
        _wait(name, service, f"http://127.0.0.1:{port}{service.health}", server, log, stopped)
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(server)


def _become(line: str, gpus: Sequence[int], log: Path) -> int:
    os.setsid()  # so that all that it starts can be ended with it
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    visible = visible_gpus()
    names = (str(gpu) if visible is None else visible[gpu] for gpu in gpus)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(names)}
    environment.pop("PYTHONPATH", None)  # of our own code: a server has an environment of its own
    os.execvpe("bash", ["bash", "-c", line], environment)


def _wait(name: str, service: Service, address: str, server: int, log: Path, stopped: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60 * service.start
    while not _answers(address):
        if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise ServiceError(f"service {name} ended before it answered", hint=f"what it printed: {log}")
        if stopped():
            raise StopRequested(f"stopped while service {name} started")
        if time.monotonic() > deadline:
            raise ServiceError(
                f"service {name} gives {address} no answer after {service.start} minutes",
                hint=f"what it printed: {log}; services.{name}.start and health are in the profile",
            )
        time.sleep(PAUSE_SECONDS)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _end(server: int) -> None:
    """End a server and all that it started."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        try:
            os.killpg(server, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.05)
    os.waitpid(server, 0)
