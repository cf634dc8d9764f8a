"""One converter a schema: a function from a native row to a record, or to the reason why the row is dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ablate.catalogs.datasets import CONVERTER_OPTIONS, ByFileOptions
from ablate.data.converters import chosen_as_instruction, conversations
from ablate.data.converters.preference import PREFERENCE
from ablate.data.records import Converted, Row
from ablate.errors import DataError, UnknownNameError

CONVERTERS: dict[str, Callable[[Row, Any], Converted]] = {
    **PREFERENCE,
    "messages": conversations.convert_messages,
    "prompts": conversations.convert_prompt,
    "chosen_as_instruction": chosen_as_instruction.convert,
}
"""Converter name to function; ``by_file`` combines these. Options of the same names are in the dataset catalog."""

BoundConverter: TypeAlias = Callable[[str, Row], Converted]
"""A converter with its options: (relative file name, row) to record."""


def bind(name: str, options: Mapping[str, Any]) -> BoundConverter:
    """Return the converter ``name`` with ``options``, which are validated here."""
    if name not in CONVERTER_OPTIONS:
        raise UnknownNameError("converter", name, CONVERTER_OPTIONS)
    resolved = CONVERTER_OPTIONS[name].model_validate(dict(options))
    if isinstance(resolved, ByFileOptions):
        return _by_file(resolved)
    convert = CONVERTERS[name]
    return lambda _file, row: convert(row, resolved)


def _by_file(options: ByFileOptions) -> BoundConverter:
    parts = {file: bind(part.converter, part.options) for file, part in options.files.items()}

    def convert(file: str, row: Row) -> Converted:
        if file not in parts:
            raise DataError(f"the converter by_file has no entry for {file}", hint=f"it has: {', '.join(parts)}")
        return parts[file](file, row)

    return convert
