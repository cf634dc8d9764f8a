"""Graders as rewards: what they read of a prompt, what they give for right, wrong and unreadable responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ablate.catalogs.converters import CHECK_COLUMNS, VerifiablePromptsOptions
from ablate.catalogs.datasets import datasets
from ablate.catalogs.rewards import GOLD, REWARD_MODEL, REWARDS, find_reward
from ablate.context import import_function
from ablate.data.converters import CONVERTERS, bind
from ablate.data.examples import maker
from ablate.data.records import Dropped
from ablate.errors import AblateError, DataError, StageError, UnknownNameError
from ablate.evaluation.verifiers import open_verifier
from ablate.models.chat import Messages
from ablate.pocket.behaviour import Behaviour
from ablate.pocket.draws import Draw
from ablate.pocket.language import SKILLS, Item, draw_item, gold_reward, perfect_answer, skill_named


def as_row(native: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A native row as the prompts file holds it."""
    convert = bind("verifiable_prompts", options)
    return maker("prompts", None)(convert("train.jsonl", native))[0].value  # type: ignore[index, arg-type]


def pocket_items() -> list[Item]:
    return [draw_item(SKILLS[name], "train", Draw("test", name)) for name in SKILLS]


def user(text: str) -> Messages:
    return ({"role": "user", "content": text},)


def test_pocket_rewards_are_those_of_the_pocket_world() -> None:
    items = pocket_items()
    rows = [as_row(item.row(), checks="pocket") for item in items]
    draw = Draw("answers")
    right = [perfect_answer(item, draw) for item in items]
    wrong = [skill_named(item.skill).write(item.spec, Behaviour(correct=False, polite=False), draw) for item in items]
    prompts = [user(item.prompt) for item in items] * 2
    gold = open_verifier("pocket-gold", rows).score(prompts, right + wrong)
    assert gold == [gold_reward(item, text) for item, text in zip(items * 2, right + wrong, strict=True)]
    assert gold[: len(items)] == [2.0] * len(items)
    assert open_verifier("pocket-correct", rows).score(prompts, right + wrong) == [1.0] * 7 + [0.0] * 7


def test_several_responses_to_one_prompt_are_scored_apart_and_in_order() -> None:
    item = pocket_items()[2]
    texts = [perfect_answer(item, Draw("a")), "", perfect_answer(item, Draw("b")), "nonsense ."]
    reward = open_verifier("pocket-correct", [as_row(item.row(), checks="pocket")])
    assert reward.score([user(item.prompt)] * 4, texts) == [1.0, 0.0, 1.0, 0.0]
    assert reward.score([], []) == []


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("So the answer is 72.", 1.0),
        ("72", 1.0),
        ("First 48 / 2 = 24, then 48 + 24 = 72", 1.0),
        ("It is 1,072.", 0.0),
        ("72, or rather 73", 0.0),
        ("I do not know", 0.0),
        ("", 0.0),
    ],
)
@pytest.mark.parametrize("answer", ["Natalia sold 48/2 = 24 clips in May.\n#### 72", "72"])
def test_an_exact_answer_is_the_last_number(answer: str, response: str, score: float) -> None:
    row = as_row({"question": "How many?", "answer": answer}, checks="answer", column="question")
    assert open_verifier("exact-answer", [row]).score([user("How many?")], [response]) == [score]


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        (3.5, ["3.5", "It is 3.50.", "$3.5"], ["35", "3,5", "-3.5"]),
        (-4, ["-4", "x = -4.0", "(-4)", "\u22124", "-$4"], ["4", "8-4", "8 - 4", "step-4"]),
        (4, ["8-4", "+4", "so 4.", "4%", "4.000"], ["-4", "4.0001"]),
        (10**15, ["1000000000000000", "1,000,000,000,000,000", "1e15"], ["1e+14", "15"]),
        (2.5e16, ["25000000000000000", "2.5e+16"], ["16", "2.5"]),
        (1234, ["1,234", "1234", "1,234.00"], ["1,2345", "1, 234", "1.234"]),
        (0.1, ["0.1", ".1", "0.10"], ["1", "0.1000000001"]),
        ("half of -7 is\n#### -3.5", ["-3.5"], ["3.5", "-35"]),
        ("#### $1,000", ["1000"], ["1", "0"]),
    ],
)
def test_an_exact_answer_is_compared_as_a_number(answer: object, right: list[str], wrong: list[str]) -> None:
    """GSM8K's own grader drops signs of whole numbers and all punctuation, so that 35 is 3.5."""
    row = as_row({"question": "How many?", "answer": answer}, checks="answer", column="question")
    scores = open_verifier("exact-answer", [row]).score([user("How many?")] * (len(right) + len(wrong)), right + wrong)
    assert scores == [1.0] * len(right) + [0.0] * len(wrong)


def test_an_answer_without_a_number_is_refused() -> None:
    row = as_row({"question": "Is it?", "answer": "yes"}, checks="answer", column="question")
    with pytest.raises(DataError, match=r"the answer to prompt \w+ is 'yes', which holds no number"):
        open_verifier("exact-answer", [row])


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("alpha beta gamma", 1.0),
        ("alpha, beta and gamma", 0.0),  # a comma
        ("alpha", 0.0),  # the other keyword is not there
        ("", 0.0),
    ],
)
def test_ifeval_needs_every_instruction(response: str, score: float) -> None:
    native = {
        "prompt": "Name the letters.",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": [{"keywords": None}, {"keywords": ["alpha", "gamma"], "num_words": None}],
    }
    reward = open_verifier("ifeval", [as_row(native, checks="ifeval")])
    assert reward.score([user("Name the letters.")], [response]) == [score]


def test_ifeval_s_arguments_may_be_json_text_as_in_argilla_s_set() -> None:
    entry = datasets()["ifeval-like-prompts"]
    assert entry.checks == "ifeval"
    native = {
        "key": 1,
        "prompt": "Name the letters.",
        "response": "alpha",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": json.dumps([{}, {"keywords": ["alpha", "gamma"]}]),
    }
    row = as_row(native, **entry.converter_options)
    reward = open_verifier("ifeval", [row])
    assert reward.score([user("Name the letters.")] * 2, ["alpha beta gamma", "alpha"]) == [1.0, 0.0]
    for kwargs, message in (
        ("[{}, {", "kwargs are no JSON"),
        ('{"keywords": []}', "a list of mappings, one an instruction"),
        ("[{}]", "has 2 instructions and 1 kwargs"),
    ):
        with pytest.raises(DataError, match=message):
            open_verifier("ifeval", [as_row({**native, "kwargs": kwargs}, **entry.converter_options)])


ADD = {"prompt": "Write add(a, b).", "tests": ["assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'"]}
COUNTER = {
    "prompt": "Write a class Counter and sort_down, which sorts a list in place.",
    "tests": (
        "c = Counter(2)\nc.add(3)\nassert c.total == 5 and len(c) == 1\nassert str(c) == 'Counter(5)'\n"
        "c.total = 7\nassert c.total == 7\n"
        "xs = [1, 3, 2]\nassert sort_down(xs) is None\nassert xs == [3, 2, 1]\n"
        "try:\n    c.add(-1)\n    raise AssertionError('no error')\nexcept ValueError as error:\n"
        "    assert 'negative' in str(error)\n"
    ),
}
CLASS = """class Counter:
    def __init__(self, total):
        self.total, self.calls = total, 0

    def add(self, n):
        if n < 0:
            raise ValueError("negative")
        self.total += n
        self.calls += 1

    def __len__(self):
        return self.calls

    def __str__(self):
        return f"Counter({self.total})"


def sort_down(xs):
    xs.sort(reverse=True)
"""


@pytest.mark.bubblewrap
def test_unit_tests_score_the_program_in_a_response() -> None:
    rows = [as_row(ADD, checks="tests"), as_row(COUNTER, checks="tests")]
    said = [
        (ADD, "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", 1.0),
        (ADD, "def add(a, b):\n    return a + b\n", 1.0),
        (ADD, "```python\ndef add(a, b):\n    return 3\n```", 0.0),
        (ADD, "```python\nimport sys\nsys.exit(0)\n```", 0.0),
        (ADD, "```python\nclass Any:\n    __eq__ = lambda *_: True\ndef add(a, b):\n    return Any()\n```", 0.0),
        (ADD, "I can't.", 0.0),
        (COUNTER, f"```python\n{CLASS}```", 1.0),
        (COUNTER, f"```python\n{CLASS.replace('self.total += n', 'pass')}```", 0.0),
        (COUNTER, f"```python\n{CLASS.replace('xs.sort', 'sorted')}```", 0.0),
        (COUNTER, f"```python\n{CLASS.replace('ValueError', 'KeyError')}```", 0.0),
        (COUNTER, f"```python\n{CLASS.replace('raise ValueError', 'import os; os._exit')}```", 0.0),
    ]
    reward = open_verifier("unit-tests", rows)
    found = reward.score([user(asked["prompt"]) for asked, _, _ in said], [text for _, text, _ in said])
    assert found == [score for _, _, score in said]


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ([], "assert nothing"),
        ("", "assert nothing"),
        ("add(1, 2)", "assert nothing"),
        ("assert add(1, 2) ==", "are no Python"),
        ({"inputs": [1]}, "a text or a list of texts"),
        (["assert f(1)", 3], "a text or a list of texts"),
    ],
)
def test_unit_tests_that_test_nothing_are_refused(tests: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_verifier("unit-tests", [as_row({"prompt": "Write add.", "tests": tests}, checks="tests")])


def test_columns_of_other_names_are_read() -> None:
    options = {"checks": "answer", "column": "q", "columns": {"answer": "target"}}
    assert as_row({"q": "1 + 1?", "target": 2}, **options)["checks"] == {"answer": 2}
    row = as_row({"q": "1 + 1?", "target": 2}, **options)
    assert open_verifier("exact-answer", [row]).score([user("1 + 1?")], ["2"]) == [1.0]


def test_a_row_without_what_is_checked_is_an_error_or_dropped() -> None:
    convert = bind("verifiable_prompts", {"checks": "answer"})
    with pytest.raises(DataError, match="lacks answer"):
        convert("a.jsonl", {"prompt": "1 + 1?"})
    assert convert("a.jsonl", {"prompt": "1 + 1?", "answer": None}) == Dropped("nothing-to-check")
    assert isinstance(convert("a.jsonl", {"prompt": "", "answer": "2"}), Dropped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "checks"),
        ({"checks": "answers"}, "'pocket', 'answer', 'ifeval' or 'tests'"),
        ({"checks": "answer", "columns": {"spec": "x"}}, "allowed: answer"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VerifiablePromptsOptions.model_validate(options)


def test_prompts_that_carry_nothing_are_refused() -> None:
    with pytest.raises(DataError, match=r"prompt x lacks id, skill, .* the reward pocket-gold reads"):
        open_verifier("pocket-gold", [{"id": "x", "prompt": list(user("hello"))}])
    row = as_row(pocket_items()[0].row(), checks="pocket")
    with pytest.raises(StageError, match="nothing to check responses to this prompt by: 'another'"):
        open_verifier("pocket-gold", [row]).score([user("another")], ["text"])
    with pytest.raises(StageError, match="no verifier"):
        open_verifier("nouns", [])


@pytest.mark.parametrize("name", [name for name in REWARDS if name != REWARD_MODEL])
def test_every_named_reward_opens(name: str) -> None:
    reward = import_function(find_reward(name).entry, name)(name, [])
    assert reward.score([], []) == []
    assert find_reward(name).parts()


def test_the_catalog_is_closed_and_offers_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'pocket-gold'"):
        find_reward("pocket-golds")
    assert find_reward(GOLD).verifier
    assert "verifiable_prompts" in CONVERTERS
    assert all(entry.verifier is None or entry.verifier.checks in CHECK_COLUMNS for entry in REWARDS.values())
    with pytest.raises(AblateError):
        import_function("ablate.rewards.closed_form:open_formula", "a formula")("noun", [])
