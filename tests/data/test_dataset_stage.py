"""The dataset stage: every row accounted for, whatever the order of rows, the same on every machine."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.datasets import DatasetEntry, datasets, file_digests
from ablate.catalogs.digests import DigestCache, sha256_file
from ablate.context import EventLog, StageContext, read_json
from ablate.data.records import digest
from ablate.data.stage import run
from ablate.errors import DataError, StageError


def entry(**change: Any) -> DatasetEntry:
    values = {
        "name": "mine",
        "title": "Mine",
        "format": "preference",
        "source": {"files": ["a.jsonl"]},
        "converter": "shp",
        "label_kind": "human",
        "licence": "MIT",
    }
    return DatasetEntry.model_validate({**values, **change})


def make(folder: Path, config: dict[str, Any], *, source: Path | None = None, root: Path | None = None) -> Path:
    """Run the stage in ``folder``; returns its output folder."""
    folder.mkdir()
    for name in ("output", "work"):
        (folder / name).mkdir()
    context = StageContext(
        kind="dataset",
        config=config,
        inputs={"source": source} if source else {},
        output=folder / "output",
        work=folder / "work",
        events=EventLog(folder / "events.jsonl"),
        locations={"root": str(root)} if root else {},
    )
    summary = run(context)
    report = read_json(folder / "output" / "report.json")
    assert report["in"] == report["kept"] + sum(report["dropped"].values()) == sum(report["files"].values())
    assert summary is not None and summary["kept"] == report["kept"]
    assert list((folder / "work").iterdir()) == []
    return folder / "output"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(n: int) -> list[dict[str, Any]]:
    """SHP rows over about n / 3 prompts; every 10th is empty, every 11th has another label."""
    return [
        {
            "history": f"post {index // 3}",
            "human_ref_A": "" if index % 10 == 0 else f"ä {index}",
            "human_ref_B": f"b {index}",
            "labels": 7 if index % 11 == 5 else index % 2,
            "score_A": 5,
            "score_B": 5 + index % 2 * -2 + 1,
        }
        for index in range(n)
    ]


def folder_with(path: Path, values: list[dict[str, Any]]) -> Path:
    path.mkdir()
    (path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")
    return path


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    output = make(tmp_path / "s", entry().stage_config(), source=folder_with(tmp_path / "in", rows(110)))
    report = read_json(output / "report.json")
    # 110 rows: 11 empty (0, 10 … 100), 10 with label 7 (5, 16 … 104), of which row 60 is empty too.
    assert report["dropped"] == {"empty-message": 11, "label-not-0-or-1": 9}
    assert (report["in"], report["kept"]) == (110, 90)
    assert report["examples"] == {"made": 90, "not_sampled": 0, "written": 90}
    pairs = lines(output / "pairs.jsonl")
    assert set(pairs[0]) == {
        "id", "prompt", "chosen", "rejected", "margin", "chosen_score", "rejected_score", "source",
    }  # fmt: skip
    first = pairs[0]  # index 1: label 1, A preferred with 5 votes over 4
    assert first["prompt"] == [{"role": "user", "content": "post 0"}]
    assert first["chosen"] == [{"role": "assistant", "content": "ä 1"}]
    assert (first["margin"], first["chosen_score"], first["rejected_score"]) == (1.0, 5.0, 4.0)
    prompts = lines(output / "prompts.jsonl")
    assert [row["prompt"][0]["content"] for row in prompts] == list(
        dict.fromkeys(row["prompt"][0]["content"] for row in pairs)
    )
    assert len({row["id"] for row in prompts}) == len(prompts) == report["prompts"]


def test_ids_are_pinned(tmp_path: Path) -> None:
    """These values must be equal on every machine and Python version: change them only with the stage's revision."""
    config = entry(pairing="best-vs-random").stage_config(max_examples=40, seed=1)
    output = make(tmp_path / "s", config, source=folder_with(tmp_path / "in", rows(110)))
    pairs = lines(output / "pairs.jsonl")
    assert pairs[0]["id"] == PINNED_FIRST
    assert digest([row["id"] for row in pairs]) == PINNED_PAIRS
    assert digest([row["id"] for row in lines(output / "prompts.jsonl")]) == PINNED_PROMPTS


PINNED_FIRST, PINNED_PAIRS, PINNED_PROMPTS = "154a59d7bfb10c4e", "dd36badfb75efbe9", "d7eb3ddbd7a59fce"


@pytest.mark.parametrize("cap", ["after-filter", "before-filter"])
def test_shuffled_input_gives_the_same_set(tmp_path: Path, cap: Any) -> None:
    values = rows(300) + rows(20)  # exact duplicates too
    config = entry(split={"part": "train", "heldout_share": 0.3}).stage_config(max_examples=60, seed=5, cap=cap)
    expected = make(tmp_path / "s", config, source=folder_with(tmp_path / "in", values))
    shuffled = list(values)
    random.Random(0).shuffle(shuffled)
    found = make(tmp_path / "t", config, source=folder_with(tmp_path / "in2", shuffled))
    for name in ("pairs.jsonl", "prompts.jsonl"):
        assert sorted(map(str, lines(found / name))) == sorted(map(str, lines(expected / name)))
    assert read_json(found / "report.json") == read_json(expected / "report.json")


def test_sampling_after_and_before_the_filter(tmp_path: Path) -> None:
    source = folder_with(tmp_path / "in", rows(300))
    after = make(tmp_path / "a", entry().stage_config(max_examples=100), source=source)
    assert len(lines(after / "pairs.jsonl")) == 100
    # 30 are empty; 27 have label 7, of which 60, 170 and 280 are empty too.
    assert read_json(after / "report.json")["dropped"]["not-sampled"] == 300 - 30 - 24 - 100
    before = make(tmp_path / "b", entry().stage_config(max_examples=100, cap="before-filter"), source=source)
    report = read_json(before / "report.json")
    assert report["dropped"]["not-sampled"] == 200
    assert 60 < report["kept"] == 100 - report["dropped"]["empty-message"] - report["dropped"]["label-not-0-or-1"] < 100
    other = make(tmp_path / "c", entry().stage_config(max_examples=100, seed=1), source=source)
    ids = [{row["id"] for row in lines(folder / "pairs.jsonl")} for folder in (after, other)]
    assert 20 < len(ids[0] & ids[1]) < 70  # 100 of 245 twice: 41 expected, sd 4
    # A larger sample with the same seed contains the smaller one.
    larger = make(tmp_path / "d", entry().stage_config(max_examples=150), source=source)
    assert ids[0] < {row["id"] for row in lines(larger / "pairs.jsonl")}


def test_relabelled_sets_sample_the_same_prompts(tmp_path: Path) -> None:
    values = [row for row in rows(300) if row["labels"] != 7]
    flipped = [{**row, "labels": 1 - row["labels"]} if index % 4 == 0 else row for index, row in enumerate(values)]
    config = entry().stage_config(max_examples=100)
    outputs = [
        lines(make(tmp_path / f"s{i}", config, source=folder_with(tmp_path / f"in{i}", part)) / "pairs.jsonl")
        for i, part in enumerate((values, flipped))
    ]
    assert [row["prompt"] for row in outputs[0]] == [row["prompt"] for row in outputs[1]]
    assert any(a["chosen"] == b["rejected"] for a, b in zip(*outputs, strict=True))


def test_duplicates_are_kept_under_different_ids(tmp_path: Path) -> None:
    output = make(tmp_path / "s", entry().stage_config(), source=folder_with(tmp_path / "in", rows(3)[1:] * 3))
    ids = [row["id"] for row in lines(output / "pairs.jsonl")]
    assert ids[2:] == [f"{ids[0]}-2", f"{ids[1]}-2", f"{ids[0]}-3", f"{ids[1]}-3"]
    assert read_json(output / "report.json")["exact_duplicates"] == 4


def test_parts_of_a_split_are_disjoint_and_complete(tmp_path: Path) -> None:
    source = folder_with(tmp_path / "in", rows(600))
    prompts, pairs = [], []
    for part in ("train", "heldout"):
        split = {"part": part, "heldout_share": 0.2}
        output = make(tmp_path / part, entry(split=split).stage_config(), source=source)
        prompts.append({row["id"] for row in lines(output / "prompts.jsonl")})
        pairs.append({row["id"] for row in lines(output / "pairs.jsonl")})
    whole = make(tmp_path / "whole", entry().stage_config(), source=source)
    assert not prompts[0] & prompts[1]
    assert prompts[0] | prompts[1] == {row["id"] for row in lines(whole / "prompts.jsonl")}
    assert pairs[0] | pairs[1] == {row["id"] for row in lines(whole / "pairs.jsonl")}
    assert 0.1 < len(prompts[1]) / len(prompts[0] | prompts[1]) < 0.3


def test_split_by_opening_keeps_a_dialogue_together(tmp_path: Path) -> None:
    def transcript(turns: list[str]) -> str:
        return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(turns))

    values = [
        {"chosen": transcript([f"q{i}", *middle, "yes"]), "rejected": transcript([f"q{i}", *middle, "no"])}
        for i in range(60)
        for middle in ([], ["a", "more"], ["a", "more", "b", "and"])
    ]
    parts = []
    for part in ("train", "heldout"):
        split = {"by": "opening", "part": part, "heldout_share": 0.4}
        config = entry(converter="hh_rlhf", split=split).stage_config()
        output = make(tmp_path / part, config, source=folder_with(tmp_path / f"in-{part}", values))
        parts.append(Counter(row["prompt"][0]["content"] for row in lines(output / "pairs.jsonl")))
    assert not parts[0].keys() & parts[1].keys()
    assert set(parts[0].values()) == set(parts[1].values()) == {3}


def test_instruction_and_prompt_formats(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    source = folder_with(tmp_path / "in", [{"messages": turns}, {"messages": turns[:1]}, {"messages": turns}])
    config = entry(format="instruction", converter="messages", label_kind=None).stage_config()
    output = make(tmp_path / "s", config, source=source)
    first, second = lines(output / "conversations.jsonl")
    assert first == {"id": first["id"], "messages": turns, "source": "messages"}
    assert second["id"] == f"{first['id']}-2"
    assert [row["prompt"] for row in lines(output / "prompts.jsonl")] == [turns[:1]]

    source = folder_with(tmp_path / "in2", rows(12))
    config = entry(format="prompts", label_kind=None).stage_config()
    output = make(tmp_path / "t", config, source=source)
    # Rows 0 and 10 are empty, row 5 has a wrong label: 9 records over the 4 posts.
    assert [row["prompt"][0]["content"] for row in lines(output / "prompts.jsonl")] == [f"post {i}" for i in range(4)]
    assert read_json(output / "report.json")["dropped"]["prompt-seen-before"] == 5
    assert not (output / "pairs.jsonl").exists()


def test_all_pairs_are_sampled_one_by_one_and_counted_by_row(tmp_path: Path) -> None:
    values = [
        {
            "prompt": f"\n\nHuman: q{i}\n\nAssistant: ",
            "answers": [{"answer": f"t{rank}", "rank": rank, "model": "m"} for rank in range(1, 5)],
        }
        for i in range(20)
    ]
    config = entry(converter="nectar", pairing="all-pairs").stage_config(max_examples=10)
    output = make(tmp_path / "s", config, source=folder_with(tmp_path / "in", values))
    report = read_json(output / "report.json")
    assert report["examples"] == {"made": 120, "not_sampled": 110, "written": 10}
    assert report["kept"] == len({row["prompt"][0]["content"] for row in lines(output / "pairs.jsonl")}) <= 10


def test_an_empty_result_says_what_removed_the_rows(tmp_path: Path) -> None:
    values = [{**row, "human_ref_B": " "} for row in rows(5)] + [{**rows(2)[1], "labels": 3}]
    with pytest.raises(StageError, match=r"nothing is left of 6 rows.*empty-message: 5, label-not-0-or-1: 1"):
        make(tmp_path / "s", entry().stage_config(), source=folder_with(tmp_path / "in", values))
    with pytest.raises(StageError, match="there were no rows"):
        make(tmp_path / "t", entry().stage_config(), source=folder_with(tmp_path / "in2", []))


def test_text_that_is_no_unicode_is_dropped(tmp_path: Path) -> None:
    values = [{**rows(2)[1], "human_ref_B": "half \ud800 pair"}, rows(3)[2]]
    output = make(tmp_path / "s", entry().stage_config(), source=folder_with(tmp_path / "in", values))
    assert read_json(output / "report.json")["dropped"] == {"not-unicode": 1}


def test_wrong_columns_and_damage_name_file_and_row(tmp_path: Path) -> None:
    bad = {key: value for key, value in rows(1)[0].items() if key != "labels"}
    source = folder_with(tmp_path / "in", [*rows(4), bad])
    with pytest.raises(DataError, match=r"(?s)a\.jsonl, row 5: a row of the schema shp lacks labels.*found: history"):
        make(tmp_path / "s", entry().stage_config(), source=source)
    (source / "a.jsonl").write_bytes((json.dumps(rows(2)[1]) + "\n{").encode())
    with pytest.raises(DataError, match=r"a\.jsonl, row 2: not valid JSON"):
        make(tmp_path / "t", entry().stage_config(), source=source)
    assert list((tmp_path / "t" / "output").iterdir()) == []


def test_files_of_the_data_root(tmp_path: Path) -> None:
    root = folder_with(tmp_path / "root", rows(30))
    mine = entry()
    config = mine.stage_config(file_digests(mine, root, DigestCache(tmp_path / "cache.json")))
    make(tmp_path / "s", config, root=root)
    with (root / "a.jsonl").open("a", encoding="utf-8") as handle:
        handle.write("\n")
    with pytest.raises(DataError, match="is not the file this stage was planned with"):
        make(tmp_path / "t", config, root=root)


def real(name: str, data_root: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    chosen = datasets()[name]
    config = chosen.stage_config({file: sha256_file(data_root / file) for file in chosen.source.files or ()})
    output = make(tmp_path / name, config, root=data_root)
    return output, read_json(output / "report.json")


def test_real_hh_rlhf(data_root: Path, tmp_path: Path) -> None:
    train, report = real("hh-rlhf-harmless", data_root, tmp_path)
    heldout, other = real("hh-rlhf-harmless-heldout", data_root, tmp_path)
    assert report["in"] == other["in"] == 2312
    # 2,312 dialogues: 4 with an empty last turn, 9 with two turns of one speaker in a row.
    assert report["dropped"] == {"empty-message": 4, "turns-do-not-alternate": 9, "other-part-of-split": other["kept"]}
    assert report["kept"] + other["kept"] == 2312 - 13
    openings = [{row["prompt"][0]["content"] for row in lines(folder / "pairs.jsonl")} for folder in (train, heldout)]
    assert not openings[0] & openings[1]
    # Joined again, every kept dialogue is the beginning of the transcripts of its row.
    path = data_root / "preference/hh_rlhf/harmless-base_test.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        sources = {tuple(flat(json.loads(line)[side]) for side in ("chosen", "rejected")) for line in handle}
    for row in lines(train / "pairs.jsonl")[::20]:
        sides = tuple(flat(joined(row["prompt"] + row[side])) for side in ("chosen", "rejected"))
        assert any(all(s.startswith(j) for s, j in zip(source, sides, strict=True)) for source in sources)


def joined(turns: list[dict[str, str]]) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns)


def flat(text: str) -> str:
    return "".join(text.split())


def test_real_ultrafeedback(data_root: Path, tmp_path: Path) -> None:
    train, report = real("ultrafeedback-small", data_root, tmp_path)
    assert (report["in"], report["dropped"]) == (1000, {"empty-message": 2, "identical-responses": 4})
    pairs = lines(train / "pairs.jsonl")
    # 111 rows have equal scores; in one of them the responses are equal too.
    assert Counter(row["margin"] == 0 for row in pairs) == {False: 994 - 110, True: 110}
    assert all(row["margin"] == row["chosen_score"] - row["rejected_score"] >= 0 for row in pairs)
    heldout, _ = real("ultrafeedback-small-heldout", data_root, tmp_path)
    ids = [{row["id"] for row in lines(folder / "prompts.jsonl")} for folder in (train, heldout)]
    assert not ids[0] & ids[1]


def test_real_corpus_leaves_the_held_out_dialogues_out(data_root: Path, tmp_path: Path) -> None:
    corpus, report = real("real-small-corpus", data_root, tmp_path)
    heldout, _ = real("hh-rlhf-harmless-heldout", data_root, tmp_path)
    assert report["files"] == {
        "preference/hh_rlhf/harmless-base_test.jsonl.gz": 2312,
        "preference/ultrafeedback_subset/train_clean.jsonl.gz": 1000,
    }
    seen = {row["messages"][0]["content"] for row in lines(corpus / "conversations.jsonl")}
    assert not seen & {row["prompt"][0]["content"] for row in lines(heldout / "pairs.jsonl")}
