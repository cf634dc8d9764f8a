"""Converters that a researcher writes, ``module:function``: loaded where rows are converted, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ablate.catalogs.functions import import_own
from ablate.data.records import Conversation, Converted, Dropped, PreferenceRecord, Prompt, Row, problem_of_turns
from ablate.errors import DataError
from ablate.models.chat import Messages


def load(name: str, options: Mapping[str, Any], digest: str | None) -> Callable[[Row], Converted]:
    """Return the function called ``name`` with its options; ``digest`` is the sha256 its file was planned with.

    What it raises becomes a :class:`DataError`, and what it returns is checked: other kinds of values are an error,
    turns that are no dialogue are a reason to drop the row.
    """
    function = _import(name, digest)

    def convert(row: Row) -> Converted:
        try:
            made = function(row, options)
        except Exception as error:  # the code is the researcher's: whatever it raises is about this row
            raise DataError(f"the converter {name} raised {type(error).__name__}: {error}") from error
        return _checked(name, made)

    return convert


def _import(name: str, digest: str | None) -> Callable[[Row, Mapping[str, Any]], Any]:
    function = import_own(name, "the converter", digest=digest)
    if not callable(function):
        raise DataError(f"the converter {name} is not a function")
    return function  # type: ignore[no-any-return]


def _checked(name: str, made: Any) -> Converted:
    if isinstance(made, Dropped):
        return made
    if isinstance(made, Conversation):
        made = (made,)
    if isinstance(made, PreferenceRecord) and len(made.responses) > 1:
        dialogues: list[tuple[str, Messages]] = [
            ("assistant", (*made.prompt, *response.messages)) for response in made.responses
        ]
        dialogues.append(("user", made.prompt))
    elif isinstance(made, Prompt):
        dialogues = [("user", made.messages)]
    elif isinstance(made, tuple) and made and all(isinstance(item, Conversation) for item in made):
        dialogues = [("assistant", item.messages) for item in made]
    else:
        raise DataError(
            f"the converter {name} returned {_described(made)}",
            hint="allowed: a PreferenceRecord of two or more responses, Conversation (or a tuple of them), Prompt, "
            "Dropped(reason); see ablate.data.records",
        )
    problems = (_problem(name, turns, last) for last, turns in dialogues)
    reason = next((problem for problem in problems if problem), None)
    return Dropped(reason) if reason else made


def _described(made: Any) -> str:
    return f"{len(made.responses)} response(s)" if isinstance(made, PreferenceRecord) else repr(made)[:80]


def _problem(name: str, turns: Messages, last: str) -> str | None:
    """Return why turns are no dialogue that ends with the role ``last``; turns of another form are an error."""
    for turn in turns:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise DataError(
                f"the converter {name} made the turn {turn!r}"[:200], hint="a turn is {role: text, content: text}"
            )
    problem = problem_of_turns(turns)
    return problem or (None if turns and turns[-1]["role"] == last else f"last-turn-not-{last}")
