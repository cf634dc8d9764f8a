"""A bundle holds what its tables follow from, no secret, and says what was changed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ablate.cli.app import app
from ablate.errors import DataError, UnknownNameError
from ablate.results.bundle.secrets import REDACTED, redact, redact_file, secret_values
from ablate.results.bundle.verify import verify_bundle
from ablate.results.bundle.write import write_bundle

LAYOUT = "tables:\n  - {name: main, title: Main, rows: [dataset, algorithm], columns: [average], baselines: [sft]}\n"


@pytest.fixture
def recorded(study: Any) -> Any:
    """The study with the files that stages leave; the plan names a layout."""
    layout = study.store.root / "mine.yaml"
    layout.write_text(LAYOUT)
    study.plan["report"] = str(layout)
    store = study.write()
    for folder in map(store.stage, (path.name for path in store.stages.iterdir())):
        study.plan["stages"][folder.id] = {"kind": folder.kind, "label": folder.id}
        record = json.loads(folder.stage_json.read_text())
        folder.stage_json.write_text(json.dumps(record | {"config": {"algorithm": "dpo", "seed": 0}}))
        attempt = folder.attempt(1)
        attempt.folder.mkdir(parents=True)
        attempt.environment_json.write_text(json.dumps({"python": "3.11", "packages": {"torch": "2.13"}}))
        attempt.log.write_text("".join(f"line {number}\n" for number in range(500)))
    model = store.stage("train-hh_dpo_0").output / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(2000))
    folder = store.experiment("study")
    folder.spec.write_text("name: study\n")
    folder.source_json.write_text(json.dumps({"file": "somewhere/deep/study.yaml", "overrides": ["a=1"]}))
    study.write()
    return study


def rewritten(bundle: Path, to: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> Path:
    """Copy a zip with every file as ``change`` returns it; None leaves it out."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in more.items():
            new.writestr(name, content)
    return to


def test_a_bundle_holds_the_record_and_its_tables_follow_from_it(recorded: Any, tmp_path: Path) -> None:
    written = write_bundle(recorded.store, "study", None, tmp_path / "b.zip")
    with zipfile.ZipFile(written.path) as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("bundle.json"))
        assert archive.read("store/stages/train-hh_dpo_0/attempts/1/log").decode().splitlines()[0] == "line 400"
        assert json.loads(archive.read("store/experiments/study/source.json"))["file"] == "study.yaml"
        assert archive.read("layout.yaml").decode() == LAYOUT
    assert {
        "store/experiments/study/plan.json", "store/experiments/study/spec.yaml", "report/tables/main.csv",
        "report/tables/main.tex", "report/results.csv", "report/appendix.md", "report/report.html",
        "store/stages/evaluate-facts-train-hh_dpo_0/output/metrics.json",
        "store/stages/evaluate-facts-train-hh_dpo_0/output/examples.parquet",
        "store/stages/train-hh_dpo_0/attempts/1/environment.json",
    } <= names  # fmt: skip
    assert not any("model" in name for name in names if name.startswith("store/stages/train"))
    assert manifest["left_out"] == {"train-hh_dpo_0/model/model.safetensors": 2000}
    found = verify_bundle(written.path)
    assert (found.findings, found.experiment, found.tables) == ((), "study", 1)
    assert found.files == len(names) - 1 and written.missing == found.not_done == ()


def test_equal_records_make_equal_bundles(recorded: Any, tmp_path: Path) -> None:
    one = write_bundle(recorded.store, "study", None, tmp_path / "1.zip")
    with (
        zipfile.ZipFile(one.path) as first,
        zipfile.ZipFile(write_bundle(recorded.store, "study", None, tmp_path / "2.zip").path) as second,
    ):  # figures carry the moment they were drawn
        names = [
            name for name in first.namelist() if "figures/" not in name and not name.endswith((".html", "bundle.json"))
        ]
        assert len(names) > 100 and all(first.read(name) == second.read(name) for name in names)


def test_a_changed_number_is_named_even_when_its_checksum_was_made_anew(recorded: Any, tmp_path: Path) -> None:
    bundle = write_bundle(recorded.store, "study", None, tmp_path / "b.zip").path
    target = "store/stages/evaluate-facts-train-uf_ppo_1/output/metrics.json"

    def better(name: str, content: bytes) -> bytes:
        return content.replace(b"0.71", b"0.91") if name == target else content

    found = verify_bundle(rewritten(bundle, tmp_path / "x.zip", better))
    assert f"{target}: changed" in found.findings
    assert any(line.startswith("table main: row 5, average: 71") for line in found.findings), found.findings

    def better_and_hashed(name: str, content: bytes) -> bytes:
        if name != "bundle.json":
            return better(name, content)
        manifest = json.loads(content)
        with zipfile.ZipFile(bundle) as archive:
            new = better(target, archive.read(target))
        manifest["files"][target] = {"sha256": hashlib.sha256(new).hexdigest(), "bytes": len(new)}
        return json.dumps(manifest).encode()

    found = verify_bundle(rewritten(bundle, tmp_path / "y.zip", better_and_hashed))
    assert found.findings and not any(line.endswith(": changed") for line in found.findings)
    assert any(line.startswith("results.csv: row ") for line in found.findings)


def test_what_is_missing_changed_or_beside_is_named(recorded: Any, tmp_path: Path) -> None:
    bundle = write_bundle(recorded.store, "study", None, tmp_path / "b.zip").path
    gone, longer = "store/stages/evaluate-math-train-sft/output/metrics.json", "report/report.md"

    def change(name: str, content: bytes) -> bytes | None:
        return None if name == gone else content + b"!" if name == longer else content

    found = verify_bundle(rewritten(bundle, tmp_path / "x.zip", change, **{"../evil": b"", "extra.txt": b""}))
    assert f"{gone}: missing" in found.findings and "extra.txt: not in bundle.json" in found.findings
    assert any(line.startswith(f"{longer}: changed (") for line in found.findings)
    assert "../evil: not in bundle.json" in found.findings and not (tmp_path / "evil").exists()
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "x.zip")])
    assert result.exit_code == 1 and f"{gone}: missing" in result.output
    assert CliRunner().invoke(app, ["verify", str(bundle)]).exit_code == 0


def test_a_manifest_cannot_write_outside(recorded: Any, tmp_path: Path) -> None:
    bundle = write_bundle(recorded.store, "study", None, tmp_path / "b.zip").path

    def change(name: str, content: bytes) -> bytes:
        if name != "bundle.json":
            return content
        manifest = json.loads(content)
        manifest["files"]["../../evil"] = {"sha256": "", "bytes": 4}
        return json.dumps(manifest).encode()

    found = verify_bundle(rewritten(bundle, tmp_path / "x.zip", change, **{"../../evil": b"evil"}))
    assert found.findings == ("../../evil: no name of a file in a bundle",)


def test_stages_that_are_not_done_are_named(recorded: Any, tmp_path: Path) -> None:
    stage = recorded.store.stage("evaluate-facts-train-sft")
    stage.done_json.unlink()
    failure = stage.attempt(1).failure_json
    failure.write_text(json.dumps({"type": "StageError", "message": "no room"}))
    written = write_bundle(recorded.store, "study", None, tmp_path / "b.zip")
    found = verify_bundle(written.path)
    assert written.missing == found.not_done == (stage.id,) and found.findings == ()


@pytest.mark.parametrize("content", [b"", b"no zip at all", None])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError):
        verify_bundle(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"bundle\.json is missing"):
        verify_bundle(path)


@pytest.mark.parametrize("files", [["a"], {"a": {}}, {"a": "b"}])
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, files: Any) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", json.dumps({"version": 1, "experiment": "x", "files": files, "not_done": []}))
        archive.writestr("a", "")
    with pytest.raises(DataError, match=r"bundle\.json is missing or unreadable"):
        verify_bundle(path)


def test_an_unknown_experiment_writes_nothing(recorded: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        write_bundle(recorded.store, "studdy", None, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_no_planted_secret_is_in_a_bundle(recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment, in logs, addresses, overrides, failures, configs and what stages published."""
    environment, hub, api = "correct-horse-battery", "hf_" + "a1B2" * 9, "sk-proj-" + "Zz9_" * 8
    url, query, header = "hunter2pass", "q9w8e7r6t5", "dG9rZW4tdmFsdWU"
    monkeypatch.setenv("MY_API_KEY", environment)
    store = recorded.store
    stage = store.stage("train-hh_dpo_0")
    stage.attempt(1).log.write_text(
        f"using {environment}\nHF_TOKEN={hub}\nGET https://u:{url}@api.example.org/v1?api_key={query}&x=1\n"
        f"Authorization: Bearer {header}\n{api}\n"
    )
    record = json.loads(stage.stage_json.read_text())
    record["locations"] = {"server": f"https://u:{url}@host:8000", "key": hub}
    stage.stage_json.write_text(json.dumps(record))
    (stage.output / "report.json").write_text(json.dumps({"note": environment, "password": url}))
    examples = store.stage("evaluate-facts-train-sft").artifact("examples.parquet")
    table = pq.read_table(examples)
    place = table.schema.get_field_index("response")
    pq.write_table(table.set_column(place, "response", pa.array([hub] * len(table))), examples, compression="none")
    store.experiment("study").source_json.write_text(
        json.dumps({"file": "x.yaml", "overrides": [f"judge.url=http://me:{url}@h/?token={query}"]})
    )
    recorded.plan["question"] = f"Does {api} leak?"
    recorded.write()
    written = write_bundle(store, "study", None, tmp_path / "b.zip")
    with zipfile.ZipFile(written.path) as archive:
        for name in archive.namelist():
            for secret in (environment, hub, api, url, query, header):
                assert secret.encode() not in archive.read(name), (name, secret)
        log = archive.read("store/stages/train-hh_dpo_0/attempts/1/log").decode()
    assert log.splitlines()[0] == f"using {REDACTED}" and "api.example.org/v1" in log
    assert verify_bundle(written.path).findings == ()


def test_ordinary_text_is_left_alone() -> None:
    for text in (
        "max_new_tokens: 80, tokens.parquet, unknown_tokens: 0, tokenizer: words",
        '{"truncated": 0, "sha256": "' + "ab" * 32 + '", "key": "evaluate-a1874be87d76fb0c"}',
        '<script>{"secret_x": true, "password": null}</script> secret=false',
        '<script>{"secret_leaks": 0.5312,"n": 3,"passwords":-1.25e-05}</script>',
        "https://arxiv.org/abs/2406.09279?context=cs, a basic question, bearer of news, sk-learn",
    ):
        assert (
            redact(text, secret_values({"PATH": "/usr/bin", "TOKENIZERS_PARALLELISM": "false", "HOME": "/root"}))
            == text
        )


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_without_its_secrets_is_json(suffix: str) -> None:
    """Secrets are whole texts; numbers that the environment has not, truths, brackets and the text around stay."""
    record = {
        "api_key": "123456", "secret_leaks": 0.5312, "secrets": {"found": 12345},
        "secret_x": True, "access_token": None, "passwords": ["ab,cd ef", "gh'ij"], "seed": 1e-06,
        "log": "took api_key=abcdefgh, é", "Authorization": "Basic dXNlcjpwdw", "env": {"id": 99887766554433},
        "quoted": 'a"b\nsecret', "client_secrets": {"one": "hunter22"},
    }  # fmt: skip
    clean = {
        "api_key": REDACTED, "secret_leaks": 0.5312, "secrets": {"found": 12345},
        "secret_x": True, "access_token": None, "passwords": [REDACTED, REDACTED], "seed": 1e-06,
        "log": f"took api_key={REDACTED}, é", "Authorization": REDACTED, "env": {"id": REDACTED}, "quoted": REDACTED,
        "client_secrets": {"one": REDACTED},
    }  # fmt: skip
    values = ["99887766554433", 'a"b\nsecret']
    written = redact_file(suffix, json.dumps(record) + "\n", values)
    assert written.endswith("}\n") and json.loads(written) == clean
    assert redact_file(suffix, written, values) == written
    unchanged = '{"seed":  1, "secret": null}\n\n'
    assert redact_file(suffix, unchanged, values) == unchanged
    assert redact_file(suffix, '{"password": "abcd', values) == f'{{"password": "{REDACTED}'
    assert redact_file(".log", "api_key: 123456", values) == f"api_key: {REDACTED}"


def test_names_of_secrets_are_told_from_others() -> None:
    others = ("GIT_AUTHOR_NAME", "KEYBOARD_LAYOUT", "TOKENIZERS_PARALLELISM")
    assert secret_values(dict.fromkeys(others, "pocket-nectar")) == []
    names = ("HF_TOKEN", "MY_AUTH", "AUTHORIZATION", "OPENAI_API_KEY", "KEY_ID", "PGPASSWORD", "AUTHTOKEN")
    assert [name for name in names if secret_values({name: "pocket-nectar"}) != ["pocket-nectar"]] == []
