"""The converters of native schemas: the options each takes, which make preferences, and their revisions.

A converter's default is what the study (Ivison et al. 2024) did, as far as that is known and a record can hold it;
well-known alternatives have names. The functions are in ``ablate.data.converters``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ablate.catalogs.closed import Strict, unknown_name
from ablate.catalogs.functions import checked_options, is_function

Aspect = Literal["helpfulness", "honesty", "instruction_following", "truthfulness"]
Diverging = Literal["first-turn", "same-history", "drop"]
Checks = Literal["pocket", "answer", "ifeval", "tests"]
"""What a verifier can read of a prompt, by kind."""
CHECK_COLUMNS: dict[Checks, tuple[str, ...]] = {
    "pocket": ("id", "skill", "split", "spec"),
    "answer": ("answer",),
    "ifeval": ("instruction_id_list", "kwargs"),
    "tests": ("tests",),
}
"""Columns of a row that hold it."""
HelpSteerScore = Literal["mean-without-verbosity", "mean", "nvidia-70b", "nvidia-340b"]


class HHOptions(Strict):
    """Options of ``hh_rlhf``: transcripts of two dialogues that share their first turns."""

    parsing: Literal["anchored", "bare"] = "anchored"
    """``anchored`` cuts at a blank line followed by ``Human:`` or ``Assistant:``; ``bare`` (the study) anywhere."""


class UltraFeedbackRawOptions(Strict):
    """Options of ``ultrafeedback_raw``: four completions with aspect ratings."""

    label: Literal["mean-aspects", "overall", Aspect] = "mean-aspects"
    """Which score ranks the completions: the mean of the four aspect ratings, GPT-4's overall score, one aspect."""
    overall_ten: Literal["as-released", "drop-response", "one"] = "as-released"
    """``overall`` only: a 10 beside a mean aspect rating of at most 2 is a 1 that the released file writes as 10."""


class UltraFeedbackBinarizedOptions(Strict):
    """Options of ``ultrafeedback_binarized``: one chosen and one rejected response with scores."""


class NectarOptions(Strict):
    """Options of ``nectar``: seven ranked answers."""

    chosen: Literal["first", "top-4"] = "first"
    """``first``: rank 1 is best (the study). ``top-4``: ranks 1-4 are equally good, the rest equally bad."""


class SHPOptions(Strict):
    """Options of ``shp``: two comments on a post and their votes."""

    minimum_score_ratio: float = Field(default=1.0, ge=1.0)
    """Rows with a smaller ratio of votes are dropped; the dataset's authors recommend 2, the study used all."""


class MessagesOptions(Strict):
    """Options of ``messages``: rows that hold one conversation."""

    column: str = "messages"


class PromptsOptions(Strict):
    """Options of ``prompts``: rows that hold one prompt, a string or messages."""

    column: str = "prompt"


class VerifiablePromptsOptions(PromptsOptions):
    """Options of ``verifiable_prompts``: prompts with what a verifier reads of each."""

    checks: Checks
    """``pocket``: an item of the pocket world; ``answer``: a number, or a solution that ends with ``####`` and it;
    ``ifeval``: ids of instructions and their arguments; ``tests``: unit tests of a Python program, a text or a list of
    statements."""
    columns: Mapping[str, str] = {}
    """Names of columns that are called otherwise, by the name in ``CHECK_COLUMNS``."""

    @field_validator("columns")
    @classmethod
    def _known(cls, value: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
        allowed = CHECK_COLUMNS.get(info.data.get("checks", "pocket"), ())
        if unknown := [name for name in value if name not in allowed]:
            raise ValueError(f"columns names {unknown[0]!r}; allowed: {', '.join(allowed)}")
        return value


class ColumnsOptions(Strict):
    """Options of ``columns``: any set whose rows have a prompt and two responses in columns of their own."""

    prompt: str = "prompt"
    """A string, or messages that end with the user's turn."""
    input: str | None = None
    """Column put after the prompt, below a blank line, where it is not empty."""
    system: str | None = None
    """Column of the system prompt; empty ones make no turn."""
    first: str = "chosen"
    """A string, or messages that end with the assistant's turn, of which that turn is read."""
    second: str = "rejected"
    label: str | None = None
    """Column that says which one is preferred; without it the first is."""
    first_preferred: int | str = 1
    """Value of the label that prefers the first response; numbers and their text are equal."""
    second_preferred: int | str = 2
    first_score: str | None = None
    second_score: str | None = None
    language: str | None = None
    source: str | None = None

    @model_validator(mode="after")
    def _two_values(self) -> ColumnsOptions:
        written = sorted({"first_preferred", "second_preferred"} & self.model_fields_set)
        if len(written) == 1:
            raise ValueError(f"first_preferred and second_preferred are written together (found {written[0]})")
        if str(self.first_preferred) == str(self.second_preferred):
            raise ValueError(f"first_preferred and second_preferred are both {self.first_preferred!r}")
        return self


class Tulu25Options(Strict):
    """Options of ``tulu_2_5``: two whole conversations, as the study's converted sets were released."""

    diverging: Diverging = "first-turn"
    """Where the two differ before the last turn: ``first-turn`` takes the first differing turn of each and ignores
    later ones; ``same-history`` drops the row; ``drop`` drops every row of several turns."""


class CapybaraOptions(Strict):
    """Options of ``capybara``: two whole conversations with the ratings of their last turns."""

    diverging: Diverging = "first-turn"
    """As for ``tulu_2_5``."""


class StackExchangeOptions(Strict):
    """Options of ``stack_exchange_paired``: a question, the better answer and a worse one."""


class PRM800KOptions(Strict):
    """Options of ``prm800k``: solutions of a problem whose steps were rated."""

    phase: Literal["phase2", "phase1"] = "phase2"
    """``phase2`` (the study): the reference solution against generated ones in which an error was found.
    ``phase1``: a finished solution against itself with one step replaced by an alternative nobody chose."""
    step_seed: int = Field(default=42, ge=0)
    """``phase1``: which step is replaced."""


class ArenaOptions(Strict):
    """Options of ``chatbot_arena_2023`` and ``chatbot_arena_2024``: two conversations and a vote."""

    turns: Diverging = "first-turn"
    """Of several turns the two sides differ from the first answer on: ``first-turn`` takes the first exchange alone;
    ``same-history`` keeps whole conversations whose earlier turns agree and drops the others; ``drop`` drops all
    rows of several turns."""
    ties: Literal["drop", "keep"] = "drop"
    """``keep`` ranks both answers 1: for a pairing that keeps ties."""


class AlpacaFarmOptions(Strict):
    """Options of ``alpaca_farm``: an instruction, two outputs and which is preferred (1 or 2)."""


class HelpSteerOptions(Strict):
    """Options of ``helpsteer``: one response a row with five ratings, grouped by prompt."""

    score: HelpSteerScore = "mean-without-verbosity"
    """``mean-without-verbosity``: the mean of the other four ratings (the study); see also ``helpsteer2``."""
    order: Literal["best-first", "released"] = "best-first"
    """``released``: the response with the lowest score is chosen, as the study's published code sorts."""


class HelpSteer2Options(Strict):
    """Options of ``helpsteer2``: as ``helpsteer``, two responses a prompt."""

    score: HelpSteerScore = "mean"
    """``mean`` of the five ratings; ``nvidia-70b`` and ``nvidia-340b`` are the weighted sums of NVIDIA's models."""


class HelpSteer2PreferenceOptions(Strict):
    """Options of ``helpsteer2_preference``: two responses and the strength of the preference, -3 to 3."""

    minimum_strength: int = Field(default=1, ge=1, le=3)
    """Rows with a weaker preference are dropped."""


class OrcaOptions(Strict):
    """Options of ``orca_dpo_pairs``: a system prompt, a question and two answers."""

    system: Literal["keep", "drop"] = "keep"
    """``drop`` (the study): the question alone is the prompt, although the answers were asked for with both."""


class SummarizeOptions(Strict):
    """Options of ``summarize_from_feedback``: a post or an article, two summaries and a choice."""

    minimum_confidence: int = Field(default=0, ge=0, le=9)
    """Rows in which the worker's confidence (1 to 9, where it was asked for) is lower are dropped; 0: none."""


class WebGPTOptions(Strict):
    """Options of ``webgpt_comparisons``: a question, two answers with references and their scores."""

    citations: Literal["keep", "strip"] = "keep"
    """``strip`` takes marks such as [1] and [2, 3] out of the answers."""


class HHHOptions(Strict):
    """Options of ``hhh_alignment``: a dialogue and responses labelled 1 (better) and 0."""

    form: Literal["big-bench", "prometheus"] = "big-bench"
    """``big-bench``: ``input`` and ``targets``. ``prometheus``: both responses inside a grading prompt."""


class FineGrainedOptions(Strict):
    """Options of ``fine_grained_rlhf``: a question on passages, four predictions, six comparisons."""

    passages: Literal["include", "omit"] = "include"
    """Whether the passages the predictions draw on stand before the question."""
    intransitive: Literal["drop", "net-wins"] = "drop"
    """Rows whose comparisons contradict each other; ``net-wins`` scores wins minus losses all the same."""


class LlamaFactoryOptions(Strict):
    """Options of ``llama_factory``: ``conversations`` in ShareGPT's form, ``chosen`` and ``rejected``."""


class RecordsOptions(Strict):
    """Options of ``records``: this package's own form, a prompt and k responses with whatever labels they have."""


class OnlinePairsOptions(Strict):
    """Options of ``online_pairs``: pairs of a policy's own samples, as an online run leaves them."""


class AlpacaOptions(Strict):
    """Options of ``alpaca``: an instruction, an optional input and an output."""

    instruction: str = "instruction"
    input: str = "input"
    """Put after the instruction, below a blank line; the column may be missing."""
    output: str = "output"


class ShareGPTOptions(Strict):
    """Options of ``sharegpt``: conversations whose turns have ``from`` and ``value``."""

    column: str = "conversations"
    ends: Literal["drop", "trim"] = "drop"
    """``trim`` cuts assistant turns from the beginning and user turns from the end before a row is judged."""


class OASSTTreeOptions(Strict):
    """Options of ``oasst_tree``: one tree of messages a row."""

    paths: Literal["best", "all"] = "best"
    """``best``: at every fork the reply ranked highest, one conversation a tree. ``all``: every path."""
    language: str | None = None
    """Trees in other languages are dropped; null: none."""


class MinedPromptsOptions(Strict):
    """Options of ``mined_prompts``: the first user turn of logged conversations; defaults are the study's rule."""

    column: str = "conversation"
    language: str | None = "English"
    more_than_words: int = Field(default=2, ge=0)
    maximum_words: int = Field(default=500, ge=1)
    maximum_characters: int = Field(default=5000, ge=1)


class ChosenAsInstructionOptions(Strict):
    """Options of ``chosen_as_instruction``: the responses of a preference set as conversations for SFT."""

    of: str
    """The preference converter that reads the rows."""
    options: Mapping[str, Any] = Field({}, validate_default=True)
    """That converter's own options."""
    responses: Literal["best", "all"] = "best"
    """``best``: the best response of each row, one conversation a row. ``all``: every response (for pretraining)."""

    @field_validator("of")
    @classmethod
    def _reads_preferences(cls, value: str) -> str:
        return known_converter(value, PREFERENCE_CONVERTERS)

    @field_validator("options")
    @classmethod
    def _complete(cls, value: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        return complete_options(info.data.get("of"), value)


class FileOptions(Strict):
    """How the rows of one file are read."""

    converter: str
    options: Mapping[str, Any] = Field({}, validate_default=True)

    @field_validator("converter")
    @classmethod
    def _reads_rows(cls, value: str) -> str:
        return known_converter(value, [name for name in CONVERTER_OPTIONS if name != "by_file"])

    @field_validator("options")
    @classmethod
    def _complete(cls, value: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        return complete_options(info.data.get("converter"), value)


class ByFileOptions(Strict):
    """Options of ``by_file``: files of different schemas in one set, each read by a converter of its own."""

    files: Mapping[str, FileOptions]
    """Relative file name to its converter."""


CONVERTER_OPTIONS: dict[str, type[Strict]] = {
    "hh_rlhf": HHOptions,
    "ultrafeedback_raw": UltraFeedbackRawOptions,
    "ultrafeedback_binarized": UltraFeedbackBinarizedOptions,
    "nectar": NectarOptions,
    "shp": SHPOptions,
    "columns": ColumnsOptions,
    "tulu_2_5": Tulu25Options,
    "stack_exchange_paired": StackExchangeOptions,
    "prm800k": PRM800KOptions,
    "chatbot_arena_2023": ArenaOptions,
    "chatbot_arena_2024": ArenaOptions,
    "alpaca_farm": AlpacaFarmOptions,
    "capybara": CapybaraOptions,
    "helpsteer": HelpSteerOptions,
    "helpsteer2": HelpSteer2Options,
    "helpsteer2_preference": HelpSteer2PreferenceOptions,
    "orca_dpo_pairs": OrcaOptions,
    "summarize_from_feedback": SummarizeOptions,
    "webgpt_comparisons": WebGPTOptions,
    "hhh_alignment": HHHOptions,
    "fine_grained_rlhf": FineGrainedOptions,
    "llama_factory": LlamaFactoryOptions,
    "records": RecordsOptions,
    "online_pairs": OnlinePairsOptions,
    "messages": MessagesOptions,
    "alpaca": AlpacaOptions,
    "sharegpt": ShareGPTOptions,
    "oasst_tree": OASSTTreeOptions,
    "prompts": PromptsOptions,
    "verifiable_prompts": VerifiablePromptsOptions,
    "mined_prompts": MinedPromptsOptions,
    "chosen_as_instruction": ChosenAsInstructionOptions,
    "by_file": ByFileOptions,
}
"""Converter name to the options it takes; the functions of the same names are in ``ablate.data.converters``."""

CONVERTER_REVISIONS: dict[str, int] = dict.fromkeys(CONVERTER_OPTIONS, 1)
"""Raised when a converter's rows change: the datasets it makes are then made again."""

OTHERS = (
    "messages",
    "alpaca",
    "sharegpt",
    "oasst_tree",
    "prompts",
    "verifiable_prompts",
    "mined_prompts",
    "chosen_as_instruction",
    "by_file",
)
"""The converters that make conversations or prompts, or hand rows to others."""
PREFERENCE_CONVERTERS = tuple(name for name in CONVERTER_OPTIONS if name not in OTHERS)
"""The converters that make preference records."""

RANKS_ALONE = (
    "hh_rlhf",
    "nectar",
    "tulu_2_5",
    "stack_exchange_paired",
    "prm800k",
    "chatbot_arena_2023",
    "chatbot_arena_2024",
    "alpaca_farm",
    "orca_dpo_pairs",
    "summarize_from_feedback",
    "hhh_alignment",
    "llama_factory",
)
"""The converters of schemas that say which response is better and not by how much: their pairs have no score gap."""


def gives_scores(converter: str, options: Mapping[str, Any]) -> bool:
    """Whether rows of a converter can have scores; a researcher's own function is taken to give them."""
    if converter == "by_file":
        return all(gives_scores(part["converter"], part["options"]) for part in options["files"].values())
    if converter == "columns":
        return options["first_score"] is not None and options["second_score"] is not None
    return converter not in RANKS_ALONE


def known_converter(name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is among the known converters; the error offers the nearest one."""
    if name not in known:
        raise unknown_name("converter", name, known)
    return name


def complete_options(converter: str | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a converter's options with defaults written out; a researcher's own function checks its own.

    They are as written, too, where there is no converter.
    """
    if converter is None:
        return options
    if is_function(converter):
        return checked_options(options)
    return CONVERTER_OPTIONS[converter].model_validate(dict(options)).model_dump(mode="json")
