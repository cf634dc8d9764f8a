"""IFEval's checker without downloads and without chance: its sentence splitter, word splitter and seeds."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import langdetect
import nltk

from ablate.errors import StageError

PUNKT = "tokenizers/punkt_tab"

SENTENCES = {
    "punkt": "NLTK punkt, as in Google's checker",
    "regex": "substitute: the regular-expression sentence splitter of Google's checker and NLTK's Treebank word "
    "tokenizer, in place of NLTK punkt (needs downloaded data)",
}


def import_checker() -> Any:
    """Import the module of IFEval's text rules; its import would try to download punkt where that is missing."""
    find = nltk.data.find
    nltk.data.find = lambda name, *paths: name if name == PUNKT else find(name, *paths)
    try:
        return importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
    finally:
        nltk.data.find = find


@contextmanager
def checker_splitter(splitter: str) -> Iterator[None]:
    """Let IFEval's checker split text by the named splitter (a key of ``SENTENCES``) while the context lasts."""
    checker = import_checker()
    if splitter == "punkt":
        _require_punkt()
        yield
        return
    kept = (checker.count_sentences, nltk.word_tokenize)
    words = nltk.tokenize.NLTKWordTokenizer()
    nltk.word_tokenize = lambda text: [
        word for sentence in checker.split_into_sentences(text) for word in words.tokenize(sentence)
    ]
    checker.count_sentences = lambda text: len(checker.split_into_sentences(text))
    try:
        yield
    finally:
        checker.count_sentences, nltk.word_tokenize = kept


def _require_punkt() -> None:
    try:
        nltk.data.find(PUNKT)
    except LookupError:
        raise StageError(
            "IFEval's sentence rules need NLTK's punkt_tab data, which is not installed",
            hint="set NLTK_DATA to a folder that has tokenizers/punkt_tab, or set the suite's options.sentences: regex",
        ) from None


@contextmanager
def seeded_checker() -> Iterator[None]:
    """Fix the two sources of chance in IFEval's checker: Python's generator and langdetect's."""
    state, kept = random.getstate(), langdetect.DetectorFactory.seed
    random.seed(0)
    langdetect.DetectorFactory.seed = 0
    try:
        yield
    finally:
        random.setstate(state)
        langdetect.DetectorFactory.seed = kept
