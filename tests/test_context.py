"""What all stages rest on: files that appear whole or not at all, and work found by its name."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from ablate.context import import_function, replacing, sync_tree, write_json, write_text
from ablate.errors import StageError


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert write_text(path, "old\n") == path
    with replacing(path) as temporary:
        temporary.write_text("new\n")
        assert path.read_text() == "old\n"
    assert path.read_text() == "new\n"
    write_json(path, {"b": 1, "a": "é"})
    assert json.loads(path.read_text()) == {"a": "é", "b": 1}
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "1\n"
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_error_names_the_file_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "a.txt"
    with pytest.raises(FileNotFoundError) as absent:
        write_text(path, "text")
    assert absent.value.filename == str(path)
    with pytest.raises(OSError, match="No space left") as full, replacing(tmp_path / "b.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write says it: without a name
    assert full.value.filename == str(tmp_path / "b.txt")
    with pytest.raises(FileNotFoundError) as other, replacing(tmp_path / "b.txt"):
        (tmp_path / "another").read_text()
    assert other.value.filename == str(tmp_path / "another")


def test_a_tree_is_synced_around_what_has_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    sync_tree(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("no_such_module:grade", "can't import the grader, no_such_module:grade: No module named"),
        ("json:no_such_name", "can't import the grader, json:no_such_name: module 'json' has no attribute"),
        ("json", "can't import the grader, json: "),
        (":grade", "can't import the grader, :grade: "),
        ("json:__name__", "the grader, json:__name__, is not a function"),
    ],
)
def test_work_that_cannot_be_found_says_what_it_should_have_been(entry: str, message: str) -> None:
    with pytest.raises(StageError) as error:
        import_function(entry, "the grader")
    assert error.value.message.startswith(message)


def test_work_is_found_by_module_and_function() -> None:
    assert import_function("json:dumps", "the grader") is json.dumps
