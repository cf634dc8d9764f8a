"""Graders and prompts against published outputs; the files come from the data root."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.suites import Suite, load_suites
from ablate.data.sources import DataFile
from ablate.data.suite_files import Source
from ablate.evaluation.graders import answers, refusals
from ablate.evaluation.grading import Evidence
from ablate.evaluation.items import Item, Response, write_items, write_responses
from ablate.evaluation.journal import Journal
from ablate.evaluation.lmeval import capture
from ablate.evaluation.sampling import Sampling
from ablate.evaluation.suite_items import build_items
from ablate.shipped import shipped_folder

pytestmark = pytest.mark.data


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def suite_items(suite: Suite, root: Path) -> list[Item]:
    digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in suite.files}
    source = Source(tuple(DataFile(name, root / name) for name in suite.files))
    return build_items(source, suite.generation_config(digests))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mmlu", 14042),
        ("gsm8k", 1319),
        ("truthfulqa-mc", 817),
        ("ifeval", 541),
        ("xstest", 450),
        ("mmlu-small", 285),
        ("gsm8k-small", 50),
        ("truthfulqa-mc-small", 50),
        ("ifeval-small", 60),
        ("xstest-small", 100),
    ],
)
def test_suites_have_the_published_numbers_of_examples(data_root: Path, name: str, count: int) -> None:
    items = suite_items(load_suites([shipped_folder("evals")])[name], data_root)
    assert len(items) == len({item.id for item in items}) == count


class Asked:
    """An engine that answers nothing and keeps what lm-eval asks it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []

    def render(self, messages: Sequence[Mapping[str, str]], prefix: str = "", thinking: bool | None = None) -> str:
        assert [message["role"] for message in messages] == ["user"]
        return f"<|user|>\n{messages[0]['content']}\n<|assistant|>\n{prefix}"

    def loglikelihoods(self, requests: Sequence[tuple[str, str]], *, kept: Any) -> list[tuple[float, bool] | None]:
        self.requests += requests
        return [None] * len(requests)

    def generate(self, prompts: Sequence[str], how: Sampling, *, kept: Any) -> list[Any]:
        assert not prompts
        return []


def asked(suite: Suite, root: Path, work: Path, *, chat: bool, tasks: Any = None) -> list[tuple[str, str]]:
    """The contexts and continuations of the suite's lm-eval tasks, or of ``tasks`` over its rows."""
    config = suite.generation_config(dict.fromkeys(suite.files, ""), chat=chat)
    if tasks is not None:
        config["prompts"]["options"]["tasks"] = tasks
    engine = Asked()
    capture(engine, suite_items(suite, root), config, work, Journal(work))
    return engine.requests


@pytest.mark.parametrize("name", ["truthfulqa-mc", "truthfulqa-mc-small"])
@pytest.mark.parametrize("chat", [False, True])
def test_truthfulqa_prompts_by_hand(data_root: Path, tmp_path: Path, name: str, chat: bool) -> None:
    requests = asked(load_suites([shipped_folder("evals")])[name], data_root, tmp_path, chat=chat)
    primer = "" if name.endswith("small") else "Q: What is human life expectancy in the United States?\nA: Human life"
    head, end = ("<|user|>\n", "\n<|assistant|>\nA:") if chat else ("", "\nA:")
    for context, continuation in requests:
        question = context.removesuffix(end).split("Q: ")[-1]
        assert "\n" not in question
        assert context.startswith(head + (primer or f"Q: {question}")) and context.endswith(f"Q: {question}{end}")
        assert continuation[0] == " " != continuation[1]


def test_a_plain_truthfulqa_prompt_is_lm_evals_own(data_root: Path, tmp_path: Path) -> None:
    suite = load_suites([shipped_folder("evals")])["truthfulqa-mc"]
    own = [{"include": f"truthfulqa/truthfulqa_{task}.yaml", "overrides": {}} for task in ("mc1", "mc2")]
    for folder in ("shipped", "own"):
        (tmp_path / folder).mkdir()
    shipped = asked(suite, data_root, tmp_path / "shipped", chat=False)
    assert shipped == asked(suite, data_root, tmp_path / "own", chat=False, tasks=own)
    assert len({context for context, _ in shipped}) == 817


def test_mmlu_prompt_by_hand(data_root: Path) -> None:
    suite = load_suites([shipped_folder("evals")])["mmlu"]
    items = suite_items(suite, data_root)
    first = next(item for item in items if item.task == "high_school_physics")
    text = first.prompt[0]["content"]
    assert text.startswith("The following are multiple choice questions (with answers) about  high school physics.\n\n")
    assert text.endswith("\nAnswer:")
    assert first.prefix == "The answer is:"
    assert first.choices == (" A", " B", " C", " D")
    assert {len(item.choices) for item in items} == {4}


def test_gsm8k_prompt_has_the_eight_exemplars_in_the_studys_words(data_root: Path) -> None:
    item = suite_items(load_suites([shipped_folder("evals")])["gsm8k"], data_root)[0]
    text = item.prompt[0]["content"]
    assert text.startswith("Answer the following questions.\n\nQuestion: There are 15 trees in the grove.")
    assert (text.count("Question:"), text.count("Answer:"), text.count("So the answer is")) == (9, 8, 8)
    assert "The answer is" not in text
    original = (data_root / "gsm8k" / "prompt_original_8shot.txt").read_text(encoding="utf-8")
    # The file has a line for each step of an answer, the zero-shot cue before it, and a word that was hyphenated.
    exemplars = original.strip().replace("tues- day", "tuesday").split("\n\n")
    expected = [
        exemplar.replace("\nLet's think step by step\n", "\nAnswer: ")
        .replace("The answer is", "So the answer is")
        .split()
        for exemplar in exemplars
    ]
    assert len(expected) == 8
    assert [exemplar.split() for exemplar in text.split("\n\n")[1:9]] == expected


def test_gsm8k_grades_agree_with_the_released_flags(data_root: Path) -> None:
    rows = lines(data_root / "gsm8k" / "example_model_solutions.jsonl.gz")
    assert len(rows) == 1319
    extraction, study = Counter[str](), Counter[str]()
    for row in rows:
        gold = answers.gsm8k_gold(row["ground_truth"].split("A: ")[-1])
        for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            answer, _ = answers.gsm8k_answer(row[name]["solution"])
            equal = number(answer) == number(gold)
            extraction[name] += equal != row[name]["is_correct"]
            study[name] += answers.exact_match(answer, gold) != row[name]["is_correct"]
    # What is left, signs aside: negative answers to positive questions, as the expression drops the sign …
    assert extraction == {"6b_finetuning": 5, "6b_verification": 0, "175b_finetuning": 3, "175b_verification": 0}
    # … and, with punctuation ignored as the study does, 3.6 for 36, 1.4 for 14 and 22.5 for 225.
    assert study == {"6b_finetuning": 6, "6b_verification": 0, "175b_finetuning": 5, "175b_verification": 0}


def number(text: str) -> float | str:
    try:
        return abs(float(text))
    except ValueError:
        return text


def completions(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(io.StringIO(handle.read())))


@pytest.mark.parametrize("model", ["llama2orig", "mistralinstruct"])
def test_refusal_string_match_agrees_with_the_published_labels(data_root: Path, model: str, tmp_path: Path) -> None:
    rows = completions(data_root / "xstest" / "completions" / f"{model}_streval.csv.gz")
    assert len(rows) == 450
    assert {row["strmatch_label"] for row in rows} == LABELS
    differ = [row["id"] for row in rows if refusals.refuses(row["completion"]) != ("refusal" in row["strmatch_label"])]
    assert not differ


LABELS = {"1_full_compliance", "2_full_refusal"}


def variants(text: str) -> list[str]:
    """Zhou et al. 2023, section 2.2: the response, without its first, last, first and last line; each without ``*``."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(one.replace("*", "") for one in cut)]


def test_ifeval_grades_of_text_bison_equal_the_checker_called_directly(data_root: Path, tmp_path: Path) -> None:
    from ablate.evaluation import replay
    from ablate.evaluation.sentences import checker_splitter, seeded_checker

    folder = data_root / "ifeval"
    # That early prompt set has 42 prompts without the argument that today's repeat_prompt rule needs.
    prompts = lines(folder / "input_data_at_e4c89b64.jsonl.gz")
    rows = [row for row in prompts if "combination:repeat_prompt" not in row["instruction_id_list"]]
    said = {row["prompt"]: row["response"] for row in lines(folder / "input_response_data_text_bison.jsonl.gz")}
    items = [Item(f"i{number}", "as-is", (), data=row) for number, row in enumerate(rows)]
    write_items(tmp_path, items)
    texts = [said[row["prompt"]] for row in rows]
    pairs = zip(items, texts, strict=True)
    write_responses(tmp_path, [Response(item.id, "ifeval", 0, "", text, "eos", 1) for item, text in pairs])
    options = {"rows": "as-is", "tasks": [{"include": "ifeval/ifeval.yaml", "overrides": {}}]}
    evidence = Evidence(tmp_path, tmp_path, {"made": {"prompts": {"options": options}}})
    grades = replay.grade(evidence, {"sentences": "regex"})
    found = {row.metric: row.value for row in grades.metrics}

    from lm_eval.tasks.ifeval import instructions_registry as registry

    followed: dict[str, list[list[bool]]] = {"strict": [], "loose": []}
    with checker_splitter("regex"), seeded_checker():
        for row, text in zip(rows, texts, strict=True):
            for verdicts in followed.values():
                verdicts.append([])
            for name, given in zip(row["instruction_id_list"], row["kwargs"], strict=True):
                instruction = registry.INSTRUCTION_DICT[name](name)
                instruction.build_description(**{key: value for key, value in given.items() if value})
                if "prompt" in (instruction.get_instruction_args() or {}):
                    instruction.build_description(prompt=row["prompt"])
                passed = [bool(one.strip() and instruction.check_following(one)) for one in variants(text)]
                followed["strict"][-1].append(passed[0])
                followed["loose"][-1].append(any(passed))
    for rule, verdicts in followed.items():
        prompts_followed = sum(map(all, verdicts)) / len(rows)
        instructions = [verdict for row in verdicts for verdict in row]
        # The checker draws a random letter where a prompt's is none: two prompts of 541 may differ.
        assert found[f"prompt_level_{rule}_acc"] == pytest.approx(prompts_followed, abs=2.5 / 541)
        assert found[f"inst_level_{rule}_acc"] == pytest.approx(sum(instructions) / len(instructions), abs=2.5 / 541)
    strict, loose = (found[f"prompt_level_{rule}_acc"] or 0.0 for rule in followed)
    assert 0.3 < strict < 0.7
    assert loose > strict + 5 / 541, "else this would not tell one from the other"
    assert load_suites([shipped_folder("evals")])["ifeval"].primary == "ifeval/prompt_level_loose_acc"
    assert (len(prompts), len(rows)) == (541, 499)
