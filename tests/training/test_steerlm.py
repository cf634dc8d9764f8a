"""SteerLM: from ratings to conditions, tokens, a policy that is asked in its chat template; by hand and resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from ablate.algorithms.steerlm import SteerLMParameters, quantised
from ablate.context import StageContext, read_json
from ablate.data import condition
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.tokenise import run as tokenise
from ablate.errors import StageError
from ablate.models.chat import render
from ablate.models.loading import load_policy, load_reward_model, load_tokenizer, new_policy, save_model
from ablate.models.reward_heads import fold_attributes
from ablate.models.tokenizers import word_tokenizer
from ablate.rewards import rate
from ablate.training.checkpoints import Cadence
from ablate.training.sft import ConversationTrainer, run_method

Stages = Callable[..., StageContext]
WORDS = ["help", "long", ":", ",", *map(str, range(5)), "how", "are", "you", "well", "thanks", "no"]
CONDITION = "help : {helpfulness} , long : {verbosity}"
ARCHITECTURE = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 96}
ASKED = "help : 4 , long : 1"
PARAMETERS: dict[str, Any] = {
    "learning_rate": 1e-2,
    "epochs": 4,
    "batch_size": 4,
    "condition": CONDITION,
    "ask": "helpfulness=4, verbosity=1",
}


def record(name: str, prompt: str, *responses: tuple[str, dict[str, float] | None]) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": [{"role": "user", "content": prompt}],
        "responses": [
            {"messages": [{"role": "assistant", "content": text}], "aspects": ratings, "score": float(place)}
            for place, (text, ratings) in enumerate(responses)
        ],
        "source": "s",
    }


RATED = [
    record(
        "r0",
        "how are you",
        ("well", {"helpfulness": 3.5, "verbosity": -0.7, "correctness": 1.0}),
        ("no", {"helpfulness": 0.49, "verbosity": 1.2}),
    ),
    record("r1", "you", ("well , thanks", {"helpfulness": 9.0, "verbosity": 2.49999})),
]
CONFIG = {"condition": CONDITION, "attributes": ["helpfulness", "verbosity"], "lowest": 0, "highest": 4}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    tokenizer = word_tokenizer(WORDS, "pocket")
    save_model(new_policy(ARCHITECTURE, tokenizer, seed=1), tokenizer, tmp_path / "policy")
    return tmp_path / "policy"


def condition_and_tokens(make_context: Stages, records: Path, tokenizer: Path) -> tuple[StageContext, StageContext]:
    answers = make_context("answers", CONFIG, {"records": records})
    condition.run(answers)
    tokens = make_context(
        "tokens",
        {"format": "answers", "max_length": 64, "truncation": "keep-start"},
        {"data": answers.output / "answers.jsonl", "tokenizer": tokenizer},
    )
    tokenise(tokens)
    return answers, tokens


def test_text_and_mask_by_hand(policy: Path, make_context: Stages, tmp_path: Path) -> None:
    """Ratings are rounded, halves up, and kept within 0 to 4; the loss is over the response and its end alone."""
    write_json_lines(tmp_path / "records.jsonl", RATED)
    answers, tokens = condition_and_tokens(make_context, tmp_path / "records.jsonl", policy)
    rows = read_json_lines(answers.output / "answers.jsonl")
    assert [(row["id"], row["prompt"][0]["content"], row["chosen"][0]["content"]) for row in rows] == [
        ("r0-0", "how are you\nhelp : 4 , long : 0", "well"),
        ("r0-1", "how are you\nhelp : 0 , long : 1", "no"),
        ("r1-0", "you\nhelp : 4 , long : 2", "well , thanks"),
    ]
    assert read_json(answers.output / "report.json") == {
        "in": 2,
        "responses": 3,
        "values": {"helpfulness": {"0": 1, "4": 2}, "verbosity": {"0": 1, "1": 1, "2": 1}},
    }
    tokenizer = load_tokenizer(policy)
    found = pq.read_table(tokens.output / "tokens.parquet").to_pylist()
    texts = [
        ("<|user|> how are you help : 4 , long : 0 <|assistant|>", "well <|end|>"),
        ("<|user|> how are you help : 0 , long : 1 <|assistant|>", "no <|end|>"),
        ("<|user|> you help : 4 , long : 2 <|assistant|>", "well , thanks <|end|>"),
    ]
    for row, (prompt, answer) in zip(found, texts, strict=True):
        assert row["input_ids"] == tokenizer.encode(f"{prompt} {answer}")
        assert row["loss_mask"] == [0] * len(prompt.split()) + [1] * len(answer.split())


def test_a_condition_on_what_is_not_rated_is_named(make_context: Stages, tmp_path: Path) -> None:
    write_json_lines(tmp_path / "records.jsonl", [record("r", "you", ("no", {"helpfulness": 1.0}))])
    context = make_context("answers", CONFIG, {"records": tmp_path / "records.jsonl"})
    with pytest.raises(StageError, match="a response is not rated for verbosity"):
        condition.run(context)


def test_values_are_whole_and_within_bounds() -> None:
    ratings = {"a": -3.0, "b": 0.5, "c": 1.5, "d": 2.4999, "e": 77.0}
    assert quantised(ratings, 0, 4) == {"a": 0, "b": 1, "c": 2, "d": 2, "e": 4}
    assert quantised(ratings, 1, 10) == {"a": 1, "b": 1, "c": 2, "d": 2, "e": 10}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition": "good"}, "must name each of its attributes once"),
        ({"condition": "{a} {a}"}, "must name each of its attributes once"),
        ({"condition": "{a:.1f}"}, "must name each of its attributes once"),
        ({"condition": "{}"}, "must name each of its attributes once"),
        ({"condition": "{a"}, "condition '{a'"),
        ({"ask": "helpfulness"}, r"name=value with whole values \(found 'helpfulness'\)"),
        ({"ask": "helpfulness=3.5"}, r"whole values \(found 'helpfulness=3.5'\)"),
        ({"ask": "helpfulness=4, helpfulness=3"}, "written twice"),
        ({"ask": "helpfulness=4"}, "ask has values for helpfulness; the condition has the attributes helpfulness, cor"),
        ({"highest": 3}, "helpfulness=4 is not within 0 to 3"),
        ({"lowest": 4}, "highest 4 is not above lowest 4"),
    ],
)
def test_what_can_not_be_asked_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SteerLMParameters(**changes)


def test_the_default_is_the_papers_form() -> None:
    parameters = SteerLMParameters()
    assert parameters.asked == "helpfulness:4,correctness:4,coherence:4,complexity:4,verbosity:2"
    assert parameters.learning_rate == 5e-6
    assert SteerLMParameters(ask="verbosity=2,  helpfulness=4,correctness=4, coherence=4, complexity=4").asked == (
        parameters.asked
    ), "in the order of the condition"


def test_a_reward_model_rates_every_response_by_its_heads(policy: Path, make_context: Stages, tmp_path: Path) -> None:
    """Against one forward pass for each response; the third is longer than the model's context."""
    tokenizer = load_tokenizer(policy)
    model = load_reward_model(policy, head_seed=0, outputs=2)
    heads = fold_attributes(model, {"helpfulness": 1.0, "verbosity": -0.5})
    save_model(model, tokenizer, tmp_path / "rm")
    heads.save(tmp_path / "rm")
    own = {"helpfulness": 2.0, "verbosity": 1.0}
    rows = [
        record("r0", "how are you", ("well", own), ("no " * 200, own)),
        record("r1", "you", ("well , thanks", {"helpfulness": 1.0}), ("no", None)),
        record("r2", "no " * 200, ("well", own), ("no", own)),
    ]
    write_json_lines(tmp_path / "records.jsonl", rows)
    context = make_context("rate", {}, {"records": tmp_path / "records.jsonl", "reward_model": tmp_path / "rm"})
    report = rate.run(context)
    found = read_json_lines(context.output / "records.jsonl")
    assert [(row["id"], len(row["responses"])) for row in found] == [("r0", 1), ("r1", 2)]
    assert report["dropped"] == {"no-response-rated": 1} and report["responses"] == {"in": 6, "unrated": 3}
    trunk, errors = load_reward_model(tmp_path / "rm").model, []
    for row in found:
        for response in row["responses"]:
            text = f"<|user|> {row['prompt'][0]['content']} <|assistant|> {response['messages'][0]['content']} <|end|>"
            with torch.no_grad():
                last = trunk(input_ids=torch.tensor([tokenizer.encode(text)])).last_hidden_state[0, -1]
            expected = (heads.heads_AH @ last).tolist()
            assert response["aspects"] == pytest.approx(
                dict(zip(("helpfulness", "verbosity"), expected, strict=True)), abs=1e-5
            )
            errors.append(expected[0])
    stated = [abs(errors[0] - 2.0), abs(errors[1] - 1.0)]
    assert report["attributes"]["helpfulness"] == {
        "mean": pytest.approx(np.mean(errors), abs=1e-5),
        "rated_by_the_set": 2,
        "mean_absolute_error": pytest.approx(np.mean(stated), abs=1e-5),
    }


@pytest.fixture
def tokens(policy: Path, make_context: Stages, tmp_path: Path) -> Path:
    """Two answers to every prompt; which one is right follows from the condition alone."""
    rows = [
        record(
            f"r{number}",
            " ".join(["how", "are", "you"][: 1 + number % 3]),
            ("well , thanks", {"helpfulness": 4.0, "verbosity": 1.0}),
            ("no", {"helpfulness": 0.0, "verbosity": 0.0}),
        )
        for number in range(9)
    ]
    write_json_lines(tmp_path / "records.jsonl", rows)
    return condition_and_tokens(make_context, tmp_path / "records.jsonl", policy)[1].output / "tokens.parquet"


def config(**changes: Any) -> dict[str, Any]:
    return {"algorithm": "steerlm", "parameters": {**PARAMETERS, **changes}, "seed": 3}


def answer(folder: Path, question: str) -> str:
    model, tokenizer = load_policy(folder).eval(), load_tokenizer(folder)
    ids = tokenizer.encode(render(tokenizer, [{"role": "user", "content": question}], prompt=True))
    with torch.no_grad():
        made = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :]
    return str(tokenizer.decode(made, skip_special_tokens=True))


def test_the_policy_gives_what_it_is_asked_for(policy: Path, tokens: Path, make_context: Stages) -> None:
    """One training, two wishes: only what the chat template asks differs. The first loss is a slow sum over answers."""
    folders = {}
    for ask in ("helpfulness=4, verbosity=1", "helpfulness=0, verbosity=0"):
        context = make_context(ask[:13], config(ask=ask, epochs=12), {"policy": policy, "data": tokens})
        run_method(context)
        folders[ask] = context.output / "model"
    good, bad = folders.values()
    one, other = (load_file(folder / "model.safetensors") for folder in (good, bad))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert answer(good, "how are you") == "well , thanks"
    assert answer(bad, "how are you") == "no"
    tokenizer = load_tokenizer(good)
    assert render(tokenizer, [{"role": "user", "content": "you"}], prompt=True).split() == (
        f"<|user|> you {ASKED} <|assistant|>".split()
    )


def test_the_loss_is_over_answers_alone(policy: Path, tokens: Path, make_context: Stages) -> None:
    context = make_context(
        "one", config(epochs=1, batch_size=18, scheduler="constant"), {"policy": policy, "data": tokens}
    )
    run_method(context)
    model, total, count = load_policy(policy).eval(), 0.0, 0
    for row in pq.read_table(tokens).to_pylist():
        with torch.no_grad():
            logps = model(torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
        start = row["input_ids"].index(load_tokenizer(policy).convert_tokens_to_ids("<|assistant|>")) + 1
        total -= sum(float(logps[at - 1, row["input_ids"][at]]) for at in range(start, len(row["input_ids"])))
        count += len(row["input_ids"]) - start
    first = json.loads((context.output / "history.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(total / count, rel=1e-5) and first["loss"] > math.log(5)


def test_resuming_gives_the_same_files_bitwise(
    policy: Path, tokens: Path, make_context: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"policy": policy, "data": tokens}
    whole, first = (make_context(name, config(), given) for name in ("whole", "first"))
    run_method(whole)
    save = ConversationTrainer._save_checkpoint

    def interrupt(self: Any, model: Any, trial: Any) -> None:
        save(self, model, trial)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ConversationTrainer, "_save_checkpoint", interrupt)
        run_method(first, cadence=Cadence(steps=7))
    again = make_context("again", config(), given, previous_work=[first.work])
    run_method(again)
    for name in ("model/model.safetensors", "model/chat_template.jinja", "history.jsonl"):
        assert (whole.output / name).read_bytes() == (again.output / name).read_bytes(), name


def test_a_second_training_asks_once(policy: Path, tokens: Path, make_context: Stages) -> None:
    first = make_context("first", config(epochs=1), {"policy": policy, "data": tokens})
    run_method(first)
    second = make_context("second", config(epochs=1, ask="helpfulness=3, verbosity=0"), {**first.inputs})
    run_method(StageContext(**{**vars(second), "inputs": {**second.inputs, "policy": first.output / "model"}}))
    text = render(load_tokenizer(second.output / "model"), [{"role": "user", "content": "you"}], prompt=True)
    assert " ".join(text.split()) == "<|user|> you help : 3 , long : 0 <|assistant|>"


def test_a_condition_that_can_not_be_spelt_is_refused(policy: Path, tokens: Path, make_context: Stages) -> None:
    changes = {"condition": "helpfulness : {helpfulness} , long : {verbosity}"}
    context = make_context("run", config(**changes), {"policy": policy, "data": tokens})
    with pytest.raises(
        StageError, match=r"the tokenizer can't spell 'helpfulness' of the condition 'helpfulness : 4 , "
    ):
        run_method(context)
