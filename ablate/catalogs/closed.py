"""Closed models of what is written by hand; their errors say what is wrong, where, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from ablate.catalogs.origins import KeyPath
from ablate.errors import Location, SpecError, suggestion

Model = TypeVar("Model", bound=BaseModel)


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
"""Names, written as a list; one alone needs no list."""


class Closed(BaseModel):
    """Base of what is written by hand: frozen, and an unknown key is an error that knows the keys there are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def written_keys(cls) -> list[str]:
        """Return the keys that may be written."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "no_mapping", "a mapping is needed; its keys: {keys}", {"keys": ", ".join(cls.written_keys())}
            )
        known = {field.alias or name for name, field in cls.model_fields.items()}
        errors: list[InitErrorDetails] = [
            {"type": unknown_name("key", str(key), cls.written_keys()), "loc": (str(key),), "input": value[key]}
            for key in value
            if key not in known
        ]
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return value


class Strict(Closed):
    """Base of datasets and models: no value is taken for one of another type."""

    model_config = ConfigDict(strict=True)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> PydanticCustomError:
    """Return what a validator raises for a name that is none of ``known``."""
    context = {"kind": kind, "name": name, "quoted": repr(name), "known": sorted(known)}
    return PydanticCustomError("unknown_name", "unknown {kind} {quoted}", context)


def validated(
    model: type[Model], value: object, locate: Callable[..., Location], *, strict: bool | None = None
) -> Model:
    """Return ``value`` as a model; raises :class:`SpecError` for the most telling of pydantic's errors.

    ``locate`` returns where a key path of ``value`` is written.
    """
    try:
        return model.model_validate(value, strict=strict)
    except ValidationError as error:
        # A misspelt key is reported twice, as unknown and as missing: the unknown one names what was written.
        first = min(error.errors(include_url=False), key=lambda item: item["type"] != "unknown_name")
        message, hint = _explain(first)
        raise SpecError(message, location=locate(*_written_path(first, value)), hint=hint) from error


def _explain(error: ErrorDetails) -> tuple[str, str | None]:
    """Return what is wrong and what is allowed."""
    found, context = error["input"], error.get("ctx", {})
    if _lacks_key(error):
        return f"{error['loc'][-1]!r} is required", None
    if error["type"] == "missing":
        return f"one more value is needed (found {found!r})", None
    if error["type"] == "too_short":
        return f"{context['min_length']} or more values are needed (found {found!r})", None
    if error["type"] == "too_long":
        return f"no more than {context['max_length']} values are allowed (found {found!r})", None
    if error["type"] == "literal_error":
        return f"{found!r} is not allowed", suggestion(str(found), _alternatives(context["expected"]))
    if error["type"] in ("dict_type", "model_type", "model_attributes_type", "mapping_type"):
        return f"a mapping of keys to values is needed (found {found!r})", None
    message = error["msg"].removeprefix("Value error, ")
    if "known" in context:
        return message, suggestion(context["name"], context["known"])
    return message if isinstance(found, Mapping) else f"{message} (found {found!r})", None


def _alternatives(expected: str) -> list[str]:
    return [part.strip(" '") for part in expected.replace(" or ", ", ").split(", ")]


def _written_path(error: ErrorDetails, value: Any) -> KeyPath:
    # pydantic's location also names union members and shorthands, which nobody wrote: keep the parts that are there.
    path: list[str | int] = []
    for part in error["loc"]:
        if _is_in(value, part):
            value = value[part]
            path.append(part)
    return (*path, error["loc"][-1]) if _lacks_key(error) else tuple(path)


def _lacks_key(error: ErrorDetails) -> bool:
    # The other thing that can be missing is an item of a list with a fixed length.
    return error["type"] == "missing" and isinstance(error["loc"][-1], str)


def _is_in(value: Any, part: str | int) -> bool:
    if isinstance(value, Mapping):
        return part in value
    return isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
