"""Converters of instruction data and of mined prompts, on rows in native schemas, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ablate.data.converters import bind
from ablate.data.records import Conversation, Dropped, Prompt


def convert(name: str, row: dict[str, Any], **options: Any) -> Any:
    return bind(name, options)("file", row)


def texts(messages: Any) -> list[str]:
    return [f"{turn['role'][0]}:{turn['content']}" for turn in messages]


def only(converted: Any) -> Conversation:
    (conversation,) = converted
    assert isinstance(conversation, Conversation)
    return conversation


def test_alpaca_and_dolly() -> None:
    row = {"instruction": "Add.", "input": "1, 2", "output": " 3", "text": "…"}
    assert texts(only(convert("alpaca", row)).messages) == ["u:Add.\n\n1, 2", "a:3"]
    assert texts(only(convert("alpaca", {**row, "input": " "})).messages) == ["u:Add.", "a:3"]
    assert texts(only(convert("alpaca", {"instruction": "Add.", "output": "3"})).messages) == ["u:Add.", "a:3"]
    dolly = {"instruction": "Who?", "context": "Ada wrote it.", "response": "Ada", "category": "closed_qa"}
    found = convert("alpaca", dolly, input="context", output="response")
    assert texts(only(found).messages) == ["u:Who?\n\nAda wrote it.", "a:Ada"]
    assert convert("alpaca", {**row, "output": ""}) == Dropped("empty-message")
    assert convert("alpaca", {**row, "instruction": ""}) != Dropped("empty-message")  # the input alone is a prompt
    assert convert("alpaca", {**row, "instruction": None}) == Dropped("not-text")


def share(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"id": "x", "conversations": [{"from": name, "value": text} for name, text in turns]}


def test_sharegpt() -> None:
    row = share(("system", "s"), ("human", "q "), ("gpt", "a"))
    assert texts(only(convert("sharegpt", row)).messages) == ["s:s", "u:q", "a:a"]
    ends = share(("gpt", "hello"), ("human", "q"), ("gpt", "a"), ("human", "bye"))
    assert convert("sharegpt", ends) == Dropped("turns-do-not-alternate")
    assert texts(only(convert("sharegpt", ends, ends="trim")).messages) == ["u:q", "a:a"]
    assert convert("sharegpt", share(("human", "q")), ends="trim") == Dropped("last-turn-not-assistant")
    for row, reason in (
        (share(("human", "q")), "last-turn-not-assistant"),
        (share(("human", "q"), ("human", "r"), ("gpt", "a")), "turns-do-not-alternate"),
        (share(("human", "q"), ("tool", "a")), "unknown-role"),
        (share(("human", "q"), ("gpt", "")), "empty-message"),
        (share(("human", None), ("gpt", "a")), "not-text"),
        ({"conversations": None}, "not-messages"),
    ):
        assert convert("sharegpt", row) == Dropped(reason)


def node(role: str, text: str, *replies: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "lang": "en", "deleted": False, "replies": list(replies), **more}


TREE = {
    "message_tree_id": "t",
    "prompt": node(
        "prompter",
        "q",
        node("assistant", "second", node("prompter", "more", node("assistant", "last", rank=0)), rank=1),
        node("assistant", "first", node("prompter", "thanks"), rank=0),
        node("assistant", "gone", rank=0, deleted=True),
    ),
}


def test_oasst_trees() -> None:
    best = only(convert("oasst_tree", TREE))
    assert (texts(best.messages), best.language) == (["u:q", "a:first"], "en")
    every = convert("oasst_tree", TREE, paths="all")
    assert [texts(item.messages) for item in every] == [["u:q", "a:second", "u:more", "a:last"], ["u:q", "a:first"]]
    assert convert("oasst_tree", TREE, language="de") == Dropped("other-language")
    assert len(convert("oasst_tree", TREE, language="en")) == 1
    assert convert("oasst_tree", {"prompt": node("prompter", "q")}) == Dropped("no-answer")
    assert convert("oasst_tree", {"prompt": None}) == Dropped("not-text")
    assert convert("oasst_tree", {"prompt": node("prompter", " ")}) == Dropped("not-text")


def test_oasst_paths_that_another_continues_are_not_made() -> None:
    tree = {"prompt": node("prompter", "q", node("assistant", "a", node("prompter", "r"), node("prompter", "s")))}
    (one,) = convert("oasst_tree", tree, paths="all")
    assert texts(one.messages) == ["u:q", "a:a"]
    tree["prompt"]["replies"][0]["replies"][1]["replies"] = [node("assistant", "b")]
    (longer,) = convert("oasst_tree", tree, paths="all")
    assert texts(longer.messages) == ["u:q", "a:a", "u:s", "a:b"]


def log(first: Any, language: str = "English") -> dict[str, Any]:
    turns = [{"role": "user", "content": first}, {"role": "assistant", "content": "a"}]
    return {"conversation": turns, "model": "gpt-4", "language": language}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (log("one two"), "too-few-words"),
        (log("word " * 501), "too-long"),
        (log("x y " + "z" * 5000), "too-long"),
        (log("eins zwei drei", "German"), "other-language"),
        (log(None), "not-text"),
        ({"conversation": [{"role": "assistant", "content": "a"}], "language": "English"}, "no-user-turn"),
    ],
)
def test_mined_prompts_dropped(row: dict[str, Any], reason: str) -> None:
    assert convert("mined_prompts", row) == Dropped(reason)


def test_mined_prompts_kept() -> None:
    for text in ("one two three", "word " * 500):
        prompt = convert("mined_prompts", log(text))
        assert isinstance(prompt, Prompt)
        assert (texts(prompt.messages), prompt.language) == ([f"u:{text.strip()}"], "English")
    assert isinstance(convert("mined_prompts", log("eins zwei drei", "German"), language=None), Prompt)
