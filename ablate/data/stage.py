"""The dataset stage: read → convert → split → pair → sample → write, with every row accounted for."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablate.catalogs.datasets import Pairing, Split
from ablate.context import EventLog, StageContext, write_json
from ablate.data.converters import BoundConverter, GroupKey, bind, grouping
from ablate.data.examples import Example, all_turns, in_part, maker, prompt_id, prompt_of, prompt_value
from ablate.data.grouping import Unit, at_unit, numbered, together
from ablate.data.json_lines import read_json_lines
from ablate.data.records import Dropped, PreferenceRecord, draw, is_unicode
from ablate.data.sources import DataFile, folder_files, root_files
from ablate.data.words import MeanWords
from ablate.errors import DataError, StageError

OUTPUTS = {"preference": "pairs.jsonl", "instruction": "conversations.jsonl", "prompts": "prompts.jsonl"}
OTHER_PART, NOT_SAMPLED, OTHER_PROMPT = "other-part-of-split", "not-sampled", "prompt-not-in-other-set"
PROGRESS_EVERY = 5000  # rows


@dataclass
class Report:
    """What became of every row: ``rows == kept + sum(dropped)``; the same for responses and for examples.

    A group of rows that gives a record keeps those of its rows that gave it a response.
    """

    files: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    responses: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    made: int = 0
    kept_rows: int = 0
    sizes: dict[int, int] = field(default_factory=dict)
    """Position of a group's first row to the rows it keeps; a row that is in no group keeps itself."""
    written: int = 0
    duplicates: int = 0
    prompts: int = 0
    words: MeanWords = field(default_factory=MeanWords)

    def summary(self) -> dict[str, Any]:
        """Return the report as JSON values; an account that does not balance is an error of this program."""
        rows = self.files.total()
        assert rows == self.kept_rows + self.dropped.total(), (rows, self.kept_rows, dict(self.dropped))
        assert self.written <= self.made
        return {
            "in": rows,
            "kept": self.kept_rows,
            "dropped": dict(sorted(self.dropped.items())),
            "files": dict(self.files),
            "responses": {"in": self.responses, "left_out": dict(sorted(self.left_out.items()))},
            "examples": {"made": self.made, "not_sampled": self.made - self.written, "written": self.written},
            "exact_duplicates": self.duplicates,
            "prompts": self.prompts,
            "mean_words": self.words.means(),
        }


@dataclass(frozen=True)
class _Settings:
    format: str
    converter: BoundConverter
    key_of: GroupKey | None
    split: Split | None
    pairing: Pairing | None
    max_examples: int | None
    seed: int
    cap: str
    prompts: frozenset[str] | None = None
    """Ids of the prompts that rows may have; None: any."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Settings:
        if config["format"] not in OUTPUTS:
            raise StageError(f"a dataset stage makes {', '.join(OUTPUTS)}; {config['format']!r} is none of them")
        split, pairing = config.get("split"), config.get("pairing")
        return cls(
            format=config["format"],
            converter=bind(config["converter"], config.get("converter_options") or {}, config.get("converter_code")),
            key_of=grouping(config["converter"], config.get("converter_options") or {}),
            split=Split.model_validate(split) if split else None,
            pairing=Pairing.model_validate(pairing) if pairing else None,
            max_examples=config.get("max_examples"),
            seed=config.get("seed", 42),
            cap=config.get("cap", "after-filter"),
        )


def run(context: StageContext) -> dict[str, Any]:
    """Make ``pairs.jsonl`` or ``conversations.jsonl`` (by format), ``prompts.jsonl`` and ``report.json``.

    Rows come from the input ``source`` (a folder of data files) or from ``config.files`` under the location
    ``root``; with the input ``only_prompts`` (the prompts of another set) rows with other prompts are dropped. The
    result does not depend on the order of rows, except for the order of its lines, which is theirs.
    """
    settings = replace(_Settings.of(context.config), prompts=_only_prompts(context))
    files = _files(context)
    report = Report()
    selected_rows = _cap_before(files, settings)
    spool = context.work / "examples.jsonl"
    keys = _convert(files, settings, selected_rows, report, spool, context.events)
    if not keys:
        raise StageError(_nothing_left(report))
    _write(context.output, settings, spool, keys, report)
    spool.unlink()
    summary = report.summary()
    write_json(context.output / "report.json", summary)
    return {key: summary[key] for key in ("in", "kept", "dropped", "prompts")} | {"examples": report.written}


def _files(context: StageContext) -> list[DataFile]:
    if "source" in context.inputs:
        return folder_files(context.inputs["source"])
    root = context.locations.get("root")
    digests = context.config.get("files") or {}
    if not digests:
        raise StageError("the stage has neither an input 'source' nor files to read")
    return root_files(digests, Path(root) if root else None)


def _only_prompts(context: StageContext) -> frozenset[str] | None:
    path = context.inputs.get("only_prompts")
    return frozenset(row["id"] for row in read_json_lines(path)) if path is not None else None


def _cap_before(files: list[DataFile], settings: _Settings) -> set[int] | None:
    """Return the positions of the rows drawn before anything is filtered, as the study did; None for all."""
    if settings.cap != "before-filter" or settings.max_examples is None:
        return None
    keys = (draw(settings.seed, "cap", unit.row) for unit in numbered(files))
    return set(_smallest(keys, settings.max_examples))


def _smallest(keys: Iterable[int], count: int) -> list[int]:
    """Return the positions of the ``count`` smallest keys; the memory used grows with ``count`` only."""
    return [position for _, position in heapq.nsmallest(count, ((key, i) for i, key in enumerate(keys)))]


def _convert(
    files: list[DataFile],
    settings: _Settings,
    selected_rows: set[int] | None,
    report: Report,
    spool: Path,
    events: EventLog,
) -> list[tuple[int, int]]:
    """Write all examples to ``spool``; returns for each its sampling key and the position of its row."""
    examples_of = _example_maker(settings, report)
    sampling = settings.max_examples is not None and settings.cap == "after-filter"
    keys: list[tuple[int, int]] = []
    with spool.open("w", encoding="utf-8") as handle:
        rows = _counted(numbered(files), selected_rows, report, lambda done: events.log(rows=done, examples=len(keys)))
        for unit in together(rows, settings.key_of):
            try:
                examples = examples_of(unit)
            except DataError as error:
                raise at_unit(unit, error) from error
            if isinstance(examples, Dropped):
                report.dropped[examples.reason] += report.sizes.pop(unit.position, unit.size)
                continue
            for example in examples:
                line = {"source": example.source, "prompt": example.prompt, "value": example.value}
                handle.write(json.dumps(line) + "\n")
                keys.append((draw(settings.seed, "sample", example.key()) if sampling else 0, unit.position))
    return keys


def _counted(
    rows: Iterable[Unit], selected: set[int] | None, report: Report, progress: Callable[[int], None]
) -> Iterator[Unit]:
    """Count the rows as they are read and yield those that were drawn (None: all)."""
    for unit in rows:
        report.files[unit.file.name] += 1
        if unit.position % PROGRESS_EVERY == PROGRESS_EVERY - 1:
            progress(unit.position + 1)
        if selected is None or unit.position in selected:
            yield unit
        else:
            report.dropped[NOT_SAMPLED] += 1


def _example_maker(settings: _Settings, report: Report) -> Callable[[Unit], tuple[Example, ...] | Dropped]:
    make = maker(settings.format, settings.pairing)
    prompts: set[str] = set()

    def examples_of(unit: Unit) -> tuple[Example, ...] | Dropped:
        converted = settings.converter(unit.file.name, unit.row)
        if isinstance(converted, Dropped):
            return converted
        left_out = converted.left_out if isinstance(converted, PreferenceRecord) else ()
        if isinstance(converted, PreferenceRecord):
            report.responses += len(converted.responses) + len(left_out)
            report.left_out.update(left_out)
        if unit.grouped:
            report.dropped.update(left_out)
            report.sizes[unit.position] = unit.size - len(left_out)
        if not is_unicode(all_turns(converted)):
            return Dropped("not-unicode")
        if not in_part(prompt_of(converted), settings.split):
            return Dropped(OTHER_PART)
        if settings.prompts is not None and prompt_id(prompt_of(converted)) not in settings.prompts:
            return Dropped(OTHER_PROMPT)
        examples = make(converted)
        if settings.format == "prompts" and isinstance(examples, tuple):
            if examples[0].value["id"] in prompts:
                return Dropped("prompt-seen-before")
            prompts.add(examples[0].value["id"])
        return examples

    return examples_of


def _write(output: Path, settings: _Settings, spool: Path, keys: list[tuple[int, int]], report: Report) -> None:
    """Copy the sampled examples from ``spool`` to the output, in the order of their rows."""
    sampled: set[int] | None = None
    if settings.max_examples is not None and settings.cap == "after-filter":
        sampled = set(_smallest((key for key, _ in keys), settings.max_examples))
    kept: set[int] = set()
    seen: Counter[str] = Counter()
    prompts: dict[str, dict[str, Any]] = {}
    with spool.open(encoding="utf-8") as lines, (output / OUTPUTS[settings.format]).open("w", encoding="utf-8") as out:
        for index, line in enumerate(lines):
            if sampled is not None and index not in sampled:
                continue
            example = json.loads(line)
            prompt, value = prompt_value(example["prompt"], example["source"]), example["value"]
            kept.add(keys[index][1])
            if prompt["id"] not in prompts:
                prompts[prompt["id"]] = prompt
                report.words.add("distinct_prompts", prompt["prompt"])
            report.words.add_example(value)
            seen[value["id"]] += 1
            if seen[value["id"]] > 1:
                # Equal examples are all kept (their number is a property of the set) under different ids.
                value["id"] = f"{value['id']}-{seen[value['id']]}"
            out.write(json.dumps(value, ensure_ascii=False) + "\n")
    if settings.format != "prompts":
        with (output / OUTPUTS["prompts"]).open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts.values())
    report.made, report.written, report.duplicates = len(keys), seen.total(), seen.total() - len(seen)
    report.kept_rows, report.prompts = _row_count(kept, report), len(prompts)
    not_sampled = _row_count({position for _, position in keys}, report) - report.kept_rows
    if not_sampled:
        report.dropped[NOT_SAMPLED] += not_sampled


def _row_count(positions: set[int], report: Report) -> int:
    return sum(report.sizes.get(position, 1) for position in positions)


def _nothing_left(report: Report) -> str:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in report.dropped.most_common())
    return f"no example is left of {report.files.total()} rows; dropped by reason: {reasons or 'there were no rows'}"
