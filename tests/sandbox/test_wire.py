"""What travels between a program and its checker."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import itertools
import json
import math
import os
import socket
import time
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.sandbox.wire import Broken, Frames, decode, encode, within


def unplain(value: Any) -> Any:
    raise TypeError(type(value).__name__)


def travelled(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, unplain))), unplain)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.tuples(st.integers()))
    ),
    max_leaves=20,
)


@given(plain)
@settings(max_examples=200, deadline=None)
def test_plain_values_travel_whole(value: Any) -> None:
    found = travelled(value)
    assert found == value and type(found) is type(value)
    assert repr(found) == repr(value) or isinstance(value, set | frozenset | dict | list | tuple)


@pytest.mark.parametrize(
    "value",
    [
        -(1 << 63),
        math.inf,
        -0.0,
        "\ud800",
        collections.Counter("abba"),
        collections.OrderedDict([("b", 1), ("a", 2)]),
        collections.deque([1, (2,)]),
        range(3, 10**30, 7),
        decimal.Decimal("0.10"),
        fractions.Fraction(1, 3),
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
        numpy.float64(0.1),
        numpy.int32(7),
        bytearray(b"\x00\xff"),
    ],
)
def test_rarer_values_travel_whole(value: Any) -> None:
    found = travelled(value)
    assert found == value and type(found) is type(value) and hash_of(found) == hash_of(value)


def test_numbers_of_many_digits_travel() -> None:
    assert travelled(2**20000 + 1) == 2**20000 + 1
    assert travelled(-(3**9000)) == -(3**9000)


def hash_of(value: Any) -> str:
    return "" if isinstance(value, int) else repr(value)


def test_nan_and_arrays_travel() -> None:
    assert math.isnan(travelled(float("nan")))
    array = numpy.arange(6.0).reshape(2, 3)
    assert numpy.array_equal(travelled(array), array) and travelled(array).dtype == array.dtype


def test_a_tuple_stays_a_tuple_and_true_stays_true() -> None:
    assert travelled([1, (1, [2]), {1: (2,)}]) == [1, (1, [2]), {1: (2,)}]
    assert travelled((1, 2)) != [1, 2]
    assert travelled(True) is True and travelled(1) is not True


def test_subclasses_are_what_they_derive_from() -> None:
    class Yes(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Rows(list):  # type: ignore[type-arg]
        pass

    pair = collections.namedtuple("pair", "a b")
    assert type(travelled(Yes(3))) is int and travelled(Yes(3)) == 3
    assert type(travelled(Rows([1]))) is list
    assert type(travelled(pair(1, 2))) is tuple
    assert travelled(collections.defaultdict(int, a=1)) == {"a": 1}


def test_iterators_travel_as_far_as_they_end() -> None:
    assert list(travelled(x * x for x in range(3))) == [0, 1, 4]
    assert list(travelled(map(str, [1, 2]))) == ["1", "2"]
    with pytest.raises(TypeError, match="count"):
        travelled(itertools.count())


def test_what_is_not_plain_is_handed_to_the_caller() -> None:
    for value in (object(), len, type, {"a": object()}, numpy.array([object()])):
        with pytest.raises(TypeError):
            travelled(value)


@pytest.mark.parametrize(
    "form",
    [
        {"unknown": 1},
        {"int": 3},
        {"int": "zz"},
        {"set": [[1]]},
        {"dict": [[1]]},
        {"dict": [[[], 1]]},
        {"tuple": None},
        {},
        {"tuple": [], "set": []},
        {"numpy": ["O", [], 1]},
        {"numpy": ["no such", [1], [1]]},
        {"numpy": ["<f8", [5], [1.0]]},
        {"fractions.Fraction": "1/0"},
        {"decimal.Decimal": "x"},
    ],
)
def test_forms_of_no_value_break_the_channel(form: Any) -> None:
    with pytest.raises(Broken):
        decode(form, unplain)


def frames_of(data: bytes) -> Frames:
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    theirs.close()
    return Frames(ours.detach())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ended"),
        (b"\x00", "ended"),
        ((5).to_bytes(8, "big") + b"{}", "ended"),
        ((1 << 40).to_bytes(8, "big"), "unreadable"),
        ((2).to_bytes(8, "big") + b"[]", "unreadable"),
        ((3).to_bytes(8, "big") + b"{x}", "unreadable"),
        ((4).to_bytes(8, "big") + b"\xff\xff\xff\xff", "unreadable"),
        ((200_000).to_bytes(8, "big") + b"[" * 200_000, "unreadable"),
    ],
)
def test_broken_frames_are_told_apart(data: bytes, why: str) -> None:
    frames = frames_of(data)
    with pytest.raises(Broken, match=why):
        frames.receive(within(5))


def test_a_late_answer_is_no_answer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        began = time.monotonic()
        with pytest.raises(Broken, match="timed_out"):
            Frames(ours.fileno()).receive(within(0.05))
        assert time.monotonic() - began < 2


def test_a_reader_that_does_not_read_is_late() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_blocking(ours.fileno(), False)
        with pytest.raises(Broken, match="timed_out"):
            Frames(ours.fileno()).send({"much": "x" * (1 << 22)}, within(0.1))


def test_of_what_is_too_long_to_send_the_digest_travels() -> None:
    long = [(number, "x") for number in range(1_000_001)]
    found = travelled(long)
    assert found == long and found == list(long)
    assert found != long[:-1] and found != tuple(long) and found != [*long[:-1], (1_000_000, "y")] and found != 3
    assert found == travelled(long)
    rows = [[number] for number in range(1_000_001)]  # lists have no hash
    assert travelled(rows) == rows


def test_lists_of_rows_travel_whole() -> None:
    for value in ([(1, "a"), ()], [[1], []], [(1, (2,))], [(1 << 70,)], [(1,), [1]], [(), None], ([1], [2])):
        found = travelled(value)
        assert found == value and list(map(type, found)) == list(map(type, value))
