"""What travels between a program and its checker: frames of JSON that hold plain values and nothing that runs.

A value is plain when its type is known here: numbers, texts, bytes, containers of them, and a few types of the standard
library and NumPy. Anything else stays with its owner and travels as a reference (:class:`Remote` on the other side).
"""

from __future__ import annotations

import collections
import importlib
import itertools
import json
import operator
import os
import select
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

LARGEST_FRAME = 64 << 20
"""Bytes of the largest answer that is read; a larger one ends the program."""
LONGEST = 1_000_000
"""Parts of a list or tuple that travel; of a longer one the digest does."""
FRAME_SECONDS = 60.0
"""Longest way of a message whose first bytes are there."""
MOST_ITEMS = 1_000_000
"""Items of an iterator that travel; a longer one stays a reference."""
_SMALL = 1 << 63
_SIMPLE = {int, float, str, bool, type(None)}
_BY_TEXT = {
    "decimal.Decimal": "Decimal",
    "fractions.Fraction": "Fraction",
    "datetime.date": "date.fromisoformat",
    "datetime.datetime": "datetime.fromisoformat",
    "datetime.time": "time.fromisoformat",
}
"""Types that travel as texts, by module and name: what makes one of a text. Their modules are slow to import."""
_NUMPY_KINDS = "biufcUS"
_HEADER = struct.Struct(">Q")


class Broken(Exception):
    """There is nothing more to hear from the other side: ``ended``, ``timed_out`` or ``unreadable``."""


class Ending(Protocol):
    """What says how long to wait."""

    def left(self) -> float:
        """Seconds that are left; at most 0 when there is none."""


class Deadline:
    """A moment on ``time.monotonic``'s clock."""

    def __init__(self, end: float) -> None:
        self._end = end

    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.monotonic()


def within(seconds: float) -> Deadline:
    """The deadline in so many seconds."""
    return Deadline(time.monotonic() + seconds)


class Frames:
    """Frames over a descriptor: eight bytes of length, then JSON."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, message: dict[str, Any], deadline: Ending | None = None) -> None:
        """Write one message; raises Broken when the other side is gone or does not read before ``deadline``."""
        body = json.dumps(message, separators=(",", ":")).encode()
        data = memoryview(_HEADER.pack(len(body)) + body)
        while data:
            self._wait(deadline, writing=True)
            try:
                data = data[os.write(self._descriptor, data[: 1 << 16]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Broken("ended") from error

    def receive(self, deadline: Ending | None = None) -> dict[str, Any]:
        """Read one message; raises Broken when there is none before ``deadline``."""
        (length,) = _HEADER.unpack(self._read(_HEADER.size, deadline))
        if length > LARGEST_FRAME:
            raise Broken("unreadable")
        try:
            message = json.loads(self._read(length, deadline and within(FRAME_SECONDS)))
        except (ValueError, RecursionError) as error:
            raise Broken("unreadable") from error
        if not isinstance(message, dict):
            raise Broken("unreadable")
        return message

    def _read(self, length: int, deadline: Ending | None) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._wait(deadline, writing=False)
            try:
                part = os.read(self._descriptor, min(length - len(data), 1 << 20))
            except OSError as error:
                raise Broken("ended") from error
            if not part:
                raise Broken("ended")
            data += part
        return bytes(data)

    def _wait(self, deadline: Ending | None, *, writing: bool) -> None:
        if deadline is None:
            return
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT if writing else select.POLLIN)
        left = 0.0  # what is there is taken, however late it is for us to look
        while not poll.poll(left * 1000):
            left = deadline.left()
            if left <= 0:
                raise Broken("timed_out")


def attempt(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Do what may raise anything, SystemExit included: its value, or what it raised."""
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001 - generated code and the tests of a data set raise what they like
        return None, error


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
    """The JSON form of a value; ``refer`` gives that of one that is not plain."""
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if -_SMALL <= value < _SMALL else {"int": hex(value)}
    if kind in (list, tuple) and len(value) > LONGEST and (digest := Digest.of(value)) is not None:
        return digest.form()
    if kind in (list, tuple) and (form := _encode_fast(value)) is not None:
        return form
    if kind is list:
        return [encode(item, refer) for item in value]
    if kind.__module__ == "numpy":
        return _encode_numpy(value, refer)
    for known, tag in _CONTAINERS:
        if isinstance(value, known):
            return {tag: [encode(item, refer) for item in known.__iter__(value)]}
    for mapping, tag in _MAPPINGS:
        if isinstance(value, mapping):
            return {tag: [[encode(key, refer), encode(item, refer)] for key, item in dict.items(value)]}
    return _encode_rare(value, refer)


class Digest:
    """What travels in place of a list or tuple too long to send: it equals what has the same digest.

    Only who has the value itself can know its digest, so that it proves as much as the value would. It is made of
    Python's hashes: equal values have equal ones, and with one seed (``PYTHONHASHSEED``) they are the same everywhere.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, kind: str, length: int, digest: str) -> None:
        self._facts = (kind, length, digest)

    @classmethod
    def of(cls, value: list[Any] | tuple[Any, ...]) -> Digest | None:
        """The digest of a value; null for one whose parts have none."""
        import hashlib  # rarely needed, and a program waits for every import

        digest = hashlib.sha256()
        try:
            for start in range(0, len(value), 10_000):
                digest.update(repr(list(map(hash, value[start : start + 10_000]))).encode())
        except TypeError:
            return None
        return cls(type(value).__name__, len(value), digest.hexdigest())

    def __eq__(self, other: object) -> bool:
        found = Digest.of(other) if type(other) in (list, tuple) else other  # type: ignore[arg-type]
        return isinstance(found, Digest) and found._facts == self._facts

    def form(self) -> dict[str, Any]:
        """The JSON form."""
        return {"digest": list(self._facts)}


def _encode_fast(value: list[Any] | tuple[Any, ...]) -> Any:
    """The form of a list or tuple of simple values, or a list of such; null for others. At the speed of C: there are
    outputs of a million parts, and the time is the program's."""
    if _simple(value):
        return value if type(value) is list else {"tuple": value}
    kinds = set(map(type, value))
    if type(value) is list and kinds in ({tuple}, {list}) and _simple(itertools.chain.from_iterable(value)):
        return value if kinds == {list} else {"rows": value}
    return None


def _simple(values: Iterable[Any]) -> bool:
    """Whether JSON spells all values as they are."""
    held = values if isinstance(values, list | tuple) else list(values)
    kinds = set(map(type, held))
    if not kinds <= _SIMPLE:
        return False
    numbers = (held if kinds == {int} else [item for item in held if type(item) is int]) if int in kinds else ()
    return not numbers or (max(numbers) < _SMALL and min(numbers) >= -_SMALL)


_CONTAINERS: tuple[tuple[type[Any], str], ...] = (
    (tuple, "tuple"),
    (set, "set"),
    (frozenset, "frozenset"),
    (collections.deque, "deque"),
)
_MAPPINGS: tuple[tuple[type[Any], str], ...] = (
    (collections.Counter, "counter"),
    (collections.OrderedDict, "ordered"),
    (dict, "dict"),
)


def _encode_rare(value: Any, refer: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):  # a subclass equals the list that it is
        return [encode(item, refer) for item in list.__iter__(value)]
    if isinstance(value, int):
        return encode(int.__add__(value, 0), refer)
    if isinstance(value, float):
        return float.__add__(value, 0.0)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytearray" if isinstance(value, bytearray) else "bytes": bytes(value).hex()}
    if isinstance(value, range):
        return {"range": [encode(part, refer) for part in (value.start, value.stop, value.step)]}
    name = f"{type(value).__module__}.{type(value).__name__}"
    if name in _BY_TEXT:
        return {name: value.isoformat() if hasattr(value, "isoformat") else str(value)}
    if isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
        return _encode_iterator(value, refer)
    return refer(value)


def _encode_iterator(value: Iterator[Any], refer: Callable[[Any], Any]) -> Any:
    items = list(itertools.islice(value, MOST_ITEMS + 1))
    return refer(value) if len(items) > MOST_ITEMS else {"iterator": [encode(item, refer) for item in items]}


def _encode_numpy(value: Any, refer: Callable[[Any], Any]) -> Any:
    """A NumPy number or array of numbers, truth values or texts."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.kind not in _NUMPY_KINDS or not hasattr(value, "tolist"):
        return refer(value)
    shape = list(value.shape)
    return {"numpy": [dtype.str, shape, encode(value.ravel().tolist() if shape else value.item(), refer)]}


def decode(form: Any, dereference: Callable[[Any], Any]) -> Any:
    """The value of a JSON form; raises Broken for a form that is none."""
    try:
        return _decode(form, dereference)
    except (ArithmeticError, AttributeError, ImportError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Broken("unreadable") from error


def _decode(form: Any, dereference: Callable[[Any], Any]) -> Any:
    if isinstance(form, list):
        kinds = set(map(type, form))
        if not kinds & {list, dict}:
            return form
        return [_decode(item, dereference) for item in form]
    if not isinstance(form, dict):
        return form
    ((tag, body),) = form.items()
    if tag == "reference":
        return dereference(body)
    if tag == "numpy":
        import numpy

        kind, shape, items = body
        if numpy.dtype(kind).kind not in _NUMPY_KINDS:
            raise TypeError(kind)
        array = numpy.array(_decode(items, dereference), dtype=kind)
        return array.reshape(shape) if shape else array[()]
    if tag in _BY_TEXT:
        return operator.attrgetter(_BY_TEXT[tag])(importlib.import_module(tag.partition(".")[0]))(body)
    if tag in ("dict", "counter", "ordered"):
        made = {_decode(key, dereference): _decode(item, dereference) for key, item in body}
        return _MADE[tag](made)
    return _MADE[tag](_decode(body, dereference))


_MADE: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "tuple": tuple,
    "rows": lambda rows: list(map(tuple, rows)),
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
    "dict": dict,
    "counter": collections.Counter,
    "ordered": collections.OrderedDict,
    "complex": lambda parts: complex(*parts),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": lambda parts: range(*parts),
    "iterator": iter,
    "digest": lambda facts: Digest(*facts),
}
