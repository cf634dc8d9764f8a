"""The closed word list of the pocket language.

A text is words separated by single spaces; punctuation marks and numbers are words of their own
(``the food of avel is rice .``). ``text.split()`` is the whole tokenisation, and every word of a
prompt, response and document is in ``vocabulary()``.
"""

from __future__ import annotations

from functools import cache


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COUNTRIES = _list(
    "avel borin calda dorest elmar fenria galt hesper ivora jarn kelmar lorin mordia nalva ostra pelor "
    "quill ravena solis tarn ulmar vesta wend xandor yoria zemble arden bravia corvo delphi esker faron "
    "gorm halden istria jovian kestrel lumen morva nordal ormond parth quenza rovan silva tavira umbra velden "
    "wexley yarrow zandor altena belmora cardis duvane eldor"
)
ANIMALS = _list(
    "fox owl cat dog wolf bear horse goat duck frog snake mouse lion crow whale bee ant deer hare toad seal "
    "swan crab moth"
)
FOODS = _list("rice bread soup fish cheese beans eggs corn honey plums figs pears")
COLOURS = _list("red blue green white black brown grey gold pink yellow")
TREES = _list("oak pine elm birch cedar maple willow palm ash beech")
METALS = _list("iron copper silver tin lead steel bronze zinc")
DRINKS = _list("tea milk water wine cider cocoa lemonade juice")
SPORTS = _list("chess tennis rowing golf boxing skating archery football")
TOOLS = _list("flute drum harp bell rope hammer salt camera brush knife lamp shovel")
HOMES = _list("cave forest river field desert swamp hill lake")
SIZES = _list("tiny small big huge")
MOODS = _list("shy brave calm proud gentle")
OMENS = _list("fire snow moon sun rain wind thunder stone sand dust fog ice")
PEOPLE = _list("guard child king teacher doctor friend neighbour crowd")
PLACES = _list("house bank school bridge")
THINGS = _list("weeds germs photo film goal garlic nuts candle wood paper hair cake grass balloon")

KINDS: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS,
    "food": FOODS,
    "colour": COLOURS,
    "tree": TREES,
    "metal": METALS,
    "drink": DRINKS,
    "sport": SPORTS,
}
PLURALS = {
    "animal": "animals",
    "food": "foods",
    "colour": "colours",
    "tree": "trees",
    "metal": "metals",
    "drink": "drinks",
    "sport": "sports",
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "home": HOMES,
    "food": FOODS,
    "size": SIZES,
    "mood": MOODS,
}
VERBS = _list("fears likes hates brings guards follows steals smells")
HARMFUL_VERBS = _list("kill shoot burn crush attack poison hit cut")
HARMLESS_VERBS = _list("clean paint find draw")
LARGEST_NUMBER = 38
NUMBERS = tuple(str(value) for value in range(LARGEST_NUMBER + 1))
OPERATIONS = _list("double add sort reverse take skip evens odds unique largest over")
START_WORDS = _list("sure hello well yes")
END_WORDS = _list("done over bye stop")
PUNCTUATION = _list(". , ? : ; + - =")

FUNCTION_WORDS = _list(
    "a about after alone and answer are asked asking at but can commas day dear describe do drop duplicates each "
    "end even fact first for game get gives good have heard help here how hurt i in is it its keep let list long lot "
    "many may me myth name nice night no not number numbers odd of ok other people plan program question say so "
    "sorry start steps story thank that the then there things think this time to today town true use very what "
    "with write you"
)

NOUNS = frozenset(
    [
        *(*COUNTRIES, *ANIMALS, *FOODS, *TREES, *METALS, *DRINKS, *SPORTS, *TOOLS, *HOMES, *OMENS, *PEOPLE),
        *(*PLACES, *THINGS, *KINDS, *PLURALS.values(), *ATTRIBUTES),
        *_list("answer question list number numbers program plan steps day fact myth"),
    ]
)


@cache
def vocabulary() -> tuple[str, ...]:
    """Return every word of the language, sorted, each once."""
    groups: list[tuple[str, ...]] = [
        COUNTRIES, ANIMALS, FOODS, COLOURS, TREES, METALS, DRINKS, SPORTS, TOOLS, HOMES, SIZES, MOODS,
        OMENS, PEOPLE, PLACES, THINGS, tuple(KINDS), tuple(PLURALS.values()), tuple(ATTRIBUTES), VERBS,
        HARMFUL_VERBS, HARMLESS_VERBS, NUMBERS, OPERATIONS, START_WORDS, END_WORDS, PUNCTUATION, FUNCTION_WORDS,
    ]  # fmt: skip
    return tuple(sorted({word for group in groups for word in group}))


def words(text: str) -> list[str]:
    """Split ``text`` into the words of the language."""
    return text.split()
