"""A client of chat APIs against a real HTTP server on this machine: failures, pace, budget, what is kept."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.judges import Judge, find_template, locations_of
from ablate.context import EventLog, StageContext, read_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.errors import DataError, StageError
from ablate.rewards import label
from ablate.rewards.api import AnswerCache, Client, Endpoint, Prices
from ablate.rewards.judge import AskedJudge, JudgeReward

SECRET = "sk-not-to-be-seen"
PROMPT = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "a {response} b"})
OK = {"message": {"content": "7"}, "finish_reason": "stop"}


def words(body: dict[str, Any]) -> str:
    """Rate a response by its number of words."""
    shown = body["messages"][-1]["content"].split("Response to rate: ")[1].split("\n")[0]
    return f"It has 2 sides. {len(shown.split())}"


@pytest.fixture(autouse=True)
def _rates_by_words(judge_server: Any) -> None:
    judge_server.reply = words


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_KEY", SECRET)
    return "A_KEY"


def client(server: Any, folder: Path, key: str = "", *, earlier: tuple[Path, ...] = (), **options: Any) -> Client:
    endpoint = Endpoint(server.url, key, timeout=options.pop("timeout", 5), attempts=3, pause=0.01, parallel=3)
    return Client(endpoint, AnswerCache(folder / "answers", earlier), **options)


def reward(server: Any, folder: Path, key: str = "", *, earlier: tuple[Path, ...] = (), **judge: Any) -> JudgeReward:
    options = {name: judge.pop(name) for name in ("prices", "requests_per_minute", "timeout") if name in judge}
    asked = Judge(name="big", model="big-1", template=find_template("rate"), max_tokens=256, **judge)
    return JudgeReward(AskedJudge(asked, client(server, folder, key, earlier=earlier, **options)))


def test_answers_become_scores_and_are_asked_for_once(judge_server: Any, tmp_path: Path, key: str) -> None:
    texts = ["one", "one two three", "one", "{prompt} " * 11]
    asks = reward(judge_server, tmp_path, key)
    assert asks.score([PROMPT] * 4, texts) == [1.0, 3.0, 1.0, None]  # eleven words are beyond the scale of 10
    assert len(judge_server.asked) == 3
    contents = [body["messages"][0]["content"] for body in judge_server.asked]
    first = next(place for place, text in enumerate(contents) if "\nResponse to rate: one\n" in text)
    body = judge_server.asked[first]
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("big-1", 0.0, 256, 0)
    assert "System: be kind\n\nUser: a {response} b" in contents[first]
    assert "from 0 (worst) to 10 (best)" in contents[first]
    assert set(judge_server.keys) == {f"Bearer {SECRET}"}
    again = reward(judge_server, tmp_path / "other", key, earlier=(tmp_path / "answers",))
    assert again.score([PROMPT], ["one"]) == [1.0] and len(judge_server.asked) == 3
    assert reward(judge_server, tmp_path, key, temperature=0.5).score([PROMPT], ["one"]) == [1.0]
    assert len(judge_server.asked) == 4, "another temperature is another question"
    assert not any(SECRET in path.read_text() for path in tmp_path.rglob("*.json"))


def test_failures_that_pass_are_tried_again(judge_server: Any, tmp_path: Path) -> None:
    torn = (200, {"X-Claimed-Length": "500"}, b'{"choices"')
    for failures in ([(429, {"Retry-After": "0"}, b"slow down"), (200, {}, b"no json")], [(503, {}, b"busy"), torn]):
        judge_server.failures, before = list(failures), len(judge_server.keys)
        text = "one two" if failures[0][0] == 429 else "one two three"
        assert reward(judge_server, tmp_path, timeout=0.5).score([PROMPT], [text]) == [float(len(text.split()))]
        assert len(judge_server.keys) == before + 3 and judge_server.keys[-1] is None


def test_a_server_that_stalls_is_asked_again(judge_server: Any, tmp_path: Path) -> None:
    judge_server.failures = [1.0]
    started = time.monotonic()
    assert reward(judge_server, tmp_path, timeout=0.2).score([PROMPT], ["one two"]) == [2.0]
    assert 0.2 <= time.monotonic() - started < 1.0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(judge_server: Any, tmp_path: Path, form: str) -> None:
    wait = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    judge_server.failures = [(429, {"Retry-After": wait}, b"slow down")]
    assert reward(judge_server, tmp_path).score([PROMPT], ["one"]) == [1.0]
    first, second = judge_server.times
    assert second - first >= 0.95


def test_questions_keep_the_pace_that_is_set(judge_server: Any, tmp_path: Path) -> None:
    asks = reward(judge_server, tmp_path, requests_per_minute=600)
    asks.score([PROMPT] * 6, [f"{number} x" for number in range(6)])
    times = sorted(judge_server.times)
    assert times[-1] - times[0] >= 0.45, "six questions, five pauses of 0.1 s, over three threads"


def test_what_is_refused_is_said_once_and_without_the_key(judge_server: Any, tmp_path: Path, key: str) -> None:
    judge_server.failures = [(401, {}, f"bad key {SECRET}".encode())]
    with pytest.raises(StageError) as caught:
        reward(judge_server, tmp_path, key).score([PROMPT], ["one"])
    assert "status 401: bad key ***" in str(caught.value) and SECRET not in str(caught.value)
    assert len(judge_server.keys) == 1
    judge_server.failures = [(404, {}, b"The model big-1 does not exist")]
    with pytest.raises(StageError, match=r"status 404: The model big-1 does not exist[^$]*another judge can stand in"):
        reward(judge_server, tmp_path, key).score([PROMPT], ["one"])
    judge_server.failures = [(503, {}, b"busy")] * 3
    with pytest.raises(StageError, match="status 503: busy"):
        reward(judge_server, tmp_path).score([PROMPT], ["one"])
    assert not judge_server.failures, "three attempts"
    judge_server.failures = [(200, {}, b'{"error": "none"}')]
    with pytest.raises(StageError, match=r"no choices\[0\].message.content"):
        reward(judge_server, tmp_path).score([PROMPT], ["one"])


def test_a_redirect_is_not_followed_with_the_key(judge_server: Any, tmp_path: Path, key: str) -> None:
    judge_server.failures = [(307, {"Location": judge_server.url + "/chat/completions"}, b"")]
    with pytest.raises(StageError, match="status 307"):
        reward(judge_server, tmp_path, key).score([PROMPT], ["one"])
    assert len(judge_server.keys) == 1


def test_after_a_failure_nothing_more_is_asked_and_answers_are_kept(judge_server: Any, tmp_path: Path) -> None:
    judge_server.failures = [(400, {}, b"no")]
    texts = [f"{index} x" for index in range(40)]
    with pytest.raises(StageError, match="status 400"):
        reward(judge_server, tmp_path).score([PROMPT] * 40, texts)
    kept = len(judge_server.asked)
    assert kept < 39
    assert reward(judge_server, tmp_path).score([PROMPT] * 40, texts) == [2.0] * 40 and len(judge_server.asked) == 40


def test_a_server_that_goes_down_half_way_leaves_what_it_answered(judge_server: Any, tmp_path: Path) -> None:
    judge_server.down_after = 11
    texts = [f"{index} x" for index in range(30)]
    with pytest.raises(StageError, match="run again to go on with the rest"):
        reward(judge_server, tmp_path).score([PROMPT] * 30, texts)
    assert len(list((tmp_path / "answers").rglob("*.json"))) == 11
    judge_server.down_after = None
    assert reward(judge_server, tmp_path).score([PROMPT] * 30, texts) == [2.0] * 30
    assert len(judge_server.asked) == 30, "the eleven are not asked again"


def test_a_missing_key_is_named_before_anything_is_asked(judge_server: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="environment variable NO_SUCH_KEY is not set: 1 questions to big-1"):
        reward(judge_server, tmp_path, "NO_SUCH_KEY").score([PROMPT], ["one"])
    assert not judge_server.keys


def test_the_budget_is_that_of_all_answers_and_a_larger_one_goes_on(judge_server: Any, tmp_path: Path) -> None:
    """100 tokens at 20 and 10 at 100 dollars a million are 0.003 dollars an answer, by hand."""
    texts = [f"{index} x" for index in range(20)]

    def asks(most: float) -> JudgeReward:
        return reward(judge_server, tmp_path, prices=Prices(20.0, 100.0, most))

    with pytest.raises(StageError, match=r"max_cost of 0.0149 US dollars is used up .* of 20 answers"):
        asks(0.0149).score([PROMPT] * 20, texts)
    asked = len(judge_server.asked)
    assert 5 <= asked <= 7, "the fifth answer uses it up; two more may be on their way in the other threads"
    with pytest.raises(StageError, match="max_cost"):
        asks(0.0149).score([PROMPT] * 20, texts)
    assert len(judge_server.asked) == asked, "the same budget is not spent twice"
    more = asks(1.0)
    assert more.score([PROMPT] * 20, texts) == [2.0] * 20 and len(judge_server.asked) == 20
    assert more.asked.report()["cost"] == pytest.approx(0.06)
    assert more.asked.report()["tokens"] == {"in": 2000, "out": 200}


def test_a_budget_needs_an_api_that_says_what_it_used(judge_server: Any, tmp_path: Path) -> None:
    judge_server.usage = None
    with pytest.raises(StageError, match="does not say how many tokens an answer took"):
        reward(judge_server, tmp_path, prices=Prices(1.0, 1.0, 5.0)).score([PROMPT], ["one"])
    assert reward(judge_server, tmp_path).score([PROMPT], ["one"]) == [1.0]


def labelled(folder: Path, server: Any, judge: Judge) -> StageContext:
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
    write_json_lines(folder / "records.jsonl", rows)
    for name in ("output", "work"):
        (folder / name).mkdir()
    return StageContext(
        "label",
        {"closed_form": None, "judge": judge.identity()},
        {"records": folder / "records.jsonl"},
        folder / "output",
        folder / "work",
        EventLog(folder / "events.jsonl"),
        locations=locations_of([judge]),
    )


def test_labels_of_a_judge_are_those_of_the_stage(judge_server: Any, tmp_path: Path) -> None:
    judge = Judge(name="big", model="big-1", url=judge_server.url, key="", template=find_template("rate"))
    made = label.run(labelled(tmp_path, judge_server, judge))
    (row,) = read_json_lines(tmp_path / "output" / "records.jsonl")
    assert [response["score"] for response in row["responses"]] == [1.0, 3.0]
    assert made["responses"] == {"in": 3, "unscored": 1}
    report = read_json(tmp_path / "output" / "report.json")
    assert report["agreement"]["share"] == 0.0
    assert report["judge"]["unread"] == {"unparsable": 1} and report["judge"]["served"] == ["big-1-0613"]
    assert report["judge"]["asked_from"] == report["judge"]["asked_to"]


def test_a_judge_of_pairs_labels_by_shares_of_wins(judge_server: Any, tmp_path: Path) -> None:
    """The longer response wins in either order: of three responses each meets two others."""

    def longer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        one, other = (text.split(f"[Response {name}]\n")[1].split("\n[End")[0] for name in "AB")
        return "[[A]]" if len(one) > len(other) else "[[B]]"

    judge_server.reply = longer
    judge = Judge(name="big", model="big-1", url=judge_server.url, key="", template=find_template("compare"))
    label.run(labelled(tmp_path, judge_server, judge))
    (row,) = read_json_lines(tmp_path / "output" / "records.jsonl")
    assert [response["score"] for response in row["responses"]] == [0.0, 0.5, 1.0]
    assert len(judge_server.asked) == 6, "three pairs in both orders"


def test_labels_that_nobody_can_read_are_an_error_that_counts(judge_server: Any, tmp_path: Path) -> None:
    judge_server.reply = lambda body: "I would rather not say."
    judge = Judge(name="big", model="big-1", url=judge_server.url, key="", template=find_template("rate"))
    with pytest.raises(StageError, match="of 3 answers, 3 unparsable"):
        label.run(labelled(tmp_path, judge_server, judge))
