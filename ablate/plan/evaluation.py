"""From a trained model and its suites to the stages that generate, score, select and grade."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ablate.catalogs.judges import JUDGE_REVISION, locations_of
from ablate.catalogs.served import Served
from ablate.catalogs.suite_code import find_entry
from ablate.catalogs.suite_parts import Judging
from ablate.catalogs.suites import Suite
from ablate.plan.facts import Facts
from ablate.plan.fingerprint import Config
from ablate.plan.graph import Graph
from ablate.plan.stage import Ref, Stage


def _judge_facts(judging: Judging | None) -> dict[str, str]:
    """Return what tables say of a suite's judge: its name, and for whom it stands in."""
    if judging is None:
        return {}
    stands_in = {"judge_stands_in_for": judging.instead_of} if judging.instead_of else {}
    return {"judge": judging.judge.shown, **stands_in}


class EvaluationPlanner:
    """Turns suites into stages: one generation per policy, prompts and decoding, however many graders read it."""

    def __init__(
        self, facts: Facts, graph: Graph, released: Callable[[str], Stage], served: Mapping[str, Served]
    ) -> None:
        self._facts = facts
        self._served = served
        self.asked: set[str] = set()
        """Ids of models that a server responds for."""
        self._released = released
        self._graph = graph
        self._generated: dict[tuple[Any, ...], Stage] = {}
        self.files = functools.cache(self._files)
        self._generation = functools.cache(self._generation_config)
        self._grading = functools.cache(lambda name: Config.of(facts.suites[name].grading_config()))
        self._prompts = functools.cache(lambda name: {f"prompts {name}": find_entry("prompts", name).revision})
        self._grader = functools.cache(lambda name: find_entry("grader", name))
        self._items = functools.cache(self._items_inputs)

    def policy(self, suite: Suite, policy: Stage, *, chat: bool, reference: Stage | None = None) -> Stage:
        """Return the stage whose metrics say how ``policy`` does on ``suite``; ``chat``: it knows a chat template.

        ``reference`` is the model that it was tuned against, for suites about its implicit reward.
        """
        if suite.engine == "implicit":
            return self._classify(suite, policy, chat=chat, reference=reference)
        responses = self._generate(suite, policy, chat=chat)
        if suite.scored_by:
            scores = self._response_scores(suite, responses)
            return self._evaluate(suite, {"responses": responses.ref(), "response_scores": scores.ref("scores.jsonl")})
        if suite.judging is None:
            return self._evaluate(suite, {"responses": responses.ref()})
        verdicts = self._judge(suite, suite.judging, responses)
        return self._evaluate(suite, {"responses": responses.ref(), "verdicts": verdicts.ref()})

    def _response_scores(self, suite: Suite, responses: Stage) -> Stage:
        models = {column: self._released(name).ref("model") for column, name in suite.scored_by.items()}
        return self._graph.add(
            "response_scores",
            {"grader": suite.grader, "columns": sorted(models)},
            {"responses": responses.ref(), **models},
            label=f"scores of {', '.join(sorted(models))} on {responses.execution.label}",
        )

    def _judge(self, suite: Suite, judging: Judging, responses: Stage) -> Stage:
        return self._graph.add(
            "judge",
            judging.config(dict(self.files(suite.name))),
            {"responses": responses.ref()},
            label=f"verdicts of {judging.judge.shown} on {responses.execution.label}",
            parts={"judge": JUDGE_REVISION},
            locations={
                **locations_of(judging.asked),
                **self._facts.answers,
                **self._facts.locations(judging.file),
            },
        )

    def reward_model(self, suite: Suite, reward_model: Stage, policy: Stage | None) -> Stage:
        """Return the stage whose metrics say how a reward model does; best-of-n picks among ``policy``'s responses."""
        files = self.files(suite.name)
        inputs = {"reward_model": reward_model.ref("model")}
        label = f"scores for {suite.name}"
        config = suite.score_config(dict(files)) | ({} if reward_model.kind == "reward_model" else {"released": True})
        if suite.engine == "pairs":
            scores = self._graph.add(
                "score",
                config,
                {**inputs, **self._items(suite.name)},
                label=label,
                parts=self._prompts(suite.prompts.name),
                locations=self._facts.locations(files),
            )
            return self._evaluate(suite, {"scores": scores.ref("scores.jsonl")})
        assert policy is not None
        responses = self._generate(suite, policy, chat=True)
        scores = self._graph.add(
            "score",
            config,
            {**inputs, "responses": responses.ref("responses.jsonl")},
            label=label,
        )
        selected = self._graph.add(
            "select",
            suite.select_config(),
            {"responses": responses.ref("responses.jsonl"), "scores": scores.ref("scores.jsonl")},
            label=f"selection for {suite.name}",
        )
        return self._evaluate(suite, {"responses": selected.ref(), "candidates": responses.ref()})

    def describe(self, suite: Suite, gap: str = "") -> dict[str, Any]:
        """Return what tables say of a suite; of an axis of judges each has a category of its own, in no average.

        ``gap`` is why nothing is evaluated on it.
        """
        judge = suite.judging.judge.shown if suite.judging is not None and "@" in suite.name else None
        return {
            "title": suite.title,
            "category": suite.category if judge is None else f"{suite.category} ({judge})",
            "subject": suite.subject,
            "primary": suite.primary,
            "metrics": suite.metrics,
            "unit": suite.unit,
            "higher_is_better": suite.higher_is_better,
            **({"gap": gap} if gap else {"protocol": suite.protocol_digest(dict(self.files(suite.name)))}),
            "note": suite.protocol,
            **_judge_facts(suite.judging),
            **({} if judge is None else {"of_axis": True}),
        }

    def _classify(self, suite: Suite, policy: Stage, *, chat: bool, reference: Stage | None) -> Stage:
        """Return the stage that grades a policy's implicit reward: of each model one pass over the pairs."""
        inputs = {"likelihoods": self._likelihoods(suite, policy, chat=chat).ref()}
        if reference is not None and suite.options["reference"]:
            inputs["reference_likelihoods"] = self._likelihoods(suite, reference, chat=chat).ref()
        return self._evaluate(suite, inputs)

    def _likelihoods(self, suite: Suite, policy: Stage, *, chat: bool) -> Stage:
        files = self.files(suite.name)
        return self._graph.add(
            "likelihoods",
            suite.likelihoods_config(dict(files), chat=chat and suite.chat),
            {"policy": policy.ref("model"), **self._items(suite.name)},
            parts=self._prompts(suite.prompts.name),
            label=f"likelihoods of pairs under {policy.execution.label}",
            locations=self._facts.locations(files),
        )

    def _generate(self, suite: Suite, policy: Stage, *, chat: bool) -> Stage:
        config = self._generation(suite.name, chat and suite.chat)
        items = self._items(suite.name)
        key = (policy.id, config.digest, *items.values())
        known = self._generated.get(key)
        if known is not None:
            return known
        asked = suite.data.pocket.name if suite.data.pocket else suite.name
        served = self._served.get(policy.id)
        if served is not None:
            self.asked.add(policy.id)
        self._generated[key] = self._graph.add(
            "generate",
            config,
            {"policy": policy.ref("model"), **items},
            parts=self._prompts(suite.prompts.name),
            label=f"responses of {policy.execution.label} to {asked}",
            locations={**self._facts.locations(suite.data.files), **(served.location() if served else {})},
            network=served is not None,
            gpu=served is None,
        )
        return self._generated[key]

    def _evaluate(self, suite: Suite, inputs: Mapping[str, Ref]) -> Stage:
        grader = self._grader(suite.grader)
        return self._graph.add(
            "evaluate",
            self._grading(suite.name),
            inputs,
            label=suite.name,
            parts={f"grader {suite.grader}": grader.revision},
            heavy=grader.heavy,
        )

    def _generation_config(self, name: str, chat: bool) -> Config:
        suite = self._facts.suites[name]
        return Config.of(suite.generation_config(dict(self.files(name)), chat=chat))

    def _items_inputs(self, name: str) -> dict[str, Ref]:
        config = self._facts.suites[name].items_config()
        if config is None:
            return {}
        stage = self._graph.add("pocket", config, label=f"items of {config['split']} split: {config['name']}")
        return {"items": stage.ref("data")}

    def _files(self, name: str) -> tuple[tuple[str, str], ...]:
        paths = self._facts.suites[name].paths(self._facts.root)
        return tuple((file, self._facts.digest_cache.of_file(path)) for file, path in paths.items())
