"""The dataset stage: read → convert → split → pair → sample → write, with every row accounted for."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ablate
from ablate.catalogs.datasets import Pairing, Split
from ablate.catalogs.digests import sha256_file
from ablate.context import EventLog, StageContext, write_json
from ablate.data.account import NOT_SAMPLED, OTHER_PROMPT, RowAccount
from ablate.data.converters import GroupKey, grouping
from ablate.data.examples import Example, maker, prompt_id, prompt_of, prompt_value, unusable
from ablate.data.grouping import Unit, all_rows, at_unit, numbered, together
from ablate.data.json_lines import read_json_lines
from ablate.data.output import Written, smallest, write_examples
from ablate.data.records import Converted, Dropped, digest, draw
from ablate.data.refine import Reader, reader
from ablate.data.sources import DataFile, Meter, folder_files, root_files
from ablate.data.spool import Spool, Spooled
from ablate.data.words import MeanWords, word_counts
from ablate.errors import DataError, StageError

OUTPUTS = {
    "preference": "pairs.jsonl",
    "records": "records.jsonl",
    "instruction": "conversations.jsonl",
    "prompts": "prompts.jsonl",
}
PROGRESS_EVERY = 5000  # rows


def summary(account: RowAccount, written: Written) -> dict[str, Any]:
    """Return the report as JSON values: ``in == kept + sum(dropped)``, and likewise for responses and examples.

    An account that does not balance is an error of this program.
    """
    dropped = account.dropped + Counter({NOT_SAMPLED: written.rows_not_sampled})
    assert account.rows == written.rows + dropped.total(), (account.rows, written.rows, dict(dropped))
    assert written.written <= written.made
    return {
        "in": account.rows,
        "kept": written.rows,
        "dropped": dict(sorted(dropped.items())),
        "files": dict(account.files),
        "responses": account.responses_json(),
        "examples": {
            "made": written.made,
            "not_sampled": written.made - written.written,
            "written": written.written,
        },
        "exact_duplicates": written.duplicates,
        "prompts": written.prompts,
        "mean_words": written.words.means(),
    }


@dataclass(frozen=True)
class _Settings:
    format: str
    reader: Reader
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
            reader=reader(config),
            key_of=grouping(config["converter"], config.get("converter_options") or {}),
            split=Split.model_validate(split) if split else None,
            pairing=Pairing.model_validate(pairing) if pairing else None,
            max_examples=config.get("max_examples"),
            seed=config.get("seed", 42),
            cap=config.get("cap", "after-filter"),
        )

    @property
    def sample(self) -> int | None:
        """How many examples are drawn after all filters; None: all are kept."""
        return self.max_examples if self.cap == "after-filter" else None


def run(context: StageContext) -> dict[str, Any]:
    """Make the file of the format (:data:`OUTPUTS`), ``prompts.jsonl`` and ``report.json``.

    Rows come from the input ``source`` (a data file or a folder of them) or from ``config.files`` under the location
    ``root``; with the input ``only_prompts`` (the prompts of another set) rows with other prompts are dropped. The
    result does not depend on the order of rows, except for the order of its lines, which is theirs.
    """
    settings = replace(_Settings.of(context.config), prompts=_only_prompts(context))
    files = _files(context)
    work, seconds = context.work, context.resources.checkpoint_seconds
    with closing(Spool(_origin(context, files), work, context.previous_work, seconds)) as spool:
        account = _Conversion(settings, files, spool, context.events).run()
        if not spool.keys:
            settings.reader.finish()
            raise StageError(account.nothing_left())
        examples, prompts = (context.output / OUTPUTS[name] for name in (settings.format, "prompts"))
        written = write_examples(spool, settings.sample, examples, prompts, MeanWords(settings.format))
        spool.remove()
    report = summary(account, written)
    write_json(context.output / "report.json", report)
    return {key: report[key] for key in ("in", "kept", "dropped", "prompts")} | {"examples": written.written}


def _files(context: StageContext) -> list[DataFile]:
    source = context.inputs.get("source")
    if source is not None:
        return [DataFile(source.name, source)] if source.is_file() else folder_files(source)
    root = context.locations.get("root")
    digests = context.config.get("files") or {}
    if not digests:
        raise StageError("the stage has neither an input 'source' nor files to read")
    return root_files(digests, Path(root) if root else None)


def _only_prompts(context: StageContext) -> frozenset[str] | None:
    path = context.inputs.get("only_prompts")
    return frozenset(row["id"] for row in read_json_lines(path)) if path is not None else None


def _origin(context: StageContext, files: list[DataFile]) -> str:
    """Digest what examples are made of: an earlier attempt's examples count while this is the same."""
    read = files if "source" in context.inputs else []  # the digests of other files are in the config
    contents = {file.name: sha256_file(file.path) for file in read}
    prompts = context.inputs.get("only_prompts")
    return digest(ablate.__version__, dict(context.config), contents, prompts and sha256_file(prompts))


class _Conversion:
    """Makes the examples of all files and accounts for every row, from where an earlier attempt was interrupted.

    It goes on after the rows of the spool's mark. There is one after any row where rows are converted one by one, and
    between two files where a converter gathers rows: such a file is read from its beginning again.
    """

    def __init__(self, settings: _Settings, files: list[DataFile], spool: Spool, events: EventLog) -> None:
        self.settings, self.files, self.spool, self.events = settings, files, spool, events
        self.account = RowAccount.of_counters(spool.account) if spool.account else RowAccount()
        self.make = maker(settings.format, settings.pairing)
        self.last_prompt = prompt_value([], "")
        self.last_prompt_text = b""
        self.unique = settings.format == "prompts"
        self.prompts = {example.prompt_id for example in spool.examples()} if self.unique else set()

    def run(self) -> RowAccount:
        """Spool the examples of all rows that no mark covers; returns the account of all rows."""
        drawn = self._drawn_before()
        read, before, meter = dict(self.account.files), 0, Meter(self.files)
        begun = [file.name for file in self.files if read.get(file.name)]
        for file in self.files:
            if file.name not in begun[:-1]:
                rows = itertools.islice(numbered(file, before, meter), read.get(file.name, 0), None)
                counted = self._counted(self._shown(rows, meter, "MB"), drawn)
                for unit in together(counted, self.settings.key_of):
                    self._spool(unit)
                    if self.settings.key_of is None:
                        self._mark_if_due()
                self._mark_if_due()
            before += self.account.files[file.name]
            meter.finish(file)
        return self.account

    def _drawn_before(self) -> set[int] | None:
        """Return the positions of the rows drawn before anything is filtered, as the study did; None for all."""
        settings = self.settings
        if settings.cap != "before-filter" or settings.max_examples is None:
            return None
        if (kept := self.spool.drawn()) is not None:
            return set(kept)
        meter = Meter(self.files)
        units = self._shown(all_rows(self.files, meter), meter, "MB to draw from")
        drawn = smallest((draw(settings.seed, "cap", unit.row) for unit in units), settings.max_examples)
        self.spool.keep_drawn(drawn)
        return set(drawn)

    def _shown(self, units: Iterable[Unit], meter: Meter, unit_name: str) -> Iterator[Unit]:
        """Show the progress of reading, in bytes: how many rows a file has is not known before it is read."""
        for unit in units:
            if unit.position % PROGRESS_EVERY == PROGRESS_EVERY - 1:
                done, total = round(meter.done / 1e6), round(meter.total / 1e6)
                self.events.progress(done, total, f"{unit_name}, {unit.position + 1:,} rows")
            yield unit

    def _counted(self, rows: Iterable[Unit], drawn: set[int] | None) -> Iterator[Unit]:
        """Count the rows as they are read and yield those that were drawn (None: all)."""
        for unit in rows:
            self.account.files[unit.file.name] += 1
            if drawn is None or unit.position in drawn:
                yield unit
            else:
                self.account.dropped[NOT_SAMPLED] += 1

    def _mark_if_due(self) -> None:
        if self.spool.due():
            self.spool.mark(self.account.rows, self.account.counters())

    def _spool(self, unit: Unit) -> None:
        """Convert a row or a group: its examples go to the spool, what is dropped to the account."""
        try:
            converted = self.settings.reader.convert(unit.file.name, unit.row)
            rows = self.account.take(unit, converted)
            examples = self._examples(converted)
        except DataError as error:
            raise at_unit(unit, error) from error
        if isinstance(examples, Dropped):
            self.account.dropped[examples.reason] += rows
            return
        for example in examples:
            self.spool.add(self._spooled(example, unit.position, rows))

    def _examples(self, converted: Converted) -> tuple[Example, ...] | Dropped:
        if isinstance(converted, Dropped):
            return converted
        if reason := unusable(converted, self.settings.split):
            return Dropped(reason)
        if self.settings.prompts is not None and prompt_id(prompt_of(converted)) not in self.settings.prompts:
            return Dropped(OTHER_PROMPT)
        examples = self.make(converted)
        if self.unique and isinstance(examples, tuple):
            prompt = int(examples[0].value["id"], 16)
            if prompt in self.prompts:
                return Dropped("prompt-seen-before")
            self.prompts.add(prompt)
        return examples

    def _spooled(self, example: Example, position: int, rows: int) -> Spooled:
        prompt, prompt_text = self._prompt(example)
        return Spooled(
            key=0 if self.settings.sample is None else draw(self.settings.seed, "sample", example.key()),
            position=position,
            rows=rows,
            id=int(example.value["id"], 16),
            prompt_id=int(prompt["id"], 16),
            words=word_counts(self.settings.format, example.value),
            prompt=prompt_text,
            text=_text(example.value),
        )

    def _prompt(self, example: Example) -> tuple[Mapping[str, Any], bytes]:
        """Return the prompt's value and text; rows about one prompt often come one after another."""
        if self.last_prompt["prompt"] != list(example.prompt) or self.last_prompt["source"] != example.source:
            self.last_prompt = prompt_value(example.prompt, example.source)
            self.last_prompt_text = _text(self.last_prompt)
        return self.last_prompt, self.last_prompt_text


_WRITTEN = json.JSONEncoder(ensure_ascii=False)


def _text(value: Mapping[str, Any]) -> bytes:
    return _WRITTEN.encode(value).encode()
