"""Pairs cut into parts: a case worked by hand, and the parts of any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.context import EventLog, StageContext, read_json
from ablate.data.split import cut, run
from ablate.errors import StageError

# log ref(c) - log ref(r): a 2, b -3, c 0.5, d 2, e -1. From easy to hard, equal ones by id: a d c e b.
CHOSEN = {"d": -3.0, "a": -1.0, "b": -6.0, "c": -2.0, "e": -4.0}
REJECTED = {"d": -5.0, "a": -3.0, "b": -3.0, "c": -2.5, "e": -3.0}


def split(folder: Path, **config: Any) -> tuple[list[list[str]], dict[str, Any]]:
    ids = list(CHOSEN)
    pq.write_table(pa.table({"id": ids, "prompt_ids": [[1]] * 5}), folder / "tokens.parquet")
    backwards = ids[::-1]  # the reference's pass is joined by id
    columns = {
        "id": backwards,
        "chosen_logp": [CHOSEN[x] for x in backwards],
        "rejected_logp": [REJECTED[x] for x in backwards],
    }
    pq.write_table(pa.table(columns), folder / "logprobs.parquet")
    output = folder / "output"
    output.mkdir()
    inputs = {"data": folder / "tokens.parquet", "measured": folder / "logprobs.parquet"}
    run(StageContext("split", config, inputs, output, folder, EventLog(folder / "events.jsonl")))
    files = [output / f"part-{number}.parquet" for number in range(1, config["parts"] + 1)]
    assert sorted(output.glob("part-*")) == files
    return [pq.read_table(file).column("id").to_pylist() for file in files], read_json(output / "report.json")


def test_two_parts_from_easy_to_hard_by_hand(tmp_path: Path) -> None:
    parts, report = split(tmp_path, parts=2, order="easy-to-hard")
    assert parts == [["d", "a", "c"], ["b", "e"]], "in the order of the file"
    assert report == {
        "in": 5,
        "parts": [
            {"pairs": 3, "mean_margin": 1.5, "reward_accuracy": 1.0, "lowest_margin": 0.5, "highest_margin": 2.0},
            {"pairs": 2, "mean_margin": -2.0, "reward_accuracy": 0.0, "lowest_margin": -3.0, "highest_margin": -1.0},
        ],
    }


def test_as_many_parts_as_pairs_are_the_pairs_in_order(tmp_path: Path) -> None:
    assert split(tmp_path, parts=5, order="easy-to-hard")[0] == [["a"], ["d"], ["c"], ["e"], ["b"]]


def test_the_order_given_is_that_of_the_file(tmp_path: Path) -> None:
    parts, report = split(tmp_path, parts=2, order="given")
    assert parts == [["d", "a", "b"], ["c", "e"]] and report["parts"] == [{"pairs": 3}, {"pairs": 2}]


def test_a_random_order_is_drawn_by_content_with_a_seed(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 0, *range(1, 12))):
        (tmp_path / str(number)).mkdir()
        parts, _ = split(tmp_path / str(number), parts=2, order="random", seed=seed)
        assert sorted(parts[0] + parts[1]) == sorted(CHOSEN) and len(parts[0]) == 3
        found.append(tuple(map(tuple, parts)))
    assert found[0] == found[1] and len(set(found)) > 3


@pytest.mark.parametrize(("rows", "parts"), [(5, 2), (6, 3), (7, 3), (8, 5), (3, 3), (4, 1)])
def test_sizes_differ_by_one_at_most_and_nothing_is_lost(rows: int, parts: int) -> None:
    made = cut(range(rows), parts)
    assert [row for own in made for row in own] == list(range(rows))
    sizes = [len(own) for own in made]
    assert len(sizes) == parts and max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_more_parts_than_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="5 pairs can't be cut into 6 parts"):
        split(tmp_path, parts=6, order="given")
