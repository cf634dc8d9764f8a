"""Inputs of MBPP+ as Python has them: its JSON spells tuples and sets as lists, and complex numbers as texts.

Source: evalplus 0.3.1, ``mbpp_deserialize_inputs``; the same inputs stand as Python literals in the human-eval form of
the set (MbppPlus-OriginFmt), against which a test holds these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Arguments = list[Any]


def python_inputs(task: int, inputs: list[Arguments]) -> list[Arguments]:
    """The arguments of each call of a task's function."""
    change = _CHANGES.get(task)
    return inputs if change is None else [list(change(arguments)) for arguments in inputs]


def _tuples(arguments: Arguments) -> Arguments:
    return [tuple(argument) for argument in arguments]


def _rows(arguments: Arguments) -> Arguments:
    return [[tuple(row) for row in argument] for argument in arguments]


def _first_rows(arguments: Arguments) -> Arguments:
    return [[tuple(row) for row in arguments[0]], *arguments[1:]]


def _first(arguments: Arguments) -> Arguments:
    return [tuple(arguments[0]), *arguments[1:]]


def _second(arguments: Arguments) -> Arguments:
    return [arguments[0], tuple(arguments[1])]


def _tables(arguments: Arguments) -> Arguments:
    return [tuple(tuple(row) for row in argument) for argument in arguments]


def _all(value: Any) -> Any:
    return tuple(_all(item) for item in value) if isinstance(value, list) else value


def _mixed(arguments: Arguments) -> Arguments:
    return [tuple(tuple(item) if isinstance(item, list) else item for item in arguments[0])]


def _values(arguments: Arguments) -> Arguments:
    return [{key: tuple(value) for key, value in arguments[0].items()}, *arguments[1:]]


def _sets(arguments: Arguments) -> Arguments:
    return [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]]


def _float_and_complex(arguments: Arguments) -> Arguments:
    return [float(arguments[0]), complex(arguments[1])]


def _complex(arguments: Arguments) -> Arguments:
    return [complex(arguments[0])]


_TASKS: tuple[tuple[Callable[[Arguments], Any], str], ...] = (
    (_tuples, "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809"),
    (_rows, "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780"),
    (_first_rows, "75 413 444 753"),
    (_first, "250 307 405 446 617 720 763 808"),
    (_second, "106 750"),
    (_tables, "259 401 445"),
    (_all, "580 615 791"),
    (_mixed, "278"),
    (_values, "722"),
    (_sets, "115"),
    (_float_and_complex, "124"),
    (_complex, "252"),
)
_CHANGES = {int(task): change for change, tasks in _TASKS for task in tasks.split()}
