"""A model behind an API as a reward, against a real HTTP server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ablate.catalogs.pipelines import ApiLabels, Labeller
from ablate.context import EventLog, StageContext, read_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.errors import DataError, StageError
from ablate.rewards import label
from ablate.rewards.api import AnswerCache, ApiReward, Endpoint, read_number

SECRET = "sk-not-to-be-seen"


class Server(ThreadingHTTPServer):
    """Answers with the length of the response it is shown; ``failures`` are sent first, one a request."""

    daemon_threads = True

    def __init__(self) -> None:
        self.failures: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            failure = self.server.failures.pop(0) if self.server.failures else None
            self.server.keys.append(self.headers["Authorization"])
            if failure is None:
                self.server.asked.append(body)
        if failure is not None:
            status, headers, content = failure
        else:
            text = body["messages"][0]["content"]
            shown = text.split("Response to rate: ")[1].split("\n")[0]
            answer = {"message": {"content": f"It has 2 sides. {len(shown.split())}"}, "finish_reason": "stop"}
            status, headers, content = 200, {}, json.dumps({"choices": [answer]}).encode()
        self.send_response(status if self.path == "/v1/chat/completions" else 404)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_KEY", SECRET)
    return "A_KEY"


PROMPT = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "a {response} b"})


def reward(server: Server, folder: Path, key: str = "", *, earlier: tuple[Path, ...] = (), **labels: Any) -> ApiReward:
    endpoint = Endpoint(server.url, key, timeout=5, attempts=3, pause=0.01, parallel=3)
    return ApiReward(ApiLabels(model="big-1", **labels), endpoint, AnswerCache(folder / "answers", earlier))


def test_answers_become_scores_and_are_asked_for_once(server: Server, tmp_path: Path, key: str) -> None:
    texts = ["one", "one two three", "one", "{prompt} " * 11]
    asks = reward(server, tmp_path, key)
    assert asks.score([PROMPT] * 4, texts) == [1.0, 3.0, 1.0, None]  # eleven words are beyond the scale of 10
    assert len(server.asked) == 3
    first = next(body for body in server.asked if "\nResponse to rate: one\n" in body["messages"][0]["content"])
    assert (first["model"], first["temperature"], first["max_tokens"], first["seed"]) == ("big-1", 0.0, 256, 0)
    assert "System: be kind\n\nUser: a {response} b" in first["messages"][0]["content"]
    assert "from 0 (worst) to 10 (best)" in first["messages"][0]["content"]
    assert set(server.keys) == {f"Bearer {SECRET}"}
    again = reward(server, tmp_path / "other", key, earlier=(tmp_path / "answers",))
    assert again.score([PROMPT], ["one"]) == [1.0] and len(server.asked) == 3
    assert reward(server, tmp_path, key, temperature=0.5).score([PROMPT], ["one"]) == [1.0]
    assert len(server.asked) == 4, "another temperature is another question"
    assert not any(SECRET in path.read_text() for path in tmp_path.rglob("*.json"))


def test_failures_that_pass_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.failures = [(429, {"Retry-After": "0"}, b"slow down"), (200, {}, b"no json")]
    assert reward(server, tmp_path).score([PROMPT], ["one two"]) == [2.0]
    assert len(server.keys) == 3 and server.keys[-1] is None


def test_what_is_refused_is_said_once_and_without_the_key(server: Server, tmp_path: Path, key: str) -> None:
    server.failures = [(401, {}, f"bad key {SECRET}".encode())]
    with pytest.raises(StageError) as caught:
        reward(server, tmp_path, key).score([PROMPT], ["one"])
    assert "status 401: bad key ***" in str(caught.value) and SECRET not in str(caught.value)
    assert len(server.keys) == 1
    server.failures = [(503, {}, b"busy")] * 3
    with pytest.raises(StageError, match="status 503: busy"):
        reward(server, tmp_path).score([PROMPT], ["one"])
    assert not server.failures, "three attempts"
    server.failures = [(200, {}, b'{"error": "none"}')]
    with pytest.raises(StageError, match=r"no choices\[0\].message.content"):
        reward(server, tmp_path).score([PROMPT], ["one"])


def test_a_redirect_is_not_followed_with_the_key(server: Server, tmp_path: Path, key: str) -> None:
    server.failures = [(307, {"Location": server.url + "/chat/completions"}, b"")]
    with pytest.raises(StageError, match="status 307"):
        reward(server, tmp_path, key).score([PROMPT], ["one"])
    assert len(server.keys) == 1


def test_after_a_failure_nothing_more_is_asked_and_answers_are_kept(server: Server, tmp_path: Path) -> None:
    server.failures = [(400, {}, b"no")]
    with pytest.raises(StageError, match="status 400"):
        reward(server, tmp_path).score([PROMPT] * 40, [f"{index} x" for index in range(40)])
    kept = len(server.asked)
    assert kept < 39
    scores = reward(server, tmp_path).score([PROMPT] * 40, [f"{index} x" for index in range(40)])
    assert scores == [2.0] * 40 and len(server.asked) == 40


def test_a_missing_key_is_named_before_anything_is_asked(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="environment variable NO_SUCH_KEY is not set: 1 questions to big-1"):
        reward(server, tmp_path, "NO_SUCH_KEY").score([PROMPT], ["one"])
    assert not server.keys


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("7", "stop", 7.0),
        ("I saw 3 flaws: 8.5", "stop", 8.5),
        ("8/10", "stop", 10.0),
        ("-1", "stop", None),
        ("eleven", "stop", None),
        ("so I would say 4", "length", None),
        ("9", None, 9.0),
    ],
)
def test_the_last_number_in_the_scale_counts(text: str, finish: str | None, expected: float | None) -> None:
    assert read_number({"text": text, "finish": finish}, 0.0, 10.0) == expected


def test_labels_of_an_api_are_those_of_the_stage(server: Server, tmp_path: Path) -> None:
    rows = [
        {
            "id": "r",
            "prompt": [{"role": "user", "content": "q"}],
            "responses": [
                {"messages": [{"role": "assistant", "content": text}], "score": score, "rank": None}
                for text, score in (("a", 2.0), ("a b c", 1.0), ("x " * 11, 3.0))
            ],
            "source": "hand",
        }
    ]
    write_json_lines(tmp_path / "records.jsonl", rows)
    for name in ("output", "work"):
        (tmp_path / name).mkdir()
    made = label.run(
        StageContext(
            "label",
            {"closed_form": None, "api": ApiLabels(model="big-1").identity()},
            {"records": tmp_path / "records.jsonl"},
            tmp_path / "output",
            tmp_path / "work",
            EventLog(tmp_path / "events.jsonl"),
            locations={"api_url": server.url, "api_key": ""},
        )
    )
    (row,) = read_json_lines(tmp_path / "output" / "records.jsonl")
    assert [response["score"] for response in row["responses"]] == [1.0, 3.0]
    assert made["responses"] == {"in": 3, "unscored": 1}
    assert read_json(tmp_path / "output" / "report.json")["agreement"]["share"] == 0.0


def test_what_is_written_about_an_api_is_checked() -> None:
    for wrong, message in (
        ({"model": "m", "template": "rate {response}"}, r"no \{prompt\}"),
        ({"model": "m", "lowest": 3.0, "highest": 1.0}, "lowest 3 is not below highest 1"),
        ({"model": "m", "key": "sk-a-key-itself"}, "should match pattern"),
        ({"model": "m", "url": "ftp://x"}, "should match pattern"),
    ):
        with pytest.raises(ValidationError, match=message):
            ApiLabels.model_validate(wrong)
    with pytest.raises(ValidationError, match="exactly one of reward_model, reward, api"):
        Labeller.model_validate({"api": {"model": "m"}, "reward": "nouns"})
    identity = ApiLabels(model="m", url="http://here/v1", key="K").identity()
    assert not {"url", "key"} & identity.keys()
