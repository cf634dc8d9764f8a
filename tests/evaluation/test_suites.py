"""Suites: what is shipped loads, errors say where, and identity splits into generation and grading."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import get_args

import pytest

from ablate.catalogs.suite_code import GRADERS, PROMPTS, resolve_entry
from ablate.catalogs.suite_code.entry import _version
from ablate.catalogs.suite_code.pocket import Skill
from ablate.catalogs.suites import PAIR_ENGINES, Suite, find_suite, load_suites
from ablate.errors import DataError, SpecError, UnknownNameError
from ablate.pocket.language import SKILLS
from ablate.shipped import shipped_folder

SUITE = """\
name: mine
title: Mine
category: factuality
subject: policy
engine: items
data: {pocket: {n: 3}}
prompts: pocket
decoding:
  temperature: 0.0
  max_new_tokens: 8
grader: pocket
options: {skills: [facts]}
primary: accuracy
"""


def shipped() -> dict[str, Suite]:
    return load_suites([shipped_folder("evals")])


def load(folder: Path, text: str) -> Suite:
    (folder / "suite.yaml").write_text(text, encoding="utf-8")
    return load_suites([folder])["mine"]


def digests(suite: Suite) -> dict[str, str]:
    return dict.fromkeys(suite.files, "0" * 64)


def test_shipped_suites_cover_every_category_and_are_complete() -> None:
    suites = shipped()
    assert {suite.category for suite in suites.values()} == {
        "factuality", "reasoning", "coding", "truthfulness", "safety", "instruction-following", "gold", "reward",
        "best-of-n",
    }  # fmt: skip
    for suite in suites.values():
        assert suite.protocol, suite.name
        assert len(suite.protocol_digest(digests(suite))) == 12


def test_named_code_exists() -> None:
    import importlib

    for kind, known in (("prompts", PROMPTS), ("grader", GRADERS)):
        for name in known:
            module, function = resolve_entry(kind, name).split(":")  # type: ignore[arg-type]
            assert callable(getattr(importlib.import_module(module), function)), name


def test_pocket_suites_share_one_generation_and_their_twins_differ_in_the_split_only() -> None:
    suites = shipped()
    test = [suites[name] for name in suites if name.startswith("pocket-") and "validation" not in name]
    policies = [suite for suite in test if suite.engine == "items" and suite.judging is None]
    assert len(policies) == 9
    assert len({str((suite.generation_config(), suite.items_config())) for suite in policies}) == 1
    assert len({str(suite.grading_config()) for suite in policies}) == 9
    for suite in policies:
        twin = suites[suite.name.replace("pocket-", "pocket-validation-")]
        assert twin.items_config() == {**(suite.items_config() or {}), "split": "validation"}
        assert twin.grading_config() == suite.grading_config()
        assert twin.generation_config() == suite.generation_config()


@pytest.mark.parametrize(
    ("old", "new", "generation", "grading"),
    [
        ("skills: [facts]", "skills: [truth]", False, True),
        ("primary: accuracy", "primary: gold", False, True),
        ("title: Mine", "title: Yours", False, False),
        ("max_new_tokens: 8", "max_new_tokens: 9", True, False),
        ("temperature: 0.0", "temperature: 0.5", True, False),
        ("prompts: pocket", "prompts: pocket\nlimit: 2", True, False),
        ("prompts: pocket", "prompts: pocket\nchat: false", True, False),
        ("prompts: pocket", "prompts: {name: pocket, options: {}}", False, False),
        ("temperature: 0.0", "temperature: 0.0\n  top_p: 1.0\n  samples: 1", False, False),
        ("prompts: pocket", "prompts: pocket\nsample_seed: 7", False, False),
        ("primary: accuracy", "primary: accuracy\nunit: count", False, False),
    ],
)
def test_what_changes_which_identity(tmp_path: Path, old: str, new: str, generation: bool, grading: bool) -> None:
    before, after = load(tmp_path, SUITE), load(tmp_path, SUITE.replace(old, new))
    assert (before.generation_config() != after.generation_config()) is generation
    assert (before.grading_config() != after.grading_config()) is grading
    assert (before.protocol_digest() != after.protocol_digest()) is (generation or grading)


def test_a_drawn_sample_counts_with_its_seed(tmp_path: Path) -> None:
    limited = SUITE.replace("prompts: pocket", "prompts: pocket\nlimit: 2")
    one, other = load(tmp_path, limited), load(tmp_path, limited + "sample_seed: 7\n")
    assert one.generation_config() != other.generation_config()


def test_plain_stops_end_responses_to_prompts_without_a_chat_template_only(tmp_path: Path) -> None:
    before = load(tmp_path, SUITE.replace("temperature: 0.0", "temperature: 0.0\n  stop: [END]"))
    after = load(tmp_path, SUITE.replace("temperature: 0.0", 'temperature: 0.0\n  stop: [END]\n  plain_stop: ["\\n"]'))
    assert after.generation_config(chat=True) == before.generation_config(chat=True)
    assert after.generation_config(chat=False)["decoding"] == {
        **before.generation_config(chat=False)["decoding"],
        "stop": ["END", "\n"],
    }
    assert after.protocol_digest() != before.protocol_digest()


def test_gsm8k_stops_a_base_model_at_the_end_of_the_line() -> None:
    for name in ("gsm8k", "gsm8k-small"):
        suite = shipped()[name]
        assert suite.generation_config(digests(suite), chat=False)["decoding"]["stop"] == ["\n"]
        assert suite.generation_config(digests(suite), chat=True)["decoding"]["stop"] == []


def test_the_version_of_lm_eval_counts_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> dict[str, tuple[object, object]]:
        _version.cache_clear()
        responded = [suite for suite in shipped().values() if suite.engine not in PAIR_ENGINES]
        return {suite.name: (suite.generation_config(digests(suite)), suite.grading_config()) for suite in responded}

    before = made()
    monkeypatch.setattr(importlib.metadata, "version", lambda package: f"another {package}")
    after = made()
    monkeypatch.undo()
    _version.cache_clear()
    generated = {name for name in before if before[name][0] != after[name][0]}
    graded = {name for name in before if before[name][1] != after[name][1]}
    lm_eval = {name for name, suite in shipped().items() if suite.engine == "lm-eval"}
    assert {"truthfulqa-mc", "ifeval", "ifeval-unpacking-2024"} <= lm_eval
    exemplars = {name for name, suite in shipped().items() if suite.prompts.name == "gsm8k"}
    assert {"gsm8k", "gsm8k-unpacking-2024"} <= exemplars
    assert generated == lm_eval | exemplars, "whose exemplars are those of lm-eval"
    assert graded == lm_eval


LM_EVAL = """\
name: mine
title: Mine
category: factuality
subject: policy
engine: lm-eval
data: {files: [rows.jsonl]}
prompts: {name: lm-eval, options: {rows: as-is, tasks: [{include: ifeval/ifeval.yaml}]}}
decoding: {temperature: 0.0, max_new_tokens: 8}
grader: lm-eval
primary: ifeval/prompt_level_loose_acc
"""


@pytest.mark.parametrize("setting", ["temperature: 0.7", "top_p: 0.9", "seed: 3", "temperature: 0.7, samples: 4"])
def test_lm_eval_refuses_what_it_would_ignore(tmp_path: Path, setting: str) -> None:
    assert load(tmp_path, LM_EVAL).decoding.greedy
    with pytest.raises(SpecError, match="engine lm-eval is greedy"):
        load(tmp_path, LM_EVAL.replace("temperature: 0.0", setting))


def test_generation_needs_the_digest_of_every_file() -> None:
    suite = shipped()["gsm8k"]
    with pytest.raises(ValueError, match=r"no digest for gsm8k/test\.jsonl\.gz"):
        suite.generation_config({})
    config = suite.generation_config({"gsm8k/test.jsonl.gz": "ab"}, chat=False)
    assert config["files"] == {"gsm8k/test.jsonl.gz": "ab"}
    assert config["chat"] is False


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "said"),
    [
        ("grader: pocket", "grader: poket", 11, "grader", "did you mean 'pocket'?"),
        ("prompts: pocket", "prompts: gsm8", 7, "prompts", "did you mean 'gsm8k'?"),
        ("  max_new_tokens: 8", "  max_new_token: 8", 10, "decoding.max_new_token", "did you mean 'max_new_tokens'?"),
        ("title: Mine", "titel: Mine", 2, "titel", "did you mean 'title'?"),
        ("title: Mine\n", "", 1, "title", "'title' is required"),
        ("category: factuality", "category: factual", 3, "category", "did you mean 'factuality'?"),
        ("engine: items", "engine: pairs", 1, "", "not a policy"),
        ("title: Mine", "title: Mine\nselect: {}", 1, "", "engine items does not read select, which is for best-of-n"),
        ("engine: items", "engine: choices", 1, "", "does not read decoding, which is for items, lm-eval, best-of-n"),
        ("temperature: 0.0", "temperature: [0, 1]", 9, "decoding.temperature", "valid number"),
        ("skills: [facts]", "skill: [facts]", 12, "options.skill", "did you mean 'skills'?"),
        ("name: mine", "name: mine\nname: mine", 2, "name", "duplicate key"),
        ("title: Mine", "title: [Mine", 3, "", "not valid YAML"),
        ("{pocket: {n: 3}}", "{files: [../x]}", 6, "data.files", "below the data root"),
        ("{pocket: {n: 3}}", "{}", 6, "data", "either pocket, or files or hub"),
        ("{n: 3}", "{n: 3, name: fcts}", 6, "data.pocket.name", "'fcts' is not allowed\n  did you mean 'facts'?"),
        ("skills: [facts]", "skills: [truth, fcts]", 12, "options.skills.1", "did you mean 'facts'?"),
        ("{n: 3}", "{n: 3, name: truth}", 1, "", "items of truth alone, and options.skills grades facts"),
        (
            "primary: accuracy",
            "primary: gld",
            13,
            "primary",
            "unknown metric of grader pocket 'gld'\n  did you mean 'gold'?",
        ),
        ("primary: accuracy", "primary: facts/acuracy", 13, "primary", "did you mean 'accuracy'?"),
        (
            "grader: pocket\noptions: {skills: [facts]}\nprimary: accuracy",
            "grader: rewardbench-implicit\nprimary: overall/accuracy",
            1,
            "",
            "engine implicit and a grader of implicit rewards belong together",
        ),
        (
            "prompts: pocket",
            "prompts: {name: mmlu, options: {shot: 1}}",
            7,
            "prompts.options.shot",
            "did you mean 'shots'?",
        ),
    ],
)
def test_errors_name_file_line_key_and_what_is_meant(
    tmp_path: Path, old: str, new: str, line: int, key: str, said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, SUITE.replace(old, new))
    location = caught.value.location
    assert location is not None
    assert location.file == str(tmp_path / "suite.yaml")
    assert location.line == line
    assert (location.key or "") == key
    assert said in str(caught.value)


def test_family_merges_common_keys_and_blames_the_line_of_the_one_that_is_wrong(tmp_path: Path) -> None:
    common = "common:\n" + "".join(f"  {line}\n" for line in SUITE.splitlines()[1:])
    text = common + "suites:\n  mine: {decoding: {max_new_tokens: 4}}\n  other: {chat: maybe}\n"
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text)
    assert str(caught.value.location) == f"{tmp_path / 'suite.yaml'}:16: suites.other.chat"
    suite = load(tmp_path, text.replace("maybe", "false"))
    assert (suite.decoding.max_new_tokens, suite.decoding.temperature) == (4, 0.0)


def test_the_first_folder_that_has_a_name_wins(tmp_path: Path) -> None:
    for name in ("own", "shipped"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "suite.yaml").write_text(SUITE.replace("Mine", name), encoding="utf-8")
    suites = load_suites([tmp_path / "own", tmp_path / "shipped"])
    assert suites["mine"].title == "own"
    with pytest.raises(UnknownNameError, match="did you mean 'mine'"):
        find_suite(suites, "mime")


def test_the_catalog_names_the_skills_of_the_pocket_world() -> None:
    assert get_args(Skill) == tuple(SKILLS)


def test_any_grader_of_ones_own(tmp_path: Path) -> None:
    suite = load(tmp_path, SUITE.replace("grader: pocket", "grader: mypackage.graders:mine"))
    assert suite.grading_config()["grader"] == "mypackage.graders:mine"
    own = SUITE.replace("grader: pocket", "grader: mypackage.graders:mine").replace("primary: accuracy", "primary: gld")
    assert load(tmp_path, own).metrics is None
    assert resolve_entry("grader", suite.grader) == "mypackage.graders:mine"


def test_a_file_that_is_easily_missed_says_where_it_is_published(tmp_path: Path) -> None:
    (tmp_path / "arena_hard").mkdir()
    (tmp_path / "arena_hard" / "question_v0.1.jsonl.gz").touch()
    with pytest.raises(DataError, match=r"gpt-4-0314\.jsonl, which is not there\n.*of lmarena/arena-hard-auto.*put it"):
        shipped()["arena-hard"].paths(tmp_path)
    text = SUITE.replace("data: {pocket: {n: 3}}", "data: {files: [a/b.jsonl], origins: {a/c.jsonl: somewhere}}")
    with pytest.raises(SpecError, match=r"unknown file of this suite 'a/c.jsonl'\n  did you mean 'a/b.jsonl'"):
        load(tmp_path, text)
