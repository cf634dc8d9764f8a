"""Programs that mean harm or want to pass without being right: none passes, none reaches anything, none survives."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablate.sandbox.box import find_box
from ablate.sandbox.judge import MEMORY, Group, Problem, UnitTests, Verdict, judge

pytestmark = pytest.mark.bubblewrap

ROOT = Path(__file__).resolve().parents[2]
SECRET = "open sesame 7c1f"
OWN_MEMORY = MEMORY + 4096 * (1 + os.getpid() % 1000)
"""A limit that no other run has, so that the processes of this one are known by their command lines."""

# Right is f(1) == 2, f(2) == 3 and g() == SECRET.
TESTS = UnitTests(
    (Group("all", code=f"assert candidate(1) == 2\nassert candidate(2) == 3\nassert g() == {SECRET!r}\n"),),
    entry="f",
    seconds=2.0,
)
RIGHT = f"def f(x):\n    return x + 1\ndef g():\n    return {SECRET!r}\n"
AROUND = "def f(x):\n    return x + 1\n"
"""Right but for g, whose value a program would have to find."""


def forged(message: object) -> str:
    body = json.dumps(message).encode()
    return repr(len(body).to_bytes(8, "big") + body)


VERDICT = {"passed": {"all": True}, "why": "passed", "error": ""}
CHEATS = {
    "exits at once": "import os\nos._exit(0)\n",
    "exits politely": "import sys\nsys.exit(0)\n",
    "raises SystemExit when called": "def f(x):\n    raise SystemExit(0)\n",
    "exits when called": "import os\ndef f(x):\n    os._exit(0)\n",
    "exits after the answers": "import os, atexit\natexit.register(os._exit, 0)\n" + AROUND,
    "ends loops": "def f(x):\n    raise StopIteration\ndef g():\n    raise StopIteration\n",
    "replaces AssertionError": (
        "import builtins\nclass Never(Exception):\n    pass\nbuiltins.AssertionError = Never\n"
        "AssertionError = Never\n__debug = False\ndef f(x):\n    return 0\ng = f\n"
    ),
    "replaces the tests": "def check(candidate):\n    return True\ncandidate = check\ndef f(x):\n    return 0\ng = f\n",
    "replaces builtins": (
        "import builtins\nfor name in ('all', 'any', 'len', 'isinstance', 'compile', 'exec', 'repr'):\n"
        "    setattr(builtins, name, lambda *_, **__: True)\ndef f(x):\n    return 0\ng = lambda: 0\n"
    ),
    "equals everything": (
        "class Yes:\n    def __eq__(self, other):\n        return True\n"
        "    def __ne__(self, other):\n        return False\n"
        "    __hash__ = object.__hash__\ndef f(x):\n    return Yes()\ndef g():\n    return Yes()\n"
    ),
    "equals everything as a number": (
        "class Yes(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n"
        "def f(x):\n    return Yes(7)\ndef g():\n    return Yes(7)\n"
    ),
    "equals everything as a text": AROUND
    + "class Yes(str):\n    def __eq__(self, other):\n        return True\n    __hash__ = str.__hash__\n"
    "def g():\n    return Yes('x')\n",
    "prints a verdict": f"print({json.dumps(VERDICT)!r}, flush=True)\n" + AROUND,
    "writes a verdict everywhere": (
        f"import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, {forged(VERDICT)})\n"
        "    except OSError:\n        pass\n" + AROUND + "def g():\n    return 0\n"
    ),
    "answers ahead": (
        f"import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, {forged({'value': None})} * 9)\n"
        "    except OSError:\n        pass\n"
    ),
    "sends no JSON": (
        "import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, (9).to_bytes(8, 'big') + b'[[[[[[[[[')\n"
        "    except OSError:\n        pass\n"
    ),
    "sends without end": (
        "import os\ndef f(x):\n    for fd in range(3, 64):\n        try:\n"
        "            os.write(fd, (1 << 62).to_bytes(8, 'big'))\n        except OSError:\n            pass\n"
        "    while True:\n        pass\n"
    ),
    "returns too much": "def f(x):\n    return 'x' * (1 << 27)\n",
    "returns without end": "import itertools\ndef f(x):\n    return itertools.count()\n",
    "returns itself": "def f(x):\n    a = []\n    a.append(a)\n    return a\n",
    "claims a reference": (
        "import os\nfor fd in range(3, 64):\n    try:\n"
        f"        os.write(fd, {forged({'value': {'reference': [99, True]}})})\n"
        "    except OSError:\n        pass\n"
    ),
    "closes its descriptors": "import os\nos.closerange(0, 64)\n" + AROUND,
    "reads what is expected": AROUND
    + """
import gc, os, sys
def texts():
    frame = sys._getframe()
    while frame:
        yield repr(frame.f_locals) + repr(frame.f_globals)
        frame = frame.f_back
    yield from (repr(value)[:10000] for value in gc.get_objects() if isinstance(value, (str, bytes, list, dict, tuple)))
    yield repr(sys.argv) + repr(sys.orig_argv) + repr(dict(os.environ))
    for top in ("/harness", "/proc", os.environ["HOME"], "/dev"):
        for folder, _, names in os.walk(top):
            for name in names:
                try:
                    yield open(os.path.join(folder, name), "rb").read(1 << 20).decode("latin-1")
                except OSError:
                    pass
    for fd in range(64):
        try:
            os.set_blocking(fd, False)
            yield os.read(fd, 1 << 20).decode("latin-1")
        except OSError:
            pass
def g():
    for text in texts():
        place = text.find("open " + "sesame")
        if place >= 0:
            return text[place:place + 16]
""",
    "traces": AROUND
    + "import sys\nseen = []\ndef trace(frame, event, arg):\n    seen.extend(map(repr, frame.f_locals.values()))\n"
    "    return trace\nsys.settrace(trace)\ndef g():\n    return ([t for t in seen if 'sesame' in t] or [0])[0]\n",
    "sleeps": "import time\ndef f(x):\n    time.sleep(60)\n    return x + 1\n",
    "loops": "def f(x):\n    while True:\n        pass\n",
    "loops at once": "while True:\n    pass\n",
    "prints without end": "while True:\n    print('x' * 100000)\n",
    "takes ten gigabytes": "taken = bytearray(10 << 30)\n" + RIGHT,
    "is no Python": "def f(x:\n",
    "holds null bytes": "\0",
    "is empty": "",
    "has no such function": "def h(x):\n    return x + 1\n",
}


# Each returns what is right only if it got what it wanted.
def if_possible(attempt: str, imports: str = "import os") -> str:
    lines = "\n".join("        " + line for line in attempt.split("\n"))
    return (
        f"{imports}\ndef wanted():\n    try:\n{lines}\n    except BaseException:\n        return False\n"
        f"got = wanted()\ndef f(x):\n    return x + 1 if got else 0\ndef g():\n    return {SECRET!r}\n"
    )


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    server = socket.create_server(("127.0.0.1", 0))
    yield server
    server.close()


@pytest.fixture(scope="module")
def harms(tmp_path_factory: pytest.TempPathFactory, listener: socket.socket) -> dict[str, str]:
    secret = tmp_path_factory.mktemp("home") / "secret"
    secret.write_text("secret")
    port = listener.getsockname()[1]
    places = [Path("/left-behind"), Path("/usr/left-behind"), Path("/dev/left-behind")]
    # A box has a temporary folder of its own, in which a program may write.
    places += [] if ROOT.is_relative_to(tempfile.gettempdir()) else [ROOT / "left-behind"]
    places += [Path("/harness/left-behind"), Path("/harness/ablate/sandbox/left-behind"), secret]
    return {
        "reads a file of the user": if_possible(f"return bool(open({str(secret)!r}).read())"),
        "reads the project": if_possible(f"return bool(open({str(ROOT / 'README.md')!r}).read())"),
        "reads passwords": if_possible("return bool(open('/etc/passwd').read())"),
        "sees processes": if_possible("return bool(os.listdir('/proc'))"),
        "reads the environment": if_possible("return 'ABLATE_SECRET' in os.environ"),
        "connects": if_possible(f"socket.create_connection(('127.0.0.1', {port}), 1)\nreturn True", "import socket"),
        "looks a name up": if_possible("socket.getaddrinfo('example.org', 80)\nreturn True", "import socket"),
        "forks": if_possible("return os.fork() >= 0"),
        "starts a program": if_possible("return bool(subprocess.run(['/bin/true']))", "import subprocess"),
        "leaves a process behind": if_possible(
            "return bool(subprocess.Popen(['/bin/sleep', '600'], start_new_session=True))", "import subprocess"
        ),
        "kills its parent": if_possible(
            "os.kill(os.getppid(), 9)\nos.kill(1, 9)\nimport time\ntime.sleep(1)\nreturn 0"
        ),
        "kills everything": if_possible("os.kill(-1, 9)\nreturn True"),
        "fills the scratch folder": if_possible(
            "for i in range(100):\n    open(os.environ['HOME'] + f'/{i}', 'wb').write(bytes(16 << 20))\nreturn True"
        ),
        "takes memory that no limit counts": if_possible("return os.memfd_create('more') >= 0"),
        "raises its limits": if_possible(
            "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))\nreturn True", "import resource"
        ),
        "makes a namespace": if_possible("return ctypes.CDLL(None).unshare(0x10000000) == 0", "import ctypes"),
        "mounts": if_possible("return ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, b'') == 0", "import ctypes"),
        **{f"writes {place}": if_possible(f"open({str(place)!r}, 'w').write('x')\nreturn True") for place in places},
    }


@pytest.fixture(scope="module")
def verdicts(harms: dict[str, str]) -> dict[str, Verdict]:
    os.environ["ABLATE_SECRET"] = "1"
    programs = {**CHEATS, **harms, "right": RIGHT, "writes to its scratch folder": WRITES}
    problems = [Problem(name, TESTS, [program]) for name, program in programs.items()]
    try:
        found = judge(problems, find_box(unsafe=False), jobs=4, memory=OWN_MEMORY)
    finally:
        del os.environ["ABLATE_SECRET"]
    return {name: verdict for name, (verdict,) in zip(programs, found, strict=True)}


WRITES = if_possible("name = os.environ['HOME'] + '/x'\nopen(name, 'w').write('x')\nreturn open(name).read() == 'x'")


def test_the_right_program_passes(verdicts: dict[str, Verdict]) -> None:
    assert verdicts["right"] == Verdict({"all": True})
    assert verdicts["writes to its scratch folder"].all_passed()


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes(verdicts: dict[str, Verdict], name: str) -> None:
    assert not verdicts[name].all_passed()
    assert not any(verdicts[name].passed.values())
    assert verdicts[name].why != "passed"


def test_no_harm_is_done(verdicts: dict[str, Verdict], harms: dict[str, str]) -> None:
    assert {name: verdicts[name] for name in harms if verdicts[name].all_passed()} == {}
    assert not list(ROOT.glob("left-behind")) and not Path("/left-behind").exists()
    # Those that failed did so because they were refused, and not by accident: all but the killers were asked f(1).
    asked = [name for name in harms if verdicts[name].why == "wrong"]
    assert set(harms) - set(asked) <= {"kills everything", "kills its parent", "makes a namespace", "mounts"}


def test_reasons_are_told_apart(verdicts: dict[str, Verdict]) -> None:
    expected = {
        "sleeps": "timed_out",
        "loops": "timed_out",
        "loops at once": "timed_out",
        "exits at once": "ended",
        "exits when called": "ended",
        "is no Python": "raised",
        "has no such function": "raised",
        "takes ten gigabytes": "raised",
        "equals everything": "wrong",
    }
    assert {name: verdicts[name].why for name in expected} == expected


def running() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if str(OWN_MEMORY).encode() in command:
            found.append(f"{entry.parent.name}: {command.decode(errors='replace')[:200]}")
    return found


def test_no_process_survives(verdicts: dict[str, Verdict]) -> None:
    assert verdicts
    end = time.monotonic() + 5
    while running() and time.monotonic() < end:
        time.sleep(0.1)
    assert running() == []


def test_the_processes_are_known_by_their_limit() -> None:
    """The check above would see a program that runs."""
    seen: list[str] = []
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            seen.extend(running())
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    judge([Problem("sleeps", TESTS, [CHEATS["loops"]])], find_box(unsafe=False), memory=OWN_MEMORY)
    watching.set()
    watcher.join()
    assert any("ablate.sandbox.program" in command for command in seen)


def test_nothing_connected(listener: socket.socket, verdicts: dict[str, Verdict]) -> None:
    assert verdicts
    listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listener.accept()
