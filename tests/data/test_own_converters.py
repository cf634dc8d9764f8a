"""A researcher's own dataset: found in the project, converted by a function of theirs, identified by its code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.datasets import DatasetEntry, converter_digest, datasets
from ablate.catalogs.digests import DigestCache, sha256_file
from ablate.catalogs.functions import is_function, source_file
from ablate.context import EventLog, StageContext, read_json
from ablate.data.converters import bind
from ablate.data.preview import preview
from ablate.data.records import Conversation, Dropped, Prompt
from ablate.data.stage import run
from ablate.errors import DataError, SpecError, UnknownNameError

MANUAL = (Path(__file__).resolve().parents[2] / "docs/extending.md").read_text(encoding="utf-8")


def block(after: str) -> str:
    """Return the first code block of the manual after a text."""
    return MANUAL.partition(after)[2].partition("```")[2].partition("\n")[2].partition("```")[0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project of the manual, as its section on code of yours has it; modules imported from it are forgotten."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "root/house").mkdir(parents=True)
    (tmp_path / "house.py").write_text(block("`house.py`, in the folder"))
    (tmp_path / "datasets/house_answers.yaml").write_text(block("`datasets/house_answers.yaml`:"))
    (tmp_path / "root/house/answers.jsonl").write_text(block("Of `house/answers.jsonl`"))
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def entry_of(project: Path) -> DatasetEntry:
    return datasets(project / "datasets")["house-answers"]


def make(project: Path, config: dict[str, Any], name: str = "stage") -> Path:
    folder = project / name
    for part in ("output", "work"):
        (folder / part).mkdir(parents=True)
    events = EventLog(folder / "events.jsonl")
    locations = {"root": str(project / "root")}
    run(StageContext("dataset", config, {}, folder / "output", folder / "work", events, locations))
    return folder / "output"


def planned(project: Path) -> dict[str, Any]:
    """The stage's config as the planner makes it."""
    entry, cache = entry_of(project), DigestCache(project / "digests.json")
    files = {"house/answers.jsonl": cache.of_file(project / "root/house/answers.jsonl")}
    return entry.stage_config(files, converter_code=converter_digest(entry, cache))


def test_the_example_of_the_manual_gives_its_pair(project: Path) -> None:
    config = planned(project)
    assert config["converter_code"] == sha256_file(project / "house.py")
    output = make(project, json.loads(json.dumps(config)))
    report = read_json(output / "report.json")
    assert (report["in"], report["kept"], report["dropped"]) == (2, 1, {"few-votes": 1})
    (pair,) = [json.loads(line) for line in (output / "pairs.jsonl").read_text().splitlines()]
    # 4 votes against 1: best against worst, a gap of 3
    assert [pair[side][0]["content"] for side in ("prompt", "chosen", "rejected")] == [
        "Tea or coffee?", "Coffee.", "Tea.",
    ]  # fmt: skip
    assert (pair["margin"], pair["source"]) == (3.0, "kitchen")


def test_it_is_previewed_without_a_plan(project: Path) -> None:
    shown = preview(entry_of(project), project / "root", 5)
    assert [item.get("dropped") for item in shown] == [None, "few-votes"]


def test_a_changed_file_is_not_the_planned_one(project: Path) -> None:
    config = planned(project)
    (project / "house.py").write_text((project / "house.py").read_text() + "# looked at again\n")
    assert planned(project)["converter_code"] != config["converter_code"]
    with pytest.raises(DataError, match=r"house\.py is not the file this stage was planned with"):
        make(project, config)


def test_names_are_told_from_those_of_ablate() -> None:
    assert is_function("house:convert") and is_function("my.package.house:convert_2")
    assert not any(is_function(name) for name in ("shp", "house:", ":convert", "a b:c", "house:convert:x", "a..b:c"))


def test_the_file_is_found_without_importing_it(project: Path) -> None:
    package = project / "own_package/deeper"
    package.mkdir(parents=True)
    (project / "own_package/__init__.py").write_text("raise SystemExit('imported')")
    (package / "house.py").write_text("from x import *\n")
    assert source_file("own_package.deeper.house:whatever") == package / "house.py"
    with pytest.raises(DataError, match=r"no Python file of the module 'own_package\.house'"):
        source_file("own_package.house:convert")
    with pytest.raises(DataError, match=r"no Python file of the module 'house\.convert'"):
        source_file("house.convert:x")
    with pytest.raises(UnknownNameError, match=r"unknown function of .*house\.py 'convrt'\n  did you mean 'convert'"):
        source_file("house:convrt")
    (project / "house.py").write_text("def convert(row, options):\n    return [\n")
    with pytest.raises(DataError, match=r"house\.py:2: not valid Python"):
        source_file("house:convert")


RETURNED = {
    "none": ("None", "returned None"),
    "a dict": ("dict(row)", "returned {'room'"),
    "one response": (
        "PreferenceRecord((message('user', 'q'),), (Response((message('assistant', 'a'),), 1.0),), 's', 'i')",
        "returned 1 response",
    ),
    "no turn": ("Prompt(('hello',), 's', 'i')", "made the turn 'hello'"),
    "raising": ("row['lost']", "raised KeyError: 'lost'"),
}


@pytest.mark.parametrize(("code", "message"), list(RETURNED.values()), ids=list(RETURNED))
def test_what_is_no_record_is_an_error_with_file_and_row(project: Path, code: str, message: str) -> None:
    (project / "house.py").write_text(
        "from ablate.data.records import *\nfrom ablate.data.records import message\n"
        f"def convert(row, options):\n    return {code}\n"
    )
    with pytest.raises(DataError) as caught:
        make(project, planned(project))
    assert f"answers.jsonl, row 1: the converter house:convert {message}" in str(caught.value)


KEPT = {
    "Prompt((message('user', 'q'),), 's', 'i')": Prompt,
    "Conversation((message('user', 'q'), message('assistant', 'a')), 's', 'i')": Conversation,
    "Prompt((message('user', ' '),), 's', 'i')": "empty-message",
    "Prompt((), 's', 'i')": "last-turn-not-user",
    "Conversation((message('user', 'q'),), 's', 'i')": "last-turn-not-assistant",
    "Conversation((message('assistant', 'q'),), 's', 'i')": "turns-do-not-alternate",
}


@pytest.mark.parametrize(("code", "expected"), list(KEPT.items()), ids=list(KEPT))
def test_dialogues_are_checked(project: Path, code: str, expected: Any) -> None:
    (project / "house.py").write_text(
        "from ablate.data.records import *\nfrom ablate.data.records import message\n"
        f"convert = lambda row, options: {code}\n"
    )
    made = bind("house:convert", {})("file", {})
    if isinstance(expected, str):
        assert made == Dropped(expected)
    else:
        assert isinstance(made[0] if isinstance(made, tuple) else made, expected)


def test_a_module_that_fails_or_hides_behind_another_is_said(project: Path) -> None:
    (project / "house.py").write_text("import no_such_module\ndef convert(row, options): ...\n")
    with pytest.raises(DataError, match=r"can't import the converter house:convert: ModuleNotFoundError"):
        bind("house:convert", {})
    (project / "json.py").write_text("def convert(row, options): ...\n")
    with pytest.raises(DataError, match=r"(?s)json is .*not .*json\.py\n  give your module another name"):
        bind("json:convert", {})


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("house:convert", "my-house:convert"), 5, ["converter: unknown converter 'my-house:convert'"]),
        (("house:convert", "columns"), 6, ["converter_options.minimum_votes: unknown key"]),
        (("converter_options: {minimum_votes: 3}", "converter_options: {since: 2024-01-01}"), 6, ["a function"]),
        (("converter_options: {minimum_votes: 3}", "converter_options: {1: 3}"), 6, ["converter_options"]),
        (("converter_revision: 1", "converter_revision: 0"), 7, ["converter_revision", "greater than or equal to 1"]),
        (("converter_revision: 1", "converter_revison: 1"), 7, ["did you mean 'converter_revision'"]),
    ],
)
def test_wrong_entries_name_file_line_and_key(
    project: Path, change: tuple[str, str], line: int, words: list[str]
) -> None:
    file = project / "datasets/house_answers.yaml"
    assert change[0] in file.read_text()
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(SpecError) as caught:
        entry_of(project)
    assert f"house_answers.yaml:{line}: house-answers." in str(caught.value), caught.value
    assert all(word in str(caught.value) for word in words), caught.value


def test_revisions_are_for_functions_and_an_empty_file_is_an_empty_catalog(project: Path) -> None:
    file = project / "datasets/house_answers.yaml"
    file.write_text(file.read_text().replace("revision: 1", "revision: 4"))
    assert entry_of(project).converter_revisions() == {"house:convert": 4}
    file = file.rename(project / "house.yaml")  # a folder is read once a process
    file.write_text(file.read_text().replace("house:convert", "shp").replace("{minimum_votes: 3}", "{}"))
    with pytest.raises(SpecError, match=r"converter_revision belongs to a converter of one's own"):
        datasets(project)
    file.write_text("# nothing yet\n")
    assert "shp" in datasets(project)
