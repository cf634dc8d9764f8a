"""Claims as declared: a sentence about columns of cells, the axes it is averaged over, those it is made for each of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ablate.catalogs.closed import Closed, Names, unknown_name, validated
from ablate.catalogs.origins import Origins
from ablate.errors import SpecError, suggestion
from ablate.results.layout.columns import Column, check_columns
from ablate.results.layout.grammar import BASELINE, Claim, ClaimError, Quantity, parse_claim
from ablate.results.layout.names import axis_names, baseline_name, refuse_unknown
from ablate.results.layout.selection import hidden_axis, select, shared_values

_KEYS = ("over", "each", "title")


class ClaimLayout(Closed):
    """A claim, written ``{name: sum > sum, over: axes, each: axes}``."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    claim: str = Field(description="the sentence, see ablate.results.layout.grammar")
    over: Names = Field(default=(), description="axes over whose values the difference is averaged")
    each: Names = Field(default=(), description="axes for each of whose values the claim is made")
    title: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "claim" in value:
            return value
        own = [key for key in value if key not in _KEYS]
        if len(own) != 1:
            others = own[1:] if own else []
            if others:
                raise unknown_name("key", str(others[0]), _KEYS)
            raise PydanticCustomError("claim", "a claim is written NAME: SENTENCE, beside over, each and title")
        rest = {key: value[key] for key in value if key != own[0]}
        return {"name": str(own[0]), "claim": value[own[0]], **rest}

    @model_validator(mode="after")
    def _is_readable(self) -> ClaimLayout:
        try:
            parse_claim(self.claim)
        except ClaimError as error:
            message = "{claim}: {error}"
            raise PydanticCustomError("claim", message, {"claim": self.claim, "error": str(error)}) from error
        return self

    @property
    def parsed(self) -> Claim:
        """The sentence, read."""
        return parse_claim(self.claim)


class ClaimList(Closed):
    """Claims that stand in a specification."""

    claims: tuple[ClaimLayout, ...] = ()


def read_claims(values: Sequence[Any], plan: Mapping[str, Any], origins: Origins) -> tuple[ClaimLayout, ...]:
    """Return claims of a specification, checked against its plan; ``origins`` are those of the whole file."""
    found = validated(ClaimList, {"claims": list(values)}, origins.locate).claims
    check_claims(found, plan, origins)
    return found


def check_claims(claims: Sequence[ClaimLayout], plan: Mapping[str, Any], origins: Origins) -> None:
    """Raise :class:`SpecError` for a claim about what the experiment does not have, and for a name used twice."""
    for index, claim in enumerate(claims):
        own = origins.inside("claims", index)
        if claim.name in [other.name for other in claims[:index]]:
            raise SpecError(f"{claim.name!r} is used twice", location=own.locate(claim.name))
        check_claim(claim.parsed, (*claim.over, *claim.each), plan, own, claim.name)


def check_claim(
    claim: Claim, axes: Sequence[str], plan: Mapping[str, Any], origins: Origins, name: str | None = None
) -> None:
    """Raise :class:`SpecError` for a column, key, value or axis that the experiment does not have."""
    place = origins.locate(name) if name else origins.locate()
    chosen = []
    for _, quantity in claim.terms:
        column, kind = column_of(quantity, plan)
        if column is None:
            known = column_names(plan)
            raise SpecError(
                f"unknown column {quantity.column!r}", location=place, hint=suggestion(quantity.column, known)
            )
        check_columns([column], kind, plan, origins)
        chosen.append(_check_selection(quantity, kind, plan, place))
    for axis in axes:
        refuse_unknown("axis", axis, axis_names(plan["subjects"]), place)
        if not shared_values(plan["subjects"], claim.terms, chosen, axis):
            raise SpecError(f"no value of {axis!r} is there for all columns of the claim", location=place)
    for (_, quantity), indexes in zip(claim.terms, chosen, strict=True):
        hidden = hidden_axis(plan["subjects"], quantity, indexes, axes)
        if hidden is not None:
            axis, values = hidden
            raise SpecError(
                f"{quantity}: axis {axis!r} varies ({', '.join(values)})",
                location=place,
                hint=f"select one, {quantity.column}[…, {axis}={values[0]}], or name the axis in over or each",
            )


def _check_selection(quantity: Quantity, kind: str, plan: Mapping[str, Any], place: Any) -> list[int]:
    entries = [entry for entry in plan["subjects"] if entry["subject"] == kind]
    for key, value in quantity.where:
        if key == BASELINE:
            refuse_unknown("baseline", value, {baseline_name(entry) for entry in entries} - {""}, place)
            continue
        refuse_unknown("axis", key, [*axis_names(entries), BASELINE], place)
        known = {str(entry["axes"].get(key)) for entry in entries if entry["role"] == "cell"}
        if not select(plan["subjects"], Quantity(quantity.column, ((key, value),)), kind):
            refuse_unknown(f"value of {key}", value, known, place)
    chosen = select(plan["subjects"], quantity, kind)
    if not chosen:
        raise SpecError(f"{quantity}: no cell has all of these values", location=place)
    return chosen


def column_names(plan: Mapping[str, Any]) -> list[str]:
    """Return the columns that a claim may name, without metrics and tasks."""
    suites = plan["suites"]
    return ["average", *dict.fromkeys(about["category"] for about in suites.values()), *suites]


def column_of(quantity: Quantity, plan: Mapping[str, Any]) -> tuple[Column | None, str]:
    """Return a quantity's column and whether it is about a policy or a reward model; of a category of both, a policy.

    Without such a column it is None.
    """
    suites, name = plan["suites"], quantity.column
    if name == "average" or name.startswith("average("):
        listed = name.removeprefix("average").strip("()")
        return Column(average=tuple(listed.split(",")) if listed else ()), "policy"
    kinds = {about["subject"] for about in suites.values() if about["category"] == name}
    if kinds:
        return Column(category=name), "policy" if "policy" in kinds else "reward_model"
    suite, *rest = name.split("/")
    if suite not in suites or len(rest) > 2:
        return None, ""
    metric = rest[-1] if rest else None
    task = rest[0] if len(rest) == 2 else None
    return Column(suite=suite, task=task, metric=metric), str(suites[suite]["subject"])
