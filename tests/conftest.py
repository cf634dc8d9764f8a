"""Settings every test runs under: no network, one torch thread, what a clone lacks (data, SLURM) only where it is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
# Set when the file is loaded: libraries read these once, at their import, and child processes inherit them.
os.environ.update(OFFLINE)

LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "0.0.0.0", ""}


def required() -> set[str]:
    """Return what must be present here (``ABLATE_REQUIRE="data slurm"``): its absence fails instead of skipping."""
    return set(os.environ.get("ABLATE_REQUIRE", "").replace(",", " ").split())


def missing_data() -> str | None:
    """Return why tests marked ``data`` cannot run, or None."""
    root = os.environ.get("ABLATE_DATA")
    if not root:
        return "ABLATE_DATA is not set: name the folder that holds the data files"
    return None if Path(root).is_dir() else f"ABLATE_DATA={root} is not a folder"


def missing_slurm() -> str | None:
    """Return why tests marked ``slurm`` cannot run, or None."""
    if shutil.which("sinfo") is None or shutil.which("sbatch") is None:
        return "no SLURM commands on PATH"
    answer = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=20, check=False)
    return None if answer.returncode == 0 else f"sinfo fails: {answer.stderr.strip()[-200:]}"


def missing_tmpfs() -> str | None:
    """Return why tests marked ``tmpfs`` cannot run, or None."""
    if shutil.which("mount") is None:
        return "no mount command on PATH"
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if answer.returncode:
            return f"mounting a tmpfs fails, which needs root and the right to mount: {answer.stderr.strip()[-200:]}"
        subprocess.run(["umount", folder], timeout=20, check=True)
    return None


def missing_latex() -> str | None:
    """Return why tests marked ``latex`` cannot run, or None."""
    return None if shutil.which("pdflatex") else "no pdflatex on PATH"


def missing_bubblewrap() -> str | None:
    """Return why generated programs can't be run in the sandbox, or None."""
    if shutil.which("bwrap") is None:
        return "no bwrap on PATH"
    command = ["bwrap", "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "true"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return None if answer.returncode == 0 else f"bwrap fails: {answer.stderr.strip()[-200:]}"


def missing_serving() -> str | None:
    """Return why `transformers serve` can't be started, or None."""
    absent = [name for name in ("fastapi", "openai", "uvicorn") if find_spec(name) is None]
    return f"`transformers serve` needs packages that are not there: {', '.join(absent)}" if absent else None


def missing_deepspeed() -> str | None:
    """Return why DeepSpeed can't share out a model, or None."""
    return None if find_spec("deepspeed") else "DeepSpeed is not installed: pip install 'ablate[deepspeed]'"


def missing_qlora() -> str | None:
    """Return why weights can't be held in four bits, or None."""
    return None if find_spec("bitsandbytes") else "bitsandbytes is not installed: pip install 'ablate[qlora]'"


def missing_alpaca_eval() -> str | None:
    """Return why our numbers can't be compared with AlpacaEval's own, or None."""
    return None if find_spec("alpaca_eval") else "the package alpaca_eval is not installed: pip install 'ablate[dev]'"


def missing_browser() -> str | None:
    """Return why pages can't be opened in a browser, or None."""
    return None if shutil.which("chromium") else "no chromium on PATH"


PROBES: dict[str, Callable[[], str | None]] = {
    "data": missing_data,
    "slurm": missing_slurm,
    "tmpfs": missing_tmpfs,
    "latex": missing_latex,
    "bubblewrap": missing_bubblewrap,
    "serving": missing_serving,
    "deepspeed": missing_deepspeed,
    "qlora": missing_qlora,
    "browser": missing_browser,
    "alpaca_eval": missing_alpaca_eval,
}


def pytest_configure() -> None:
    """Refuse a requirement that nothing checks."""
    if unknown := required() - PROBES.keys():
        raise pytest.UsageError(f"ABLATE_REQUIRE names {sorted(unknown)}; allowed: {sorted(PROBES)}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count tests that ask for ``data_root`` as marked ``data``, those that ask for ``chromium`` as ``browser``."""
    for item in items:
        for fixture, name in (("data_root", "data"), ("chromium", "browser")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(name)


@cache
def absent(name: str) -> str | None:
    """Return why ``name`` is absent here, or None; looked up once."""
    return PROBES[name]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose need is absent; under ABLATE_REQUIRE it fails."""
    for name in PROBES:
        reason = absent(name) if item.get_closest_marker(name) else None
        if reason and name in required():
            pytest.fail(f"ABLATE_REQUIRE asks for {name}: {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with real data files, from ABLATE_DATA; a test that asks for it counts as marked ``data``."""
    return Path(os.environ["ABLATE_DATA"]).resolve()


@pytest.fixture(autouse=True)
def single_thread() -> None:
    """One torch thread, also after a test that set another number; tests without torch do not pay for its import."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines, so that a test cannot come to depend on a download."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL_HOSTS:
            raise OSError(f"tests have no network: connection to {address} refused")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


class JudgeServer(ThreadingHTTPServer):
    """An OpenAI-compatible API on this machine that chats and completes as a test says.

    ``reply`` makes the answer's text of the request's body, or the whole choice; ``names`` are the models served;
    ``failures`` are sent first, one a request: (status, headers, content), or a number of seconds to say nothing.
    ``down_after``: how many questions are answered before every connection is cut.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.reply: Callable[[dict[str, Any]], str | dict[str, Any]] = lambda body: "7"
        self.failures: list[tuple[int, dict[str, str], bytes] | float] = []
        self.usage: dict[str, int] | None = {"prompt_tokens": 100, "completion_tokens": 10}
        self.down_after: int | None = None
        self.names = ["big-1"]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), JudgeHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answer(self, body: dict[str, Any]) -> bytes:
        made = self.reply(body)
        said = {"text": made} if "prompt" in body else {"message": {"content": made}}
        choice = {**said, "finish_reason": "stop"} if isinstance(made, str) else made
        usage = {} if self.usage is None else {"usage": self.usage}
        return json.dumps({"choices": [choice], "model": f"{body['model']}-0613", **usage}).encode()


class JudgeHandler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            failure = server.failures.pop(0) if server.failures else None
            server.keys.append(self.headers["Authorization"])
            server.times.append(time.monotonic())
            is_down = server.down_after is not None and len(server.asked) >= server.down_after
            if failure is None and not is_down:
                server.asked.append(body)
        if isinstance(failure, float):
            time.sleep(failure)
        if is_down or isinstance(failure, float):
            self.close_connection = True
            return
        status, headers, content = failure or (200, {}, server.answer(body))
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        self.say(status if self.path == path else 404, headers, content)

    def do_GET(self) -> None:
        content = json.dumps({"data": [{"id": name} for name in self.server.names]}).encode()
        self.say(200 if self.path == "/v1/models" else 404, {}, content)

    def say(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", headers.get("X-Claimed-Length") or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def judge_server() -> Iterator[JudgeServer]:
    """An API that a test scripts."""
    made = JudgeServer()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()
