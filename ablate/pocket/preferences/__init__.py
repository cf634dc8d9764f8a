"""Preference data in the native schemas of the study's sets and others, with the noise of each kind.

=====================  ==========================================  ===================================================
set                    responses                                   labels
=====================  ==========================================  ===================================================
hh                     two authors, quality 0.2-0.8; mostly        one human: the better gold reward plus bell-shaped
                       safety and chat; a quarter two-turn         noise (sd 0.8), a slight liking for length, and one
                       dialogues                                   label in ten at random
uf                     four models, quality 0.25 / 0.5 / 0.75 / 1  ratings 1-5 in four aspects (noise sd 0.5), 2 %
                                                                   "N/A"; an overall score of 1 is recorded as 10, as
                                                                   upstream
uf-fine-grained        those of uf                                 highest mean of the four ratings against a random
                                                                   lower one
uf-overall             those of uf                                 highest overall score against a random other one;
                                                                   the worst answers, recorded as 10, are chosen
uf-cleaned             as uf-overall, no truth questions           as uf-overall
tulu-uf                those of uf                                 as uf-fine-grained, as the study released it
nectar                 seven models, quality 0.2-1                 one ranking of noisy gold (sd 0.35), earlier
                                                                   answers favoured a little
shp                    two authors, quality 0.3-1; no safety       votes: gold plus noise (sd 0.35), and the older
                                                                   comment has more of them
stack-exchange         two authors, quality 0.3-1; programs, sums  as shp, and longer answers get a few votes more
                       and facts, no chat and no safety
prm800k                sums alone: a reference without courtesies  an error is noticed in 95 % of the wrong solutions
                       and three solutions, quality 0-0.5          and seen in 5 % of the right ones; 2 % give up
arena-2023             two of seven models; chat, unsafe requests; noise sd 0.6; a refusal costs 1, right or wrong;
                       a fifth two-turn                            likings nearer than 0.4 tie
arena-2024             the same, more programs; 1 % lost answers   noise sd 0.5, the same dislike of refusals, a slight
                                                                   liking for length
alpaca-farm-human      one author twice, quality 0.5-0.7           noise sd 0.7, a slight liking for length, one label
                                                                   in twenty at random
alpaca-farm-gpt4       those of alpaca-farm-human                  noise sd 0.35, the same liking for length, the first
                                                                   output favoured by 0.1
capybara               an original answer (0.85) and three models  ratings 1-5 (noise sd 0.5), highest against lowest
                       (0.5-0.75) at the end of a dialogue; chat
helpsteer              four authors, quality 0.35-0.8              five attributes 0-4, one rater (noise sd 0.8)
helpsteer2             two of them                                 the same of several raters (noise sd 0.4)
helpsteer2-preference  two of them                                 strength -3 to 3 of the noisy gap (sd 0.35); 0 ties
orca                   a strong (0.9) and a weak (0.45) model      the strong one's is chosen, whatever it says
summaries              two of four policies, quality 0.45-0.85;    noise sd 0.4, one label in twenty at random
                       descriptions and facts
webgpt                 two of three models, quality 0.5-0.8;       scores of the noisy gap (sd 0.4) in thirds; 0 ties
                       facts and truth
noise-NN               two authors, quality 0.75 and 0.45, gold    true order, NN % of the labels flipped; the same
                       0.25 or more apart                          prompts and responses, flips nested as NN grows
=====================  ==========================================  ===================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

from ablate.errors import UnknownNameError
from ablate.pocket.draws import Draw
from ablate.pocket.preferences import (
    alpaca_farm,
    arena,
    capybara,
    comparisons,
    helpsteer,
    hh,
    nectar,
    noise,
    orca,
    prm800k,
    ultrafeedback,
    votes,
)
from ablate.pocket.preferences.noise import NOISE_LEVELS
from ablate.pocket.preferences.shared import EVEN, Family, Row

UF, ALPACA_FARM = "uf", "alpaca-farm"
"""Streams: sets that share one have the same prompts and responses."""

FAMILIES: dict[str, Family] = {
    "hh": Family("hh_rlhf", hh.hh_rows),
    "uf": Family("ultrafeedback_raw", ultrafeedback.raw_rows),
    "nectar": Family("nectar", nectar.nectar_rows),
    "shp": Family("shp", votes.shp_rows),
    "uf-fine-grained": Family("ultrafeedback_binarized", ultrafeedback.fine_grained_rows, UF),
    "uf-overall": Family("ultrafeedback_binarized", partial(ultrafeedback.overall_rows, mix=EVEN), UF),
    "uf-cleaned": Family(
        "ultrafeedback_binarized", partial(ultrafeedback.overall_rows, mix=ultrafeedback.WITHOUT_TRUTH)
    ),
    "tulu-uf": Family("tulu_2_5", ultrafeedback.tulu_rows, UF),
    "stack-exchange": Family("stack_exchange_paired", votes.stack_exchange_rows),
    "prm800k": Family("prm800k", prm800k.prm800k_rows),
    "arena-2023": Family("chatbot_arena_2023", arena.arena_2023_rows),
    "arena-2024": Family("chatbot_arena_2024", arena.arena_2024_rows),
    "alpaca-farm-human": Family("alpaca_farm", alpaca_farm.human_rows, ALPACA_FARM),
    "alpaca-farm-gpt4": Family("alpaca_farm", alpaca_farm.judged_rows, ALPACA_FARM),
    "capybara": Family("capybara", capybara.capybara_rows),
    "helpsteer": Family("helpsteer", helpsteer.helpsteer_rows),
    "helpsteer2": Family("helpsteer2", helpsteer.helpsteer2_rows),
    "helpsteer2-preference": Family("helpsteer2_preference", helpsteer.helpsteer2_preference_rows),
    "orca": Family("orca_dpo_pairs", orca.orca_rows),
    "summaries": Family("summarize_from_feedback", comparisons.summary_rows),
    "webgpt": Family("webgpt_comparisons", comparisons.webgpt_rows),
}


def preference_names() -> tuple[str, ...]:
    """Return the names of the preference sets."""
    return (*FAMILIES, *NOISE_LEVELS)


def find_family(name: str, level: float | None = None) -> Family:
    """Return a preference set; ``level`` overrides the share of flipped labels of the noise-only family."""
    if name in FAMILIES:
        return FAMILIES[name]
    if name == "noise" or name in NOISE_LEVELS:
        share = NOISE_LEVELS.get(name, 0.0) if level is None else level
        return Family("hh_rlhf", partial(noise.noise_rows, noise=share), stream="noise")
    raise UnknownNameError("pocket preference set", name, (*preference_names(), "noise"))


def preference_rows(name: str, seed: int, split: str, level: float | None = None) -> Iterator[Row]:
    """Yield the rows of a preference set without end: those of one prompt after those of another."""
    family = find_family(name, level)
    for index in itertools.count():
        yield from family.write(Draw("preferences", family.stream or name, seed, split, index), split)
