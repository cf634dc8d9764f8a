"""Tokenizers made here: words of a closed vocabulary, bytes, or byte-level pairs trained on a corpus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ablate.context import StageContext
from ablate.errors import DataError, UsageError
from ablate.models.templates import END, PAD, ROLE_MARKS, UNKNOWN, find_template
from ablate.pocket.vocabulary import vocabulary

SPECIAL_TOKENS = (PAD, END, *ROLE_MARKS)
# Pairs seen less often are not merged: they would be tokens that training hardly meets.
MIN_PAIR_COUNT = 2


def run(context: StageContext) -> dict[str, Any]:
    """Make the tokenizer that the config describes and write it as an ordinary folder, ``tokenizer/``.

    Config: ``type`` (words, bytes, bpe), ``template`` (a name in ``templates``), ``vocab_size`` (bpe only, special
    tokens included), ``vocabulary`` (words only: ``corpus``, or ``pocket`` for the closed word list of the pocket
    language, which is the default with the pocket template).
    """
    config = context.config
    kind, template = config["type"], config.get("template", "tulu")
    corpus = context.inputs.get("corpus")
    if kind == "words":
        source = config.get("vocabulary") or ("pocket" if template == "pocket" else "corpus")
        tokenizer = word_tokenizer(_words(source, corpus), template)
    elif kind == "bytes":
        tokenizer = byte_tokenizer(template)
    elif kind == "bpe":
        tokenizer = bpe_tokenizer(read_texts(_required(corpus)), int(config["vocab_size"]), template)
    else:
        raise UsageError(f"unknown tokenizer type {kind!r}", hint="allowed: words, bytes, bpe")
    tokenizer.save_pretrained(context.output / "tokenizer")
    return {"type": kind, "vocab_size": len(tokenizer)}


def word_tokenizer(words: Sequence[str], template: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of space-separated ``words``; any other word becomes the unknown token.

    Decoding joins words with single spaces, so that text of the vocabulary survives the round trip unchanged.
    """
    vocab = {token: index for index, token in enumerate((*SPECIAL_TOKENS, UNKNOWN, *words))}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrap(backend, template, unk_token=UNKNOWN)


def byte_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the 256 bytes of UTF-8 and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return _wrap(backend, template)


def bpe_tokenizer(texts: Iterator[str], vocab_size: int, template: str) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on ``texts``; ``vocab_size`` counts bytes and special tokens too."""
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise UsageError(f"vocab_size {vocab_size} is below {smallest}: 256 bytes and the special tokens")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_PAIR_COUNT,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _wrap(backend, template)


def _wrap(backend: Tokenizer, template: str, **special: str) -> PreTrainedTokenizerFast:
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLE_MARKS),
        clean_up_tokenization_spaces=False,
        padding_side="right",
        **special,
    )
    tokenizer.chat_template = find_template(template)
    return tokenizer


def corpus_files(path: Path) -> list[Path]:
    """Return the JSON lines files of a corpus, sorted by name: the file itself, or those in the folder."""
    files = [path] if path.is_file() else sorted(path.rglob("*.jsonl"))
    if not files:
        raise DataError(f"{path} holds no .jsonl file", hint='a corpus is JSON lines with "text" or "messages"')
    return files


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (``file:line``, row) of a corpus, in order of files and lines."""
    for file in corpus_files(path):
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{file}:{number}: not a JSON object: {error}") from error
                if not isinstance(row, dict):
                    raise DataError(f"{file}:{number}: a {type(row).__name__}, not a JSON object")
                yield f"{file}:{number}", row


def read_texts(path: Path) -> Iterator[str]:
    """Yield the text of every row of a corpus: ``text``, or the contents of ``messages`` one by one."""
    for place, row in read_rows(path):
        if isinstance(row.get("text"), str):
            yield row["text"]
        elif isinstance(row.get("messages"), list):
            yield from (message["content"] for message in row["messages"])
        else:
            raise DataError(f'{place}: has neither "text" nor "messages"; its keys: {", ".join(sorted(row))}')


def _words(source: str, corpus: Path | None) -> list[str]:
    sources: dict[str, Callable[[], set[str]]] = {
        "corpus": lambda: _corpus_words(_required(corpus)),
        "pocket": lambda: set(vocabulary()),
    }
    if source not in sources:
        raise UsageError(f"unknown vocabulary {source!r}", hint="allowed: corpus, pocket")
    words = sources[source]()
    if source == "pocket" and corpus is not None and (foreign := sorted(_corpus_words(corpus) - words)):
        listed = ", ".join(map(repr, foreign[:8]))
        raise DataError(f"{corpus}: {len(foreign)} words are not in the pocket vocabulary, first {listed}")
    return sorted(words)


def _corpus_words(corpus: Path) -> set[str]:
    words: set[str] = set()
    for text in read_texts(corpus):
        words.update(text.split())
    return words - {*SPECIAL_TOKENS, UNKNOWN}


def _required(corpus: Path | None) -> Path:
    if corpus is None:
        raise UsageError("this tokenizer is made from a corpus, and the stage was given none")
    return corpus
