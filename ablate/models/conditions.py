"""Conditions of a policy: text behind the last user turn, written by hand or by the chat template."""

from __future__ import annotations

from ablate.models.chat import Message, Messages

_BEGIN, _END = "{#- every prompt of this policy has a condition -#}", "{#- here the template begins -#}"
_CONDITIONED = """\
{%- set asked = namespace(last=-1, messages=[]) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set asked.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if loop.index0 == asked.last -%}
{%- set turn = {'role': 'user', 'content': message['content'] ~ '\\n' ~ CONDITION} -%}
{%- set asked.messages = asked.messages + [turn] -%}
{%- else -%}
{%- set asked.messages = asked.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = asked.messages -%}"""


def conditioned(messages: Messages, condition: str) -> list[Message]:
    """Return a conversation with ``condition`` on a line of its own behind the last user turn, if there is one."""
    users = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return [
        Message(role="user", content=f"{message['content']}\n{condition}") if place in users[-1:] else message
        for place, message in enumerate(messages)
    ]


def conditioned_template(template: str, condition: str) -> str:
    """Return a chat template that renders every conversation as ``template`` renders it ``conditioned``.

    A condition that ``template`` writes already gives way to the new one.
    """
    quoted = "'" + condition.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
    return _BEGIN + _CONDITIONED.replace("CONDITION", quoted) + _END + plain_template(template)


def plain_template(template: str) -> str:
    """Return a chat template without the condition that ``conditioned_template`` wrote into it."""
    return template.partition(_END)[2] if template.startswith(_BEGIN) else template
