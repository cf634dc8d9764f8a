"""A stand-in for SLURM's commands, called by their names: it writes down what is queued and runs nothing.

$STANDIN is a folder: ``jobs.json`` has the jobs; ``refuse`` (words, then a job name's beginning) makes sbatch refuse;
``busy`` (words, then how often) makes calls fail for a while, after the job is queued where ``heard`` lies beside it;
``kill-after`` (a number) ends the calling process once so many jobs are queued, ``interrupt-after`` is its Ctrl-C;
``no-accounting`` makes sacct fail; ``nodes`` has the machines, by default this one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import sys
from pathlib import Path
from typing import Any

HERE = Path(os.environ["STANDIN"])


def jobs() -> list[dict[str, Any]]:
    path = HERE / "jobs.json"
    return json.loads(path.read_text()) if path.exists() else []


def save(known: list[dict[str, Any]]) -> None:
    (HERE / "jobs.json").write_text(json.dumps(known))


def fail(words: str) -> None:
    sys.exit(f"{Path(sys.argv[0]).name}: error: {words}")


def busy() -> None:
    path = HERE / "busy"
    if path.exists():
        words, count = path.read_text().rsplit(" ", 1)
        path.write_text(f"{words} {int(count) - 1}") if int(count) > 1 else path.unlink()
        fail(words)


def indices(text: str) -> list[int]:
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def sbatch() -> None:
    script = Path(sys.argv[-1]).read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.M))
    if (HERE / "refuse").exists():
        words, name = (HERE / "refuse").read_text().splitlines()
        if options["job-name"].startswith(name):
            fail(words)
    if not (HERE / "heard").exists():
        busy()
    known = jobs()
    job = 100 + len({item["job"] for item in known})
    for index in indices(options["array"]):
        facts = {"name": options["job-name"], "state": "PENDING", "dependency": options.get("dependency", "")}
        known.append({"job": job, "index": index, **facts, "reason": "Dependency" if facts["dependency"] else "None"})
    save(known)
    busy()
    with (HERE / "calls").open("a") as handle:
        handle.write(f"sbatch {options['job-name']}\n")
    for name, number in (("kill-after", signal.SIGKILL), ("interrupt-after", signal.SIGINT)):
        limit = HERE / name
        if limit.exists() and int(limit.read_text()) <= job - 99:
            limit.unlink()
            os.kill(os.getppid(), number)
    print(job)


def named() -> list[dict[str, Any]]:
    wanted = next((word.partition("=")[2].split(",") for word in sys.argv if word.startswith("--name=")), None)
    return [job for job in jobs() if wanted is None or job["name"] in wanted]


def squeue() -> None:
    busy()
    shown = next(word.partition("=")[2] for word in sys.argv if word.startswith("--format="))
    for job in named():
        if not job.get("purged"):
            values = {"i": f"{job['job']}_{job['index']}", "F": str(job["job"]), "j": job["name"], "T": job["state"]}
            values |= {"r": job["reason"], "N": "", "S": "N/A", "M": "0:00"}
            print("|".join(values[letter] for letter in re.findall(r"%(\w)", shown)))


def sinfo() -> None:
    path = HERE / "nodes"
    print(path.read_text() if path.exists() else platform.node())


def sacct() -> None:
    if (HERE / "no-accounting").exists():
        fail("Slurm accounting storage is disabled")
    shown = next(word.partition("=")[2].split(",") for word in sys.argv if word.startswith("--format="))
    for job in named():
        values = {"JobID": f"{job['job']}_{job['index']}", "JobName": job["name"], "State": job["state"]}
        print("|".join(values.get(name, "") for name in shown))


def elements(words: list[str]) -> set[str]:
    wanted: set[str] = set()
    for word in words:
        job, _, some = word.partition("_")
        wanted |= {f"{job}_{index}" for index in indices(some.strip("[]"))} if some else {job}
    return wanted


def scontrol() -> None:
    wanted, known = elements(sys.argv[2:]), jobs()
    for item in known:
        if f"{item['job']}_{item['index']}" in wanted:
            item["reason"] = "JobHeldUser" if sys.argv[1] == "hold" else "None"
    save(known)


def scancel() -> None:
    wanted, known = elements(sys.argv[1:]), jobs()
    for item in known:
        if {str(item["job"]), f"{item['job']}_{item['index']}"} & wanted:
            item["state"] = "CANCELLED"
    save(known)


if __name__ == "__main__":
    commands = (sbatch, squeue, sinfo, sacct, scancel, scontrol)
    {command.__name__: command for command in commands}[Path(sys.argv[0]).name]()
