"""A dataset stage that is interrupted goes on where its last mark stands and writes the same bytes."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ablate.data.stage
from ablate.catalogs.datasets import DatasetEntry
from ablate.catalogs.digests import sha256_file
from ablate.context import EventLog, Resources, StageContext, read_json, write_json
from ablate.data.spool import Spool, Spooled
from ablate.data.stage import run
from ablate.errors import DataError
from ablate.execution.display import describe_event
from ablate.plan.graph import Graph
from ablate.store import StageFolder, Store


def entry(**change: Any) -> DatasetEntry:
    values = {
        "name": "mine",
        "title": "Mine",
        "format": "preference",
        "source": {"files": ["a.jsonl", "b.jsonl", "c.jsonl"]},
        "converter": "shp",
        "label_kind": "human",
        "licence": "MIT",
    }
    return DatasetEntry.model_validate({**values, **change})


def shp(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows over about n / 3 posts; every 10th is empty, some are equal to an earlier one."""
    return [
        {
            "history": f"post {index // 3}\twith a tab",
            "human_ref_A": "" if index % 10 == 0 else f"ä {index % 997}",
            "human_ref_B": f"b {index // 2}",
            "labels": index % 2,
            "score_A": 5,
            "score_B": 5 - index % 2,
        }
        for index in range(start, start + n)
    ]


def steer(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows of which three far from each other have one prompt."""
    ratings = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return [
        {"prompt": f"p{index % (n // 3)}", "response": f"r{index}", **dict.fromkeys(ratings, index % 7)}
        for index in range(start, start + n)
    ]


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def root_of(path: Path, made: Any, sizes: tuple[int, ...]) -> Path:
    start = 0
    for name, size in zip("abc", sizes, strict=False):
        write_rows(path / f"{name}.jsonl", made(size, start))
        start += size
    return path


class Stopping(EventLog):
    """Stops the work as Ctrl-C does, when it reports its progress for the ``after``-th time."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path)
        self.left = after

    def progress(self, done: int, total: int, unit: str = "steps") -> None:
        super().progress(done, total, unit)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Attempts:
    """Attempts at one stage, each in a folder of its own, with the work of the earlier ones at hand."""

    def __init__(self, folder: Path, config: dict[str, Any], root: Path) -> None:
        self.folder, self.config, self.root = folder, config, root
        self.count = 0

    def run(self, stop_after: int = 0) -> dict[str, bytes]:
        """Run an attempt; returns its files by name."""
        self.count += 1
        place = self.folder / str(self.count)
        for name in ("output", "work"):
            (place / name).mkdir(parents=True)
        context = StageContext(
            kind="dataset",
            config=self.config,
            inputs={},
            output=place / "output",
            work=place / "work",
            events=Stopping(place / "events.jsonl", stop_after),
            locations={"root": str(self.root)},
            previous_work=tuple(self.folder / str(number) / "work" for number in range(self.count - 1, 0, -1)),
            resources=Resources(checkpoint_seconds=0.0),
        )
        run(context)
        return {path.name: path.read_bytes() for path in (place / "output").iterdir()}

    def interrupted(self, after: int) -> list[dict[str, Any]]:
        """Run an attempt that is stopped; returns what it reported."""
        with pytest.raises(KeyboardInterrupt):
            self.run(after)
        return self.events()

    def events(self) -> list[dict[str, Any]]:
        """Return what the last attempt reported."""
        path = self.folder / str(self.count) / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def marked(self) -> int:
        """Return the rows of the last attempt's mark."""
        (mark,) = (self.folder / str(self.count) / "work").rglob("mark.json")
        return int(read_json(mark)["rows"])


def config_of(mine: DatasetEntry, root: Path, **sampling: Any) -> dict[str, Any]:
    names = [name for name in mine.source.files or () if (root / name).exists()]
    return mine.stage_config({name: sha256_file(root / name) for name in names}, **sampling)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> int:
    """Report progress every five rows."""
    monkeypatch.setattr(ablate.data.stage, "PROGRESS_EVERY", 5)
    return 5


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all": ({}, {}),
    "sample": ({}, {"max_examples": 20, "seed": 3}),
    "split": ({"split": {"part": "train", "heldout_share": 0.3}}, {"max_examples": 20}),
    "capped": ({}, {"max_examples": 50, "cap": "before-filter"}),
    "prompts": ({"format": "prompts", "label_kind": None}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_rows_end_in_the_same_bytes(tmp_path: Path, case: str, often: int) -> None:
    change, sampling = CASES[case]
    root = root_of(tmp_path / "root", shp, (52, 16, 37))
    config = config_of(entry(**change), root, **sampling)
    expected = Attempts(tmp_path / "whole", config, root).run()
    attempts = Attempts(tmp_path / "parts", config, root)
    # Rows are drawn in a pass of their own, which is made again when it is interrupted and kept when it is not.
    first_pass = 21 if sampling.get("cap") == "before-filter" else 0
    if first_pass:
        assert [event["unit"] for event in attempts.interrupted(3)][-1] == "MB to draw from, 15 rows"
    begun = 0
    for after, passed in ((4, first_pass), (7, 0), (6, 0)):
        events = attempts.interrupted(passed + after)
        begun += after * often
        assert events[-1]["unit"] == f"MB, {begun:,} rows"  # 20, 50, 75: each goes on after the one before
        assert begun - often < attempts.marked() < begun
        begun = attempts.marked() // often * often
        assert describe_event(events[-1]).startswith("0/0 MB, ")  # what the terminal shows
    assert attempts.run() == expected
    assert len(attempts.events()) == 21 - begun // often


def test_groups_begin_again_with_their_file(tmp_path: Path, often: int) -> None:
    root = root_of(tmp_path / "root", steer, (30, 15, 30))
    config = config_of(entry(converter="helpsteer"), root)
    expected = Attempts(tmp_path / "whole", config, root).run()
    attempts = Attempts(tmp_path / "parts", config, root)
    attempts.interrupted(4)  # within the first file: nothing is marked
    assert not list(attempts.folder.rglob("mark.json"))
    attempts.interrupted(8)  # within the second
    assert attempts.marked() == 30
    assert attempts.interrupted(5)[0]["unit"] == "MB, 35 rows"
    assert attempts.marked() == 45
    assert attempts.run() == expected
    assert attempts.events()[0]["unit"] == "MB, 50 rows"
    report = json.loads(expected["report.json"])
    assert report["in"] == 75
    assert report["responses"]["in"] == 75


def test_a_file_that_changed_is_refused_and_other_content_starts_over(tmp_path: Path, often: int) -> None:
    root = root_of(tmp_path / "root", shp, (40,))
    attempts = Attempts(tmp_path / "parts", config_of(entry(), root), root)
    attempts.interrupted(5)
    write_rows(root / "a.jsonl", shp(40, start=1))
    with pytest.raises(DataError, match=r"a\.jsonl is not the file this stage was planned with"):
        attempts.run()
    attempts.config = config_of(entry(), root)  # planned again, in the same folder: which the store never does
    found = attempts.run()
    assert len(attempts.events()) == 8
    assert found == Attempts(tmp_path / "whole", attempts.config, root).run()


def test_damage_after_a_mark_fails_every_attempt(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", shp, (40,))
    with (root / "a.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"history": "cut o')
    attempts = Attempts(tmp_path / "parts", config_of(entry(), root), root)
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.jsonl, row 41: not valid JSON"):
            attempts.run()
        assert attempts.marked() == 40
        assert list((attempts.folder / str(attempts.count) / "output").iterdir()) == []


def example(number: int) -> Spooled:
    return Spooled(2**64 - 1 - number, number, 1, number, 7, (3, number), b'{"id": "7"}', b'{"id": "\xc3\xa4"}')


def test_what_no_mark_vouches_for_is_not_continued(tmp_path: Path) -> None:
    spool = Spool("o", tmp_path / "1", [], seconds=60)
    assert spool.account is None
    assert not spool.due()
    for number in range(3):
        spool.add(example(number))
    spool.mark(5, {"rows": 5})
    spool.add(example(3))
    spool.close()
    with (spool.folder / "examples.tsv").open("ab") as torn:
        torn.write(b"12\tab")

    again = Spool("o", tmp_path / "2", [tmp_path / "1"], seconds=60)
    assert again.account == {"rows": 5}
    assert list(again.keys) == [2**64 - 1, 2**64 - 2, 2**64 - 3]
    again.add(example(9))
    assert list(again.examples()) == [example(number) for number in (0, 1, 2, 9)]
    again.close()
    other = Spool("p", tmp_path / "3", [tmp_path / "2", tmp_path / "1"], seconds=60)
    assert (other.account, list(other.examples())) == (None, [])
    other.close()
    (tmp_path / "1/spool-o/examples.tsv").write_bytes(b"")  # a disk that lost what it had promised
    (tmp_path / "2/spool-o/mark.json").unlink()
    lost = Spool("o", tmp_path / "4", [tmp_path / "2", tmp_path / "1"], seconds=60)
    assert (lost.account, list(lost.examples())) == (None, [])
    lost.remove()
    assert list((tmp_path / "4").iterdir()) == []


def worker(stage: StageFolder) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ablate.worker", str(stage.folder), "--checkpoint-seconds", "0.1"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def spooled_bytes(stage: StageFolder) -> int:
    """Return the length of the longest spool of all attempts."""
    longest = 0
    for attempt in stage.attempts():
        with suppress(FileNotFoundError):  # an attempt that is about to begin, or whose temporary files come and go
            longest = max([longest, *(path.stat().st_size for path in attempt.work.glob("*/examples.tsv"))])
    return longest


def digests(stage: StageFolder) -> dict[str, str]:
    names = ("pairs.jsonl", "prompts.jsonl", "report.json")
    return {name: hashlib.sha256((stage.output / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_killed_attempts_end_in_the_same_bytes(tmp_path: Path) -> None:
    """The real worker, killed with SIGKILL (or stopped with SIGINT) as soon as its spool has a seeded length."""
    root = root_of(tmp_path / "root", shp, (40_000, 5, 20_000))
    config = config_of(entry(), root, max_examples=30_000)
    stages = []
    for name in ("whole", "killed"):
        stage = Graph().add("dataset", config, label=name, locations={"root": str(root)})
        folder = Store(tmp_path / name).open().stage(stage.id)
        folder.folder.mkdir(parents=True)
        write_json(folder.stage_json, stage.as_json())
        stages.append(folder)
    whole, killed = stages
    assert worker(whole).wait(timeout=300) == 0
    moments, reached = random.Random(4), 0
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL):
        reached += moments.randrange(200_000, 3_000_000)
        victim = worker(killed)
        deadline = time.monotonic() + 120
        while spooled_bytes(killed) < reached:
            assert victim.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
            time.sleep(0.002)
        victim.send_signal(number)
        assert victim.wait(timeout=60) in (-signal.SIGKILL, 130)
    marks = [read_json(path)["rows"] for path in sorted(killed.attempts_folder.rglob("mark.json"))]
    assert len(marks) == 5
    assert marks == sorted(set(marks))  # each attempt went further than the one before
    assert worker(killed).wait(timeout=300) == 0
    assert digests(killed) == digests(whole)


def test_examples_cut_to_other_prompts_are_not_gone_on_with(tmp_path: Path) -> None:
    """An earlier attempt's examples count for the prompts that they were cut to, and for no others."""
    root = root_of(tmp_path / "root", shp, (30,))
    config = entry(source={"files": ["a.jsonl"]}).stage_config({"a.jsonl": sha256_file(root / "a.jsonl")})
    origins = []
    for name in ("one", "other"):
        prompts = tmp_path / f"{name}.jsonl"
        write_rows(prompts, [{"id": name}])
        context = StageContext(
            kind="dataset",
            config=config,
            inputs={"only_prompts": prompts},
            output=tmp_path,
            work=tmp_path,
            events=EventLog(tmp_path / "events.jsonl"),
        )
        origins.append(ablate.data.stage._origin(context, []))
    assert origins[0] != origins[1]
