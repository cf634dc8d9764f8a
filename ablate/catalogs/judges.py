"""Judges: models that are asked which of two responses is better, or how good one is, and the words they are asked in.

A judge is a name of the catalog or a mapping of YAML. What its answers depend on (model, template, decoding, positions)
is its identity; where it is reached, what it costs and how fast it may be asked are not.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ablate.catalogs.closed import Closed, unknown_name, validated
from ablate.catalogs.loading import Named, load_folder
from ablate.errors import Location, SpecError, UnknownNameError

JUDGE_REVISION = 1
"""Raised when what judges are shown, or how their answers are read, changes."""
SELF = "self"
"""The model of a judge that is the policy itself: it judges what it wrote."""
Positions = Literal["swap", "random", "fixed"]
AnswerFormat = Literal["number", "score", "rating", "label", "verdict", "graded", "ranking", "token"]
PAIRED_FORMATS = ("verdict", "graded", "ranking", "token")
"""Formats of answers that say which of two responses is better; the others rate one."""

_PROMPT = ("{prompt}", "{question}", "{question_1}")
_FIELDS = {
    "single": (_PROMPT, ("{response}", "{answer}", "{answer_2}")),
    "pairwise": (
        _PROMPT,
        ("{response_a}", "{answer_a}", "{answer_a_2}"),
        ("{response_b}", "{answer_b}", "{answer_b_2}"),
    ),
}
"""What a template shows: in this package's words, or in those of FastChat for one turn or two."""


class Template(Named):
    """The words of a question to a judge, and how its answer is read.

    Answers: ``number`` is the last number in the scale; ``score`` the number after the last “Score:”; ``rating`` is
    ``[[n]]``; ``label`` is the one of ``labels`` that is in it, whatever its capitals; ``verdict`` is ``[[A]]``,
    ``[[B]]`` or ``[[C]]`` (a tie); ``graded`` is ``[[A>>B]]``, ``[[A>B]]``, ``[[A=B]]``, ``[[B>A]]`` or ``[[B>>A]]``;
    ``ranking`` is a list of names with ranks (AlpacaEval 1); ``token`` is the first token's probability of ``m`` (the
    first) against ``M`` (AlpacaEval 2).
    """

    name: str = Field("own", description="Its name in the catalog.")
    kind: Literal["single", "pairwise"] = Field(description="Whether it shows one response or two.")
    system: str = Field("", description="The system turn; empty for none.")
    user: str = Field(description="The user turn, with {prompt} and {response}, or {response_a} and {response_b}.")
    answer: AnswerFormat = Field(description="How the answer is read.")
    labels: Mapping[str, float] | None = Field(
        None, min_length=2, description="Of answer label: what may be answered, with the number that each counts."
    )
    lowest: float = Field(0.0, description="Lowest number of the scale; one outside it is no score.")
    highest: float = Field(10.0, description="Highest number of the scale.")
    source: str = Field("", description="Where the words or their idea come from.")

    @model_validator(mode="after")
    def _asks(self) -> Template:
        shown = _FIELDS[self.kind]
        if missing := [names[0] for names in shown if not any(name in self.user for name in names)]:
            raise ValueError(f"the template has no {' and no '.join(missing)}")
        if (self.answer in PAIRED_FORMATS) != (self.kind == "pairwise"):
            raise ValueError(f"an answer of format {self.answer} is not that of a {self.kind} question")
        if (self.answer == "label") != (self.labels is not None):
            raise ValueError("labels belong to an answer of format label, which needs them")
        off = [name for name, value in (self.labels or {}).items() if not self.lowest <= value <= self.highest]
        if off:
            raise ValueError(f"the label {off[0]} is not from lowest {self.lowest:g} to highest {self.highest:g}")
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest:g} is not below highest {self.highest:g}")
        return self

    def identity(self) -> dict[str, Any]:
        """Return what answers depend on, as JSON values."""
        unwritten = {"name", "source"} | ({"labels"} if self.labels is None else set())
        return self.model_dump(mode="json", exclude=unwritten)


def _written_template(value: Any) -> Any:
    if isinstance(value, str):
        if value not in templates():
            raise unknown_name("template", value, templates())
        return templates()[value]
    return value


WrittenTemplate = Annotated[Template, BeforeValidator(_written_template, json_schema_input_type=str | Template)]
"""A template as YAML may write it: a name of the catalog, or its keys."""


class Judge(Named):
    """A model behind an OpenAI-compatible chat API that judges responses; ``model: self`` is the policy itself."""

    name: str = Field("", description="What tables and columns call it; default: its model.")
    model: str = Field(min_length=1, description="The model's name at the API; a dated one keeps its answers.")
    title: str | None = Field(None, description="How tables call it; default: its name.")
    url: str = Field(
        "https://api.openai.com/v1", pattern=r"^https?://", description="Address before /chat/completions."
    )
    key: str = Field(
        "OPENAI_API_KEY",
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="Environment variable that holds the key; empty for an API without one.",
    )
    template: WrittenTemplate | None = Field(None, description="The question; default: the use's own.")
    temperature: float = Field(0.0, ge=0, le=2, description="Of the answer's sampling.")
    max_tokens: int = Field(1024, ge=1, description="Longest answer in tokens; one that is cut counts as unparsable.")
    samples: int = Field(1, ge=1, le=64, description="Answers to each question, whose mean counts.")
    seed: int = Field(0, ge=0, description="Sent with every question; also draws the order of positions: random.")
    positions: Positions = Field(
        "swap",
        description="Of two responses: swap asks in both orders and takes a win only where both agree; random "
        "draws one order an example; fixed shows the policy's response second.",
    )
    price_in: float | None = Field(None, ge=0, description="US dollars for a million tokens of questions.")
    price_out: float | None = Field(None, ge=0, description="US dollars for a million tokens of answers.")
    max_cost: float | None = Field(None, gt=0, description="US dollars that the answers of one stage may cost.")
    requests_per_minute: float | None = Field(None, gt=0, description="Most questions a minute.")
    timeout: float = Field(60.0, gt=0, description="Seconds without an answer after which a question is asked again.")
    retired: datetime.date | None = Field(None, strict=False, description="Day from which it is no longer offered.")
    note: str | None = Field(None, description="What else there is to know of it.")

    @model_validator(mode="after")
    def _consistent(self) -> Judge:
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("max_cost needs price_in and price_out to be counted")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 at temperature 0 would all be equal: raise temperature")
        if self.is_self and self.max_cost is not None:
            raise ValueError("a policy that judges itself costs nothing: leave max_cost out")
        return self

    @property
    def is_self(self) -> bool:
        """Whether the judge is the policy itself."""
        return self.model == SELF

    @property
    def shown(self) -> str:
        """How tables call it."""
        return self.title or self.name

    def asks(self, template: Template) -> Judge:
        """Return this judge with a template where it has none."""
        return self if self.template is not None else self.model_copy(update={"template": template})

    def identity(self) -> dict[str, Any]:
        """Return what answers depend on, as JSON values: names, addresses, keys, prices and pace are left out."""
        own = self.model_dump(mode="json", include={"model", "temperature", "max_tokens", "samples", "seed"})
        if self.template is None or self.template.kind == "pairwise":
            own["positions"] = self.positions
        return own | ({} if self.template is None else {"template": self.template.identity()})

    def access(self) -> dict[str, Any]:
        """Return how it is reached, as JSON values: none of it changes an answer, and the key itself is not in it."""
        if self.is_self:
            return {"key": ""}
        names = {"url", "key", "price_in", "price_out", "max_cost", "requests_per_minute", "timeout"}
        return self.model_dump(mode="json", include=names, exclude_none=True)

    @classmethod
    def from_stage(cls, identity: Mapping[str, Any], access: Mapping[str, Any]) -> Judge:
        """Return the judge of a stage, from what its config and its locations say."""
        template = identity.get("template")
        written = {**identity, **access, "name": identity["model"]}
        if template is not None:
            written["template"] = Template.model_validate({"name": "own", **template})
        return cls.model_validate(written)


def _written_judge(value: Any) -> Any:
    if isinstance(value, str):
        if value == SELF:
            return own_judge()
        if value not in judges():
            raise unknown_name("judge", value, judges())
        return judges()[value]
    if isinstance(value, Mapping) and "name" not in value:
        return {"name": str(value.get("model")), **value}
    return value


def own_judge() -> Judge:
    """Return the policy as its own judge, as self-rewarding models have it: the additive rubric, three answers."""
    return Judge(
        name=SELF,
        model=SELF,
        key="",
        title="the policy itself",
        template=find_template("additive"),
        temperature=0.7,
        samples=3,
        max_tokens=512,
    )


WrittenJudge = Annotated[Judge, BeforeValidator(_written_judge, json_schema_input_type=str | Judge)]
"""A judge as YAML may write it: a name of the catalog, or its keys."""


class Panel(Closed):
    """Several judges that answer alike, and how their verdicts become one."""

    judges: tuple[WrittenJudge, ...] = Field(min_length=1, description="The judges, each by name or by its keys.")
    vote: Literal["mean", "majority"] = Field("mean", description="Mean of their values, or what most of them say.")

    @model_validator(mode="after")
    def _differ(self) -> Panel:
        names = [judge.name for judge in self.judges]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"a panel is of different judges (found {twice[0]!r} twice)")
        return self

    @property
    def shown(self) -> str:
        """How tables call it."""
        return " + ".join(judge.shown for judge in self.judges)

    @property
    def name(self) -> str:
        """Its judges' names, joined."""
        return "+".join(judge.name for judge in self.judges)


def _written_panel(value: Any) -> Any:
    is_panel = isinstance(value, Panel) or (isinstance(value, Mapping) and ("judges" in value or "vote" in value))
    return value if is_panel else {"judges": [value]}


WrittenPanel = Annotated[Panel, BeforeValidator(_written_panel, json_schema_input_type=str | Judge | Panel)]
"""A panel as YAML may write it; one judge alone needs no list."""


class Judges(Closed):
    """Who judges in an experiment's suites: one panel, or several that are an axis of evaluation."""

    panels: tuple[WrittenPanel, ...] = Field(min_length=1, description="The panels.")
    is_axis: bool = Field(False, description="Whether each has columns of its own.")

    @model_validator(mode="after")
    def _differ(self) -> Judges:
        names = [panel.name for panel in self.panels]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"the axis judge repeats {twice[0]!r}: give one of the two another name")
        return self


def _written_judges(value: Any) -> Any:
    if isinstance(value, Judges) or (isinstance(value, Mapping) and "panels" in value):
        return value
    return {"panels": value, "is_axis": True} if isinstance(value, list) else {"panels": [value]}


JudgeChoice = Annotated[
    Judges, BeforeValidator(_written_judges, json_schema_input_type=str | Judge | Panel | list[str | Judge | Panel])
]
"""Judges as YAML may write them: one, or a list that is an axis."""


class WrittenAnnotator(Closed):
    """A judge as reward or annotator: ``{judge: …}``."""

    judge: WrittenJudge = Field(description="The judge: its name, or its keys.")


class JudgeName(str):
    """A judge as the value of an axis: text that is equal exactly where the judges' answers are."""

    judge: Judge

    @classmethod
    def of(cls, judge: Judge, axis: str) -> JudgeName:
        """Return the name of a judge of a policy's own responses.

        One that has no question of its own compares two of them as annotator and rates each as reward; the policy
        itself rates each by the additive rubric.
        """
        question = "rate" if axis == "reward" else "compare"
        asked = judge.asks(find_template("additive" if judge.is_self else question))
        text = json.dumps(asked.identity(), sort_keys=True)
        is_known = judge.name == SELF or judges().get(judge.name) == judge
        made = cls(judge.name if is_known else f"{judge.name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}")
        made.judge = asked
        return made


def read_judge(axis: str, value: Any, locate: Callable[..., Location]) -> Any:
    """Return a reward or an annotator as cells hold it: ``self`` and ``{judge: …}`` become a judge's name.

    All else is left. ``locate`` returns where a key path of ``value`` is written. Raises SpecError for a reward that
    compares two responses: it is a number of one.
    """
    if isinstance(value, JudgeName) or not (isinstance(value, Mapping) or value == SELF):
        return value
    written = value if isinstance(value, Mapping) else {"judge": SELF}
    name = JudgeName.of(validated(WrittenAnnotator, written, locate).judge, axis)
    template = name.judge.template
    if axis == "reward" and template is not None and template.kind != "single":
        raise SpecError(
            "a reward is a number of each response, and this judge's template compares two",
            location=locate("judge"),
            hint=f"templates of one: {', '.join(key for key, own in templates().items() if own.kind == 'single')}",
        )
    return name


def judges() -> Mapping[str, Judge]:
    """Return the catalog of judges by name."""
    return _judges()


def templates() -> Mapping[str, Template]:
    """Return the templates that come with the package, by name."""
    return _templates()


def find_template(name: str, location: Location | None = None) -> Template:
    """Return the template called ``name``; raises UnknownNameError with the nearest one."""
    if name not in templates():
        raise UnknownNameError("template", name, templates(), location=location)
    return templates()[name]


@functools.cache
def _judges() -> dict[str, Judge]:
    return load_folder((Path(__file__).with_suffix(""),), Judge).entries


@functools.cache
def _templates() -> dict[str, Template]:
    return load_folder((Path(__file__).with_name("judge_templates"),), Template).entries


def locations_of(asked: Iterable[Judge]) -> dict[str, str]:
    """Return how judges are reached, as a stage's locations spell it: in the order of their identities."""
    return {"judges": json.dumps([judge.access() for judge in asked], sort_keys=True)}


def judges_of_stage(identities: Sequence[Mapping[str, Any]], locations: Mapping[str, str]) -> list[Judge]:
    """Return the judges of a stage, from the identities in its config and its locations."""
    access = json.loads(locations["judges"])
    return [Judge.from_stage(identity, own) for identity, own in zip(identities, access, strict=True)]
