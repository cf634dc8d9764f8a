"""Mixtures and matched sizes: the amounts by hand, the draws against an independent sort."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ablate.context import EventLog, StageContext, read_json
from ablate.data.mixture import amounts, match, run
from ablate.data.records import digest
from ablate.errors import DataError, StageError


def pair(index: int, source: str, flipped: bool = False) -> dict[str, Any]:
    sides = [[{"role": "assistant", "content": f"{side} {index}"}] for side in ("good", "bad")]
    chosen, rejected = sides[::-1] if flipped else sides
    value = {
        "prompt": [{"role": "user", "content": f"question {index // 2}"}],
        "chosen": chosen,
        "rejected": rejected,
        "margin": None,
        "source": source,
    }
    return {"id": digest("pair", value), **value}


def dataset(folder: Path, rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps({"examples": {"written": len(rows)}}))
    return folder


def context(folder: Path, config: dict[str, Any], inputs: dict[str, Path]) -> StageContext:
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    return StageContext(
        kind="mixture",
        config=config,
        inputs=inputs,
        output=folder / "output",
        work=folder / "work",
        events=EventLog(folder / "events.jsonl"),
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def mixed(folder: Path, parts: list[Path], total: int | None = None, seed: int = 0, **config: Any) -> Path:
    values = {"format": "preference", "caps": [None] * len(parts), "max_examples": total, "seed": seed, **config}
    run(context(folder, values, {f"part-{index}": part for index, part in enumerate(parts)}))
    return folder / "output"


@pytest.mark.parametrize(
    ("available", "config", "total", "expected"),
    [
        ([100, 100], {"counts": [10, 90]}, None, [10, 90]),
        ([100, 60], {"fractions": [0.5, 0.5]}, None, [60, 60]),
        ([100, 60], {"fractions": [0.75, 0.25]}, None, [100, 33]),  # 133 examples: 99.75 and 33.25
        ([100, 60], {"fractions": [0.5, 0.5]}, 81, [41, 40]),
        ([7, 7, 7], {"fractions": [0.5, 0.3, 0.2]}, 10, [5, 3, 2]),
        ([100, 60], {"temperature": 1.0}, None, [100, 60]),
        ([100, 60], {"temperature": 1.0}, 16, [10, 6]),
        # square roots 30 and 10: shares 3/4 and 1/4; all of the smaller set is 100 of 400
        ([900, 100], {"temperature": 2.0}, None, [300, 100]),
        ([900, 100], {"temperature": 2.0}, 40, [30, 10]),
        ([900, 100], {"temperature": 2.0}, 4000, [300, 100]),
        ([10, 10, 10], {"fractions": [1 / 3, 1 / 3, 1 / 3]}, 10, [4, 3, 3]),
    ],
)
def test_amounts_by_hand(available: list[int], config: dict[str, Any], total: int | None, expected: list[int]) -> None:
    assert amounts(available, config, total) == expected


def test_amounts_that_are_not_there_are_refused() -> None:
    with pytest.raises(
        DataError, match="set 2 of the mixture, in the order written, has 5 examples; the mixture asks for 6"
    ):
        amounts([10, 5], {"counts": [10, 6]}, None)
    with pytest.raises(DataError, match="set 2 of the mixture, in the order written, has 5 examples") as caught:
        amounts([100, 5], {"fractions": [0.5, 0.5]}, 12)
    assert "at most 10" in str(caught.value)


def test_every_example_of_a_mixture_is_accounted_for(tmp_path: Path) -> None:
    one = dataset(tmp_path / "a", [pair(index, "a") for index in range(50)])
    other = dataset(tmp_path / "b", [pair(index, "b") for index in range(30)])
    output = mixed(tmp_path / "m", [one, other], fractions=[0.5, 0.5], caps=[None, 20])
    made, report = lines(output / "pairs.jsonl"), read_json(output / "report.json")
    assert Counter(row["source"] for row in made) == {"a": 20, "b": 20}
    assert (report["in"], report["kept"], report["dropped"]) == (80, 40, {"not-sampled": 40})
    assert report["parts"] == [{"in": 50, "taken": 20}, {"in": 30, "taken": 20}]
    prompts = lines(output / "prompts.jsonl")
    assert len({row["id"] for row in prompts}) == len(prompts) == report["prompts"]
    assert {row["prompt"][0]["content"] for row in prompts} == {row["prompt"][0]["content"] for row in made}
    assert report["mean_words"]["chosen"] == 2.0
    originals = [pair(index, source) for source, n in (("a", 50), ("b", 30)) for index in range(n)]
    assert [row for row in originals if row in made] == made  # whole rows, in the order of the files


def test_a_larger_amount_holds_the_smaller_one_and_seeds_differ(tmp_path: Path) -> None:
    parts = [dataset(tmp_path / name, [pair(index, name) for index in range(40)]) for name in "ab"]
    few, more, other = (
        {row["id"] for row in lines(mixed(tmp_path / f"{n}-{seed}", parts, counts=[n, n], seed=seed) / "pairs.jsonl")}
        for n, seed in ((10, 0), (20, 0), (10, 1))
    )
    assert few < more and few != other


def test_sets_that_differ_in_labels_alone_keep_the_same_rows(tmp_path: Path) -> None:
    """What is drawn does not depend on which side a label prefers."""
    right = dataset(tmp_path / "r", [pair(index, "a") for index in range(40)])
    wrong = dataset(tmp_path / "w", [pair(index, "a", flipped=index % 3 == 0) for index in range(40)])
    rest = dataset(tmp_path / "x", [pair(index, "b") for index in range(40)])
    drawn = [
        {row["prompt"][0]["content"] + "".join(sorted(row[side][0]["content"] for side in ("chosen", "rejected")))
         for row in lines(mixed(tmp_path / name, [part, rest], counts=[15, 1]) / "pairs.jsonl") if row["source"] == "a"}
        for name, part in (("1", right), ("2", wrong))
    ]  # fmt: skip
    assert drawn[0] == drawn[1]


def test_the_draw_is_pinned(tmp_path: Path) -> None:
    """Equal on every machine and Python version."""
    parts = [dataset(tmp_path / name, [pair(index, name) for index in range(20)]) for name in "ab"]
    made = lines(mixed(tmp_path / "m", parts, counts=[3, 2], seed=4) / "pairs.jsonl")
    assert digest([row["id"] for row in made]) == PINNED


PINNED = "e815a96a1e4148df"


def test_equal_examples_of_two_sets_get_ids_of_their_own(tmp_path: Path) -> None:
    parts = [dataset(tmp_path / name, [pair(index, "same") for index in range(5)]) for name in "ab"]
    output = mixed(tmp_path / "m", parts, temperature=1.0)
    ids = [row["id"] for row in lines(output / "pairs.jsonl")]
    assert len(set(ids)) == len(ids) == 10
    assert read_json(output / "report.json")["exact_duplicates"] == 5


@pytest.mark.parametrize("format", ["instruction", "prompts"])
def test_instructions_and_prompts_are_mixed_too(tmp_path: Path, format: str) -> None:
    turns = [{"role": "user", "content": "say hi"}, {"role": "assistant", "content": "hi"}]
    row = {"messages": turns} if format == "instruction" else {"prompt": turns[:1]}
    name = {"instruction": "conversations.jsonl", "prompts": "prompts.jsonl"}[format]
    rows = [[{"id": f"{part}{index}", **row, "source": part} for index in range(4)] for part in "ab"]
    parts = [dataset(tmp_path / str(index), own, name) for index, own in enumerate(rows)]
    output = mixed(tmp_path / "m", parts, format=format, counts=[2, 3])
    assert Counter(row["source"] for row in lines(output / name)) == {"a": 2, "b": 3}
    assert (output / "prompts.jsonl").is_file()


def test_match_draws_as_many_as_the_smallest_set_has(tmp_path: Path) -> None:
    sizes = {"a": 50, "b": 30, "c": 44}
    sets = {name: dataset(tmp_path / name, [pair(index, name) for index in range(n)]) for name, n in sizes.items()}
    reports = {f"set-{index}": folder / "report.json" for index, folder in enumerate(sets.values())}
    for name, folder in sets.items():
        stage = context(tmp_path / f"m{name}", {"format": "preference", "seed": 1}, {"data": folder, **reports})
        match(stage)
        assert len(lines(stage.output / "pairs.jsonl")) == 30
        assert read_json(stage.output / "report.json")["in"] == sizes[name]


def test_an_input_that_is_no_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match="is no report of a set's examples"):
        mixed(tmp_path / "m", [tmp_path / "empty"], counts=[1])


def test_examples_that_are_equal_within_and_between_sets_keep_ids_of_their_own(tmp_path: Path) -> None:
    row = pair(0, "a")
    twice = dataset(tmp_path / "a", [row, {**row, "id": f"{row['id']}-2"}])  # as a dataset stage numbers them
    once = dataset(tmp_path / "b", [row])
    output = mixed(tmp_path / "m", [twice, once], temperature=1.0)
    assert [made["id"] for made in lines(output / "pairs.jsonl")] == [row["id"], f"{row['id']}-2", f"{row['id']}-3"]
    assert read_json(output / "report.json")["exact_duplicates"] == 2
