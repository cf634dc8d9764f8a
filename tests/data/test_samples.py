"""Embedded samples through the converters of the sets they stand for: accounts, directions, files as released."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.catalogs.datasets import DatasetEntry, datasets, file_digests, with_sample
from ablate.catalogs.digests import DigestCache, sha256_file
from ablate.context import EventLog, StageContext, read_json
from ablate.data.preview import preview
from ablate.data.stage import run
from ablate.errors import DataError
from ablate.pocket import stage as pocket
from ablate.pocket.language import Item, draw_item, gold_reward
from ablate.pocket.preferences import find_family, preference_rows, prm800k, shared

SAMPLED = {entry.name: entry for entry in datasets().values() if entry.sample is not None}
Row = dict[str, Any]

# Of 200 rows, those that the schema itself loses: no votes for either, solutions in which nobody found an error.
NATURAL_DROPS = {
    "chatbot-arena-2023": {"tied": (40, 65)},
    "chatbot-arena-2024": {"tied": (40, 65), "empty-message": (0, 6)},
    "helpsteer2": {"tied": (0, 25)},
    "helpsteer2-preference": {"tied": (30, 60)},
    "webgpt-comparisons": {"tied": (20, 45)},
    "prm800k": {"finished-solution": (60, 100), "finished-give-up": (0, 10), "no-solution-with-an-error": (0, 12)},
}
ROWS_OF_A_GROUP = {"prm800k": 3, "helpsteer": 4, "helpsteer2": 2}
# Share of pairs whose chosen response has the higher gold reward, and whose rejected one has, by the documented noise:
# none in PRM800k's reference solutions, most in HH-RLHF's labels, scores of 1 written as 10 in the overall scores.
RIGHT_AND_WRONG = {
    "prm800k": (0.97, 0.01),
    "capybara": (0.9, 0.06),
    "ultrafeedback-raw": (0.85, 0.05),
    "ultrafeedback-fine-grained": (0.85, 0.06),
    "tulu-2.5-ultrafeedback-mean-aspects": (0.85, 0.06),
    "helpsteer2": (0.82, 0.1),
    "helpsteer2-preference": (0.82, 0.08),
    "helpsteer": (0.75, 0.13),
    "nectar": (0.75, 0.12),
    "orca-dpo-pairs": (0.75, 0.16),
    "webgpt-comparisons": (0.7, 0.15),
    "alpaca-farm-gpt4": (0.7, 0.16),
    "chatbot-arena-2023": (0.7, 0.18),
    "chatbot-arena-2024": (0.7, 0.16),
    "shp-2": (0.66, 0.2),
    "shp": (0.66, 0.2),
    "stack-exchange": (0.66, 0.2),
    "summarize-from-feedback": (0.63, 0.22),
    "ultrafeedback-overall": (0.6, 0.27),
    "ultrafeedback-binarized": (0.6, 0.27),
    "ultrafeedback-cleaned": (0.6, 0.27),
    "alpaca-farm-human": (0.6, 0.26),
    "hh-rlhf": (0.57, 0.32),
}


@pytest.fixture
def items(monkeypatch: pytest.MonkeyPatch) -> dict[str, Item]:
    """Prompt to item of everything that is drawn in the test: what the gold reward of a pair needs."""
    found: dict[str, Item] = {}

    def recorded(*arguments: Any) -> Item:
        item = draw_item(*arguments)
        found[item.prompt] = item
        return item

    for module in (shared, prm800k):
        monkeypatch.setattr(module, "draw_item", recorded)
    return found


def prepared(folder: Path, config: Mapping[str, Any], **wiring: Any) -> StageContext:
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    events = EventLog(folder / "events.jsonl")
    return StageContext("dataset", config, wiring.get("inputs", {}), folder / "output", folder / "work", events,
                        locations=wiring.get("locations", {}))  # fmt: skip


def from_sample(folder: Path, entry: DatasetEntry, count: int) -> tuple[Row, list[Row]]:
    """Run the pocket stage and the dataset stage of an entry's sample; returns report and pairs."""
    rows = with_sample(entry)
    config = rows.pocket_config()
    assert config is not None
    made = prepared(folder / "pocket", {**config, "n": count})
    pocket.run(made)
    read = prepared(folder / "set", rows.stage_config(), inputs={"source": made.output / "data"})
    return outcome(read)


def outcome(context: StageContext) -> tuple[Row, list[Row]]:
    run(context)
    text = (context.output / "pairs.jsonl").read_text(encoding="utf-8")
    return read_json(context.output / "report.json"), [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", SAMPLED)
def test_every_row_is_accounted_for(tmp_path: Path, name: str) -> None:
    entry = SAMPLED[name]
    assert entry.sample is not None and find_family(entry.sample.name).schema == entry.converter
    report, lines = from_sample(tmp_path, entry, 200)
    assert report["in"] == 200 == report["kept"] + sum(report["dropped"].values())
    assert report["examples"]["written"] == len(lines)
    allowed = NATURAL_DROPS.get(name, {})
    others = sum(count for reason, count in report["dropped"].items() if reason not in allowed)
    assert others <= 4, report["dropped"]
    for reason, (least, most) in allowed.items():
        assert least <= report["dropped"].get(reason, 0) <= most, report["dropped"]


@pytest.mark.parametrize("name", sorted(SAMPLED))
def test_pairs_have_a_score_gap_where_the_catalog_says_that_there_are_scores(tmp_path: Path, name: str) -> None:
    made = preview(with_sample(SAMPLED[name]), None, 12)
    gaps = [example["margin"] for row in made for example in row.get("examples", ())]
    assert gaps
    assert {gap is not None for gap in gaps} == {SAMPLED[name].has_scores}


def gold_rewards(pair: Row, items: Mapping[str, Item]) -> tuple[float, float]:
    prompt = pair["prompt"][-1]["content"]
    if "POST: " in prompt:  # a summary's prompt has the post between two marks
        prompt = prompt.partition("POST: ")[2].partition("\nTL;DR:")[0]
    item = items[" ".join(prompt.split())]
    chosen, rejected = (gold_reward(item, pair[side][-1]["content"]) for side in ("chosen", "rejected"))
    return chosen, rejected


@pytest.mark.parametrize("name", SAMPLED)
def test_labels_point_the_right_way(tmp_path: Path, name: str, items: dict[str, Item]) -> None:
    _, lines = from_sample(tmp_path, SAMPLED[name], ROWS_OF_A_GROUP.get(name, 1) * 450)
    pairs = [gold_rewards(pair, items) for pair in lines[:300]]
    right = sum(chosen > rejected for chosen, rejected in pairs) / len(pairs)
    wrong = sum(chosen < rejected for chosen, rejected in pairs) / len(pairs)
    least, most = RIGHT_AND_WRONG[name]
    assert len(pairs) == 300
    assert right >= least and wrong <= most, (right, wrong)
    assert sum(chosen - rejected for chosen, rejected in pairs) / len(pairs) >= 0.35


def test_the_noisiest_labels_err_more_often_than_the_cleanest(tmp_path: Path, items: dict[str, Item]) -> None:
    """The documented noise is there: bounds from below, where the limits above hold it from above."""
    for name, least in {"hh-rlhf": 0.15, "ultrafeedback-overall": 0.12, "alpaca-farm-human": 0.1}.items():
        _, lines = from_sample(tmp_path / name, SAMPLED[name], 400)
        pairs = [gold_rewards(pair, items) for pair in lines]
        assert sum(chosen < rejected for chosen, rejected in pairs) / len(pairs) >= least


def test_converter_and_pairing_are_the_entrys_own_and_the_rest_is_the_samples() -> None:
    entry = SAMPLED["hh-rlhf"]
    shown = with_sample(entry)
    assert (shown.converter_options["parsing"], shown.pairing) == ("bare", entry.pairing)
    assert (shown.licence, shown.size) == (("Apache-2.0",), {"train": 3000})
    assert (entry.shown_title, shown.shown_title) == ("HH-RLHF", "HH-RLHF (embedded sample)")
    assert with_sample(datasets()["pocket-hh"]) is datasets()["pocket-hh"]
    with pytest.raises(DataError, match=r"'llmbar' has no embedded sample\n  these have one: .*shp-2, shp, "):
        with_sample(datasets()["llmbar"])


def test_sets_made_from_another_do_not_inherit_its_sample() -> None:
    for name in ("hh-rlhf-heldout", "hh-rlhf-harmless-base", "prm800k-phase1", "tulu-2.5-nectar"):
        assert datasets()[name].sample is None


# The sets as files: what a mirror holds, written from the samples in the format of each, gives the sample's pairs.


def without_stars(name: str) -> str:
    return name.removesuffix("*").replace("/*", "/part").replace("*", "00000-of-00001")


def write_file(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".json" and "alpaca" in path.name:
        path.write_text(json.dumps(rows), encoding="utf-8")  # one list, as AlpacaFarm's files are
    else:
        path.write_text(text, encoding="utf-8")


def spread(rows: list[Row], files: int) -> Iterator[list[Row]]:
    size = len(rows) // files
    yield from (rows[place * size : (place + 1) * size] for place in range(files))


@pytest.mark.parametrize("name", SAMPLED)
def test_files_as_released_give_the_same_pairs(tmp_path: Path, name: str) -> None:
    entry = SAMPLED[name]
    assert entry.sample is not None
    names = entry.source.names()
    rows = list(islice(preference_rows(entry.sample.name, 0, "train"), 120))
    root = tmp_path / "root"
    for file, part in zip(names, spread(rows, len(names)), strict=True):
        write_file(root / without_stars(file), part)
    found = {path.relative_to(root).as_posix(): sha256_file(path) for path in root.rglob("*") if path.is_file()}
    report, lines = outcome(prepared(tmp_path / "files", entry.stage_config(found), locations={"root": str(root)}))
    _, expected = from_sample(tmp_path / "sample", entry, 120)
    assert report["in"] == 120
    assert sorted(pair["id"] for pair in lines) == sorted(pair["id"] for pair in expected)


def test_the_catalog_finds_files_written_so(tmp_path: Path) -> None:
    for entry in SAMPLED.values():
        for file in entry.source.names():
            write_file(tmp_path / without_stars(file), [{"a": 1}])
        assert file_digests(entry, tmp_path, DigestCache(tmp_path / "cache.json")), entry.name
