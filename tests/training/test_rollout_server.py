"""Rollouts over HTTP, from a small server that answers as vLLM does and samples with the weights it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from trl.generation import vllm_client

from ablate.algorithms.dpo import DPOParameters
from ablate.context import Resources
from ablate.errors import StageError
from ablate.models.loading import load_policy, load_reward_model, load_tokenizer, save_model
from ablate.training import policy_gradient
from ablate.training.lora import trained_weights, with_adapter
from ablate.training.rollout_server import RolloutServer
from ablate.training.rollouts import sample
from ablate.training.seeding import derive_seed

EOS = frozenset({1, 3})


class FakeVLLM(ThreadingHTTPServer):
    """The endpoints that TRL's client uses; weights arrive beside HTTP, as they do over NCCL."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = load_policy(folder)
        self.asked: list[tuple[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def receive(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        own = dict(self.model.named_parameters())
        announced = next(body for path, body in reversed(self.asked) if path == "/update_weights")["update_info"]
        with torch.no_grad():
            received = [(name, tensor) for name, tensor in tensors]
            assert [name for name, _ in received] == announced["names"]
            assert [list(tensor.shape) for _, tensor in received] == announced["shapes"]
            assert {name for name, _ in received} == own.keys()
            for name, tensor in received:
                own[name].copy_(tensor)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for prompt in body["prompt"]:
            with self.lock:
                [found] = sample(
                    self.model,
                    [prompt],
                    max_new_tokens=body["max_tokens"],
                    temperature=body["temperature"],
                    eos_token_ids=body["stop_token_ids"],
                    pad_token_id=0,
                    generator_seed=body["seed"],
                    batch_size=1,
                )
            choices.append({"prompt_token_ids": prompt, "token_ids": found.ids, "logprobs": None})
        return {"choices": choices}


class _Handler(BaseHTTPRequestHandler):
    server: FakeVLLM

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "policy"}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(text or b"{}")
        self.server.asked.append((self.path, body))
        self._answer(self.server.complete(body) if self.path == "/v1/completions" else {"success": True})

    def _answer(self, value: dict[str, Any]) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def server(policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVLLM]:
    """A server, and TRL's client as it is with vllm installed on a GPU, but for NCCL."""
    fake = FakeVLLM(policy_folder)

    class Engine:
        @staticmethod
        def trainer_send_weights(iterator: Any, trainer_args: Any) -> None:
            while not any(path == "/update_weights" for path, _ in fake.asked[-1:]):
                pass  # announced in another thread
            fake.receive(iterator)

    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda *a, **k: True)
    monkeypatch.setattr(vllm_client, "NCCLWeightTransferEngine", Engine, raising=False)
    monkeypatch.setattr(vllm_client, "NCCLTrainerSendWeightsArgs", lambda **named: named, raising=False)
    monkeypatch.setattr(vllm_client.VLLMClient, "init_communicator", lambda self, device: None)
    thread = threading.Thread(target=fake.serve_forever)
    thread.start()
    yield fake
    fake.shutdown()
    thread.join()
    fake.server_close()


@pytest.mark.parametrize("rank", [None, 4])
def test_a_server_samples_from_the_policy_as_it_is_now(server: FakeVLLM, policy_folder: Path, rank: int | None) -> None:
    policy = with_adapter(load_policy(policy_folder), DPOParameters(lora_rank=rank), seed=1)
    generator = torch.Generator().manual_seed(2)
    rollouts = RolloutServer.open(server.url, torch.device("cpu"))
    prompts = [[6 + i, 7 + i % 5][: 1 + i % 2] for i in range(9)]
    asked: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0.8, "eos_token_ids": EOS, "generator_seed": 5}
    before = rollouts.sample(policy, prompts, **asked)
    with torch.no_grad():
        for value in trained_weights(policy).values():
            value += 0.3 * torch.randn(value.shape, generator=generator)
    after = rollouts.sample(policy, prompts, **asked)
    assert before != after
    for row, found in enumerate(after):
        seed = derive_seed(5, "row", row)
        [expected] = sample(policy, [prompts[row]], pad_token_id=0, batch_size=1, **{**asked, "generator_seed": seed})
        assert found == expected
    paths = [path for path, _ in server.asked]
    assert paths[:4] == ["/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache"]
    assert paths.count("/v1/completions") == 18 and paths.count("/update_weights") == 2


def test_ppo_trains_on_rollouts_of_a_server(
    server: FakeVLLM, policy_folder: Path, make_context: Any, tmp_path: Path
) -> None:
    save_model(load_reward_model(policy_folder, head_seed=0), load_tokenizer(policy_folder), tmp_path / "judge")
    prompts = {"id": [f"p{i}" for i in range(8)], "prompt_ids": [[6 + i, 7] for i in range(8)]}
    pq.write_table(pa.table(prompts), tmp_path / "prompts.parquet")
    parameters = {"learning_rate": 1e-3, "prompts_per_step": 8, "mini_batch_size": 4, "steps": 2}
    parameters |= {"max_response_length": 5, "missing_eos_reward": None, "rollout_engine": "vllm"}
    inputs = {"policy": policy_folder, "reference": policy_folder, "reward_model": tmp_path / "judge"}
    context = make_context(
        "ppo",
        {"algorithm": "ppo", "parameters": parameters, "seed": 3},
        {**inputs, "prompts": tmp_path / "prompts.parquet"},
        resources=Resources(rollout_server=server.url),
    )
    assert policy_gradient.run(context)["steps"] == 2
    first = json.loads((context.output / "history.jsonl").read_text().splitlines()[0])
    assert first["kl"] == 0.0  # the ratio of the first update was 1, too: the run would have stopped
    sent, trained = server.model.state_dict(), load_policy(context.output / "model").state_dict()
    assert not torch.equal(sent["model.norm.weight"], load_policy(policy_folder).state_dict()["model.norm.weight"])
    assert not torch.equal(sent["model.norm.weight"], trained["model.norm.weight"])  # the last update is not sampled


def test_without_vllm_or_a_server_it_says_what_is_missing() -> None:
    with pytest.raises(StageError, match=r"needs a server\n  start `vllm serve MODEL`"):
        RolloutServer.open(None, torch.device("cpu"))
    with pytest.raises(StageError, match=r"can't be used: vLLM is not installed.*\n  its weights are sent over NCCL"):
        RolloutServer.open("http://127.0.0.1:9", torch.device("cpu"))
