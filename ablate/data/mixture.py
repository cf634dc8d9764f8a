"""Sets put together, and sets cut to one size: seeded draws from examples that other stages have made."""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ablate.context import StageContext, write_json
from ablate.data.account import NOT_SAMPLED
from ablate.data.examples import prompt_value
from ablate.data.records import digest, draw
from ablate.data.stage import OUTPUTS
from ablate.data.words import MeanWords, word_counts
from ablate.errors import DataError, StageError

ROUNDING = 1e-9  # shares of a whole number of examples, in binary fractions


def run(context: StageContext) -> dict[str, Any]:
    """Mix the inputs ``part-0``, ``part-1``, …: the format's file, ``prompts.jsonl`` and ``report.json``.

    Config: ``counts``, ``fractions`` or ``temperature`` (see :func:`amounts`), ``caps`` (most examples of each part,
    null: no cap), ``max_examples`` of the whole, ``seed``. A larger amount of a part holds the smaller one.
    """
    config = context.config
    parts = [context.inputs[f"part-{index}"] for index in range(len(config["caps"]))]
    sizes = [_size(part) for part in parts]
    available = [min(size, cap or size) for size, cap in zip(sizes, config["caps"], strict=True)]
    taken = amounts(available, config, config["max_examples"])
    drawn = [_drawn(part, config["format"], count, config["seed"]) for part, count in zip(parts, taken, strict=True)]
    account = _Account(sizes, taken)
    return account.written(context.output, config["format"], (line for part in drawn for line in part))


def match(context: StageContext) -> dict[str, Any]:
    """Draw as many examples of the input ``data`` as the smallest of the inputs ``set-…`` (reports) has."""
    config = context.config
    names = sorted(role for role in context.inputs if role.startswith("set-"))
    smallest = min(_written(context.inputs[name]) for name in names)
    own = _size(context.inputs["data"])
    account = _Account([own], [min(smallest, own)])
    lines = _drawn(context.inputs["data"], config["format"], account.taken[0], config["seed"])
    return account.written(context.output, config["format"], lines)


def amounts(available: Sequence[int], config: Mapping[str, Any], total: int | None) -> list[int]:
    """Return how many examples of each part are taken of those ``available``.

    ``counts`` are exact, whatever ``total``. ``fractions`` hold for the whole, which is ``total`` or as large as the
    parts allow; with a ``temperature`` T the fractions are in proportion to n^(1/T). A part that has too few is a
    DataError.
    """
    if "counts" in config:
        counts = list(config["counts"])
        for index, (count, there) in enumerate(zip(counts, available, strict=True)):
            if count > there:
                raise DataError(f"{_called(index)} has {there} examples; the mixture asks for {count}")
        return counts
    fractions = config.get("fractions") or _tempered(available, config["temperature"])
    largest = math.floor(min(n / share for n, share in zip(available, fractions, strict=True)) * (1 + ROUNDING))
    if "fractions" in config and total is not None and total > largest:
        needed = [share * total for share in fractions]
        short = next(i for i, (n, want) in enumerate(zip(available, needed, strict=True)) if want > n * (1 + ROUNDING))
        raise DataError(
            f"{_called(short)} has {available[short]} examples; "
            f"{fractions[short]:g} of {total} are {needed[short]:.0f}",
            hint=f"lower max_examples to at most {largest}, or change the fractions",
        )
    return _apportioned(fractions, min(total or largest, largest), available)


def _called(index: int) -> str:
    # The stage does not know what the experiment calls its sets: another name is no other mixture.
    return f"set {index + 1} of the mixture, in the order written,"


def _tempered(sizes: Sequence[int], temperature: float) -> list[float]:
    weights = [size ** (1 / temperature) for size in sizes]
    return [weight / sum(weights) for weight in weights]


def _apportioned(fractions: Sequence[float], total: int, available: Sequence[int]) -> list[int]:
    """Return whole numbers that add up to ``total`` in the shares' proportion, by largest remainders."""
    exact = [share * total for share in fractions]
    counts = [min(math.floor(value * (1 + ROUNDING)), n) for value, n in zip(exact, available, strict=True)]
    order = sorted(range(len(exact)), key=lambda index: (counts[index] - exact[index], index))
    for index in order:
        if sum(counts) < total and counts[index] < available[index]:
            counts[index] += 1
    return counts


@dataclass(frozen=True)
class _Account:
    sizes: list[int]
    taken: list[int]

    def written(self, output: Path, format: str, lines: Iterator[str]) -> dict[str, Any]:
        """Write the examples, and the prompts they have; return the report, of a dataset stage's form."""
        seen: Counter[str] = Counter()
        prompts, words = set[str](), MeanWords(format)
        with ExitStack() as stack:
            out = _opened(stack, output / OUTPUTS[format])
            prompts_out = _opened(stack, output / OUTPUTS["prompts"]) if format != "prompts" else None
            for line in lines:
                example = json.loads(line)
                prompt = prompt_value(_prompt(example), example["source"])
                words.add(word_counts(format, example), new_prompt=prompt["id"] not in prompts)
                if prompts_out and prompt["id"] not in prompts:
                    prompts_out.write(json.dumps(prompt, ensure_ascii=False) + "\n")
                prompts.add(prompt["id"])
                content, _, _ = example["id"].partition("-")  # equal ones are numbered within their set
                seen[content] += 1
                example["id"] = content if seen[content] == 1 else f"{content}-{seen[content]}"
                out.write(json.dumps(example, ensure_ascii=False) + "\n")
        report = self._report(seen, len(prompts), words)
        write_json(output / "report.json", report)
        return {key: report[key] for key in ("in", "kept", "dropped", "prompts")} | {"examples": seen.total()}

    def _report(self, seen: Counter[str], prompts: int, words: MeanWords) -> dict[str, Any]:
        total = sum(self.sizes)
        assert seen.total() == sum(self.taken), (seen.total(), self.taken)
        left = total - seen.total()
        return {
            "in": total,
            "kept": seen.total(),
            "dropped": {NOT_SAMPLED: left} if left else {},
            "parts": [{"in": size, "taken": taken} for size, taken in zip(self.sizes, self.taken, strict=True)],
            "examples": {"made": total, "not_sampled": left, "written": seen.total()},
            "exact_duplicates": seen.total() - len(seen),
            "prompts": prompts,
            "mean_words": words.means(),
        }


def _opened(stack: ExitStack, path: Path) -> IO[str]:
    return stack.enter_context(path.open("w", encoding="utf-8"))


def _drawn(folder: Path, format: str, count: int, seed: int) -> Iterator[str]:
    """Yield the lines of ``count`` examples in the order of the file; the memory used grows with ``count``."""
    path = folder / OUTPUTS[format]
    with path.open(encoding="utf-8") as lines:
        keys = ((draw(seed, "mixture", *_content(json.loads(line))), index) for index, line in enumerate(lines))
        chosen = {index for _, index in heapq.nsmallest(count, keys)}
    with path.open(encoding="utf-8") as lines:
        yield from (line for index, line in enumerate(lines) if index in chosen)


def _content(example: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what an example is whatever its labels say, so that sets that differ in labels keep the same rows."""
    if "chosen" in example:
        return example["prompt"], sorted(digest(example[side]) for side in ("chosen", "rejected"))
    if "responses" in example:
        return example["prompt"], sorted(digest(response["messages"]) for response in example["responses"])
    return (example.get("messages") or example["prompt"],)


def _prompt(example: Mapping[str, Any]) -> Any:
    return example["prompt"] if "prompt" in example else example["messages"][:-1]


def _size(folder: Path) -> int:
    return _written(folder / "report.json")


def _written(report: Path) -> int:
    try:
        return int(json.loads(report.read_text(encoding="utf-8"))["examples"]["written"])
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"{report} is no report of a set's examples: {error!r}") from error
