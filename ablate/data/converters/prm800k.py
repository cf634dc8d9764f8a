"""openai/prm800k: solutions to problems of MATH whose steps people rated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.catalogs.converters import PRM800KOptions
from ablate.data.converters.columns import columns
from ablate.data.converters.sides import rows_of, user_prompt
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, draw, message

SOURCE = "prm800k"


def key(row: Row, options: PRM800KOptions) -> str | None:
    """In phase 2 the solutions to one problem belong together; a row without a problem stands alone."""
    question = columns(row, SOURCE, "question")[0]
    problem = question.get("problem") if isinstance(question, dict) else None
    return problem.strip() if options.phase == "phase2" and isinstance(problem, str) else None


def convert(row: Row, options: PRM800KOptions) -> Converted:
    """Phase 2: the problem's reference solution has rank 1, every solution in which an error was found rank 2."""
    rows = rows_of(row)
    question, label = columns(rows[0], SOURCE, "question", "label")
    problem = question.get("problem") if isinstance(question, dict) else None
    if not isinstance(problem, str) or not isinstance(label, dict):
        return Dropped("not-text")
    if not problem.strip():
        return Dropped("empty-message")
    if options.phase == "phase1":
        return _replaced_step(rows[0], problem, label, options)
    reference = question.get("ground_truth_solution")
    if not isinstance(reference, str) or not reference.strip():
        return Dropped("no-reference-solution")
    results = [_wrong_solution(item) for item in rows]
    wrong = [result for result in results if isinstance(result, Response)]
    left_out = tuple(result for result in results if isinstance(result, str))
    if not wrong:
        return Dropped("no-solution-with-an-error" if len(set(left_out)) > 1 else left_out[0])
    responses = (_solution(reference, 1), *wrong)
    return PreferenceRecord(user_prompt(problem), responses, SOURCE, digest(rows), left_out)


def _wrong_solution(row: Row) -> Response | str:
    question, label = columns(row, SOURCE, "question", "label")
    if not isinstance(question, dict) or not isinstance(label, dict):
        return "not-text"
    reason = label.get("finish_reason")
    if reason != "found_error":
        return f"finished-{str(reason).replace('_', '-')}"
    steps = question.get("pre_generated_steps")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        return "not-text"
    text = "\n".join(steps)
    return _solution(text, 2) if text.strip() else "empty-message"


def _replaced_step(row: Row, problem: str, label: Mapping[str, Any], options: PRM800KOptions) -> Converted:
    """Phase 1: draw a step that has alternatives; each alternative in its place makes a solution of rank 2."""
    reason = label.get("finish_reason")
    if reason != "solution":
        return Dropped(f"finished-{str(reason).replace('_', '-')}")
    read = _steps(label.get("steps"))
    if read is None:
        return Dropped("not-text")
    chosen, alternatives = read
    open_steps = [position for position, texts in enumerate(alternatives) if texts]
    if not open_steps:
        return Dropped("no-step-with-alternatives")
    identity = digest(row)
    place = min(open_steps, key=lambda position: draw(options.step_seed, "step", identity, position))
    solutions = [[*chosen[:place], text, *chosen[place + 1 :]] for text in alternatives[place]]
    responses = [_solution("\n".join(chosen), 1), *(_solution("\n".join(texts), 2) for texts in solutions)]
    return PreferenceRecord(user_prompt(problem), tuple(responses), SOURCE, identity)


def _steps(steps: Any) -> tuple[list[str], list[list[str]]] | None:
    """Return the text of every step that was taken, and the other completions of each; None if one has no text."""
    taken: list[str] = []
    others: list[list[str]] = []
    for step in steps if isinstance(steps, list) else []:
        completions = (step.get("completions") or []) if isinstance(step, dict) else []
        if not completions and not (isinstance(step, dict) and step.get("human_completion")):
            return None
        texts = [item.get("text") if isinstance(item, dict) else None for item in completions]
        place, human = step.get("chosen_completion"), step.get("human_completion")
        if isinstance(place, int) and 0 <= place < len(texts):
            text = texts.pop(place)
        else:
            text = human.get("text") if isinstance(human, dict) else human
        if not isinstance(text, str) or not text.strip():
            return None
        taken.append(text)
        others.append([other for other in texts if isinstance(other, str) and other.strip() and other != text])
    return (taken, others) if taken else None


def _solution(text: str, rank: int) -> Response:
    return Response((message("assistant", text),), rank=rank)
