"""lm-eval as an engine: its tasks ask our batched model, and its graders read the stored answers.

A capturing model answers lm-eval's requests with our engine and keeps the answers; ``ablate.evaluation.replay``
grades them later without a model. Tasks are fed from files, never from the hub.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from ablate.data.json_lines import write_json_lines
from ablate.data.suite_files import Source
from ablate.errors import DataError, StageError
from ablate.evaluation.items import Item, Likelihoods, Response, content_id, request_digest, unique_ids
from ablate.evaluation.journal import Journal, Part
from ablate.evaluation.sampling import Sampling
from ablate.models.chat import Messages

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

ID = "ablate_id"
"""Column that carries an example's id through lm-eval's documents."""


class Answerer(Protocol):
    """What the capturing model needs of a policy."""

    def render(self, messages: Messages, prefix: str = "", thinking: bool | None = None) -> str:
        """The prompt as text in the model's chat template, with the start of the assistant's turn."""

    def loglikelihoods(
        self, requests: Sequence[tuple[str, str]], *, kept: Part | None
    ) -> list[tuple[float, bool] | None]:
        """Log-likelihood and greediness of continuations after contexts; null where they do not fit."""

    def generate(self, prompts: Sequence[str], how: Sampling, *, kept: Part | None) -> list[Any]:
        """Answers with ``text``, ``finish``, ``tokens`` and ``reasoning``."""


# --- rows: files of the data root in the schema that lm-eval's tasks expect ---


def rows(source: Source, options: Mapping[str, Any]) -> list[Item]:
    """One item for each row of the suite's file; ``data`` is the row in the schema of the hub's dataset."""
    kind = options["rows"]
    found = ROWS[kind](source.rows())
    return unique_ids(
        Item(content_id(kind, row), kind, (), data=row, source=str(row.get("key", number)))
        for number, row in enumerate(found)
    )


def _truthfulqa_mc(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """TruthfulQA's ``mc_task.json`` maps answers to labels; the hub's dataset has two lists instead."""
    result = []
    for row in rows:
        targets = {
            name: {"choices": list(row[name]), "labels": list(row[name].values())}
            for name in ("mc1_targets", "mc2_targets")
        }
        if targets["mc1_targets"]["labels"][0] != 1:
            raise DataError(f"the first answer of mc1_targets must be the true one: {row['question']!r}")
        result.append({"question": row["question"], **targets})
    return result


def _unchanged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows


def _early_ifeval(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """IFEval's first release does not say which text is to be repeated: all up to the sentence that asks for it."""
    return [{**row, "kwargs": [_repeated(row, *each) for each in _instructions(row)]} for row in rows]


def _instructions(row: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return zip(row["instruction_id_list"], row["kwargs"], strict=True)


def _repeated(row: Mapping[str, Any], instruction: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if instruction != "combination:repeat_prompt" or arguments:
        return arguments
    asked, mark, _ = row["prompt"].partition("First repeat the request")
    if not mark:
        raise DataError(f"prompt {row['key']} does not say what is to be repeated")
    return {"prompt_to_repeat": asked.strip()}


ROWS: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "truthfulqa-mc": _truthfulqa_mc,
    "ifeval-early": _early_ifeval,
    "as-is": _unchanged,
}


# --- tasks ---


def load_tasks(items: Sequence[Item], options: Mapping[str, Any], work: Path) -> Any:
    """lm-eval's task dictionary over ``items``; files and caches are written below ``work`` only."""
    from lm_eval.tasks import TaskManager

    folder = work / "lm-eval"
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "rows.jsonl"
    write_json_lines(data, [{**item.data, ID: item.id} for item in items])
    names = [_write_task(task, folder, data) for task in options["tasks"]]
    if is_ifeval(options):
        from ablate.evaluation.sentences import import_checker  # heavy, and no other task needs it

        import_checker()
    with quiet_lm_eval():
        manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
        return manager.load(names)


def is_ifeval(options: Mapping[str, Any]) -> bool:
    """Whether one of the tasks uses IFEval's checker."""
    return any(task["include"].startswith("ifeval/") for task in options["tasks"])


def task_names(options: Mapping[str, Any]) -> list[str]:
    """Names of the lm-eval tasks of a suite, which its answers are stored under."""
    return [_named_task(task)[0] for task in options["tasks"]]


def _named_task(task: Mapping[str, Any]) -> tuple[str, Path]:
    """A task's name and the YAML of lm-eval that it is made from."""
    import lm_eval

    base = Path(lm_eval.__file__).parent / "tasks" / task["include"]
    if not base.is_file():
        raise StageError(f"lm-eval has no task file {task['include']!r}", hint=f"looked in {base.parent}")
    return str(task["overrides"].get("task") or _task_name(base)), base


def _write_task(task: Mapping[str, Any], folder: Path, data: Path) -> str:
    name, base = _named_task(task)
    settings = {
        "include": str(base),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        **task["overrides"],
    }
    (folder / "tasks").mkdir(exist_ok=True)
    text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
    (folder / "tasks" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return name


def _task_name(base: Path) -> str:
    # The file holds "!function" tags, which a plain loader refuses: read the one line that is needed.
    for line in base.read_text(encoding="utf-8").splitlines():
        if line.startswith("task:"):
            return line.removeprefix("task:").strip()
    raise StageError(f"{base} names no single task", hint="give overrides.task")


@contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Keep lm-eval and datasets off the network and their notes out of the log."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(name, "1")
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# --- asking ---


def capture(
    policy: Answerer, items: Sequence[Item], config: Mapping[str, Any], work: Path, journal: Journal
) -> tuple[list[Response], list[Likelihoods]]:
    """Answer every request of the suite's tasks: generated responses and likelihoods."""
    tasks = load_tasks(items, config["prompts"]["options"], work)["tasks"]
    requests: dict[str, list[Instance]] = defaultdict(list)
    with quiet_lm_eval():
        for task in tasks.values():
            task.build_all_requests(
                apply_chat_template=config["chat"],
                chat_template=lambda history, **_: _chat(policy, history, config.get("decoding", {}).get("thinking")),
                fewshot_as_multiturn=False,
                tokenizer_name="",
            )
            for request in task.instances:
                requests[request.request_type].append(request)
    if unknown := requests.keys() - {"generate_until", "loglikelihood"}:
        raise StageError(f"lm-eval tasks that ask for {sorted(unknown)[0]} are not supported")
    responses = _responses(policy, requests["generate_until"], config, journal)
    return responses, _likelihoods(policy, requests["loglikelihood"], journal)


def _responses(
    policy: Answerer, requests: Sequence[Instance], config: Mapping[str, Any], journal: Journal
) -> list[Response]:
    """Responses in the requests' order; the suite sets their length, suite and task the strings that end them."""
    limit, extra = config["decoding"]["max_new_tokens"], tuple(config["decoding"]["stop"])
    found: dict[int, Response] = {}
    for number, (stops, places) in enumerate(_by_stops(requests, extra).items()):
        prompts, kept = [requests[place].args[0] for place in places], journal.part(f"responses-{number}")
        answers = policy.generate(prompts, Sampling(limit, stops), kept=kept)
        for place, answer in zip(places, answers, strict=True):
            request = requests[place]
            prompt, name = request.args[0], request.task_name or ""
            found[place] = Response(
                request.doc[ID], name, 0, prompt, answer.text, answer.finish, answer.tokens, answer.reasoning
            )
    return [found[place] for place in range(len(requests))]


def _likelihoods(policy: Answerer, requests: Sequence[Instance], journal: Journal) -> list[Likelihoods]:
    """For each task and example the likelihoods of its choices, in their order."""
    asked_of = [(request.args[0], request.args[1]) for request in requests]
    answers = policy.loglikelihoods(asked_of, kept=journal.part("likelihoods"))
    asked: dict[tuple[str, str], list[tuple[Instance, tuple[float, bool] | None]]] = defaultdict(list)
    for request, answer in zip(requests, answers, strict=True):
        asked[request.task_name or "", request.doc[ID]].append((request, answer))
    rows = []
    for (task, identity), found in asked.items():
        found.sort(key=lambda entry: entry[0].idx)
        digest = request_digest(found[0][0].args[0], [request.args[1] for request, _ in found])
        fit = [answer for _, answer in found if answer is not None]
        if len(fit) < len(found):
            rows.append(Likelihoods(identity, task, digest, None))
        else:
            rows.append(Likelihoods(identity, task, digest, tuple(p for p, _ in fit), tuple(flag for _, flag in fit)))
    return rows


def _chat(policy: Answerer, history: Messages, thinking: bool | None) -> str:
    """A prompt in the chat template; an assistant's last message is the start of its turn.

    A task's ``gen_prefix`` brings the line break that parts it from a plain question; a turn begins without one.
    """
    if history and history[-1]["role"] == "assistant":
        return policy.render(history[:-1], history[-1]["content"].lstrip("\n"), thinking)
    return policy.render(history, "", thinking)


def _by_stops(requests: Sequence[Instance], extra: tuple[str, ...]) -> dict[tuple[str, ...], list[int]]:
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, request in enumerate(requests):
        until = request.args[1].get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        groups[(*stops, *extra)].append(place)
    return groups
