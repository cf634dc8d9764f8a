"""Conditions: a template that writes one renders what the plain template renders of a conditioned conversation."""

from __future__ import annotations

import pytest

from ablate.models.chat import Message, encode_chats, render
from ablate.models.conditions import conditioned, conditioned_template, plain_template
from ablate.models.loading import load_tokenizer
from ablate.models.templates import TEMPLATES
from ablate.models.tokenizers import byte_tokenizer


def turns(*written: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in written]


CONVERSATIONS = [
    turns(("user", " hello ")),
    turns(("user", "hello"), ("assistant", "good day")),
    turns(("system", "be brief"), ("user", "one"), ("assistant", "two"), ("user", "three "), ("assistant", "four")),
    turns(("user", "one"), ("assistant", "two"), ("user", "three")),
    turns(("system", "nobody asks")),
]
CONDITIONS = ["helpfulness:4,verbosity:2", 'it\'s "so" \\ {{ x }} {% if %} : 4\nsecond line', "höflich : 4 😀"]


def test_a_condition_stands_behind_the_last_user_turn() -> None:
    long = CONVERSATIONS[2]
    found = conditioned(long, "polite : 3")
    assert found == [*long[:3], {"role": "user", "content": "three \npolite : 3"}, long[4]]
    assert conditioned(CONVERSATIONS[4], "polite : 3") == CONVERSATIONS[4]
    assert long[3]["content"] == "three ", "the conversation itself stays"


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_template_writes_what_training_wrote_into_the_messages(template: str, condition: str, tmp_path) -> None:
    plain, asking = byte_tokenizer(template), byte_tokenizer(template)
    asking.chat_template = conditioned_template(plain.chat_template, condition)
    asking.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for messages in CONVERSATIONS:
        expected = conditioned(messages, condition)
        for prompt in (True, False):
            assert render(loaded, messages, prompt=prompt) == render(plain, expected, prompt=prompt)
        assert encode_chats(loaded, [messages], mask=True) == encode_chats(plain, [expected], mask=True)
        assert condition.strip() in render(loaded, messages) or messages is CONVERSATIONS[4]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_condition_takes_the_place_of_the_old_one(template: str) -> None:
    plain = TEMPLATES[template]
    first, second = (conditioned_template(plain, condition) for condition in CONDITIONS[:2])
    assert conditioned_template(first, CONDITIONS[1]) == second != first
    assert plain_template(first) == plain_template(plain) == plain
