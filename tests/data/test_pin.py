"""Pins of repositories: what the command writes, and what is fetched and read by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.datasets import DatasetEntry, Source, data_files, datasets
from ablate.catalogs.pins import LOCK, read_pins
from ablate.data.fetch import fetch
from ablate.data.pin import Pinned, pin_all, unpinned
from ablate.errors import DataError, SpecError

REVISION, OLDER = "6e87e7ba11eeb2a21db459cf13267f62d1feea23", "6e87ffff" + "0" * 32
REPOSITORY = "allenai/tulu-2.5-preference-data"
CAPYBARA = f"{REPOSITORY}/data/capybara-00000-of-00001.jsonl"


def entry(**changes: Any) -> DatasetEntry:
    """A set of the server's repository that names no revision unless told."""
    made = datasets()["tulu-2.5-capybara"]
    assert made.source.hub is not None
    hub = made.source.hub.model_copy(update={"revision": None, **changes})
    return made.model_copy(update={"name": "mine", "source": Source(hub=hub)})


OWN_SET = f"""\
mine:
  title: Mine
  format: preference
  source: {{hub: {{id: {REPOSITORY}, files: [data/capybara-00000-of-00001.jsonl]}}}}
  converter: tulu_2_5
  label_kind: ai
  licence: MIT
"""


def pinned(
    hub: Any, folder: Path, *entries: DatasetEntry, root: Path | None = None, again: bool = False
) -> list[Pinned]:
    known = {f"set-{number}": made for number, made in enumerate(entries)}
    return list(pin_all(list(known), known, folder, root, again=again, hosts=hub.hosts()))


def test_a_pin_is_what_a_set_is_fetched_and_read_at(hub: Any, tmp_path: Path) -> None:
    mine = entry()
    assert pinned(hub, tmp_path, mine, entry(revision=REVISION[:8])) == [Pinned(REPOSITORY, "pinned", REVISION)]
    lock = (tmp_path / LOCK).read_text()
    assert lock.endswith(f'huggingface:\n  {REPOSITORY}: "{REVISION}"\n')
    at_it = read_pins(tmp_path).applied(mine)
    assert at_it.source.hub == entry(revision=REVISION).source.hub
    assert at_it.facts()["revision"] == REVISION
    root = tmp_path / "data"
    assert [item.revision for item in fetch(at_it, root, hosts=hub.hosts())] == [REVISION]
    hub.commits.insert(0, "f" * 40)  # a newer commit changes nothing until it is asked for
    assert pinned(hub, tmp_path, mine) == [Pinned(REPOSITORY, "kept", REVISION)]
    assert pinned(hub, tmp_path, mine, again=True) == [Pinned(REPOSITORY, "pinned", "f" * 40)]
    with pytest.raises(DataError, match=rf"pinned to revision {'f' * 40}, and .* was fetched at {REVISION}"):
        data_files(read_pins(tmp_path).applied(mine), root)
    with pytest.raises(SpecError, match=rf"'mine' is of, {REVISION[:8]}") as caught:
        read_pins(tmp_path).applied(entry(revision=REVISION[:8]))
    assert f"{LOCK}:4: huggingface.{REPOSITORY}: " in str(caught.value)
    assert read_pins(tmp_path).applied(entry(revision=OLDER)) == entry(revision=OLDER), "its own words count"


def test_what_was_fetched_is_what_is_pinned(hub: Any, tmp_path: Path) -> None:
    mine = entry()
    list(fetch(mine, tmp_path, revision="main", hosts=hub.hosts()))
    hub.requests.clear()
    assert pinned(hub, tmp_path, mine, root=tmp_path) == [Pinned(REPOSITORY, "pinned, as fetched", REVISION)]
    assert hub.requests == []
    assert data_files(read_pins(tmp_path).applied(mine), tmp_path).keys() == {CAPYBARA}


def test_what_can_t_be_pinned_leaves_the_others_pinned(hub: Any, tmp_path: Path) -> None:
    found = pinned(hub, tmp_path, entry(id="no/where"), entry(host="github"), entry(revision=REVISION))
    assert [item.status for item in found] == ["not pinned", "pinned", "in the catalog"]
    assert "no/where does not exist, or is private or gated" in str(found[0].error)
    assert read_pins(tmp_path).commits == {("github", REPOSITORY): REVISION}
    (absent,) = pinned(hub, tmp_path, entry(files=["data/capybra-00000-of-00001.jsonl"]))
    assert "did you mean 'data/capybara-00000-of-00001.jsonl'" in str(absent.error)
    (tmp_path / LOCK).write_text("huggingface:\n  a/b: main\n")
    with pytest.raises(SpecError, match=rf"{LOCK}:2: huggingface.a/b: .*\[0-9a-f\]"):
        read_pins(tmp_path)


def test_the_command_pins(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/own.yaml").write_text(OWN_SET, encoding="utf-8")
    done = hub.command("pin", "mine")
    assert (done.returncode, done.stdout) == (0, f"pinned              {REPOSITORY}  {REVISION}\n")
    assert json.loads(hub.command("show", "mine", "--json", "--rows", "0").stdout)["revision"] == REVISION
    assert hub.command("fetch", "mine", "--root", str(tmp_path / "data")).returncode == 0
    assert hub.command("pin", "mine").stdout == f"kept                {REPOSITORY}  {REVISION}\n"
    absent = hub.command("pin", "stack-exchange")
    assert (absent.returncode, absent.stdout) == (1, "not pinned          lvwerra/stack-exchange-paired  \n")
    assert "lvwerra/stack-exchange-paired does not exist, or is private or gated" in absent.stderr
    offline = hub.command("pin", "stack-exchange", HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert "HF_HUB_OFFLINE forbids connections\n  unset it" in offline.stderr
    assert f"copy {LOCK} into {tmp_path}" in offline.stderr
    assert hub.command("pin").returncode == 2


def test_all_are_those_at_no_full_commit() -> None:
    known = {"none": entry(), "beginning": entry(revision=REVISION[:8]), "full": entry(revision=REVISION)}
    assert unpinned({**known, "pocket-hh": datasets()["pocket-hh"]}) == ["none", "beginning"]
