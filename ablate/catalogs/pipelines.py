"""What can be done to a set before it is paired: filters, other labels, responses of a policy, mixtures.

These are the words of the ``datasets:`` section; ``ablate.data`` applies filters and labels, the planner turns the
rest into stages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ablate.catalogs.closed import Names, Strict, unknown_name
from ablate.catalogs.judges import Judge, WrittenJudge, find_template
from ablate.catalogs.rewards import LABELLERS

REFINEMENT_REVISIONS = {"where": 1, "label": 1}
"""Raised when what filters keep, or how aspects become a label, changes."""


class Range(Strict):
    """Numbers from ``min`` to ``max``, both included; one of them may be left open."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("min, max or both are needed")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is more than max {self.max:g}")
        return self

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies within."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


class Where(Strict):
    """Which rows are used, and which of their responses; a filter that is not written keeps everything.

    Names are exact or patterns with ``*``. Filters of responses (``model``, ``response_words``, ``refusals``) leave
    responses out; a row that keeps fewer than two is dropped. A conversation is dropped if a turn of its assistant is.
    """

    source: Names | None = Field(None, description="Sources of the rows.")
    language: Names | None = Field(None, description="Languages, as the source calls them.")
    prompt_turns: Range | None = Field(None, description="User turns of the prompt.")
    prompt_words: Range | None = Field(None, description="Words of all turns of the prompt.")
    matches: str | None = Field(None, description="Regular expression found in a user turn of the prompt.")
    lacks: str | None = Field(None, description="Regular expression found in no user turn of the prompt.")
    score_gap: Range | None = Field(None, description="Best score minus worst, in the scores' own unit.")
    model: Names | None = Field(None, description="Models whose responses are used.")
    response_words: Range | None = Field(None, description="Words of a response.")
    refusals: Literal["keep", "drop"] = Field(
        "keep", description="drop: leave refusals and lectures out, as the data of “uncensored” models do."
    )

    @field_validator("matches", "lacks")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _something(self) -> Where:
        if not self.identity():
            raise ValueError("where has no filter in it")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the filters that are written, as JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)


class RewardModelLabels(Strict):
    """A reward model trained for the purpose; parameters not written are those of the ``reward_model`` section."""

    init: str = Field(description="Model whose SFT it starts from.")
    dataset: str = Field(description="Preference set it is trained on.")
    seed: int = Field(0, ge=0, description="Seed of its training; fixed, so that every cell gets the same labels.")
    parameters: Mapping[str, Any] = Field({}, description="Parameters that differ from the section's.")


class Labeller(Strict):
    """What gives responses their scores anew: exactly one of these."""

    reward_model: RewardModelLabels | None = Field(None, description="A reward model, made in this experiment.")
    reward: str | None = Field(
        None,
        description="A formula of the response, or a verifier of what its prompt carries, by the name of the reward.",
    )
    judge: WrittenJudge | None = Field(
        None, description="A model behind an API that is asked, or self: the policy that cells start from."
    )

    @field_validator("reward")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in LABELLERS:
            raise unknown_name("reward", value, LABELLERS)
        return value

    @model_validator(mode="after")
    def _one(self) -> Labeller:
        kinds = tuple(type(self).model_fields)
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(kinds)} is needed (found {', '.join(given) or 'none'})")
        return self

    @property
    def asked(self) -> Judge | None:
        """The judge with the question it is asked: where it has none of its own, for one number."""
        return None if self.judge is None else self.judge.asks(find_template("rate"))


class Label(Strict):
    """The label that ranks responses, instead of the source's own: exactly one of ``aspects`` and ``by``.

    In YAML a name is shorthand for one aspect and a list for several, whose mean counts; ``score`` is the source's
    own score where it also gives a rank. A response that lacks one of them is left out.
    """

    aspects: Names | None = Field(None, description="Aspects whose mean is the score.")
    by: Labeller | None = Field(None, description="What scores the responses anew.")

    @model_validator(mode="after")
    def _one(self) -> Label:
        if (self.aspects is None) == (self.by is None):
            raise ValueError("a label is the name of an aspect, a list of them, or {by: …}")
        if self.aspects is not None and (not self.aspects or len(set(self.aspects)) < len(self.aspects)):
            raise ValueError("aspects are one or more different names")
        return self


def _of_aspects(value: Any) -> Any:
    return {"aspects": value} if isinstance(value, str | list | tuple) else value


WrittenLabel = Annotated[Label, BeforeValidator(_of_aspects, json_schema_input_type=str | list[str] | Label)]
"""A label as YAML may write it."""


class Responses(Strict):
    """Responses that a policy writes to the prompts of a set."""

    source: str | Mapping[str, str | int | float | bool | None] = Field(
        "policy",
        alias="from",
        description="policy: the model that cells start from; base: it before SFT; a model's name; or keys of a cell, "
        "such as {algorithm: dpo, dataset: hh-rlhf}, whose other keys are those of the cell that uses the data.",
    )
    n: int = Field(4, ge=2, le=256, description="Responses to each prompt.")
    temperature: float = Field(0.7, gt=0, le=5, description="Of sampling.")
    top_p: float = Field(1.0, gt=0, le=1, description="Of sampling: nucleus.")
    max_new_tokens: int = Field(512, ge=1, description="Longest response in tokens; an unfinished one is left out.")
    seed: int = Field(0, ge=0, description="Of sampling; fixed, so that every cell gets the same responses.")
    gold: bool = Field(
        False, description="Whether the set's own chosen response to a prompt joins them, to be labelled alike."
    )
    parts: int = Field(
        1, ge=1, description="Parts that the prompts are drawn into, one a round of the method; 1: every round has all."
    )

    def identity(self, round_number: int) -> dict[str, Any]:
        """Return what the responses of a round depend on beside policy and prompts, as JSON values."""
        values = self.model_dump(mode="json", exclude={"source", "gold", "parts"})
        # Rounds after the last part begin again.
        own = {"part": (round_number - 1) % self.parts, "parts": self.parts} if self.parts > 1 else {}
        return {**values, **own}


class Mix(Strict):
    """Sets put together, by exactly one of counts, fractions and a temperature.

    In YAML a mapping of whole numbers gives examples of each set, one of fractions (sum 1) their shares, and a list
    of names mixes by size: shares in proportion to n^(1/temperature), where 1 takes everything and a higher one evens
    the sets out.
    """

    sets: tuple[str, ...]
    counts: tuple[int, ...] | None = None
    fractions: tuple[float, ...] | None = None
    temperature: float = Field(1.0, ge=1.0)
    caps: Mapping[str, int] = {}

    @classmethod
    def read(cls, written: Any, temperature: float | None, caps: Mapping[str, int]) -> Mix:
        """Return the mixture that ``mix``, ``temperature`` and ``caps`` of a variant write; ValueError if none."""
        if isinstance(written, list | tuple):
            mix = cls(sets=tuple(written), temperature=1.0 if temperature is None else temperature, caps=dict(caps))
        else:
            if temperature is not None:
                raise ValueError("a temperature mixes a list of sets; counts and fractions leave it nothing to say")
            mix = cls._of_numbers(dict(written), caps)
        unknown = [name for name in caps if name not in mix.sets]
        if unknown:
            raise ValueError(f"caps names {unknown[0]!r}, which is not mixed; allowed: {', '.join(mix.sets)}")
        twice = [name for name in dict.fromkeys(mix.sets) if mix.sets.count(name) > 1]
        if twice or len(mix.sets) < 2:
            found = f"{twice[0]!r} twice" if twice else ", ".join(mix.sets) or "none"
            raise ValueError(f"a mixture is of two or more different sets (found {found})")
        if any(cap < 1 for cap in caps.values()):
            raise ValueError("caps are whole numbers, 1 or more")
        for name, count in zip(mix.sets, mix.counts or (), strict=False):
            if count > caps.get(name, count):
                raise ValueError(f"the mixture asks for {count} of {name!r}, whose cap is {caps[name]}")
        return mix

    @classmethod
    def _of_numbers(cls, written: Mapping[str, Any], caps: Mapping[str, int]) -> Mix:
        values, sets = tuple(written.values()), tuple(written)
        for name, value in written.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                wanted = "a whole number of examples or a fraction, more than 0"
                raise ValueError(f"a mixture gives each set {wanted} (found {name}: {value})")
        if all(isinstance(value, int) for value in values):
            return cls(sets=sets, counts=values, caps=dict(caps))
        if any(value > 1 for value in values):
            found = ", ".join(f"{name}: {value:g}" for name, value in written.items())
            raise ValueError(f"a mixture is written in whole numbers of examples or in fractions of 1 (found {found})")
        if abs(sum(values) - 1) > 1e-6:
            raise ValueError(f"fractions of a mixture add up to 1 (found {sum(values):g})")
        return cls(sets=sets, fractions=tuple(float(value) for value in values), caps=dict(caps))

    def identity(self) -> dict[str, Any]:
        """Return how the sets are mixed, without their names: they are inputs, in this order."""
        values: dict[str, Any] = {"caps": [self.caps.get(name) for name in self.sets]}
        if self.counts is not None:
            return {**values, "counts": list(self.counts)}
        if self.fractions is not None:
            return {**values, "fractions": list(self.fractions)}
        return {**values, "temperature": self.temperature}
