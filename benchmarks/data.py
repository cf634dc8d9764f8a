"""Rows a second and peak memory of converting a large set, beside the naive way of doing it.

    python benchmarks/data.py [--rows 500000] [--folder PATH] [--profile]

Rows have SHP-2's columns, lengths that vary as its texts do, several comments a post, and are all different. Every way
runs in a process of its own and writes as many pairs as there are rows:

- the naive way on JSON lines: read all with json, convert, shuffle, slice, write;
- the dataset stage, on JSON lines, the same compressed by zstd, and Parquet: ids, seeded sampling by content,
  marks to go on from, an account of every row, memory that does not grow with the texts.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import pstats
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAIVE, WRITE = "naive: json, shuffle, slice", "write the files"
WAYS = {
    NAIVE: "rows.jsonl",
    "dataset stage, .jsonl": "rows.jsonl",
    "dataset stage, .jsonl.zst": "rows.jsonl.zst",
    "dataset stage, .parquet": "rows.parquet",
}
"""What is measured, and the file it reads; the first is what the others are compared with."""


def text(words: random.Random, pool: str, median: float, spread: float) -> str:
    """Return a piece of text whose length is log-normal, at most 20,000 characters."""
    length = min(int(words.lognormvariate(0.0, spread) * median), 20_000)
    start = words.randrange(len(pool) - length)
    return pool[start : start + length]


def rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield rows of SHP-2's schema, one to thirty pairs of comments a post; about 2 KB each."""
    words = random.Random(seed)
    vocabulary = ["".join(words.choices("etaoinshrdlucmfwypvbgkjqxz", k=words.randint(1, 10))) for _ in range(20_000)]
    vocabulary += ["“quoted”", "naïve", "\n\n", 'a "b"', "—", "10€"]
    pool = " ".join(words.choices(vocabulary, k=1_000_000))
    made = itertools.count()
    while True:
        post = f"{words.getrandbits(40):x}"
        history = f"{post} {text(words, pool, 500, 0.9)}"
        for _ in range(words.randint(1, 30)):
            number = next(made)
            if number == count:
                return
            score_a, score_b, label = words.randint(1, 900), words.randint(1, 900), words.randrange(2)
            yield {
                "post_id": post,
                "domain": "askacademia_train",
                "upvote_ratio": 0.98,
                "history": history,
                "c_root_id_A": f"a{number:x}",
                "c_root_id_B": f"b{number:x}",
                "created_at_utc_A": 1_600_000_000 + number,
                "created_at_utc_B": 1_600_000_500 + number,
                "score_A": score_a,
                "score_B": score_b,
                "human_ref_A": f"{number} {text(words, pool, 250, 1.0)}",
                "human_ref_B": f"{number} {text(words, pool, 250, 1.0)}",
                "labels": label,
                "seconds_difference": 500.0,
                "score_ratio": max(score_a, score_b) / min(score_a, score_b),
            }


def write_files(folder: Path, count: int) -> None:
    """Write the same rows as JSON lines, compressed JSON lines and Parquet."""
    import pyarrow.parquet  # here, because a process that measures has what it needs and no more

    with (
        (folder / "rows.jsonl").open("wb") as plain,
        pyarrow.CompressedOutputStream(str(folder / "rows.jsonl.zst"), "zstd") as compressed,
    ):
        writer: pyarrow.parquet.ParquetWriter | None = None
        source = rows(count)
        while part := list(itertools.islice(source, 10_000)):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part).encode()
            plain.write(lines)
            compressed.write(lines)
            table = pyarrow.Table.from_pylist(part)
            writer = writer or pyarrow.parquet.ParquetWriter(folder / "rows.parquet", table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()


def stage(file: Path, folder: Path, count: int) -> None:
    """Convert as a plan of the catalog's SHP-2 does, with a sample of as many pairs as there are rows."""
    from ablate.catalogs.datasets import datasets
    from ablate.catalogs.digests import sha256_file
    from ablate.context import EventLog, StageContext
    from ablate.data.stage import run

    entry = datasets()["shp-2"]
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    context = StageContext(
        kind="dataset",
        config=entry.stage_config({file.name: sha256_file(file)}, max_examples=count),
        inputs={},
        output=folder / "output",
        work=folder / "work",
        events=EventLog(folder / "events.jsonl"),
        locations={"root": str(file.parent)},
    )
    run(context)


def naive(file: Path, folder: Path, count: int) -> None:
    """Convert as a script does that holds everything in memory."""
    folder.mkdir(parents=True)
    with file.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    pairs = []
    for row in found:
        better, worse = ("A", "B") if row["labels"] == 1 else ("B", "A")
        chosen, rejected = row[f"human_ref_{better}"].strip(), row[f"human_ref_{worse}"].strip()
        if not row["history"].strip() or not chosen or not rejected or chosen == rejected:
            continue
        pairs.append(
            {
                "prompt": [{"role": "user", "content": row["history"].strip()}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
                "margin": row[f"score_{better}"] - row[f"score_{worse}"],
            }
        )
    random.Random(42).shuffle(pairs)
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs[:count])


def measure(way: str, file: Path, folder: Path, count: int) -> dict[str, float]:
    """Convert in this process; returns its wall and CPU seconds and its peak memory in MB."""
    begun, used = time.monotonic(), time.process_time()
    (naive if way == NAIVE else stage)(file, folder, count)
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return {"wall": time.monotonic() - begun, "cpu": time.process_time() - used, "peak_mb": peak}


def in_a_process_of_its_own(way: str, folder: Path, count: int) -> dict[str, float]:
    """Do one of the ways; its memory is not that of a process that has done another."""
    command = [sys.executable, __file__, "--rows", str(count), "--folder", str(folder), "--way", way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def report(folder: Path, count: int) -> None:
    """Run every way in a process of its own and print the table."""
    print(f"{'':30}{'file MB':>9}{'wall s':>9}{'CPU s':>9}{'rows/CPU s':>12}{'peak MB':>9}{'time':>7}{'memory':>8}")
    base: dict[str, float] = {}
    for way, file in WAYS.items():
        it = in_a_process_of_its_own(way, folder, count)
        base = base or it
        size = (folder / file).stat().st_size / 1e6
        print(
            f"{way:30}{size:>9,.0f}{it['wall']:>9.1f}{it['cpu']:>9.1f}{count / it['cpu']:>12,.0f}{it['peak_mb']:>9,.0f}"
            f"{it['cpu'] / base['cpu']:>7.2f}{it['peak_mb'] / base['peak_mb']:>8.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, help="where files are written (about 5 GB); default: a temporary folder")
    parser.add_argument("--way", choices=[*WAYS, WRITE], help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help="print where the stage's time goes instead")
    options = parser.parse_args()
    if options.way == WRITE:
        write_files(options.folder, options.rows)
        print("{}")
    elif options.way:
        with tempfile.TemporaryDirectory(dir=options.folder) as made:
            file = options.folder / WAYS[options.way]
            print(json.dumps(measure(options.way, file, Path(made) / "made", options.rows)))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            in_a_process_of_its_own(WRITE, Path(folder), options.rows)
            if options.profile:
                profile = cProfile.Profile()
                profile.runcall(stage, Path(folder) / "rows.jsonl", Path(folder) / "made", options.rows)
                pstats.Stats(profile).sort_stats("tottime").print_stats(30)
            else:
                report(Path(folder), options.rows)


if __name__ == "__main__":
    main()
