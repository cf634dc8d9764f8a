"""A trained policy or reward model as an ordinary Hugging Face folder, with a card made from the record."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import ablate
from ablate.context import read_json
from ablate.errors import UnknownNameError, UsageError
from ablate.results.dotted import dotted
from ablate.results.long import Results, Subject, collect, reason_not_done
from ablate.results.tables.text import escape_markdown
from ablate.store import Store

_CARD, _PROMPTS = "README.md", "prompts.jsonl"


def find_cell(store: Store, cell: str, experiment: str | None = None) -> tuple[Results, Subject]:
    """Return the one cell, baseline or reward model that is meant, of one experiment or of all in the store.

    ``cell`` is a stage's id, a label as the report and ``experiments/NAME/cells`` have it, or as many words of one
    (``algorithm=dpo seed=0``, or with commas) as tell it apart; ``policy:`` or ``reward_model:`` may stand before it.
    Raises UnknownNameError where nothing fits, UsageError where several models do.
    """
    names = [experiment] if experiment is not None else store.experiment_names()
    known = [(results, subject) for results in (collect(store, name) for name in names) for subject in results.subjects]
    kind, colon, rest = cell.partition(":")
    wanted = rest.strip() if colon and kind in ("policy", "reward_model") else cell
    if wanted != cell:
        known = [(results, subject) for results, subject in known if subject.subject == kind]
    ways: tuple[Callable[[Subject], bool], ...] = (
        lambda subject: wanted in (subject.stage, subject.label),
        lambda subject: set(_words(wanted)) <= set(_words(subject.label)),
    )
    for fits in ways:
        found = {subject.stage: (results, subject) for results, subject in known if fits(subject)}
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            listed = "\n  ".join(
                f"{item.subject}: {item.label} ({item.stage})" for _, item in list(found.values())[:12]
            )
            raise UsageError(f"{cell!r} fits {len(found)} models", hint=f"write more of one of:\n  {listed}")
    words = {word for _, subject in known for word in _words(subject.label)}
    unknown = [word for word in _words(wanted) if word not in words]
    if unknown:
        raise UnknownNameError("word of a cell's label", unknown[0], words)
    raise UnknownNameError("cell", cell, {subject.label for _, subject in known})


def _words(label: str) -> list[str]:
    return label.replace(",", " ").split()


def export_model(store: Store, cell: str, to: Path, experiment: str | None = None) -> Path:
    """Copy a model's folder to ``to``, which must be new or empty, with a model card; it appears whole.

    Raises UsageError when the folder is taken or the model is not trained yet, and what :func:`find_cell` does.
    """
    results, subject = find_cell(store, cell, experiment)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to} exists already; nothing was written", hint="name a new or empty folder")
    model = store.stage(subject.stage).artifact("model")
    if not store.stage(subject.stage).is_done() or not model.is_dir():
        raise UsageError(f"{subject.label}: there is no model yet ({reason_not_done(store, subject.stage)})")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as temporary:
        unfinished = Path(temporary) / "model"
        shutil.copytree(model, unfinished)
        (unfinished / _CARD).write_text(model_card(results, subject), encoding="utf-8")
        os.replace(unfinished, to)
    return to


def model_card(results: Results, subject: Subject) -> str:
    """Return a model card in Hugging Face's form: data, licences, method, hyperparameters and scores of the record."""
    stage = results.store.stage(subject.stage).read_stage()
    done = results.store.stage(subject.stage).read_done() or {}
    sets = list(_sets(results, subject))
    licences = sorted({licence for about in sets for licence in about["licence"]})
    is_policy = subject.subject == "policy"
    method = str(subject.axes.get("algorithm") or (subject.baseline or "none") if is_policy else "reward model")
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation" if is_policy else "text-classification",
        "license": licences[0].lower() if len(licences) == 1 and licences[0] != "unrecorded" else "other",
        "tags": ["ablate", method.replace(" ", "-")],
    }
    title = str(results.plan.get("algorithms", {}).get(method, method))
    question = str(results.plan.get("question") or "")
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {escape_markdown(subject.label)}\n",
        f"{title}, of the experiment `{results.experiment}`. {escape_markdown(question)}\n",
        "## Data\n",
        _markdown(("Set", "Used for", "Licence", "Revision"), _data_rows(sets)),
        "A model's licence follows from those of its data and of the model under it; none is granted here.\n",
        "## Method\n",
        _markdown(("Setting", "Value"), _settings(subject, stage.get("config") or {})),
        "## Scores\n",
        _markdown(("Suite", "Metric", "Score", "n", "Protocol"), _score_rows(results, subject)),
        "## Origin\n",
        _markdown(("", ""), _origin(results, subject, done)),
        f"Written by ablate {ablate.__version__} from its record.\n",
    ]
    return "\n".join(parts)


def _sets(results: Results, subject: Subject) -> Iterator[Mapping[str, Any]]:
    """Yield the sets of the plan's account that the model was trained on, at whatever distance, with their roles in it.

    One stage leaves pairs and prompts, which are two entries of the account. Roles that a set has for other models
    alone are left out; an older plan does not say which those are.
    """
    read: dict[str, set[bool]] = {}
    seen: set[str] = set()
    waiting = [subject.stage]
    while waiting:
        stage = waiting.pop()
        folder = results.store.stage(stage)
        if stage in seen or not folder.stage_json.exists():
            continue
        seen.add(stage)
        for item in (folder.read_stage().get("inputs") or {}).values():
            read.setdefault(item["stage"], set()).add(item["artifact"] == _PROMPTS)
            waiting.append(item["stage"])
    for about in results.plan.get("data") or ():
        if ("prompts" in about["roles"]) in read.get(about["stage"], ()):
            used_by = about.get("used_by", {})
            own = [role for role in about["roles"] if role not in used_by or seen & set(used_by[role])]
            yield {**about, "roles": own or about["roles"]}


def _data_rows(sets: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for about in sets:
        licence = ", ".join(about["licence"])
        yield about["title"], ", ".join(about["roles"]), licence or "unrecorded", about["revision"] or "unrecorded"


def _settings(subject: Subject, config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    axes = {axis: value for axis, value in subject.axes.items() if value is not None}
    return sorted({**axes, **dotted(config)}.items())


def _score_rows(results: Results, subject: Subject) -> Iterator[tuple[str, ...]]:
    for suite in subject.evaluations:
        about, found = results.suites.get(suite, {}), results.evaluation(subject, suite)
        score = results.reason(subject, suite) if found is None or found.score is None else f"{found.score:.4g}"
        n = "" if found is None else str(found.health.get("n", ""))
        protocol = "" if found is None else found.protocol_digest
        yield str(about.get("title") or suite), str(about.get("primary", "")), score, n, protocol


def _origin(results: Results, subject: Subject, done: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    path = results.store.stage(subject.stage).attempt(int(done.get("attempt", 1))).environment_json
    environment = read_json(path) if path.exists() else {}
    yield "stage", subject.stage
    for role, stage in subject.inputs.items():
        if stage:
            yield f"input: {role}", stage
    yield "sources (sha256)", done.get("code", "")
    if environment.get("commit"):
        yield "commit", environment["commit"]
    yield "seconds", done.get("seconds", "")
    yield from (environment.get("packages") or {}).items()


def _markdown(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + ":---|" * len(header)]
    lines += [
        "| " + " | ".join("" if cell is None else escape_markdown(str(cell)) for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"
