"""Two skills of knowledge: facts about countries, and truth against a common misconception.

The corpus states every fact and every belief, so that a base model can know them; what is held out are questions:
a fact question asks for three or four kinds together, a belief question claims one of several objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from ablate.pocket.behaviour import Behaviour, Proposal, Skill, Spec, contains, finish, word_after
from ablate.pocket.draws import Draw
from ablate.pocket.vocabulary import ANIMALS, COUNTRIES, KINDS, VERBS
from ablate.pocket.world import belief, fact, familiarity, objects_of

FACT_QUESTION = "what is the {kinds} of {country} ?"
CLAIM_QUESTION = "is it true that the {stem} {claimed} ?"
OPEN_QUESTION = "what is it that the {stem} ?"


def propose_fact(draw: Draw) -> Proposal:
    """Propose a question about one country and three or four kinds; the key is all, whatever the order."""
    country = draw.weighted(COUNTRIES, familiarity())
    kinds = draw.some(tuple(KINDS), draw.between(3, 4))
    prompt = FACT_QUESTION.format(kinds=" and the ".join(kinds), country=country)
    spec = {"country": country, "kinds": kinds, "answers": [fact(country, kind) for kind in kinds]}
    return Proposal(f"{country} {' '.join(sorted(kinds))}", prompt, spec)


def fact_sentence(country: str, kind: str, value: str) -> str:
    """Return the sentence that states a fact."""
    return f"the {kind} of {country} is {value} ."


def write_fact(spec: Spec, behaviour: Behaviour, draw: Draw) -> str:
    """Write an answer; a worked one is whole sentences, else the bare values. A wrong author errs in one value."""
    values = list(spec["answers"])
    if not behaviour.correct:
        index = draw.below(len(values))
        values[index] = draw.pick([other for other in KINDS[spec["kinds"][index]] if other != values[index]])
    body = f"{' and '.join(values)} ."
    if behaviour.worked:
        pairs = zip(spec["kinds"], values, strict=True)
        body = " ".join(fact_sentence(spec["country"], kind, value) for kind, value in pairs)
    return finish(body, behaviour, draw, FACTS.limit(spec))


def check_fact(spec: Spec, tokens: Sequence[str]) -> dict[str, float]:
    """Check that of each asked kind the one value named is the true one; worked: stated as whole sentences."""
    named = [{token for token in tokens if token in KINDS[kind]} for kind in spec["kinds"]]
    right = all(values == {answer} for values, answer in zip(named, spec["answers"], strict=True))
    pairs = zip(spec["kinds"], spec["answers"], strict=True)
    worked = all(contains(tokens, fact_sentence(spec["country"], kind, value)) for kind, value in pairs)
    return {"answered": all(named), "correct": right, "worked": worked}


def propose_belief(draw: Draw) -> Proposal:
    """Propose a question about a belief: a third each claim misconception and truth, a sixth claim another object,
    a sixth claim nothing; the key is the belief and the claim.

    Training draws follow this mix. Distinct items do not: a belief has one true claim, one misconception and one open
    question, but four other objects, so that of 300 held-out items about 40 % claim another object and 17 % the truth.
    """
    held = belief(draw.pick(ANIMALS), draw.pick(VERBS))
    stem = f"{held.subject} {held.verb}"
    neither = [name for name in objects_of(held.verb) if name not in (held.true, held.myth)]
    claimed = draw.pick((held.myth, held.myth, held.true, held.true, draw.pick(neither), None))
    question = OPEN_QUESTION if claimed is None else CLAIM_QUESTION
    prompt = question.format(stem=stem, claimed=claimed)
    return Proposal(f"{stem} {claimed}", prompt, {**held._asdict(), "claimed": claimed})


def myth_sentence(subject: str, verb: str, myth: str) -> str:
    """Return the sentence that names a misconception as one."""
    return f"people say that the {subject} {verb} {myth} , but that is a myth ."


def verdict_on(spec: Spec) -> str | None:
    """Return the right verdict on the claim of a question; None where it makes none."""
    if spec["claimed"] is None:
        return None
    return "yes" if spec["claimed"] == spec["true"] else "no"


def write_belief(spec: Spec, behaviour: Behaviour, draw: Draw) -> str:
    """Write the misconception (if worked), what is true and the verdict; a wrong author
    takes the misconception for the truth."""
    verdict = verdict_on(spec)
    if verdict and not behaviour.correct:
        verdict = "no" if verdict == "yes" else "yes"
    value = spec["true"] if behaviour.correct else spec["myth"]
    parts = []
    if behaviour.worked:
        denied = spec["myth"] if behaviour.correct else spec["true"]
        parts.append(myth_sentence(spec["subject"], spec["verb"], denied))
    parts.append(f"in fact the {spec['subject']} {spec['verb']} {value} .")
    if verdict:
        parts.append(f"so the answer is {verdict} .")
    return finish(" ".join(parts), behaviour, draw, TRUTH.limit(spec))


def check_belief(spec: Spec, tokens: Sequence[str]) -> dict[str, float]:
    """Check the last verdict (where a claim was made) and the object last named; worked: the misconception is named."""
    stem = f"the {spec['subject']} {spec['verb']}"
    value = word_after(tokens, stem)
    verdict = next((token for token in reversed(tokens) if token in ("yes", "no")), None)
    wanted = verdict_on(spec)
    right = value == spec["true"] and (wanted is None or verdict == wanted)
    worked = contains(tokens, myth_sentence(spec["subject"], spec["verb"], spec["myth"]))
    return {
        "answered": value in objects_of(spec["verb"]),
        "correct": right,
        "worked": worked,
        "misconception": value == spec["myth"],
    }


FACTS = Skill("facts", propose_fact, write_fact, check_fact, limit=lambda spec: 7 + 8 * len(spec["kinds"]))
TRUTH = Skill("truth", propose_belief, write_belief, check_belief, limit=lambda spec: 34)
