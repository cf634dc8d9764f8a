"""When an output counts as the expected one: EvalPlus' comparison, with its special cases.

Source: evalplus 0.3.1, ``evalplus/eval/__init__.py`` (``unsafe_execute``) and ``_special_oracle.py``. Runs in the
checker's process, on plain values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

FLOAT_TOLERANCE = 1e-6
"""Absolute tolerance of floats where a task names none."""
_RELATIVE = 1e-7
_AS_SETS = {
    "similar_elements",
    "find_char_long",
    "common_in_nested_lists",
    "extract_singly",
    "larg_nnum",
    "intersection_array",
    "find_dissimilar",
    "Diff",
}
"""Functions of MBPP whose order of results is free."""
_FOUND_OR_NOT = {"check_str", "text_match_three", "text_starta_endb"}
"""Functions of MBPP that may return anything but None for True."""


def expected_of(family: str, entry: str, output: Any) -> Any:
    """What is expected where the reference returned ``output``."""
    return output is not None if family == "mbpp" and entry in _FOUND_OR_NOT and _not_bool(output) else output


def agrees(family: str, entry: str, inputs: Sequence[Any], output: Any, expected: Any, tolerance: float) -> bool:
    """Whether ``output`` counts as ``expected``; what can't be compared raises TypeError or ValueError."""
    if family == "humaneval" and entry == "find_zero":
        return abs(_polynomial(inputs[0], output)) <= tolerance
    exact = bool(output == expected)
    if family == "mbpp":
        exact = _mbpp(entry, inputs, output, expected, exact, tolerance)
    if tolerance == 0 and _is_floats(expected):
        tolerance = FLOAT_TOLERANCE
    if exact or tolerance == 0:
        return exact
    if type(output) is not type(expected):
        return False
    if isinstance(expected, list | tuple) and len(output) != len(expected):
        return False
    return bool(numpy.allclose(output, expected, rtol=_RELATIVE, atol=tolerance))


def _mbpp(entry: str, inputs: Sequence[Any], output: Any, expected: Any, exact: bool, tolerance: float) -> bool:
    """The tasks of MBPP+ whose text allows more than the reference returns."""
    if entry == "are_equivalent":  # Mbpp/164: the text names no rule that the tests could follow
        return True
    if entry == "sum_div":  # Mbpp/295: "divisors" with or without the number's own
        return exact or output == 0
    if entry == "surface_Area":  # Mbpp/581: the height may be the slant height or the pyramid's own
        return exact or abs(output - _pyramid(*inputs)) <= tolerance
    if entry == "digit_distance_nums":  # Mbpp/558: numbers of unequal length are padded or not
        return exact or output == _digit_distance(*inputs)
    if entry in _AS_SETS:
        return set(output) == set(expected)
    if entry in _FOUND_OR_NOT and _not_bool(output):
        return bool(expected == (output is not None))
    return exact


def _not_bool(value: Any) -> bool:
    return not isinstance(value, bool)


def _is_floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    if isinstance(value, numpy.ndarray):
        return value.dtype in (numpy.float64, numpy.float32)
    return isinstance(value, float)


def _polynomial(coefficients: Sequence[float], x: float) -> float:
    return sum(coefficient * math.pow(x, power) for power, coefficient in enumerate(coefficients))


def _pyramid(edge: float, height: float) -> int:
    """Surface of a square pyramid by its height, rounded."""
    return round(edge**2 + 2 * edge * math.sqrt((edge / 2) ** 2 + height**2))


def _digit_distance(first: int, second: int) -> int:
    digits = [str(number) for number in (first, second)]
    width = max(map(len, digits))
    pairs = zip(*(text.zfill(width) for text in digits), strict=True)
    return sum(abs(int(one) - int(other)) for one, other in pairs)
