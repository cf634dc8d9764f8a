"""Fetching from a hub and from GitHub: real library code against servers on this machine that answer as those do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from ablate.catalogs.datasets import DatasetEntry, data_files, datasets, fetched_revisions
from ablate.catalogs.fetched import read_record
from ablate.catalogs.suites import fetchable, load_suites
from ablate.data.fetch import Item, fetch, fetch_all
from ablate.data.hosts import HuggingFace
from ablate.errors import DataError, FetchError, UnknownNameError, UsageError
from ablate.execution.prefetch import prefetch
from ablate.execution.study import make_plan
from ablate.shipped import shipped_folder
from ablate.store import Store

REVISION, OLDER = "6e87e7ba11eeb2a21db459cf13267f62d1feea23", "6e87ffff" + "0" * 32
REPOSITORY = "allenai/tulu-2.5-preference-data"
CAPYBARA = f"{REPOSITORY}/data/capybara-00000-of-00001.jsonl"


def entry(**source: Any) -> DatasetEntry:
    values = {"id": REPOSITORY, "revision": REVISION, "files": ["data/capybara-00000-of-00001.jsonl"], **source}
    return DatasetEntry.model_validate(
        {
            "name": "mine",
            "title": "Mine",
            "format": "preference",
            "source": {"hub": values},
            "converter": "tulu_2_5",
            "label_kind": "ai",
            "licence": "MIT",
        }
    )


def fetched(hub: Any, root: Path, mine: DatasetEntry, **options: Any) -> list[Item]:
    return list(fetch(mine, root, hosts=hub.hosts(), **options))


def names_below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_one_split_is_fetched_and_nothing_else(hub: Any, tmp_path: Path) -> None:
    mine = datasets()["tulu-2.5-capybara"]
    content = hub.files["data/capybara-00000-of-00001.jsonl"]
    assert fetched(hub, tmp_path, mine, dry_run=True) == [Item(CAPYBARA, len(content), REVISION, "to fetch")]
    assert list(tmp_path.iterdir()) == []
    hub.requests.clear()
    assert fetched(hub, tmp_path, mine) == [Item(CAPYBARA, len(content), REVISION, "fetched")]
    assert hub.asked() == [
        f"/api/datasets/{REPOSITORY}/revision/{REVISION}?blobs=true",
        f"/datasets/{REPOSITORY}/resolve/{REVISION}/data/capybara-00000-of-00001.jsonl",
        f"/cdn/{REPOSITORY}/resolve/{REVISION}/data/capybara-00000-of-00001.jsonl",
    ]
    assert names_below(tmp_path) == sorted([CAPYBARA, f"{REPOSITORY}/.fetched.json"])
    assert (tmp_path / CAPYBARA).read_bytes() == content
    assert json.loads((tmp_path / REPOSITORY / ".fetched.json").read_text()) == {
        "data/capybara-00000-of-00001.jsonl": {
            "revision": REVISION,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }
    }
    assert data_files(mine, tmp_path) == {CAPYBARA: tmp_path / CAPYBARA}
    assert fetched_revisions(mine, tmp_path) == {CAPYBARA: REVISION}
    # Again: the file is kept, and only the listing is asked for.
    hub.requests.clear()
    assert [item.status for item in fetched(hub, tmp_path, mine)] == ["kept"]
    assert len(hub.requests) == 1


def test_a_pattern_fetches_what_it_stands_for(hub: Any, tmp_path: Path) -> None:
    hub.files |= {"askacademia/train.json": b"1\n", "askbaking/train.json": b"1\n", "askbaking/test.json": b"2\n"}
    found = fetched(hub, tmp_path, entry(files=["*/train.json*"]))
    assert [item.name for item in found] == [f"{REPOSITORY}/{name}/train.json" for name in ("askacademia", "askbaking")]
    assert set(data_files(entry(files=["*/train.json*"]), tmp_path)) == {item.name for item in found}
    # One of them is gone: what is left is not taken for the set.
    (tmp_path / REPOSITORY / "askbaking/train.json").unlink()
    with pytest.raises(DataError, match=r"(?s)askbaking/train\.json was fetched and is no longer there.*fetch mine"):
        data_files(entry(files=["*/train.json*"]), tmp_path)
    assert [item.status for item in fetched(hub, tmp_path, entry(files=["*/train.json*"]))] == ["kept", "fetched"]


def test_files_that_are_there_are_kept(hub: Any, tmp_path: Path) -> None:
    path = tmp_path / CAPYBARA
    path.parent.mkdir(parents=True)
    path.write_bytes(hub.files["data/capybara-00000-of-00001.jsonl"])
    assert [item.status for item in fetched(hub, tmp_path, entry())] == ["kept"]
    assert read_record(tmp_path / REPOSITORY)["data/capybara-00000-of-00001.jsonl"].revision == REVISION
    path.write_bytes(b"mine\n")
    with pytest.raises(DataError, match=r"(?s)other content than revision 6e87e7ba.*move this one away"):
        fetched(hub, tmp_path, entry())
    assert path.read_bytes() == b"mine\n"
    path.rename(path.with_name(path.name + ".zst"))
    assert [item.status for item in fetched(hub, tmp_path, entry())] == ["kept, compressed"]
    assert len([line for line in hub.asked() if "resolve" in line]) == 0


def test_first_digits_of_a_revision_are_resolved_and_checked(hub: Any, tmp_path: Path) -> None:
    (item,) = fetched(hub, tmp_path, entry(revision=REVISION[:8]))
    assert item.revision == REVISION
    assert hub.asked()[:2] == [
        f"/api/datasets/{REPOSITORY}/commits/main",
        f"/api/datasets/{REPOSITORY}/revision/{REVISION}?blobs=true",
    ]
    with pytest.raises(DataError, match="has no commit whose digits begin with 12345678"):
        fetched(hub, tmp_path, entry(revision="12345678"))
    hub.commits.append(REVISION[:8] + "f" * 32)
    with pytest.raises(DataError, match=r"has 2 commits whose digits begin with 6e87e7ba\n.*all 40 digits"):
        fetched(hub, tmp_path, entry(revision=REVISION[:8]))


def test_a_revision_must_be_known(hub: Any, tmp_path: Path) -> None:
    unpinned = entry(revision=None)
    with pytest.raises(
        UsageError, match=r"(?s)'mine' .*names no revision.*data pin mine .*fetch mine --revision COMMIT"
    ):
        fetched(hub, tmp_path, unpinned)
    assert hub.requests == []
    (item,) = fetched(hub, tmp_path, unpinned, revision="main")
    assert (item.revision, item.status) == (REVISION, "fetched")
    with pytest.raises(DataError, match=f"answers with revision {REVISION} .* is pinned to {OLDER}"):
        fetched(hub, tmp_path, entry(revision=OLDER), revision="main")
    with pytest.raises(DataError, match=f"{REPOSITORY} has no revision {'1' * 40}"):
        fetched(hub, tmp_path, entry(revision="1" * 40))


def test_another_revision_than_the_entry_names_is_an_error_at_plan_time(hub: Any, tmp_path: Path) -> None:
    fetched(hub, tmp_path, entry())
    later = entry(revision=OLDER)
    with pytest.raises(
        DataError, match=rf"(?s)pinned to revision {OLDER}, and .* was fetched at {REVISION}.*fetch mine"
    ):
        data_files(later, tmp_path)
    assert data_files(entry(revision=REVISION[:8]), tmp_path).keys() == {CAPYBARA}
    assert data_files(entry(revision=None), tmp_path).keys() == {CAPYBARA}
    (tmp_path / REPOSITORY / ".fetched.json").unlink()  # a mirror without a record is taken at its word
    assert data_files(later, tmp_path).keys() == {CAPYBARA}
    (tmp_path / REPOSITORY / ".fetched.json").write_text("{")
    with pytest.raises(DataError, match=r"\.fetched\.json is no record of fetched files"):
        data_files(later, tmp_path)


def test_a_lost_connection_is_continued(hub: Any, tmp_path: Path) -> None:
    hub.files["data/capybara-00000-of-00001.jsonl"] = os.urandom(12_000_000)
    hub.cut_after = 11_000_000
    assert [item.status for item in fetched(hub, tmp_path, entry())] == ["fetched"]
    assert hub.ranges == [f"bytes={huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE}-"]  # whole pieces are kept
    assert (tmp_path / CAPYBARA).read_bytes() == hub.files["data/capybara-00000-of-00001.jsonl"]


def test_an_interrupted_fetch_is_continued_by_the_next(hub: Any, tmp_path: Path) -> None:
    """The process is killed amid the second of two files: none is in place, and the next call asks for the rest."""
    two = ["data/capybara-00000-of-00001.jsonl", "data/nectar-00000-of-00001.jsonl"]
    hub.files[two[1]] = os.urandom(40_000_000)
    program = (
        "import sys; from pathlib import Path; from tests_entry import entry\n"
        "from ablate.data.fetch import fetch; from ablate.data.hosts import HuggingFace\n"
        "list(fetch(entry, Path(sys.argv[2]), hosts={'huggingface': HuggingFace(sys.argv[1])}))\n"
    )
    mine = entry(files=two)
    (tmp_path / "tests_entry.py").write_text(
        "from ablate.catalogs.datasets import DatasetEntry\n"
        f"entry = DatasetEntry.model_validate_json({mine.model_dump_json()!r}, strict=False)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    root = tmp_path / "root"
    child = subprocess.Popen([sys.executable, "-c", program, hub.url, str(root)], env=environment, stderr=-3)
    while sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 11_000_000:
        assert child.poll() is None
    child.kill()
    child.wait()
    assert [name for name in names_below(root) if ".unfinished" not in name] == []
    with pytest.raises(DataError, match="ablate data fetch mine"):
        data_files(mine, root)
    hub.requests.clear()
    assert [item.status for item in fetched(hub, root, mine)] == ["fetched", "fetched"]
    assert [line.rpartition("/")[2] for line in hub.asked() if "cdn" in line] == [Path(two[1]).name]
    assert int(hub.ranges[-1].removeprefix("bytes=").rstrip("-")) >= 10_000_000
    assert (root / REPOSITORY / two[1]).read_bytes() == hub.files[two[1]]
    assert not (root / REPOSITORY / ".unfinished").exists()


def test_other_content_than_listed_is_refused(hub: Any, tmp_path: Path) -> None:
    name = "data/capybara-00000-of-00001.jsonl"
    listed = HuggingFace(hub.url).listing(REPOSITORY, REVISION)

    class Stale(HuggingFace):
        def listing(self, repository: str, revision: str) -> Any:
            return listed

    hub.files[name] = hub.files[name].replace(b"capy", b"CAPY")
    with pytest.raises(FetchError, match=r"capybara.* came with other content than its digest"):
        list(fetch(entry(), tmp_path, hosts={"huggingface": Stale(hub.url)}))
    assert names_below(tmp_path) == []


def refused(hub: Any, tmp_path: Path, path: str, status: int, code: str = "") -> str:
    hub.refuse = {path: (status, code)}
    with pytest.raises((FetchError, DataError)) as caught:
        fetched(hub, tmp_path, entry())
    assert [name for name in names_below(tmp_path) if ".unfinished" not in name] == []
    return f"{caught.value.exit_code} {caught.value}"


def test_refusals_say_what_to_do(hub: Any, tmp_path: Path) -> None:
    listing = f"/api/datasets/{REPOSITORY}/revision/{REVISION}"
    file = f"/datasets/{REPOSITORY}/resolve/{REVISION}/data/capybara-00000-of-00001.jsonl"
    assert refused(hub, tmp_path, file, 403, "GatedRepo").startswith("1 data/capybara-00000-of-00001.jsonl is gated")
    assert "HF_TOKEN" in refused(hub, tmp_path, file, 401, "GatedRepo")
    assert "HF_TOKEN" in refused(hub, tmp_path, file, 403)
    assert f"1 {REPOSITORY} does not exist, or is private" in refused(hub, tmp_path, listing, 401, "RepoNotFound")
    assert "answers 500" in refused(hub, tmp_path, listing, 500)
    hub.refuse = {}
    with pytest.raises(
        DataError, match=r"(?s)has no file data/capibara.jsonl at revision 6e87.*did you mean .*capybara"
    ):
        fetched(hub, tmp_path, entry(files=["data/capibara.jsonl"]))


def test_no_connection_and_no_permission_to_connect(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError, match=r"no answer from the host \(.*refused"):
        list(fetch(entry(), tmp_path, hosts={"huggingface": HuggingFace("http://127.0.0.1:9")}))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE forbids connections"):
        fetched(hub, tmp_path, entry())
    assert hub.requests == []
    assert list(tmp_path.iterdir()) == []


def test_names_and_options_are_checked_before_anything_is_asked(tmp_path: Path) -> None:
    known = datasets()
    for names, options, error, words in (
        (["hh-rlhf-harmles"], {}, UnknownNameError, "unknown dataset"),
        (["tulu-2.5-capybara", "stack-exchange"], {}, UsageError, "'stack-exchange' .*names no revision"),
        (
            ["tulu-2.5-capybara", "stack-exchange"],
            {"revision": "main"},
            UsageError,
            "--revision is that of one dataset",
        ),
        (["pocket-hh"], {}, UsageError, "'pocket-hh': its files are made by this package"),
        (["llmbar"], {}, UsageError, "your own, under the data root"),
    ):
        with pytest.raises(error, match=words):
            list(fetch_all(names, known, tmp_path, **options))
    with pytest.raises(UsageError, match="give --root, or set ABLATE_DATA"):
        list(fetch_all(["tulu-2.5-capybara"], known, None))


SUITE = f"""\
name: mine
title: Mine
category: reward
subject: reward_model
engine: pairs
data: {{hub: [{{id: {REPOSITORY}, revision: {REVISION}, files: [data/capybara-00000-of-00001.jsonl]}}]}}
prompts: rewardbench
grader: rewardbench
primary: accuracy
"""


def test_a_suite_is_fetched_as_its_repositories_are(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE, encoding="utf-8")
    suites = load_suites([tmp_path, shipped_folder("evals")])
    with pytest.raises(DataError, match=rf"needs the file {CAPYBARA}, .*\n  ablate data fetch {REPOSITORY}, or put it"):
        suites["mine"].paths(tmp_path)
    wanted, known = fetchable(["mine"], datasets(), suites)
    found = list(fetch_all(wanted, known, tmp_path, hosts=hub.hosts()))
    assert [(item.name, item.status) for item in found] == [(CAPYBARA, "fetched")]
    assert suites["mine"].paths(tmp_path) == {CAPYBARA: tmp_path / CAPYBARA}
    other = SUITE.replace(REVISION, OLDER)
    (tmp_path / "mine.yaml").write_text(other, encoding="utf-8")
    with pytest.raises(DataError, match=f"is pinned to revision {OLDER}, .* was fetched at {REVISION}"):
        load_suites([tmp_path])["mine"].paths(tmp_path)


def test_names_of_suites_stand_for_the_repositories_that_they_read(tmp_path: Path) -> None:
    suites, known = load_suites([shipped_folder("evals")]), datasets()
    wanted, entries = fetchable(["rewardbench-launch", "llmbar", "allenai/reward-bench-2"], known, suites)
    assert wanted == ["allenai/reward-bench", "allenai/preference-test-sets", "llmbar", "allenai/reward-bench-2"]
    assert entries["llmbar"] == known["llmbar"]
    with pytest.raises(UsageError, match=r"'allenai/preference-test-sets' .*names no revision"):
        list(fetch_all(*fetchable(["rewardbench-launch"], known, suites), tmp_path))
    for name, error, words in (
        ("xstest", UsageError, "nothing to fetch for suite 'xstest': its files are your own"),
        ("pocket-gold", UsageError, "nothing to fetch for suite 'pocket-gold': its files are made by this package"),
        ("rewardbnch", UnknownNameError, r"unknown dataset or suite 'rewardbnch'\n  did you mean 'rewardbench'"),
    ):
        with pytest.raises(error, match=words):
            fetchable([name], known, suites)


def test_github_lists_reads_and_follows_pointers(hub: Any, tmp_path: Path) -> None:
    mine = entry(host="github", revision=REVISION[:8], files=["data/nectar-*.jsonl", "README.md"])
    found = fetched(hub, tmp_path, mine)
    nectar = "data/nectar-00000-of-00001.jsonl"
    assert [(item.name, item.status) for item in found] == [
        (f"{REPOSITORY}/README.md", "fetched"),
        (f"{REPOSITORY}/{nectar}", "fetched"),
    ]
    assert hub.asked() == [
        f"/repos/{REPOSITORY}/commits/{REVISION[:8]}",
        f"/repos/{REPOSITORY}/git/trees/{REVISION}?recursive=1",
        f"/raw/{REPOSITORY}/{REVISION}/README.md",
        f"/raw/{REPOSITORY}/{REVISION}/{nectar}",
        f"/raw/{REPOSITORY}/{REVISION}/README.md",
        f"/media/{REPOSITORY}/{REVISION}/{nectar}",
    ]
    assert (tmp_path / REPOSITORY / nectar).read_bytes() == hub.files[nectar]
    assert read_record(tmp_path / REPOSITORY)["README.md"].sha256 == hashlib.sha256(b"# T\n").hexdigest()
    assert [item.status for item in fetched(hub, tmp_path, mine)] == ["kept", "kept"]


def test_the_command(hub: Any, tmp_path: Path) -> None:
    first = hub.command("fetch", "tulu-2.5-capybara", "--root", str(tmp_path))
    assert (first.returncode, first.stdout, first.stderr) == (0, f"fetched           {CAPYBARA}  0.0 MB\n", "")
    shown = hub.command("show", "tulu-2.5-capybara", ABLATE_DATA=str(tmp_path))
    assert f"  fetched             {CAPYBARA} at {REVISION}\n" in shown.stdout
    second = hub.command("fetch", "stack-exchange", ABLATE_DATA=str(tmp_path))
    assert second.returncode == 2
    assert second.stderr.startswith("error: dataset 'stack-exchange' (lvwerra/stack-exchange-paired) names no revision")
    offline = hub.command("fetch", "tulu-2.5-shp-2", ABLATE_DATA=str(tmp_path), HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert "HF_HUB_OFFLINE forbids connections" in offline.stderr


def test_a_terminal_sees_how_far_it_is(hub: Any, tmp_path: Path) -> None:
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    line = [sys.executable, "-m", "ablate", "data", "fetch", "tulu-2.5-capybara", "--root", str(tmp_path)]
    settings = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url}
    subprocess.run(line, env=settings, stdout=subprocess.DEVNULL, stderr=terminal, timeout=60, check=True)
    os.close(terminal)
    shown = os.read(screen, 100_000).decode()
    os.close(screen)
    assert "capybara-00000-of-00001.jsonl: 100%" in shown


@pytest.mark.tmpfs
def test_a_disk_without_room(hub: Any, tmp_path: Path) -> None:
    name = "data/capybara-00000-of-00001.jsonl"
    hub.files[name] = os.urandom(3_000_000)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2000000", "tmpfs", str(disk)], check=True)
    try:
        with pytest.raises(FetchError, match=r"needs 3\.0 MB more, and its disk has \d\.\d MB free"):
            fetched(hub, disk, entry())
        assert names_below(disk) == []
        listed = HuggingFace(hub.url).listing(REPOSITORY, REVISION)

        class Filling(HuggingFace):
            def headers(self) -> dict[str, str]:
                (disk / "others").write_bytes(b"x" * 1_500_000)  # someone else's, after the room was checked
                return super().headers()

        subprocess.run(["mount", "-o", "remount,size=4000000", str(disk)], check=True)
        with pytest.raises(FetchError, match=r"(?s)No space left on device.* of 3\.0 MB are kept in .*goes on"):
            list(fetch(entry(), disk, hosts={"huggingface": Filling(hub.url)}))
        assert listed.files[name].size == 3_000_000
        assert not (disk / CAPYBARA).exists()
        (disk / "others").unlink()
        assert [item.status for item in fetched(hub, disk, entry())] == ["fetched"]
        assert (disk / CAPYBARA).read_bytes() == hub.files[name]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


STUDY = f"""\
name: prefetched
policy: someone/chat@{REVISION}
grid: [{{dataset: tulu-2.5-capybara, algorithm: dpo, seed: [0, 1]}}]
"""


def test_an_experiment_prefetches_its_data_and_models_and_is_planned_without_a_network(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ablate.data.fetch.default_hosts", lambda: {"huggingface": HuggingFace(hub.url)})
    asked: list[tuple[str, str]] = []

    def snapshot(source: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((source, revision))
        return str(tmp_path / "cache")

    monkeypatch.setattr("ablate.models.stage.snapshot_download", snapshot)
    store, said = Store(tmp_path / "store"), list[str]()
    monkeypatch.delenv("ABLATE_DATA", raising=False)
    with pytest.raises(UsageError, match="no data root is named"):
        prefetch("study.yaml", [], store, said.append)
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path / "root"))
    with pytest.raises(DataError, match="needs the file"):
        make_plan("study.yaml", [], store)
    plan = prefetch("study.yaml", [], store, said.append)
    assert (tmp_path / "root" / CAPYBARA).read_bytes() == hub.files["data/capybara-00000-of-00001.jsonl"]
    assert asked == [("someone/chat", REVISION)], "once, however many cells start from it"
    assert [line.split()[0] for line in said] == ["fetched", "model"]
    hub.requests.clear()
    assert make_plan("study.yaml", [], store).stages.keys() == plan.stages.keys()
    prefetch("study.yaml", [], store, said.append)
    assert hub.requests == [], "what is there is not asked for again"
    assert not (store.root / "stages").exists(), "nothing is recorded"
