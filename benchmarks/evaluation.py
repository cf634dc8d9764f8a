"""Evaluation against the naive way: pairs a second of a reward model on pairs as long as RewardBench's.

    python benchmarks/evaluation.py [--pairs 400] [--hidden 128] [--layers 4]

A random Llama scores the same pairs twice on the CPU with one thread: in batches of similar length, as suites are
scored here, and one pair at a time. Prints pairs a second of both and their ratio; the scores must agree.
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

from ablate.models.loading import load_reward_model, load_tokenizer, new_policy, save_model
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shape = {"hidden_size": arguments.hidden, "layers": arguments.layers, "heads": 4, "max_positions": 2048}
    tokenizer = word_tokenizer(vocabulary(), "pocket")
    with tempfile.TemporaryDirectory() as folder:
        policy = new_policy({**shape, "ffn_size": 4 * arguments.hidden}, tokenizer, seed=0)
        save_model(policy, tokenizer, Path(folder) / "policy")
        loaded = load_reward_model(Path(folder) / "policy", head_seed=0)
        model = RewardModel(loaded, load_tokenizer(Path(folder) / "policy"))
    pairs = made_pairs(arguments.pairs, seed=0)
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
    print(f"{'':24}{'CPU s':>8}{'pairs/s':>10}")
    for name, seconds in (("one pair at a time", naive), ("batches by length", ours)):
        print(f"{name:24}{seconds:8.1f}{len(pairs) / seconds:10.1f}")
    print(f"ratio: {naive / ours:.2f}")


if __name__ == "__main__":
    main()
