"""Exact and near duplicates against hand-counted shingles and a slow pairwise reference."""

from __future__ import annotations

import random

from ablate.data.audit.duplicates import PairDuplicates, PromptDuplicates
from ablate.data.audit.items import Audited
from ablate.data.audit.similar import THRESHOLD, Similar
from ablate.data.pairing import Pair
from ablate.data.records import Response, message


def item(prompt: str, chosen: str = "", rejected: str = "", row: int = 1) -> Audited:
    sides = tuple(Response((message("assistant", text),)) for text in (chosen, rejected))
    return Audited(row, "s", (message("user", prompt),), sides, (Pair(*sides, None),) if chosen else (), None)


def shingles(text: str) -> set[tuple[str, ...]]:
    tokens = text.lower().split()
    return {tuple(tokens[start : start + 3]) for start in range(len(tokens) - 2)}


def jaccard(one: str, other: str) -> float:
    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


def numbered(count: int, **change: str) -> str:
    """``w0 w1 …`` with some words replaced."""
    return " ".join(change.get(f"w{index}", f"w{index}") for index in range(count))


BASE, LAST, MIDDLE = numbered(60), numbered(60, w59="other"), numbered(60, w5="a", w15="b", w25="c", w35="d", w45="e")


def test_prompts_that_repeat_and_prompts_that_are_near() -> None:
    # 58 shingles; the last word is in one of them (57 of 59 shared), a middle word in three (5 x 3 lost: 43 of 73).
    assert jaccard(BASE, LAST) == 57 / 59 and jaccard(BASE, MIDDLE) == 43 / 73
    check = PromptDuplicates()
    for row, text in enumerate([BASE, BASE, BASE, LAST, MIDDLE, "short one", "w0, W1!"], start=1):
        check.add(item(text, row=row))
    found = check.finding()
    assert found.numbers["exact"] == {"count": 2, "of": 7, "share": 2 / 7}
    assert found.numbers["distinct"] == 5
    assert found.numbers["near"] == {"count": 2, "of": 5, "share": 0.4}
    assert found.numbers["near_groups"] == 1
    assert found.numbers["method"] == {
        "threshold": 0.8,
        "permutations": 128,
        "bands": 16,
        "shingle_words": 3,
        "seed": 1,
        "hash": "crc32",
    }
    assert found.look == (
        "2 of 7 (28.6 %) records repeat an earlier prompt",
        "2 of 5 (40.0 %) distinct prompts have a near-duplicate",
    )
    assert [row[0] for row in found.tables[0].rows] == [3]
    assert len(found.examples) == 1 and "row 1 " in found.examples[0] and "row 4 " in found.examples[0]


def test_case_punctuation_and_spacing_make_no_difference_to_near_duplicates() -> None:
    similar = Similar()
    for text in ("What is the capital of France?", "what is  the capital\nof FRANCE", "what is the capital of Spain?"):
        similar.add(text, text)
    near = similar.near()
    assert (near.texts.count, near.texts.total, near.groups) == (2, 3, 1)
    assert near.examples == ("1.00: What is the capital of France? | what is  the capital\nof FRANCE",)


def test_near_duplicates_are_those_of_a_pairwise_search_in_any_order() -> None:
    draws = random.Random(7)
    texts = [" ".join(draws.choices("abcdefghijklmnopqrstuvwxyz", k=200)) for _ in range(40)]
    for text in texts[:10]:  # similarity 0.9 or more; all others share nearly nothing
        words = text.split()
        words[draws.randrange(200)] = "changed"
        texts.append(" ".join(words))
    expected = {
        index
        for index, text in enumerate(texts)
        if any(jaccard(text, other) >= THRESHOLD for place, other in enumerate(texts) if place != index)
    }
    assert len(expected) == 20
    for order in (texts, texts[::-1], draws.sample(texts, len(texts))):
        similar = Similar()
        for text in order:
            similar.add(text, text)
        near = similar.near()
        assert (near.texts.count, near.texts.total, near.groups) == (20, 50, 10)


def test_pairs_that_repeat_and_pairs_that_contradict() -> None:
    check = PairDuplicates()
    rows = [("p", "x", "y"), ("p", "x", "y"), ("p", "y", "x"), ("p", "x", "z"), ("q", "x", "y")]
    for row, texts in enumerate(rows, start=1):
        check.add(item(*texts, row=row))
    found = check.finding()
    # Distinct: p with x and y (in both directions), p with x and z, q with x and y.
    assert found.numbers["exact"] == {"count": 1, "of": 5, "share": 0.2}
    assert found.numbers["both_directions"] == {"count": 1, "of": 3, "share": 1 / 3}
    assert found.verdict == "look" and "both directions: row 3 “p”" in found.examples


def test_a_set_without_pairs_has_no_duplicate_pairs_to_check() -> None:
    check = PairDuplicates()
    check.add(item("p"))
    assert check.finding().unchecked == "the set has no pairs"


def test_no_duplicates_is_ok_with_its_denominator() -> None:
    check = PromptDuplicates()
    for text in ("one two three four", "five six seven eight"):
        check.add(item(text))
    found = check.finding()
    assert (found.verdict, found.numbers["near"]["of"], found.numbers["exact"]["of"]) == ("ok", 2, 2)


def test_records_are_near_where_prompt_and_responses_both_are() -> None:
    other = numbered(60, **{f"w{index}": f"v{index}" for index in range(60)})
    check = PairDuplicates()
    rows = [
        (BASE, "an answer of several words", "another answer of several words"),
        (BASE, "what nobody else said here", "nothing like the other two"),  # the prompt alone
        (other, "an answer of several words", "another answer of several words"),  # the responses alone
        (LAST, "what nobody else said here", "Nothing like the other two!"),  # both, of row 2
    ]
    for row, texts in enumerate(rows, start=1):
        check.add(item(*texts, row=row))
    found = check.finding()
    assert found.numbers["near"] == {"count": 2, "of": 4, "share": 0.5}
    assert len(found.examples) == 1 and "row 2 " in found.examples[0] and "row 4 " in found.examples[0]


def test_several_pairs_of_one_record_are_no_duplicates_of_each_other() -> None:
    sides = tuple(Response((message("assistant", text),)) for text in ("a b c d", "e f g h", "i j k l"))
    three = tuple(Pair(sides[one], sides[other], None) for one, other in ((0, 1), (0, 2), (1, 2)))
    check = PairDuplicates()
    check.add(Audited(1, "s", (message("user", BASE),), sides, three, None))
    numbers = check.finding().numbers
    assert (numbers["exact"], numbers["near"]) == (
        {"count": 0, "of": 3, "share": 0.0},
        {"count": 0, "of": 1, "share": 0.0},
    )
