"""Where a process of the sandbox runs: bubblewrap's namespaces and a filter of system calls, or, on demand, none."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ablate.errors import StageError
from ablate.sandbox.program import SCRATCH_BYTES
from ablate.sandbox.seccomp import known_machine, program_filter

_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the same order of sets every time
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_HARNESS = "/harness"
_HOW = "install bubblewrap (apt-get install bubblewrap, dnf install bubblewrap)"
_OR = "or allow programs to run with your rights: --unsafe-code"


@dataclass(frozen=True)
class Box:
    """A way to start a process of the sandbox; ``bubblewrap`` is empty where programs run unguarded."""

    bubblewrap: str
    scratch: tuple[str, ...] = ()
    """Arguments that make the scratch folder."""
    version: str = ""

    @property
    def name(self) -> str:
        """What health and protocol call it."""
        return self.version or "none: reliability guard and resource limits only"

    @contextmanager
    def start(
        self, module: str, arguments: Sequence[int], descriptor: int, *, processes: bool
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``main(descriptor, *arguments)`` of a module of this package in a box that is gone when the block ends.

        ``descriptor`` stays open in it, nothing else does. ``processes``: it may fork.
        """
        with _scratch(make=not self.bubblewrap) as scratch, _filter(processes, make=bool(self.bubblewrap)) as filtered:
            process = subprocess.Popen(
                [*self._walls(filtered), *_python(module, (descriptor, *arguments), self._harness)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[descriptor] if filtered is None else [descriptor, filtered],
                env=_ENVIRONMENT | ({"HOME": scratch} if scratch else {}),
                cwd=scratch or "/",
                start_new_session=True,
            )
            try:
                yield process
            finally:
                _end(process)
                if process.stderr:
                    process.stderr.close()

    @property
    def _harness(self) -> str:
        return _HARNESS if self.bubblewrap else str(Path(__file__).parents[2])

    def _walls(self, filtered: int | None) -> list[str]:
        if filtered is None:
            return []
        return [
            *(self.bubblewrap, "--unshare-all", "--unshare-user", "--die-with-parent", "--cap-drop", "ALL"),
            *self.scratch,  # first: packages may lie below /tmp themselves
            *_binds(),
            *("--ro-bind", str(Path(__file__).parent), f"{_HARNESS}/ablate/sandbox"),
            *("--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"),
            *("--remount-ro", "/", "--chdir", "/tmp", "--seccomp", str(filtered), "--"),
        ]


def find_box(*, unsafe: bool) -> Box:
    """The box of this machine; ``unsafe``: none, without asking. Raises StageError that says what to install."""
    if unsafe:
        return Box("")
    if sys.platform != "linux" or not known_machine():
        raise StageError(
            f"there is no sandbox for generated code on {sys.platform} ({platform.machine()})",
            hint=f"grade on Linux (x86_64 or aarch64), {_OR}",
        )
    found = shutil.which("bwrap")
    if found is None:
        raise StageError("generated code is run in a sandbox, and bwrap is not on PATH", hint=f"{_HOW}, {_OR}")
    return _bubblewrap(found)


def refused(box: Box, process: subprocess.Popen[bytes]) -> StageError:
    """The error for a process that ended before it was ready: what it said."""
    _end(process)
    said = process.stderr.read().decode(errors="replace").strip()[-500:] if process.stderr else ""
    hint = (
        f"bubblewrap needs user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces), {_OR}"
    )
    return StageError(f"the sandbox for generated code does not start: {said}", hint=hint if box.bubblewrap else None)


@cache
def _bubblewrap(path: str) -> Box:
    def says(option: str) -> str:
        return subprocess.run([path, option], capture_output=True, text=True, timeout=20, check=False).stdout

    # Before 0.7 a temporary file system has no limit, so programs get none to write to.
    sized = "--size" in says("--help")
    scratch = ("--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp") if sized else ("--dir", "/tmp")
    return Box(path, scratch, says("--version").strip())


@cache
def _binds() -> tuple[str, ...]:
    """The system's libraries, this Python and its packages, read only; no home, no configuration, no project."""
    binds: list[str] = ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for name in ("/bin", "/lib", "/lib32", "/lib64", "/sbin"):
        if os.path.islink(name):
            binds += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            binds += ["--ro-bind", name, name]
    base = Path(os.path.realpath(sys.base_prefix))
    parts = [base / name for name in ("bin", "lib", "lib64")] + [Path(path) for path in _packages()]
    for path in dict.fromkeys(parts):
        if path.is_dir() and not path.is_relative_to("/usr"):
            binds += ["--ro-bind", str(path), str(path)]
    return tuple(binds)


def _packages() -> list[str]:
    """Folders of installed packages, without the project's own."""
    paths = sysconfig.get_paths()
    return list(dict.fromkeys(os.path.realpath(paths[name]) for name in ("purelib", "platlib")))


def _python(module: str, arguments: Sequence[int], harness: str) -> list[str]:
    """A Python that reads no configuration of its own, imports the module's ``main`` and forgets where that was."""
    code = (
        f"import sys; sys.path.insert(0, {harness!r}); from ablate.sandbox.{module} import main; "
        f"del sys.path[0]; sys.path += {_packages()!r}; main{tuple(arguments)!r}"
    )
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return [executable, "-s", "-S", "-P", "-B", "-c", code]


@contextmanager
def _filter(processes: bool, *, make: bool) -> Iterator[int | None]:
    """A descriptor to read the filter of system calls from."""
    if not make:
        yield None
        return
    descriptor = os.memfd_create("filter")
    try:
        os.write(descriptor, program_filter(processes=processes))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _scratch(*, make: bool) -> Iterator[str]:
    """A folder for a program that has no file system of its own."""
    if not make:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="ablate-program-") as folder:
        yield folder


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started: its namespace goes with it, or its session where there is none."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
