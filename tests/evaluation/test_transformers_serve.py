"""A real server, `transformers serve` with a pocket model, as the generator of an evaluation and as its judge."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.judges import Judge, find_template
from ablate.catalogs.served import Served
from ablate.context import EventLog, Resources, StageContext, read_json
from ablate.evaluation import generate
from ablate.evaluation.items import Item, read_responses, user
from ablate.evaluation.own_judge import OwnJudge
from ablate.evaluation.policy import open_policy
from ablate.rewards.judge import AskedJudge, open_judge

pytestmark = [pytest.mark.slow, pytest.mark.serving]

WAIT = 300.0
"""Seconds in which a server imports transformers and loads a tiny model, on a machine with other work."""
QUESTIONS = ["what is the capital of france ?", "what is two plus three ?", "say hello ."]


@pytest.fixture(scope="module")
def served(pocket_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The address of a server that was started for these tests, and what it calls the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    words = ["serve", str(pocket_policy), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as stream:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("transformers")), *words], stdout=stream, stderr=stream
        )
    try:
        until = time.monotonic() + WAIT
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.5)
        yield Served(url=f"http://127.0.0.1:{port}/v1", model=str(pocket_policy), parallel=2)
    finally:
        server.terminate()
        server.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture
def context(tmp_path: Path, pocket_policy: Path) -> Callable[..., StageContext]:
    """Return a function that makes the context of a stage about the pocket model."""

    def make(name: str, config: dict[str, Any], locations: dict[str, str]) -> StageContext:
        for part in ("output", "work"):
            (tmp_path / name / part).mkdir(parents=True)
        events = EventLog(tmp_path / name / "events.jsonl")
        folders = (tmp_path / name / "output", tmp_path / name / "work")
        return StageContext(name, config, {"policy": pocket_policy}, *folders, events, locations)

    return make


@pytest.mark.parametrize("chat", [True, False])
def test_what_it_generates_is_what_is_generated_here(
    served: Served, context: Callable[..., StageContext], monkeypatch: pytest.MonkeyPatch, chat: bool
) -> None:
    """Greedy in float32: the same prompts, the same responses, ended alike, EOS counted or not."""
    items = [Item(f"q{n}", "facts", user(text)) for n, text in enumerate(QUESTIONS)]
    monkeypatch.setattr(generate, "open_source", lambda context: None)
    monkeypatch.setattr(generate, "build_items", lambda source, config: items)
    decoding = {"temperature": 0.0, "top_p": 1.0, "samples": 1, "max_new_tokens": 12, "stop": [], "seed": 0}
    config = {"engine": "items", "chat": chat, "decoding": decoding}
    found = {}
    for place, locations in (("here", {}), ("there", served.location())):
        stage = context(f"{place}-{chat}", config, locations)
        generate.run(stage)
        found[place] = [replace(row, tokens=0) for row in read_responses(stage.output)]
    assert found["there"] == found["here"] and len(found["here"]) == len(QUESTIONS)
    account = read_json(stage.output / "served.json")
    assert account["answers"] == 3 and account["served"][0].startswith(str(served.model))


def test_as_a_judge_it_says_what_the_policy_says_itself(
    served: Served, context: Callable[..., StageContext], pocket_policy: Path
) -> None:
    """Its answers are those of the policy as its own judge, and what can't be read of them is counted."""
    own = {"temperature": 0.0, "max_tokens": 8, "template": find_template("pocket-rate"), "key": ""}
    judge = Judge(name="served", model=str(served.model), url=served.url, timeout=120.0, **own)
    questions = [{"prompt": text, "response": "it is so ."} for text in QUESTIONS]
    asked = open_judge(context("judge", {}, {}), judge)
    alone = AskedJudge(judge, OwnJudge(open_policy(pocket_policy, Resources(), chat=True)))
    ratings, expected = asked.rate(questions), alone.rate(questions)
    assert [row.texts for row in ratings] == [row.texts for row in expected]
    assert [row.value for row in ratings] == [row.value for row in expected]
    report = asked.report()
    assert report["answers"] == 3 and report["unread"] == alone.report()["unread"]
    assert report["tokens"]["out"] > 0 and report["served"] and report["asked_from"]
