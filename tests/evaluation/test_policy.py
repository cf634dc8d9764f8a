"""The engine against slow references: log-likelihoods token by token, greedy decoding one prompt at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ablate.evaluation import policy as engine
from ablate.evaluation.journal import Journal
from ablate.evaluation.policy import Policy
from ablate.evaluation.sampling import Sampling
from ablate.models.loading import load_policy, load_tokenizer

PROMPTS = ["a", "What is the capital of France?", "Write two words about the sea, then stop.", "zz zz " * 20]


def open_policy(folder: Path, *, chat: bool = True) -> Policy:
    return Policy(load_policy(folder), load_tokenizer(folder), chat=chat)


def slow_greedy(policy: Policy, prompt: str, limit: int) -> list[int]:
    ids = policy.encode(prompt)
    made: list[int] = []
    while len(made) < limit:
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([ids + made])).logits[0, -1]
        made.append(int(logits.argmax()))
        if made[-1] in policy.eos:
            break
    return made


def slow_loglikelihood(policy: Policy, context: str, continuation: str) -> tuple[float, bool]:
    before, whole = policy.encode(context), policy.encode(context + continuation)
    total, greedy = 0.0, True
    for end in range(len(before), len(whole)):
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([whole[:end]])).logits[0, -1]
        total += float(logits.double().log_softmax(-1)[whole[end]])
        greedy = greedy and int(logits.argmax()) == whole[end]
    return total, greedy


def test_greedy_equals_the_loop_whatever_the_batch_size(byte_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = open_policy(byte_policy)
    prompts = [policy.render([{"role": "user", "content": text}]) for text in PROMPTS]
    wide = policy.generate(prompts, Sampling(limit=12))
    monkeypatch.setattr(engine, "SAMPLE_TOKENS", 1)
    assert policy.generate(prompts, Sampling(limit=12)) == wide
    for prompt, answer in zip(prompts, wide, strict=True):
        made = slow_greedy(policy, prompt, 12)
        ended = made[-1] in policy.eos
        assert answer.text == policy.tokenizer.decode(made[: len(made) - ended], skip_special_tokens=True)
        assert (answer.finish, answer.tokens) == ("eos" if ended else "length", len(made))


def test_samples_do_not_depend_on_the_batch_size(byte_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = open_policy(byte_policy)
    wide = policy.generate(PROMPTS * 2, Sampling(limit=8, temperature=0.7, top_p=0.9, seed=5))
    assert policy.generate(PROMPTS * 2, Sampling(limit=8, temperature=0.7, top_p=0.9, seed=6)) != wide
    monkeypatch.setattr(engine, "SAMPLE_TOKENS", 1)
    assert policy.generate(PROMPTS * 2, Sampling(limit=8, temperature=0.7, top_p=0.9, seed=5)) == wide


@pytest.mark.parametrize("chat", [True, False])
def test_loglikelihoods_equal_the_loop(byte_policy: Path, monkeypatch: pytest.MonkeyPatch, chat: bool) -> None:
    policy = open_policy(byte_policy, chat=chat)
    requests = [(context, choice) for context in PROMPTS[:3] for choice in (" A", " B", " a longer answer", "!")]
    found = policy.loglikelihoods(requests)
    monkeypatch.setattr(engine, "SCORE_TOKENS", 1)
    assert [pair and pair[1] for pair in policy.loglikelihoods(requests)] == [pair and pair[1] for pair in found]
    for (context, continuation), answer in zip(requests, found, strict=True):
        expected = slow_loglikelihood(policy, context, continuation)
        assert answer is not None
        assert answer[0] == pytest.approx(expected[0], abs=1e-4)
        assert answer[1] is expected[1]


def test_loglikelihoods_equal_those_of_lm_eval(byte_policy: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    policy = open_policy(byte_policy, chat=False)
    oracle = HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, device="cpu", batch_size=3)
    requests = [("Q: one?\nA:", " yes"), ("Q: one?\nA:", " no, never"), ("Q: two ", "words"), ("", "empty context")]
    instances = [Instance("loglikelihood", {}, request, index) for index, request in enumerate(requests)]
    expected = oracle.loglikelihood(instances, disable_tqdm=True)
    for answer, (logprob, greedy) in zip(policy.loglikelihoods(requests), expected, strict=True):
        assert answer is not None
        assert answer[0] == pytest.approx(logprob, abs=1e-4)
        assert answer[1] == greedy


def test_what_does_not_fit_the_context_is_never_cut(byte_policy: Path) -> None:
    policy = open_policy(byte_policy, chat=False)
    assert policy.context == 512
    full, nearly, short = "x" * 512, "x" * 509, "x"
    answers = policy.generate([full, nearly, short], Sampling(limit=10))
    assert (answers[0].text, answers[0].finish, answers[0].tokens) == ("", "too_long", 0)
    assert answers[1].tokens <= 3
    assert answers[2] == policy.generate([short], Sampling(limit=10))[0]
    found = policy.loglikelihoods([(full, "y"), ("x" * 511, "y"), ("x" * 511, "yy")])
    assert [pair is None for pair in found] == [True, False, True]


def test_stop_strings_are_cut_off(byte_policy: Path) -> None:
    policy = open_policy(byte_policy, chat=False)
    whole = policy.generate(["abc"], Sampling(limit=10))[0]
    mark = whole.text[3]
    cut = policy.generate(["abc"], Sampling(limit=10, stop=["never there", mark]))[0]
    assert (cut.text, cut.finish) == (whole.text[: whole.text.index(mark)], "stop")


def test_the_template_is_applied_once_and_the_prefix_follows_it(byte_policy: Path) -> None:
    policy = open_policy(byte_policy)
    text = policy.render([{"role": "user", "content": "hi"}], "Answer:")
    assert text == "<|user|>\nhi\n<|assistant|>\nAnswer:"
    tokens = policy.tokenizer.convert_ids_to_tokens(policy.encode(text))
    assert [tokens.count(mark) for mark in ("<|user|>", "<|assistant|>")] == [1, 1]


def test_evaluation_and_training_see_the_same_prompt_tokens(byte_policy: Path) -> None:
    from ablate.data.tokenise import Limits, Tally, encode_prompts

    policy = open_policy(byte_policy)
    rows = [{"id": text, "prompt": [{"role": "user", "content": text}]} for text in PROMPTS]
    encoded = encode_prompts(rows, policy.tokenizer, Limits(), Tally())
    assert [row["prompt_ids"] for row in encoded] == [policy.encode(policy.render(row["prompt"])) for row in rows]


class Stopped(Exception):
    """Stands for a signal in the middle of the work."""


def stop_after(policy: Policy, calls: int) -> list[int]:
    """Let the model answer ``calls`` forward passes and then stop; returns the list that counts them."""
    made: list[int] = []
    own = policy.model.forward

    def forward(*given: object, **named: object) -> object:
        if len(made) == calls:
            raise Stopped
        made.append(1)
        return own(*given, **named)

    policy.model.forward = forward  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("torn", [False, True])
def test_an_attempt_goes_on_where_the_one_before_was_stopped(
    byte_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    monkeypatch.setattr(engine, "SAMPLE_TOKENS", 1)  # a batch for each prompt
    how = Sampling(limit=6, temperature=0.7, seed=5)
    whole = open_policy(byte_policy).generate(PROMPTS, how)
    (tmp_path / "1").mkdir()
    first = open_policy(byte_policy)
    stop_after(first, 15)
    with pytest.raises(Stopped):
        first.generate(PROMPTS, how, kept=Journal(tmp_path / "1").part("x"))
    before = Journal(tmp_path / "2", (tmp_path / "1",)).part("x")
    assert 0 < len(before.known) < len(PROMPTS)
    if torn:
        file = tmp_path / "1" / "answers-x.jsonl"
        file.write_text(file.read_text() + '[[3, ["half an ans')
    (tmp_path / "2").mkdir()
    second = open_policy(byte_policy)
    passes = stop_after(second, 1000)
    assert second.generate(PROMPTS, how, kept=Journal(tmp_path / "2", (tmp_path / "1",)).part("x")) == whole
    assert len(passes) == sum(answer.tokens for row, answer in enumerate(whole) if row not in before.known)


def test_likelihoods_go_on_where_they_were_stopped(
    byte_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SCORE_TOKENS", 1)
    requests = [(prompt, answer) for prompt in PROMPTS for answer in (" A", " yes")]
    whole = open_policy(byte_policy, chat=False).loglikelihoods(requests)
    (tmp_path / "1").mkdir()
    first = open_policy(byte_policy, chat=False)
    stop_after(first, 3)
    with pytest.raises(Stopped):
        first.loglikelihoods(requests, kept=Journal(tmp_path / "1").part("x"))
    (tmp_path / "2").mkdir()
    second = open_policy(byte_policy, chat=False)
    passes = stop_after(second, 1000)
    again = second.loglikelihoods(requests, kept=Journal(tmp_path / "2", (tmp_path / "1",)).part("x"))
    assert again == whole
    third = open_policy(byte_policy, chat=False)
    all_passes = stop_after(third, 1000)
    third.loglikelihoods(requests)
    assert len(passes) == len(all_passes) - 3
