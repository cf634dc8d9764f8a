"""Responses from a server in a policy's place: the same prompts, the same responses, kept as they come."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.served import Served
from ablate.context import EventLog, Resources, StageContext, read_json
from ablate.data.sources import folder_files
from ablate.data.suite_files import Source
from ablate.errors import StageError
from ablate.evaluation import evaluate, generate, policy
from ablate.evaluation.graders.pocket import pocket_gold_response
from ablate.evaluation.items import read_responses
from ablate.evaluation.policy import open_policy
from ablate.evaluation.prompts.pocket import pocket as pocket_items
from ablate.evaluation.sampling import Sampling
from ablate.evaluation.served_policy import open_served_policy
from ablate.pocket import stage as pocket

GENERATION = {
    "engine": "items",
    "chat": True,
    "files": {},
    "prompts": {"name": "pocket", "options": {}},
    "limit": None,
    "decoding": {
        "temperature": 0.0, "top_p": 1.0, "samples": 1, "max_new_tokens": 6, "stop": [], "seed": 0,
    },
}  # fmt: skip


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Four items of the pocket world."""
    config = {"what": "items", "name": "facts", "n": 4, "split": "test", "seed": 0}
    folder = tmp_path / "items"
    folder.mkdir()
    pocket.run(StageContext("pocket", config, {}, folder, folder, EventLog(folder / "events.jsonl")))
    return folder / "data"


@pytest.fixture
def stage(tmp_path: Path, items: Path, pocket_policy: Path) -> Callable[..., StageContext]:
    """Return a function that makes the context of a generate stage; ``served`` is where the policy is served."""

    def make(name: str, served: Served | None = None, earlier: tuple[Path, ...] = (), **changes: Any) -> StageContext:
        for part in ("output", "work"):
            (tmp_path / name / part).mkdir(parents=True)
        decoding = {**GENERATION["decoding"], **changes.pop("decoding", {})}  # type: ignore[dict-item]
        return StageContext(
            name,
            {**GENERATION, **changes, "decoding": decoding},
            {"policy": pocket_policy, "items": items},
            tmp_path / name / "output",
            tmp_path / name / "work",
            EventLog(tmp_path / name / "events.jsonl"),
            {} if served is None else served.location(),
            previous_work=earlier,
        )

    return make


def completes(server: Any, policy: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Let a server complete prompts as a real one does: the policy's tokens after those of the text."""
    own = open_policy(policy, Resources(), chat=False)

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        (answer,) = own.generate([body["prompt"]], Sampling(body["max_tokens"]))
        text, mark = answer.text, next((mark for mark in body.get("stop", ()) if mark in answer.text), None)
        finish = "length" if answer.finish == "length" and mark is None else "stop"
        return {"text": text.partition(mark)[0] if mark else text, "finish_reason": finish, "stop_reason": mark}

    server.reply = reply
    return reply


@pytest.mark.parametrize("chat", [True, False])
def test_a_server_and_this_machine_give_one_artifact(
    judge_server: Any, stage: Callable[..., StageContext], pocket_policy: Path, chat: bool
) -> None:
    completes(judge_server, pocket_policy)
    here = stage("here", chat=chat)
    generate.run(here)
    first = next(row.response.split()[1] for row in read_responses(here.output) if len(row.response.split()) > 1)
    for name, stops in (("whole", []), ("cut", [first])):
        made = []
        for place, served in (("here", None), ("there", Served(url=judge_server.url, model="mine"))):
            context = stage(f"{name}-{place}", served, chat=chat, decoding={"stop": stops})
            generate.run(context)
            made.append(read_responses(context.output))
        own, other = ([replace(row, tokens=0) for row in rows] for rows in made)
        assert own == other and len(own) == 4
        assert any(row.finish == "stop" for row in other) == bool(stops)
    grading = {"grader": "pocket", "options": {"skills": None, "measure": "correct"}, "primary": "accuracy"}
    reports = []
    for made_by in (f"{name}-here", f"{name}-there"):
        graded = stage(f"graded-{made_by}")
        responses = here.output.parent.parent / made_by / "output"
        evaluate.run(replace(graded, config=grading, inputs={"responses": responses}))
        reports.append(read_json(graded.output / "metrics.json"))
    assert reports[0]["protocol"] == reports[1]["protocol"], "where responses come from is no protocol"
    health = reports[1]["health"]
    assert health["served"] == "mine-0613" and health["served_from"] <= health["served_to"]
    assert "served" not in reports[0]["health"]
    served = read_json(context.output / "served.json")
    assert (served["answers"], served["served"], served["tokens"]) == (4, ["mine-0613"], {"in": 400, "out": 40})
    assert {row.tokens for row in made[1]} == {10}, "as many as the server says"
    assert all(body["model"] == "mine" and body["temperature"] == 0 for body in judge_server.asked)
    assert not any("seed" in body for body in judge_server.asked)


def test_samples_have_seeds_of_their_own(judge_server: Any, stage: Callable[..., StageContext]) -> None:
    judge_server.reply = lambda body: {"text": str(body["seed"]), "finish_reason": "length"}
    judge_server.usage = None
    bodies = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        sampled = {"temperature": 0.7, "top_p": 0.9, "samples": 3, "seed": seed}
        context = stage(name, Served(url=judge_server.url), decoding=sampled)
        generate.run(context)
        bodies.append(read_responses(context.output))
        assert {row.finish for row in bodies[-1]} == {"length"}
    texts = [[row.response for row in rows] for rows in bodies]
    assert len(set(texts[0])) == 12 and texts[0] == texts[1] and not set(texts[0]) & set(texts[2])
    assert judge_server.asked[0]["model"] == "big-1" and judge_server.asked[0]["top_p"] == 0.9
    assert all(row.tokens > 0 for row in bodies[0]), "counted here, where the server does not say"


@pytest.fixture
def repeat_health(stage: Callable[..., StageContext]) -> Callable[..., dict[str, Any]]:
    """Return a function that generates several times, grades, and returns the report."""

    def run(name: str, served: Served | None, repeats: int) -> dict[str, Any]:
        context = stage(name, served, decoding={"repeats": repeats})
        generate.run(context)
        rows = read_responses(context.output)
        assert [row.sample for row in rows] == [*range(repeats)] * 4 and len({row.id for row in rows}) == 4
        grading = {"grader": "pocket", "options": {"skills": None, "measure": "correct"}, "primary": "accuracy"}
        graded = replace(stage(f"graded-{name}"), config=grading, inputs={"responses": context.output})
        evaluate.run(graded)
        report: dict[str, Any] = read_json(graded.output / "metrics.json")
        return report

    return run


def test_how_much_a_score_varies_by_itself_is_reported(
    judge_server: Any, items: Path, repeat_health: Callable[..., dict[str, Any]]
) -> None:
    """Right in the first pass, wrong in the second: a mean of 1/2 with a standard deviation of sqrt(1/2)."""
    right = {
        item.prompt[-1]["content"]: pocket_gold_response(item)
        for item in pocket_items(Source(tuple(folder_files(items)), pocket=True), {})
    }
    asked: list[str] = []

    def reply(body: dict[str, Any]) -> str:
        prompt = next(text for text in right if text in body["prompt"])
        asked.append(prompt)
        return right[prompt] if asked.count(prompt) == 1 else "no"

    judge_server.reply = reply
    report = repeat_health("drifts", Served(url=judge_server.url), 2)
    assert len(judge_server.asked) == 8, "asked anew, though equal"
    health = report["health"]
    assert report["score"] == 0.5 and health["repeats_differ"] == 4 and health["repeats"] == 2
    assert health["repeat_sd"] == pytest.approx(math.sqrt(0.5))


def test_in_float32_nothing_varies_with_the_size_of_batches(
    repeat_health: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    sample = policy.sample

    def counting(*arguments: Any, **options: Any) -> Any:
        sizes.append(options["batch_size"])
        return sample(*arguments, **options)

    monkeypatch.setattr(policy, "sample", counting)
    monkeypatch.setattr(policy, "SAMPLE_TOKENS", 128)
    health = repeat_health("here", None, 3)["health"]
    assert len(set(sizes)) > 1 and sum(sizes) == 12
    assert (health["repeats"], health["repeat_sd"], health["repeats_differ"]) == (3, 0.0, 0)


def test_a_server_that_goes_down_is_asked_for_the_rest_alone(
    judge_server: Any, stage: Callable[..., StageContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    judge_server.reply, judge_server.down_after = lambda body: "so", 2
    served = Served(url=judge_server.url, parallel=1)
    first = stage("first", served)
    with pytest.raises(StageError, match="gave no answer"):
        generate.run(first)
    assert not (first.output / "responses.jsonl").exists()
    judge_server.down_after = None
    second = stage("second", served, earlier=(first.work,))
    generate.run(second)
    assert len(judge_server.asked) == 4 and [row.response for row in read_responses(second.output)] == ["so"] * 4


def test_a_prompt_that_does_not_fit_is_not_sent(
    judge_server: Any, stage: Callable[..., StageContext], pocket_policy: Path
) -> None:
    judge_server.reply = lambda body: "so"
    served = open_served_policy(stage("long", Served(url=judge_server.url)))
    word = served.tokenizer.decode([served.tokenizer.encode("the", add_special_tokens=False)[0]])
    fits, long = (" ".join([word] * count) for count in (100, 200))
    answers = served.generate([fits, long], Sampling(64))
    assert [answer.finish for answer in answers] == ["eos", "too_long"]
    (body,) = judge_server.asked
    assert body["max_tokens"] == 128 - len(served.encode(fits))


def test_a_beginning_of_sequence_is_sent_once(judge_server: Any, stage: Callable[..., StageContext]) -> None:
    """A template that writes the token which the tokenizer adds to every text: the server adds it again."""
    served = open_served_policy(stage("bos", Served(url=judge_server.url)))

    class Doubling:
        """A tokenizer of bytes that begins every text with <s>."""

        bos_token = "<s>"

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            ids = [-1] * text.startswith("<s>") + list(text.removeprefix("<s>").encode())
            return [-1, *ids] if add_special_tokens else ids

    served.tokenizer = Doubling()
    assert served._sent("<s>ab", [-1, 97, 98]) == "ab"
    assert served._sent("ab", [-1, 97, 98]) == "ab"
    with pytest.raises(StageError, match="adds special tokens of its own"):
        served._sent("ab", [97, 98])


def test_what_a_server_can_not_do_is_told(judge_server: Any, stage: Callable[..., StageContext]) -> None:
    context = stage("choices", Served(url=judge_server.url, model="mine"))
    served = open_served_policy(context)
    assert served.loglikelihoods([]) == []
    with pytest.raises(StageError, match="this suite compares log-likelihoods of given texts"):
        served.loglikelihoods([("a", "b")])
    for names, said in (([], "serves 0 models"), (["a", "b"], "serves 2 models: a, b")):
        judge_server.names = names
        with pytest.raises(StageError, match=said):
            open_served_policy(stage(f"names-{len(names)}", Served(url=judge_server.url)))
    with pytest.raises(StageError, match="does not say which models are served"):
        open_served_policy(stage("nowhere", Served(url=judge_server.url.replace("/v1", "/v2"))))
    wrong = open_served_policy(stage("wrong", Served(url=judge_server.url.replace("/v1", "/v2"), model="mine")))
    with pytest.raises(StageError, match=r"status 404[\s\S]*ends before /completions"):
        wrong.generate(["a"], Sampling(4))
    assert "mine" in json.loads(context.locations["endpoint"])["model"]
