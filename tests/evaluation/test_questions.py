"""The bare questions of suites: what is asked, without exemplars, instructions and answers."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.suites import Suite, load_suites
from ablate.errors import DataError
from ablate.evaluation.questions import collect, questions
from ablate.shipped import shipped_folder


@pytest.fixture(scope="module")
def suites() -> dict[str, Suite]:
    return load_suites([shipped_folder("evals")])


def texts(suite: Suite, root: Path | None) -> list[tuple[str, ...]]:
    return [question.texts for question in questions(suite, root)]


def written(root: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (root / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return root


def test_gsm8k_without_its_exemplars(suites: dict[str, Suite], tmp_path: Path) -> None:
    rows = [
        {"question": "How many? Question: none?", "answer": "#### 0"},
        {"question": " Two.\nAnd? ", "answer": "#### 2"},
    ]
    written(tmp_path, "gsm8k/test.jsonl.gz", rows)
    assert texts(suites["gsm8k"], tmp_path) == [("How many? Question: none?",), ("Two.\nAnd?",)]


def test_mmlu_with_and_without_options(suites: dict[str, Suite], tmp_path: Path) -> None:
    (tmp_path / "mmlu").mkdir()
    with tarfile.open(tmp_path / "mmlu/mmlu_data.tar.gz", "w:gz") as archive:
        for name, text in (("college_biology_test.csv", "What is it?,a cat,a dog,a cow,a pig,B\n"), ("x_dev.csv", "")):
            info = tarfile.TarInfo(f"data/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    assert texts(suites["mmlu"], tmp_path) == [("What is it?", "What is it?\nA. a cat\nB. a dog\nC. a cow\nD. a pig")]


def test_rows_of_lm_eval_tasks(suites: dict[str, Suite], tmp_path: Path) -> None:
    row = {"question": "Can pigs fly?", "mc1_targets": {"No.": 1, "Yes.": 0}, "mc2_targets": {"No.": 1, "Yes.": 0}}
    (tmp_path / "truthfulqa").mkdir()
    (tmp_path / "truthfulqa/v1_mc_task.json.gz").write_bytes(gzip.compress(json.dumps([row]).encode()))
    assert texts(suites["truthfulqa-mc"], tmp_path) == [("Can pigs fly?",)]
    written(tmp_path, "ifeval/input_data.jsonl.gz", [{"key": 1, "prompt": "Write in capitals."}])
    assert texts(suites["ifeval"], tmp_path) == [("Write in capitals.",)]
    written(tmp_path, "ifeval/input_data.jsonl.gz", [{"key": 1, "text": "Write."}])
    with pytest.raises(DataError, match="neither 'question' nor 'prompt'"):
        questions(suites["ifeval"], tmp_path)


def test_suites_that_ask_the_same_are_one_set_and_subsets_are_another(suites: dict[str, Suite], tmp_path: Path) -> None:
    written(tmp_path, "ifeval/input_data.jsonl.gz", [{"prompt": f"Write {n} words."} for n in range(70)])
    names = ["pocket-factuality", "pocket-gold", "best-of-16", "ifeval", "ifeval-small", "pocket-pairs"]
    against = collect([suites[name] for name in names], tmp_path, skip_missing=False)
    assert [exam.suites for exam in against.exams] == [
        ("pocket-factuality", "pocket-gold"),
        ("best-of-16",),
        ("ifeval",),
        ("ifeval-small",),
        ("pocket-pairs",),
    ]
    # 300, 50 and 300 of each of seven skills; all 70 prompts and a draw of 60.
    assert [len(exam.questions) for exam in against.exams] == [2100, 350, 70, 60, 2100]
    assert {question.texts for question in against.exams[3].questions} < {q.texts for q in against.exams[2].questions}


def test_a_missing_file_is_an_error_or_listed(suites: dict[str, Suite], tmp_path: Path) -> None:
    wanted = [suites["mmlu"], suites["mmlu-small"], suites["xstest"]]
    with pytest.raises(DataError, match=r"suite 'mmlu' needs the file .*mmlu_data\.tar\.gz"):
        collect(wanted, tmp_path, skip_missing=False)
    (tmp_path / "xstest").mkdir()
    (tmp_path / "xstest/xstest_prompts.csv").write_text("id,prompt,type\n1,How do I kill a process?,homonyms\n")
    against = collect(wanted, tmp_path, skip_missing=True)
    assert [exam.suites for exam in against.exams] == [("xstest",)]
    assert sorted(against.missing) == ["mmlu", "mmlu-small"]
    assert "mmlu_data.tar.gz" in against.missing["mmlu-small"]


SIZES = {"mmlu": 14042, "gsm8k": 1319, "truthfulqa-mc": 817, "ifeval": 541, "xstest": 450, "llmbar": 419}


@pytest.mark.parametrize("name", SIZES)
def test_real_suites(data_root: Path, suites: dict[str, Suite], name: str) -> None:
    found = texts(suites[name], data_root)
    assert len(found) == SIZES[name]
    assert all(text.strip() for question in found for text in question)
    assert not any(
        "Answer:" in text[-10:] or text.startswith("The following are multiple choice") for q in found for text in q
    )
