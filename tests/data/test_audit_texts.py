"""Lengths, turns, which response is longer, endings, refusals and languages, on texts judged by hand."""

from __future__ import annotations

import pytest

from ablate.data.audit.endings import Endings, Refusals, cut_off
from ablate.data.audit.findings import histogram, quantiles, wilson
from ablate.data.audit.items import Audited
from ablate.data.audit.languages import Languages
from ablate.data.audit.lengths import Lengths, LongerWins, Turns
from ablate.data.pairing import Pair
from ablate.data.records import Response, message
from ablate.data.refusals import refuses


def pair(chosen: str, rejected: str, prompt: str = "q", row: int = 1) -> Audited:
    sides = tuple(Response((message("assistant", text),)) for text in (chosen, rejected))
    return Audited(row, "s", (message("user", prompt),), sides, (Pair(*sides, None),), None)


def test_wilsons_interval() -> None:
    # Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)):
        assert wilson(count, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=5e-5))
    assert wilson(20, 20) == (pytest.approx(0.8389, abs=5e-5), 1.0)
    assert wilson(0, 0) is None


def test_longer_wins_counts_words_and_leaves_ties_out() -> None:
    check = LongerWins()
    for item in (
        [pair("one two three", "onetwothreefour five")] * 81 + [pair("a", "b c")] * 182 + [pair("a b", "c  d")] * 7
    ):
        check.add(item)
    found = check.finding()
    assert found.numbers["longer"] == {"count": 81, "of": 263, "share": 81 / 263}
    assert found.numbers["interval"] == [pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5)]
    assert found.numbers["equal"] == {"count": 7, "of": 270, "share": 7 / 270}
    # Below 40 % as a whole: the shorter response wins.
    assert found.verdict == "look" and found.look[0].startswith("the shorter response wins in most pairs")


def test_longer_wins_without_a_difference_is_not_checked() -> None:
    check = LongerWins()
    check.add(pair("a b", "c d"))
    assert check.finding().unchecked == "no two responses of different length in 1 pairs"


def test_lengths_of_each_part() -> None:
    check = Lengths()
    check.add(pair("a bb ccc", "a", "two words"))
    check.add(pair("a", "a b", "one"))
    numbers = check.finding().numbers
    assert {part: found["mean"] for part, found in numbers["words"].items()} == {
        "prompt": 1.5,
        "chosen": 2.0,
        "rejected": 1.5,
    }
    assert (numbers["characters"]["chosen"]["max"], numbers["characters"]["chosen"]["n"]) == (8.0, 2)


def test_quantiles_interpolate_and_are_null_without_values() -> None:
    found = quantiles(range(101))
    assert [found[name] for name in ("n", "mean", "min", "p5", "p25", "median", "p75", "p95", "max")] == [
        101, 50.0, 0.0, 5.0, 25.0, 50.0, 75.0, 95.0, 100.0,
    ]  # fmt: skip
    assert quantiles([])["mean"] is None and quantiles([])["n"] == 0


def test_a_histogram_counts_what_it_does_not_show() -> None:
    drawn = histogram("t", "u", {"a": [0] * 99 + [1000], "b": [1] * 100}, bins=2)
    assert drawn is not None
    assert drawn.edges == (0.0, 0.5, 1.0)
    assert (drawn.counts, drawn.beyond) == ({"a": (99, 0), "b": (0, 100)}, 1)
    assert histogram("t", "u", {"a": []}) is None


def test_turns_leave_the_system_prompt_out() -> None:
    check = Turns()
    user, assistant, system = message("user", "u"), message("assistant", "a"), message("system", "s")
    for prompt in ((user,), (system, user), (user, assistant, user)):
        check.add(Audited(1, "s", prompt, (), (), None))
    numbers = check.finding().numbers
    assert numbers["by_turns"] == {"1": 2, "3": 1}
    assert numbers["with_system_prompt"] == {"count": 1, "of": 3, "share": 1 / 3}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rain falls when drops of water in a cloud become", "mid-sentence"),
        ("Rain falls when drops of water in a cloud,", "mid-sentence"),
        ("Rain falls when drops of water in a cloud become heavy.", None),
        ("Rain falls when drops of water in a cloud become heavy. 🌧", None),
        ("Paris", None),
        ("A title of seven words, no more", None),
        ("Buy:\n- apples\n- pears and the plums", None),
        ("Here:\n```python\nprint(1)\n", "open-code-block"),
        ("Here:\n```python\nprint(1)\n```", None),
        ("Use the character ``` to begin a block of code.", None),
        ("雨は雲の中の水滴が重くなると降ります。", None),
    ],
)
def test_what_seems_cut_off(text: str, reason: str | None) -> None:
    assert cut_off(text) == reason


def test_endings_count_each_side_and_the_longest() -> None:
    check = Endings()
    check.add(pair("Fine.", "…"))
    check.add(pair("This one goes on and on until it", "This one ends well, as it should do."))
    for _ in range(5):
        check.add(pair("x" * 40, "Fine."))
    found = check.finding()
    assert found.numbers["without_a_word"] == {"count": 1, "of": 14, "share": 1 / 14}
    assert found.numbers["seem_cut_off"]["chosen"] == {"count": 1, "of": 7, "share": 1 / 7}
    assert found.numbers["seem_cut_off"]["rejected"]["count"] == 0
    assert found.numbers["by_reason"] == {"mid-sentence": {"chosen": 1}}
    assert (found.numbers["longest_characters"], found.numbers["at_longest"]["count"]) == (40, 5)
    assert [why.split(" (")[0] for why in found.look] == ["1 of 14", "1 of 7", "5 of 14"]


@pytest.mark.parametrize(
    ("text", "refusing"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("As an AI language model, I have no feelings.", True),
        ("I cannot provide instructions for that.", True),
        ("I’m not able to do this.", True),
        ("Sorry, I can't.", True),
        ("I won't tell you that.", True),
        ("I can't believe it rained!", False),
        ("No, whales are mammals.", False),
        ("I'm sorry to hear about your cat.", False),
        ("A long answer. " * 20 + "I'm sorry, but I can't go on.", False),
    ],
)
def test_what_counts_as_a_refusal(text: str, refusing: bool) -> None:
    assert refuses(text) is refusing


def test_refusals_of_each_side_and_of_one_side_alone() -> None:
    no, yes = "I'm sorry, but no.", "Sure."
    check = Refusals()
    for item in (pair(no, yes), pair(no, no), pair(yes, no), pair(yes, no), pair(yes, yes)):
        check.add(item)
    numbers = check.finding().numbers
    assert {side: share["count"] for side, share in numbers["by_side"].items()} == {"chosen": 2, "rejected": 3}
    assert {side: (s["count"], s["of"]) for side, s in numbers["one_side_alone"].items()} == {
        "chosen": (1, 5),
        "rejected": (2, 5),
    }


TEXTS = {
    "en": "The weather in the mountains changes quickly, so take a warm jacket and enough water with you.",
    "de": "Das Wetter in den Bergen ändert sich schnell, nehmen Sie deshalb eine warme Jacke und genug Wasser mit.",
    "fr": "Le temps change vite en montagne, prenez donc une veste chaude et assez d'eau avec vous pour la journée.",
    "zh": (
        "山里的天气变化很快，所以请带上保暖的外套和足够的水。请在天黑以前回来，"
        "不要一个人走，也不要离开标记的小路，带好手机和地图，出发以前告诉你的朋友你要去哪里。"
    ),
}


def test_languages_of_prompts_and_responses() -> None:
    check = Languages()
    for place, code in enumerate(["en", "en", "de", "fr", "zh"]):
        check.add(pair(TEXTS["en"], "No.", TEXTS[code], row=place + 1))
    check.add(pair("Yes.", "No.", "Hi?", row=6))
    found = check.finding()
    assert found.numbers["guessed"] == {"prompts": {"de": 1, "en": 2, "fr": 1, "zh": 1}, "responses": {"en": 5}}
    assert found.numbers["not_guessed"]["prompts"] == {"count": 1, "of": 6, "share": 1 / 6}
    assert found.look == ("3 of 5 (60.0 %) prompts are in another language than en",)
    assert [example.split("“")[0] for example in found.examples] == ["row 3, de: ", "row 4, fr: ", "row 5, zh: "]


def test_the_sample_of_texts_depends_on_their_content_alone() -> None:
    items = [pair(TEXTS["en"], "No.", f"{TEXTS['de' if n % 3 else 'en']} {n}", row=n + 1) for n in range(60)]
    found = []
    for order in (items, items[::-1]):
        check = Languages(cap=20)
        for item in order:
            check.add(item)
        found.append(check.finding())
    assert found[0].numbers == found[1].numbers
    assert (found[0].numbers["records"], found[0].numbers["sampled"]) == (60, 20)
    assert sum(found[0].numbers["guessed"]["prompts"].values()) == 20
    assert "a sample of 20 of 60 records" in found[0].summary


def test_what_the_source_says_is_shown_beside_the_guess() -> None:
    check = Languages()
    check.add(Audited(1, "s", (message("user", TEXTS["de"]),), (), (), "German"))
    found = check.finding()
    assert found.numbers["stated_by_source"] == {"German": 1}
    assert "responses" not in found.numbers["guessed"]
