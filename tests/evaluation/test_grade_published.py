"""``ablate grade`` over published outputs and labels; the files come from the data root."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.suite_code import find_entry
from ablate.catalogs.suites import Suite, load_suites
from ablate.evaluation.formats.submission import ReadOptions
from ablate.evaluation.grade import Request, grade
from ablate.evaluation.local_judges import judge_prompt
from ablate.evaluation.prompts.truthfulqa import PRIMER
from ablate.evaluation.suite_items import drawn, whole_suite
from ablate.shipped import shipped_folder

pytestmark = pytest.mark.data


def suites() -> dict[str, Suite]:
    return load_suites([shipped_folder("evals")])


def values(report: dict[str, Any]) -> dict[str, float]:
    return {f"{row['task']}/{row['metric']}": row["value"] for row in report["metrics"]}


def table(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(io.StringIO(handle.read())))


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


# --- XSTest: the shares of the authors' notebook ---

COMPLETIONS = "xstest/completions/{}.csv.gz"
SAFE = {"llama2orig": (40.4, 38.0, 21.6), "mistralinstruct": (98.4, 0.8, 0.8)}


@pytest.mark.parametrize("model", list(SAFE))
@pytest.mark.parametrize("judge", ["gpteval", "streval"])
def test_xstest_labels_give_the_authors_shares(data_root: Path, model: str, judge: str) -> None:
    path = data_root / COMPLETIONS.format(f"{model}_{judge}")
    found = values(grade(Request(suites()["xstest"], path, root=data_root)))
    shares = [found[f"safe/final_label_{name}"] for name in ("full_compliance", "full_refusal", "partial_refusal")]
    assert [round(100 * share, 1) for share in shares] == list(SAFE[model])
    rows = table(path)
    column = {"gpteval": "gpt4_label", "streval": "strmatch_label"}[judge]
    for name in ("final_label", column):
        for kind, unsafe in (("safe", False), ("unsafe", True)):
            own = [row for row in rows if ("contrast" in row["type"]) == unsafe]
            counts = Counter(row[name] for row in own)
            for label in ("1_full_compliance", "2_full_refusal", "3_partial_refusal"):
                assert found[f"{kind}/{name}_{label[2:]}"] == pytest.approx(counts[label] / len(own))
    agree = sum(row["annotation_1"] == row["annotation_2"] for row in rows)
    assert found["overall/annotators_agreement"] == pytest.approx(agree / 450)
    assert agree == sum(row["agreement"] == "True" for row in rows)
    assert found[f"overall/{column}_agreement"] == pytest.approx(
        sum(row[column] == row["final_label"] for row in rows) / 450
    )


def test_labels_that_a_judge_refused_to_give_are_a_class_of_their_own(data_root: Path) -> None:
    path = data_root / COMPLETIONS.format("mistralinstruct_gpteval")
    found = values(grade(Request(suites()["xstest"], path, root=data_root)))
    assert found["overall/gpt4_label_unreadable"] == pytest.approx(11 / 450)


def test_xstest_f1_by_a_slow_count(data_root: Path) -> None:
    path = data_root / COMPLETIONS.format("llama2orig_gpteval")
    found = values(grade(Request(suites()["xstest"], path, root=data_root)))
    for column in ("final_label", "gpt4_label", "annotation_1"):
        hits = refusals = unsafe = right = 0
        for row in table(path):
            refused, is_unsafe = "refusal" in row[column], row["type"].startswith("contrast")
            hits += refused and is_unsafe
            refusals += refused
            unsafe += is_unsafe
            right += refused == is_unsafe
        precision, recall = hits / refusals, hits / unsafe
        assert found[f"overall/{column}_refusal_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
        assert found[f"overall/{column}_accuracy"] == pytest.approx(right / 450)


# --- GSM8K: the flags that OpenAI released ---


@pytest.mark.parametrize(
    ("model", "study"),
    [("6b_finetuning", 6), ("6b_verification", 0), ("175b_finetuning", 5), ("175b_verification", 0)],
)
def test_gsm8k_agrees_with_the_released_flags(data_root: Path, model: str, study: int) -> None:
    """As numbers on every row; the study reads signs with decimals only and ignores periods, which adds a few."""
    path = data_root / "gsm8k" / "example_model_solutions.jsonl.gz"
    report = grade(Request(suites()["gsm8k"], path, root=data_root, options=ReadOptions(model=model)))
    found = values(report)
    assert found["overall/flag_agreement"] == 1.0
    flags = sum(row[model]["is_correct"] for row in lines(path))
    assert round(found["overall/exact_match"] * 1319) - flags == study
    assert report["protocol"]["outputs"]["joined"] == "prompt"


# --- Do-Not-Answer ---

HARMFUL = {"GPT4": 23, "ChatGPT": 14, "Claude": 16, "ChatGLM2": 85, "llama2-7b-chat": 3, "vicuna-7b": 52}
"""Harmful responses of 939 (Wang et al. 2023, table 4)."""


@pytest.mark.parametrize("model", list(HARMFUL))
def test_do_not_answer_counts_the_harmful_responses_of_the_paper(data_root: Path, model: str) -> None:
    path = data_root / "do_not_answer" / "data_en.csv.gz"
    found = values(grade(Request(suites()["do-not-answer"], path, root=data_root, options=ReadOptions(model=model))))
    assert round((1 - found["overall/harmless"]) * 939) == HARMFUL[model]
    actions = Counter(row[f"{model}_action"] for row in table(path))
    shares = {str(n): round(found[f"overall/action_{n}"] * 939) for n in range(6)}
    assert shares == {name: actions[name] for name in shares}


# --- IFEval: text-bison's responses, with rules written anew ---


def commas(text: str, **_: Any) -> bool:
    return "," not in text


def words(text: str, relation: str, num_words: int) -> bool:
    count = len(re.findall(r"\w+", text))
    return count < num_words if relation == "less than" else count >= num_words


def lower(text: str, **_: Any) -> bool:
    return text == text.lower()


def keywords(text: str, keywords: list[str]) -> bool:
    return all(re.search(word, text, re.IGNORECASE) for word in keywords)


def forbidden(text: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def is_json(text: str, **_: Any) -> bool:
    bare = text.strip()
    for start in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(start)
    try:
        json.loads(bare.removesuffix("```").strip())
    except ValueError:
        return False
    return True


def quoted(text: str, **_: Any) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def titled(text: str, **_: Any) -> bool:
    return any(title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", text))


def ending(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


RULES = {
    "punctuation:no_comma": commas,
    "length_constraints:number_words": words,
    "keywords:existence": keywords,
    "keywords:forbidden_words": forbidden,
    "detectable_format:json_format": is_json,
    "startend:quotation": quoted,
    "startend:end_checker": ending,
    "detectable_format:title": titled,
}
"""Kinds of instructions that can be checked in a line or two."""


@pytest.fixture(scope="module")
def bison(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of text-bison's responses, and the strict value of every prompt by its key."""
    import os

    root = Path(os.environ["ABLATE_DATA"])
    path = tmp_path_factory.mktemp("bison") / "examples.jsonl"
    suite = suites()["ifeval-e4c89b64"]
    outputs = root / "ifeval" / "input_response_data_text_bison.jsonl.gz"
    report = grade(Request(suite, outputs, root=root), path)
    keys = {item.id: item.source for item in whole_suite(suite, root, path.parent)}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    strict = {keys[row["example"]]: row["value"] for row in rows if row["metric"] == "prompt_level_strict_acc"}
    return {"report": report, "strict": strict, "root": root}


def test_ifeval_grades_text_bisons_responses(bison: dict[str, Any]) -> None:
    found = values(bison["report"])
    assert bison["report"]["protocol"]["outputs"]["joined"] == "prompt"
    assert bison["report"]["health"]["n"] == len(bison["strict"]) == 541
    assert found["ifeval/prompt_level_strict_acc"] <= found["ifeval/prompt_level_loose_acc"]
    assert found["ifeval/prompt_level_strict_acc"] <= found["ifeval/inst_level_strict_acc"]
    assert 0.65 < found["ifeval/prompt_level_loose_acc"] < 0.75


def test_ifeval_agrees_with_rules_written_anew(bison: dict[str, Any]) -> None:
    """Prompts all of whose instructions are among ``RULES``, checked one by one."""
    folder = bison["root"] / "ifeval"
    said = {row["prompt"]: row["response"] for row in lines(folder / "input_response_data_text_bison.jsonl.gz")}
    checked = 0
    for row in lines(folder / "input_data_at_e4c89b64.jsonl.gz"):
        if not all(name in RULES for name in row["instruction_id_list"]):
            continue
        text = said[row["prompt"]]
        both = zip(row["instruction_id_list"], row["kwargs"], strict=True)
        kept = bool(text.strip()) and all(RULES[name](text, **arguments) for name, arguments in both)
        assert bison["strict"][str(row["key"])] == kept, row
        checked += 1
    assert checked >= 100


# --- TruthfulQA and BBH: prompts ---


def test_the_judges_prompts_are_those_that_they_were_trained_on(data_root: Path) -> None:
    for name, asked in (("truth", "True"), ("info", "Helpful")):
        for row in lines(data_root / "truthfulqa" / f"finetune_{name}_dev.jsonl.gz"):
            question, _, rest = row["prompt"].removeprefix("Q: ").partition("\nA: ")
            assert judge_prompt(question, rest.removesuffix(f"\n{asked}:"), asked) == row["prompt"]
            assert row["completion"] in (" yes", " no")


def test_truthfulqas_primer_is_that_of_its_choices(data_root: Path, tmp_path: Path) -> None:
    options = suites()["truthfulqa-mc"].prompts.options["tasks"][0]["overrides"]
    assert options["doc_to_text"] == PRIMER + "\n\nQ: {{question}}"
    assert len(whole_suite(suites()["truthfulqa"], data_root, tmp_path)) == 817


def test_the_studys_draws_have_their_sizes(data_root: Path, tmp_path: Path) -> None:
    import random

    sizes = {}
    for name in ("mmlu", "gsm8k", "bbh", "truthfulqa", "toxigen", "xstest", "ifeval"):
        suite = suites()[f"{name}-unpacking-2024"]
        whole = whole_suite(suite, data_root, tmp_path)
        asked = drawn(suite, whole)
        assert len({item.source for item in whole}) == len(whole)
        sizes[name] = len(asked)
        if name == "gsm8k":  # open-instruct: random.seed(42), then random.sample(test, 200)
            random.seed(42)
            assert {item.source for item in asked} == set(map(str, random.sample(range(1319), 200)))
        if name in ("bbh", "toxigen"):
            assert set(Counter(item.task for item in asked).values()) == {{"bbh": 40, "toxigen": 500}[name]}
    assert sizes == {
        "mmlu": 14042, "gsm8k": 200, "bbh": 1080, "truthfulqa": 817, "toxigen": 7000, "xstest": 450, "ifeval": 541,
    }  # fmt: skip


# --- ceilings ---


def is_of_pairs(suite: Suite) -> bool:
    return suite.engine == "pairs"


SHIPPED = suites()
KNOWN = sorted(
    name
    for name, suite in SHIPPED.items()
    if suite.data.files
    and not suite.data.hub
    and "unpacking" not in name  # another suite has the same items and grader
    and suite.judging is None
    and not (entry := find_entry("grader", suite.grader)).judges
    and (entry.gold or is_of_pairs(suite))
)


def slow_if_programs_run(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow if SHIPPED[name].category == "coding" else ())


@pytest.mark.parametrize("name", [slow_if_programs_run(name) for name in KNOWN])
def test_gold_answers_score_one_on_every_suite_that_has_them(data_root: Path, name: str) -> None:
    suite = suites()[name]
    if suite.category == "coding":  # programs are run: a few will do, with time for them where others run, too
        suite = suite.with_options({"seconds": 60.0}).model_copy(update={"limit": 2})
    report = grade(Request(suite, baseline="gold", root=data_root))
    assert report["score"] == pytest.approx(1.0)
    if suite.category not in ("coding", "reward"):
        assert grade(Request(suite, baseline="echo", root=data_root))["score"] < 0.1
