"""Questions of evaluation sets in prompts: where a run of words counts and where it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import DatasetEntry, datasets
from ablate.catalogs.suites import load_suites
from ablate.data.audit.audit import Audit, audit
from ablate.data.audit.items import Account, Audited, read
from ablate.data.audit.overlap import Against, Exam, Overlap, Question
from ablate.data.audit.texts import words
from ablate.data.records import message
from ablate.data.sources import DataFile, read_rows
from ablate.evaluation.questions import collect
from ablate.shipped import shipped_folder

LONG = "Anna has three red apples and four green pears, and Ben takes two of each: how many are left?"  # 19 words
MEDIUM = "What happens if you swallow the seeds of a melon?"  # 10 words
SHORT = "Can pigs fly?"
EXAM = Exam(("fruit",), (Question("long", (LONG,)), Question("medium", (MEDIUM,)), Question("short", (SHORT,))))


def found(*prompts: Any, exams: tuple[Exam, ...] = (EXAM,)) -> dict[str, Any]:
    check = Overlap(Against(exams))
    for row, prompt in enumerate(prompts, start=1):
        turns = prompt if isinstance(prompt, tuple) else (message("user", prompt),)
        check.add(Audited(row, "s", turns, (), (), None))
    finding = check.finding()
    (first, *_) = finding.numbers["sets"]
    return {
        "questions": first["questions"]["count"],
        "half": first["half_or_more"]["count"],
        "prompts": first["prompts"]["count"],
        "finding": finding,
    }


def counts(*prompts: Any) -> tuple[int, int, int]:
    result = found(*prompts)
    return result["questions"], result["half"], result["prompts"]


def test_words_drop_case_punctuation_and_apostrophes() -> None:
    assert " ".join(words("20 + 8 - (3*4) = 16 - or 2020-10")) == "20 + 8 - 3 * 4 = 16 or 2020 - 10"
    assert words("- one\n* **two**, a-b > c") == ["one", "two", "a", "b", "c"]
    assert words("“Don’t   STOP—now,” said_he (№ 3).") == ["dont", "stop", "now", "said", "he", "no", "3"]


def test_a_long_question_is_found_by_thirteen_words_in_a_row() -> None:
    assert len(words(LONG)) == 19  # hence seven 13-grams
    assert counts(f"Solve this. {LONG.upper()} Think!") == (1, 1, 1)
    first_13 = " ".join(words(LONG)[:13])
    assert counts(f"intro {first_13} something else") == (1, 0, 1)  # one of seven 13-grams: less than half
    assert counts(" ".join(words(LONG)[:12])) == (0, 0, 0)
    assert counts(LONG.replace("pears", "plums")) == (0, 0, 0)  # at most 11 words in a row remain


def test_a_question_of_eight_to_twelve_words_is_found_whole_inside_a_prompt() -> None:
    assert counts(f"Be honest: {MEDIUM.lower()} Answer in one line.") == (1, 1, 1)
    assert counts(MEDIUM.replace("melon", "pumpkin")) == (0, 0, 0)
    assert counts(" ".join(words(MEDIUM)[:9])) == (0, 0, 0)


def test_a_shorter_question_is_found_as_a_whole_turn_only() -> None:
    assert counts("can PIGS fly") == (1, 1, 1)
    assert counts("Can pigs fly? And cows?") == (0, 0, 0)


def test_turns_are_compared_one_by_one_and_those_of_the_assistant_are_not() -> None:
    turns = (message("user", "Hi"), message("assistant", LONG), message("user", SHORT))
    assert counts(turns) == (1, 1, 1)
    halves = LONG.split(" and Ben ")
    assert counts((message("user", halves[0]), message("assistant", "and Ben"), message("user", halves[1]))) == (
        0,
        0,
        0,
    )


def test_questions_and_prompts_have_their_own_denominators() -> None:
    result = found(SHORT, "Can pigs fly", "nothing", LONG)
    finding = result["finding"]
    assert finding.numbers["sets"][0]["questions"] == {"count": 2, "of": 3, "share": 2 / 3}
    assert finding.numbers["sets"][0]["prompts"] == {"count": 3, "of": 4, "share": 0.75}
    assert finding.look == ("fruit: 2 of 3 (66.7 %) questions are in 3 of 4 (75.0 %) prompts",)
    assert finding.examples[0] == "fruit “Can pigs fly?” (100 %, prompts: 2), row 1: “can pigs fly”"


def test_without_suites_the_overlap_is_not_checked_and_says_so() -> None:
    check = Overlap(None)
    check.add(Audited(1, "s", (message("user", SHORT),), (), (), None))
    assert check.finding().unchecked == "no suite was named: --against SUITE or all (1 prompts)"
    missing = Overlap(Against((), {"mmlu": "needs a file"})).finding()
    assert (missing.verdict, missing.unchecked) == ("not checked", "no suite could be read: needs a file")


def test_a_suite_that_could_not_be_read_is_shown() -> None:
    check = Overlap(Against((EXAM,), {"mmlu": "needs a file"}))
    check.add(Audited(1, "s", (message("user", "clean"),), (), (), None))
    finding = check.finding()
    assert finding.verdict == "ok" and finding.summary.endswith("; 1 suites could not be read")
    assert finding.tables[1].rows == (("mmlu", "needs a file"),)


def planted(root: Path, instructions: list[str], against: Against) -> Audit:
    """Audit rows in UltraFeedback's own schema with these instructions."""
    rows = [
        {
            "source": "truthful_qa",
            "instruction": text,
            "completions": [
                {
                    "model": name,
                    "response": f"{name} answers {place}.",
                    "annotations": {"helpfulness": {"Rating": str(rating)}},
                    "overall_score": rating,
                }
                for name, rating in (("one", 5), ("two", 3))
            ],
        }
        for place, text in enumerate(instructions)
    ]
    (root / "uf.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {
        "name": "planted",
        "title": "Planted",
        "format": "preference",
        "source": {"files": ["uf.jsonl"]},
        "converter": "ultrafeedback_raw",
        "label_kind": "ai",
        "licence": "MIT",
    }
    return audit(DatasetEntry.model_validate(values), root, against=against)


def overlap_of(made: Audit) -> Any:
    return next(finding for finding in made.findings if finding.check == "evaluation-overlap")


def test_planted_questions_are_found_in_ultrafeedback_rows(tmp_path: Path) -> None:
    made = planted(
        tmp_path, ["Write a poem about rain.", MEDIUM, f"Question: {LONG}", "Pigs can fly?"], Against((EXAM,))
    )
    (row,) = overlap_of(made).numbers["sets"]
    assert (row["questions"]["count"], row["prompts"]) == (2, {"count": 2, "of": 4, "share": 0.5})


def is_in(question: list[str], prompt: list[str]) -> bool:
    """The rule, slowly: 13 words in a row, all of a question of 8 to 12, or the same few words."""
    if len(question) < 8:
        return question == prompt
    length = min(13, len(question))
    runs = [question[start : start + length] for start in range(len(question) - length + 1)]
    return any(prompt[start : start + length] in runs for start in range(len(prompt) - length + 1))


def truthfulqa(root: Path) -> tuple[Against, list[str]]:
    suite = load_suites([shipped_folder("evals")])["truthfulqa-mc"]
    file = DataFile("questions", root / "truthfulqa/v1_mc_task.json.gz")
    return collect([suite], root, skip_missing=False), [str(row["question"]) for _, row in read_rows(file)]


def test_planted_truthfulqa_questions_are_found_and_nothing_else(data_root: Path, tmp_path: Path) -> None:
    against, asked = truthfulqa(data_root)
    clean = [f"Explain step {number} of this recipe." for number in range(50)]
    made = planted(tmp_path, clean[:25] + asked[100:140] + clean[25:], against)
    (row,) = overlap_of(made).numbers["sets"]
    assert row["prompts"] == {"count": 40, "of": 90, "share": 40 / 90}
    tokens = [words(question) for question in asked]
    expected = [any(is_in(question, prompt) for prompt in tokens[100:140]) for question in tokens]
    # All forty, and one question that has thirteen words in a row with one of them.
    assert (sum(expected), all(expected[100:140])) == (41, True)
    assert row["questions"] == {"count": 41, "of": 817, "share": 41 / 817}


def test_questions_in_the_real_rows_are_those_of_a_slow_search(data_root: Path) -> None:
    against, asked = truthfulqa(data_root)
    check = Overlap(against)
    prompts = []
    for item in read(datasets()["ultrafeedback-small"], data_root, Account(), lambda rows: None):
        check.add(item)
        prompts.append(words(item.prompt[0]["content"]))
    joined = [f" {' '.join(prompt)} " for prompt in prompts]
    slow = 0
    for question in map(words, asked):
        start = f" {' '.join(question[:8])} "
        near = [place for place, text in enumerate(joined) if start in text or len(question) > 12]
        slow += any(is_in(question, prompts[place]) for place in near)
    (row,) = check.finding().numbers["sets"]
    assert (row["questions"]["count"], row["prompts"]["of"]) == (slow, 994)
