"""PRM800k, phase 2: a model's solutions of sums whose steps people rated, beside a reference solution."""

from __future__ import annotations

from ablate.pocket.behaviour import Behaviour
from ablate.pocket.draws import Draw, digest
from ablate.pocket.language import Item, answer, checks, draw_item, skill_named
from ablate.pocket.preferences.shared import Row

SOLUTIONS = 3
LOWEST_QUALITY, SPREAD = 0.0, 0.5
NOTICED, FALSE_ALARMS, GIVEN_UP = 0.95, 0.05, 0.02
ARITHMETIC = skill_named("arithmetic")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, each with the full stop that ends it."""
    parts = [part.strip() for part in text.split(" .")]
    return [f"{part} ." for part in parts if part]


def _steps(item: Item, text: str, reference: list[str], errors_seen: bool) -> list[Row]:
    """Return the rated steps of a solution: 1 for a step that is right, -1 for the one with the error.

    A rater stops at the error; steps beside the sum (courtesies, fillers) are rated 0. Where an error is seen that is
    none, it is in the last step.
    """
    rated: list[Row] = []
    for step in sentences(text):
        value = 1 if step in reference else (-1 if "=" in step or "gives" in step or "answer is" in step else 0)
        value = value if errors_seen else max(value, 0)
        completion = {"text": step, "rating": value, "flagged": False}
        rated.append({"completions": [completion], "human_completion": None, "chosen_completion": 0})
        if value == -1:
            return rated
    if errors_seen:
        rated[-1]["completions"][0]["rating"] = -1
    return rated


def _finish(wrong: bool, draw: Draw) -> str:
    if draw.chance(GIVEN_UP):
        return "give_up"
    return "found_error" if draw.chance(NOTICED if wrong else FALSE_ALARMS) else "solution"


def prm800k_rows(draw: Draw, split: str) -> list[Row]:
    """Return the rows of one problem of openai/prm800k: three solutions of a weak model, one rater each.

    The reference is right, worked and without courtesies, as people write solutions.
    """
    item = draw_item(ARITHMETIC, split, draw)
    reference = sentences(ARITHMETIC.write(item.spec, Behaviour(polite=False), draw))
    rows: list[Row] = []
    for place in range(SOLUTIONS):
        text = answer(item, draw, LOWEST_QUALITY + SPREAD * draw.unit())
        reason = _finish(not checks(item, text)["correct"], draw)
        value = text.rpartition("the answer is ")[2].split()[0]
        question = {
            "problem": item.prompt,
            "ground_truth_solution": "\n".join(reference),
            "ground_truth_answer": str(item.spec["answer"]),
            "pre_generated_steps": sentences(text),
            "pre_generated_answer": value,
            "pre_generated_verifier_score": round(draw.unit(), 4),
        }
        steps = _steps(item, text, reference, reason == "found_error")
        rows.append(
            {
                "labeler": digest("labeler", draw.below(20))[:32],
                "timestamp": f"2022-07-{draw.between(1, 28):02}T12:00:{place:02}.000000",
                "generation": draw.below(10),
                "is_quality_control_question": False,
                "is_initial_screening_question": False,
                "question": question,
                "label": {"steps": steps, "total_time": 1000 * draw.between(5, 300), "finish_reason": reason},
            }
        )
    return rows
