"""Evaluation against the naive way: pairs a second of a reward model, tokens a second of a policy.

    python benchmarks/evaluation.py [--pairs 400] [--prompts 128] [--hidden 128] [--layers 4]

A random Llama works twice on the CPU with one thread. It scores pairs as long as RewardBench's in batches of similar
length, as suites are scored here, and one pair at a time; the scores must agree. It answers prompts greedily in batches
with a key-value cache, as suites are generated here, and with `generate` of transformers one at a time; the answers
must agree.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ablate.evaluation.policy import Policy
from ablate.evaluation.sampling import Sampling
from ablate.models.loading import load_policy, load_reward_model, load_tokenizer, new_policy, save_model
from ablate.models.tokenizers import word_tokenizer
from ablate.pocket.vocabulary import vocabulary
from ablate.rewards.pairs import Pair
from ablate.rewards.reward_model import RewardModel
from ablate.rewards.stage import score_pairs

MEAN_TOKENS, SPREAD, LONGEST = 270.0, 0.75, 1600
"""Tokens of a response, log-normal: about the mean of RewardBench's subsets (its dataset card), and the longest."""


def made_pairs(count: int, seed: int) -> list[Pair]:
    """Return pairs of random words; both responses of a pair are about as long."""
    stream, words = random.Random(seed), sorted(vocabulary())
    pairs = []
    for number in range(count):
        length = stream.lognormvariate(math.log(MEAN_TOKENS) - SPREAD**2 / 2, SPREAD)
        sizes = [min(max(int(length * stream.uniform(0.7, 1.3)), 8), LONGEST) for _ in range(2)]
        chosen, rejected = (" ".join(stream.choices(words, k=size)) for size in sizes)
        prompt = ({"role": "user", "content": " ".join(stream.choices(words, k=stream.randint(10, 80)))},)
        pairs.append(Pair(str(number), "benchmark", "random", prompt, chosen, rejected))
    return pairs


def one_at_a_time(model: RewardModel, pairs: list[Pair]) -> list[tuple[float, float]]:
    """Return the scores of each pair, a pass a pair, padded by hand to the longer of the two."""
    found = []
    for pair in pairs:
        rows = [model.tokens(pair.prompt, text) for text in (pair.chosen, pair.rejected)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        with torch.no_grad():
            hidden = model.model.model(input_ids=ids, attention_mask=mask).last_hidden_state  # type: ignore[operator,union-attr]
            scores = model.model.score(hidden)[range(2), [len(row) - 1 for row in rows], 0]  # type: ignore[operator]
        found.append((float(scores[0]), float(scores[1])))
    return found


def timed(work: Any) -> tuple[float, Any]:
    """Return seconds of processor time, and what the work returned."""
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def random_model(hidden: int, layers: int, folder: Path) -> Path:
    """Write a Llama with random weights over the words of the pocket language; returns its folder."""
    tokenizer = word_tokenizer(vocabulary(), "pocket")
    shape = {"hidden_size": hidden, "layers": layers, "heads": 4, "max_positions": 2048, "ffn_size": 4 * hidden}
    save_model(new_policy(shape, tokenizer, seed=0), tokenizer, folder)
    return folder


def compare(unit: str, count: int, naive: tuple[str, float], ours: tuple[str, float]) -> None:
    """Print both ways, each with its processor time, and their ratio."""
    print(f"{'':24}{'CPU s':>8}{unit + '/s':>12}")
    for name, seconds in (naive, ours):
        print(f"{name:24}{seconds:8.1f}{count / seconds:12.1f}")
    print(f"ratio: {naive[1] / ours[1]:.2f}\n")


def score_both_ways(folder: Path, count: int) -> None:
    """Score pairs in batches and one at a time."""
    model = RewardModel(load_reward_model(folder, head_seed=0), load_tokenizer(folder))
    pairs = made_pairs(count, seed=0)
    tokens = sum(len(model.tokens(pair.prompt, text)) for pair in pairs for text in (pair.chosen, pair.rejected))
    print(f"{len(pairs)} pairs, {tokens / 2 / len(pairs):.0f} tokens a conversation")
    score_pairs(model, pairs[:8])  # the first pass of a process pays for what libraries set up
    ours, rows = timed(lambda: score_pairs(model, pairs))
    naive, scores = timed(lambda: one_at_a_time(model, pairs))
    worst = max(
        abs(row[side] - score[place])
        for row, score in zip(rows, scores, strict=True)
        for place, side in enumerate(("chosen", "rejected"))
    )
    if worst > 1e-4:
        raise SystemExit(f"the two ways differ by {worst:g}")
    compare("pairs", len(pairs), ("one pair at a time", naive), ("batches by length", ours))


def answer_both_ways(folder: Path, count: int, limit: int) -> None:
    """Answer prompts in batches and one at a time."""
    policy = Policy(load_policy(folder), load_tokenizer(folder), chat=True)
    prompts = [policy.render(pair.prompt) for pair in made_pairs(count, seed=1)]

    def one_by_one() -> list[str]:
        made = []
        for prompt in prompts:
            ids = torch.tensor([policy.encode(prompt)])
            model: Any = policy.model
            told = {
                "attention_mask": torch.ones_like(ids),
                "pad_token_id": policy.pad,
                "eos_token_id": list(policy.eos),
            }
            output = model.generate(ids, max_new_tokens=limit, do_sample=False, **told)
            made.append(policy.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
        return made

    policy.generate(prompts[:2], Sampling(2))
    ours, answers = timed(lambda: policy.generate(prompts, Sampling(limit)))
    naive, texts = timed(one_by_one)
    if [answer.text for answer in answers] != texts:
        raise SystemExit("the two ways give different answers")
    tokens = sum(answer.tokens for answer in answers)
    print(f"{count} prompts, {tokens / count:.0f} tokens an answer")
    compare("tokens", tokens, ("one prompt at a time", naive), ("batches by length", ours))


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--limit", type=int, default=64, help="new tokens of an answer")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_model(given.hidden, given.layers, Path(scratch) / "model")
        score_both_ways(folder, given.pairs)
        answer_both_ways(folder, given.prompts, given.limit)


if __name__ == "__main__":
    main()
