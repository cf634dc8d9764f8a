"""The catalogs load, refuse what is wrong with file, line and key, and import nothing heavy."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.datasets import (
    CONVERTER_OPTIONS,
    PREFERENCE_CONVERTERS,
    DatasetEntry,
    data_files,
    datasets,
    file_digests,
)
from ablate.catalogs.digests import DigestCache
from ablate.catalogs.models import models
from ablate.catalogs.parameters import PretrainParameters
from ablate.data.converters import CONVERTERS
from ablate.data.converters.preference import PREFERENCE
from ablate.errors import DataError, SpecError, UnknownNameError

GOOD = """\
mine:
  title: Mine
  format: preference
  source: {files: [a.jsonl]}
  converter: shp
  label_kind: human
  licence: MIT
"""


def written(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder


def test_every_shipped_entry_has_a_title_and_a_licence() -> None:
    assert {"pocket-hh", "pocket-noise-40", "hh-rlhf-harmless", "ultrafeedback-small"} <= set(datasets())
    assert {"pocket-small", "pocket-medium", "byte-bpe-tiny", "tulu-2-13b"} <= set(models())
    for entry in (*datasets().values(), *models().values()):
        assert entry.title and entry.licence


def test_converter_names_of_the_catalog_are_those_of_the_functions() -> None:
    assert set(CONVERTER_OPTIONS) == {*CONVERTERS, "by_file"}
    assert set(PREFERENCE_CONVERTERS) == set(PREFERENCE)


def test_pocket_entries_give_valid_configurations_of_the_pocket_stage() -> None:
    stage = pytest.importorskip("ablate.pocket.stage")
    schemas = {"hh": "hh_rlhf", "uf": "ultrafeedback_raw"}
    for entry in datasets().values():
        config = entry.pocket_config()
        if config is not None:
            stage.read_config(config)
            assert entry.converter == schemas.get(config.get("name"), entry.converter)


def test_scratch_models_give_valid_pretraining_parameters() -> None:
    for entry in models().values():
        if entry.scratch is not None:
            config = entry.pretrain_config()
            names = set(config) - {"architecture", "text"}
            assert names == set(PretrainParameters.model_fields)
            PretrainParameters.model_validate({name: config[name] for name in names})
    assert models()["pocket-small"].pretrain_config()["text"] == "documents"
    assert models()["byte-bpe-tiny"].pretrain_config()["text"] == "conversations"
    assert models()["byte-bpe-tiny"].tokenizer_config() == {"type": "bpe", "vocab_size": 2048, "template": "tulu"}


def test_columns_take_two_different_labels_written_together(tmp_path: Path) -> None:
    labelled = GOOD.replace("shp", "columns") + "  converter_options: {label: best, first_preferred: a%s}\n"
    both = datasets(written(tmp_path / "both", labelled % ", second_preferred: b"))["mine"].converter_options
    assert (both["first_preferred"], both["second_preferred"]) == ("a", "b")
    for name, rest, message in (
        ("one", "", r"are written together \(found first_preferred\)"),
        ("same", ", second_preferred: a", r"are both 'a'"),
    ):
        with pytest.raises(SpecError, match=rf"mine\.yaml:8: mine\.converter_options: .*{message}"):
            datasets(written(tmp_path / name, labelled % rest))


def test_stage_config_holds_resolved_options_and_nothing_that_does_not_matter(tmp_path: Path) -> None:
    short = datasets(written(tmp_path / "short", GOOD))["mine"].stage_config({"a.jsonl": "0" * 64})
    long_text = GOOD + "  converter_options: {minimum_score_ratio: 1}\n  pairing: best-vs-random\n"
    assert short == datasets(written(tmp_path / "long", long_text))["mine"].stage_config({"a.jsonl": "0" * 64})
    assert short["converter_options"] == {"minimum_score_ratio": 1.0}
    assert "seed" not in short and "name" not in short and "licence" not in short
    sampled = datasets(tmp_path / "short")["mine"].stage_config({}, max_examples=10, seed=3, cap="before-filter")
    assert (sampled["max_examples"], sampled["seed"], sampled["cap"]) == (10, 3, "before-filter")
    assert json.loads(json.dumps(sampled)) == sampled
    assert "pairing" not in datasets()["real-small-corpus"].stage_config()


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("label_kind: human", "label_knd: human"), 6, ["label_knd", "did you mean 'label_kind'"]),
        (("format: preference", "format: preferences"), 3, ["mine.format", "did you mean 'preference'"]),
        (("converter: shp", "converter: shpp"), 5, ["mine.converter: unknown converter 'shpp'", "did you mean 'shp'"]),
        (("licence: MIT", "license: MIT"), 7, ["license", "licence"]),
        (("{files: [a.jsonl]}", "{files: [a.jsonl], hub: {id: a/b, files: [y]}}"), 4, ["exactly one of pocket"]),
        (("{files: [a.jsonl]}", "{hub: {id: x, files: [y]}}"), 4, ["mine.source.hub.id"]),
        (("{files: [a.jsonl]}", "{hub: {id: a/b, files: [../y]}}"), 4, ["not a relative file name"]),
        (("{files: [a.jsonl]}", "{hub: {id: a/b, files: [y], revision: main}}"), 4, ["mine.source.hub.revision"]),
        (("{files: [a.jsonl]}", "{file: [a.jsonl]}"), 4, ["mine.source.file", "did you mean 'files'"]),
        (("{files: [a.jsonl]}", "{files: [/etc/passwd]}"), 4, ["not a relative file name"]),
        (("{files: [a.jsonl]}", "{}"), 4, ["exactly one of pocket, files, hub"]),
        (("{files: [a.jsonl]}", "[a.jsonl]"), 4, ["mine.source"]),
        (("  licence: MIT", "  licence: MIT\n  licence: MIT"), 8, ["duplicate key", "line 7"]),
        (
            ("  licence: MIT", "  converter_options: {minimum_score_rato: 2}\n  licence: MIT"),
            7,
            ["mine.converter_options.minimum_score_rato: unknown key", "did you mean 'minimum_score_ratio'"],
        ),
        (("  licence: MIT", "  converter_options: {minimum_score_ratio: 0}\n  licence: MIT"), 7, ["found 0"]),
        (("  licence: MIT", "  pairing: best-vs-wurst\n  licence: MIT"), 7, ["best-vs-worst"]),
        (("licence: MIT", "licence: [MIT"), None, ["not valid YAML"]),
        (("licence: MIT", "licence: MIT (code)"), 7, ["'MIT (code)' is no licence identifier", "licence_note"]),
        (("licence: MIT", "licence: []"), 7, ["mine.licence", "at least one licence"]),
        (("licence: MIT", "licence: [MIT, unrecorded]"), 7, ["unrecorded stands alone"]),
        (("label_kind: human", "heldout: nowhere\n  label_kind: human"), None, ["nowhere"]),
        (("converter: shp", "converter: messages"), 1, ["makes no preferences"]),
    ],
)
def test_wrong_entries_name_file_line_and_key(
    tmp_path: Path, change: tuple[str, str], line: int | None, words: list[str]
) -> None:
    assert change[0] in GOOD
    folder = written(tmp_path / "catalog", GOOD.replace(*change))
    with pytest.raises((SpecError, UnknownNameError)) as caught:
        datasets(folder)
    message = str(caught.value)
    assert all(word in message for word in words), message
    if line is not None:
        assert f"mine.yaml:{line}" in message, message


def test_an_entry_defined_twice_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "catalog", GOOD.replace("mine:", "pocket-hh:"))
    with pytest.raises(SpecError, match=r"mine\.yaml:1: .*is already defined at .*pocket\.yaml:\d+;"):
        datasets(folder)


def test_model_entries_are_checked(tmp_path: Path) -> None:
    text = "m:\n  title: M\n  licence: MIT\n  hub: {id: a/b}\n  scratch: {corpus: pocket-corpus}\n"
    with pytest.raises(SpecError, match=r"mine\.yaml:5: m\.scratch\.architecture: 'architecture' is required"):
        models(written(tmp_path / "a", text))
    with pytest.raises(SpecError, match="exactly one of scratch, hub"):
        models(written(tmp_path / "b", "m:\n  title: M\n  licence: MIT\n"))
    source = Path(sys.modules["ablate.catalogs.models"].__file__ or "").with_suffix("") / "real_small.yaml"
    narrow = source.read_text(encoding="utf-8").replace("heads: 4", "heads: 3").replace("byte-bpe-tiny", "other")
    with pytest.raises(SpecError, match="not an even multiple of heads"):
        models(written(tmp_path / "c", narrow))
    lost = (
        source.read_text(encoding="utf-8").replace("real-small-corpus", "real-smal-corpus").replace("byte-", "other-")
    )
    with pytest.raises(UnknownNameError, match="did you mean 'real-small-corpus'"):
        models(written(tmp_path / "d", lost))


def entry_with_file(tmp_path: Path) -> Any:
    return datasets(written(tmp_path / "catalog", GOOD))["mine"]


def digest_again(entry: DatasetEntry, root: Path, file: Path) -> dict[str, str]:
    """Digests as another process makes them: with what was saved before."""
    cache = DigestCache(file)
    digests = file_digests(entry, root, cache)
    cache.save()
    return digests


def test_file_digests_are_cached_by_path_size_and_time(tmp_path: Path) -> None:
    entry, root, cache = entry_with_file(tmp_path), tmp_path / "root", tmp_path / "cache" / "digests.json"
    root.mkdir()
    file = root / "a.jsonl"
    file.write_bytes(b"one")
    assert digest_again(entry, root, cache) == {"a.jsonl": hashlib.sha256(b"one").hexdigest()}
    # The cache answers while size and time are the same …
    stat = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest_again(entry, root, cache) == {"a.jsonl": hashlib.sha256(b"one").hexdigest()}
    # … and not when either differs, or when the cache is damaged.
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert digest_again(entry, root, cache) == {"a.jsonl": hashlib.sha256(b"two").hexdigest()}
    cache.write_text('{"torn', encoding="utf-8")
    assert digest_again(entry, root, cache) == {"a.jsonl": hashlib.sha256(b"two").hexdigest()}


def test_missing_files_say_what_to_put_where(tmp_path: Path) -> None:
    entry = entry_with_file(tmp_path)
    with pytest.raises(DataError, match=r"(?s)a\.jsonl in the data root .*root, which is not there.*ABLATE_DATA"):
        file_digests(entry, tmp_path / "root", DigestCache(tmp_path / "cache.json"))
    with pytest.raises(DataError, match=r"(?s)no data root is set.*ABLATE_DATA"):
        file_digests(entry, None, DigestCache(tmp_path / "cache.json"))
    assert file_digests(datasets()["pocket-hh"], None, DigestCache(tmp_path / "cache.json")) == {}


MIRRORED = GOOD.replace("{files: [a.jsonl]}", "{hub: {id: a/b, files: ['data/train-*.jsonl', c.csv]}}")


def test_hub_files_are_read_from_a_mirror_under_the_data_root(tmp_path: Path) -> None:
    entry, root = datasets(written(tmp_path / "catalog", MIRRORED))["mine"], tmp_path / "root"
    (root / "a/b/data").mkdir(parents=True)
    names = ["a/b/data/train-00000-of-00002.jsonl", "a/b/data/train-00001-of-00002.jsonl", "a/b/c.csv.gz"]
    for name in names:
        (root / name).write_text(name)
    (root / "a/b/data/test-00000.jsonl").write_text("of another split")
    assert data_files(entry, root) == {name: root / name for name in names}
    digests = file_digests(entry, root, DigestCache(tmp_path / "cache.json"))
    assert digests == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    (root / "a/b/c.csv.gz").unlink()
    with pytest.raises(
        DataError, match=r"(?s)needs the file a/b/c\.csv, in the folder .*root.*put it there.*a/b/tree/main"
    ):
        data_files(entry, root)
    with pytest.raises(DataError, match=r"in the data root .*a/b/c\.csv\.gz, which is not there"):
        data_files(entry, root / "a/b/c.csv.gz")
    with pytest.raises(DataError, match=r"(?s)no data root is set \(ABLATE_DATA.*huggingface\.co/datasets/a/b"):
        data_files(entry, None)


def test_the_catalog_has_what_the_study_used() -> None:
    catalog = datasets()
    released = {name: entry for name, entry in catalog.items() if entry.converter == "tulu_2_5"}
    assert len(released) == 28
    assert sum(sum(entry.size.values()) for entry in released.values()) == 2122287
    for name in ("shp-2", "stack-exchange", "prm800k", "chatbot-arena-2023", "chatbot-arena-2024", "alpaca-farm-human"):
        assert catalog[name].study_rows and catalog[name].study and catalog[name].label_kind == "human"


def test_the_manual_names_the_sets_without_a_commit() -> None:
    manual = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    told = manual.partition("No commit is pinned of ")[2].partition(":")[0]
    hubs = {name: entry.source.hub for name, entry in datasets().items()}
    assert set(re.findall("`(.+?)`", told)) == {name for name, hub in hubs.items() if hub and hub.revision is None}


def test_the_ten_lines_of_the_manual_are_an_entry(tmp_path: Path) -> None:
    manual = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
    text = manual.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    entry = datasets(written(tmp_path / "catalog", text))["house-votes"]
    assert (entry.converter, entry.converter_options["first"]) == ("columns", "answer_a")
    assert len(text.splitlines()) <= 11


def test_every_converter_has_its_line_in_the_manual() -> None:
    manual = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    unnamed = {"chatbot_arena_2024", "chosen_as_instruction", "by_file"}
    assert all(f"`{name}`" in manual for name in set(CONVERTER_OPTIONS) - unnamed)
    assert {entry.converter for entry in datasets().values()} - {None} <= set(CONVERTER_OPTIONS)


def test_facts_are_json_and_name_the_files() -> None:
    for entry in datasets().values():
        facts = json.loads(json.dumps(entry.facts()))
        assert facts["files"] or entry.source.pocket is not None
    assert datasets()["tulu-2.5-nectar-60k"].facts()["files"] == [
        "allenai/tulu-2.5-preference-data/data/nectar_60k-00000-of-00001.jsonl"
    ]


def test_catalogs_import_nothing_heavy() -> None:
    code = (
        "import sys, ablate.catalogs.models as m; m.models(); "
        "print([n for n in ('torch', 'pandas', 'pyarrow', 'numpy', 'transformers', 'datasets') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
