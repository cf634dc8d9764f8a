"""One converter a schema: a function from a native row to a record, or to the reason why the row is dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ablate.catalogs.converters import CONVERTER_OPTIONS, ByFileOptions, ChosenAsInstructionOptions
from ablate.catalogs.functions import is_function
from ablate.data.converters import chosen_as_instruction, conversations, instructions, own
from ablate.data.converters.preference import GROUP_KEYS, PREFERENCE
from ablate.data.records import Converted, Row
from ablate.errors import DataError, UnknownNameError

CONVERTERS: dict[str, Callable[[Row, Any], Converted]] = {
    **PREFERENCE,
    "messages": conversations.convert_messages,
    "alpaca": instructions.convert_alpaca,
    "sharegpt": instructions.convert_sharegpt,
    "oasst_tree": instructions.convert_oasst_tree,
    "prompts": conversations.convert_prompt,
    "verifiable_prompts": conversations.convert_verifiable_prompt,
    "mined_prompts": instructions.convert_mined_prompt,
    "chosen_as_instruction": chosen_as_instruction.convert,
}
"""Converter name to function; ``by_file`` combines these. Options of the same names are in the dataset catalog."""

BoundConverter: TypeAlias = Callable[[str, Row], Converted]
"""A converter with its options: (relative file name, row) to record."""


GroupKey: TypeAlias = Callable[[str, Row], str | None]
"""Which rows a converter reads as one: (relative file name, row) to the key of its group, None for no group."""


def bind(name: str, options: Mapping[str, Any], code: str | None = None) -> BoundConverter:
    """Return the converter ``name`` with ``options``, which are validated here.

    ``code`` is the sha256 that the file of a researcher's own converter must have; None: any.
    """
    if is_function(name):
        function = own.load(name, options, code)
        return lambda _file, row: function(row)
    if name not in CONVERTER_OPTIONS:
        raise UnknownNameError("converter", name, CONVERTER_OPTIONS)
    resolved = CONVERTER_OPTIONS[name].model_validate(dict(options))
    if isinstance(resolved, ByFileOptions):
        return _by_file(resolved)
    convert = CONVERTERS[name]
    return lambda _file, row: convert(row, resolved)


def grouping(name: str, options: Mapping[str, Any]) -> GroupKey | None:
    """Return the keys of the groups that ``name`` reads, wrapped converters included; None if it reads single rows."""
    if is_function(name):
        return None
    resolved = CONVERTER_OPTIONS[name].model_validate(dict(options))
    if isinstance(resolved, ChosenAsInstructionOptions):
        return grouping(resolved.of, resolved.options)
    if isinstance(resolved, ByFileOptions):
        parts = {file: grouping(part.converter, part.options) for file, part in resolved.files.items()}
        if not any(parts.values()):
            return None
        return lambda file, row: key(file, row) if (key := parts.get(file)) else None
    if name not in GROUP_KEYS:
        return None
    key_of = GROUP_KEYS[name]
    return lambda _file, row: key_of(row, resolved)


def _by_file(options: ByFileOptions) -> BoundConverter:
    parts = {file: bind(part.converter, part.options) for file, part in options.files.items()}

    def convert(file: str, row: Row) -> Converted:
        if file not in parts:
            raise DataError(f"the converter by_file has no entry for {file}", hint=f"it has: {', '.join(parts)}")
        return parts[file](file, row)

    return convert
