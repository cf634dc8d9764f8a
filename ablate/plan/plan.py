"""The plan of an experiment: its subjects (cells and baselines), and every stage that makes or measures them."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ablate.algorithms.base import JUDGES
from ablate.algorithms.registry import find_method
from ablate.catalogs.datasets import DatasetEntry
from ablate.catalogs.judges import read_judge
from ablate.catalogs.rewards import find_reward
from ablate.catalogs.suites import Suite, find_suite
from ablate.errors import DataError, Location, SpecError
from ablate.experiment.chains import Chain, Merged, Trained, chains_in
from ablate.experiment.grid import (
    OWN_START,
    Cell,
    Grid,
    Values,
    conditions,
    expand,
    place_of,
    validate_sections,
    written_at,
)
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sections import Scalar
from ablate.experiment.tuning import Tuning
from ablate.plan.axes import SharedModel, tell_apart
from ablate.plan.checks import check_adapters, check_cell, check_disjoint, check_embedded, check_label, check_licence
from ablate.plan.data_account import describe_data
from ablate.plan.evaluation import EvaluationPlanner
from ablate.plan.facts import Facts
from ablate.plan.fingerprint import digest
from ablate.plan.graph import Graph
from ablate.plan.judges import judged_suites, limited_suites, repeated_suites, shared_judges
from ablate.plan.needs import learns_from_records
from ablate.plan.selection import Selection
from ablate.plan.served import check_served, served_policies
from ablate.plan.sets import CELLS_OWN, WRITER, NamedSet, answered_prompts, entries_of, takes_part
from ablate.plan.split import check_split
from ablate.plan.stage import Stage
from ablate.plan.starting import MADE_BY, Role, StartingModel, starting_models
from ablate.plan.training import TRAINED, TrainingPlanner

RM_AXES = ("reward_model.init", "reward_model.dataset", "seed")
FIRST_AXES = ("policy", "dataset", "algorithm")
LAST_AXES = ("seed", "prompts", "reward_model.init", "reward_model.dataset")
"""Axes that every policy has, before and after those of the grid."""
MODEL_KEYS = ("policy", "reward_model.init", "reference")
DATASET_KEYS = {
    "sft.dataset": ("instruction",),
    "dataset": ("preference", "instruction"),  # a method may need one of them
    "reward_model.dataset": ("preference",),
    "prompts": ("preference", "instruction", "prompts"),
}
"""Keys that name a dataset, with the formats each can use."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found for a cell: its group's number and the values; ``waits`` is why there are none yet."""

    group: int
    values: Mapping[str, Scalar]
    waits: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for plan.json."""
        return {"group": self.group, "values": dict(self.values), **({"waits": self.waits} if self.waits else {})}


@dataclass(frozen=True, slots=True)
class Subject:
    """What gets a row: a policy or a reward model, with its axes and the stages that evaluate it."""

    subject: str
    role: str
    axes: Mapping[str, Scalar]
    stage: str
    evaluations: Mapping[str, str]
    inputs: Mapping[str, str]
    start: Mapping[str, Scalar] = field(default_factory=dict)
    """Axes of the named model under a policy, where they are other than its own: a chain may write them."""
    tuned: Tuned | None = None
    """Where its cell is tuned: how that stands."""

    def label(self, varied: Iterable[str]) -> str:
        """Return the varying axes as ``key=value`` words; a baseline's after its name."""
        return " ".join(self.words(varied))

    def words(self, varied: Iterable[str]) -> list[str]:
        """Return the words of the label, of which there is at least one."""
        if self.role != "cell":
            known = set(varied)
            return [self.role, *self._written(axis for axis in self.axes if axis != "policy" or axis in known)]
        shown = dict.fromkeys((*RM_AXES, *varied)) if self.subject == "reward_model" else varied
        return self._written(shown) or [self.subject]

    def _written(self, axes: Iterable[str]) -> list[str]:
        return [f"{axis}={self.axes[axis]}" for axis in axes if self.axes.get(axis) is not None]


@dataclass(frozen=True)
class Plan:
    """Everything that must be done for one experiment; ``stages`` has parents before children."""

    loaded: LoadedExperiment
    grid: Grid
    subjects: tuple[Subject, ...]
    stages: Mapping[str, Stage]
    suites: Mapping[str, Mapping[str, Any]]
    datasets: Mapping[str, Mapping[str, Any]]
    data: tuple[Mapping[str, Any], ...]
    shared_judges: tuple[str, ...] = ()
    """What is to be known of models that judge both what policies learn from and the policies."""
    tuning: Tuning | None = None
    """How cells are tuned, where they are."""
    gaps: Mapping[str, str] = field(default_factory=dict)
    """Suites that nothing is evaluated on, because their data files are not there, with what is missing."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.loaded.experiment.name

    @property
    def embedded(self) -> list[str]:
        """The datasets whose rows are those of their embedded samples."""
        return [name for name, facts in self.datasets.items() if facts["embedded"]]

    @property
    def chains(self) -> list[Chain]:
        """The policies of cells that are made here, each once."""
        policies = dict.fromkeys(cell.policy for cell in self.grid.cells)
        return [policy for policy in policies if isinstance(policy, Chain)]

    def as_json(self) -> dict[str, Any]:
        """Return plan.json: all that results and tracking read beside stage folders."""
        claims = self.loaded.experiment.claims
        return {
            "version": 1,
            "name": self.name,
            "question": self.loaded.experiment.question,
            "report": self.loaded.experiment.report,
            "axes": list(self.grid.axes),
            "subjects": [
                {
                    "subject": item.subject,
                    **({"role": "cell"} if item.role == "cell" else {"role": "baseline", "baseline": item.role}),
                    "label": item.label(self.grid.axes),
                    "axes": dict(item.axes),
                    "stage": item.stage,
                    "evaluations": dict(item.evaluations),
                    "inputs": dict(item.inputs),
                    **({"start": dict(item.start)} if item.start else {}),
                    **({"tuned": item.tuned.as_json()} if item.tuned else {}),
                }
                for item in self.subjects
            ],
            "suites": {name: dict(facts) for name, facts in self.suites.items()},
            "datasets": {name: dict(facts) for name, facts in self.datasets.items()},
            "policies": {str(chain): chain.shown for chain in self.chains},
            "algorithms": {cell.method.name: cell.method.title for cell in self.grid.cells},
            "defaults": {
                **{kind: parameters.defaults() for kind, parameters in TRAINED.items()},
                **{f"train.{cell.method.name}": cell.method.parameters.defaults() for cell in self.grid.cells},
            },
            "data": [dict(facts) for facts in self.data],
            **({"shared_judges": list(self.shared_judges)} if self.shared_judges else {}),
            **({"claims": [dict(claim) for claim in claims]} if claims else {}),
            **({"sweep": self.loaded.experiment.sweep.facts()} if self.loaded.experiment.sweep else {}),
            **({"tuning": self.tuning.as_json()} if self.tuning else {}),
            "stages": {
                stage.id: {"kind": stage.kind, "label": stage.execution.label} for stage in self.stages.values()
            },
        }


def build_plan(
    loaded: LoadedExperiment,
    facts: Facts,
    check: Callable[[Plan], object] = lambda plan: None,
    selection: Selection | None = None,
) -> Plan:
    """Expand, validate and plan an experiment; only a plan that ``check`` lets pass writes the digests of its files.

    ``selection`` are cells to plan in place of all that the grid has. Raises SpecError before anything could run.
    """
    with _collector_paused():
        if selection is None:
            grid = expand(loaded)
            selection = Selection(grid, grid)
        validate_sections(loaded, selection.grid)
        facts, suites = judged_suites(loaded, facts)
        facts = repeated_suites(loaded, facts, suites)
        facts = limited_suites(loaded, facts, (*suites, *loaded.experiment.evaluate.reward_model))
        plan = _Builder(loaded, facts, selection, suites).build()
    check(plan)
    facts.digest_cache.save()
    return plan


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector: all that is made stays in the plan, and looking it through doubles the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Builder:
    def __init__(
        self, loaded: LoadedExperiment, facts: Facts, selection: Selection, policy_suites: tuple[str, ...]
    ) -> None:
        grid = selection.grid
        self.loaded, self.facts, self.grid, self.selection = loaded, facts, grid, selection
        self.graph = Graph()
        self.suites: list[Suite] = []
        self.gaps: dict[str, str] = {}
        self.missing: list[DataError] = []
        self.training = TrainingPlanner(loaded, facts, self.graph, replace(selection.whole, axes=grid.axes))
        place = loaded.origins.locate("evaluate", "policy")
        self.policy_suites = self._suites("policy", policy_suites)
        self.served = served_policies(
            loaded, facts, self.policy_suites, lambda name, place: self.training.released(name, place).model
        )
        self.evaluation = EvaluationPlanner(
            facts, self.graph, lambda name: self.training.released(name, place, template=False).model, self.served
        )
        self.rm_suites = self._suites("reward_model", loaded.experiment.evaluate.reward_model)
        if self.missing and not (self.policy_suites or self.rm_suites):
            raise self.missing[0]
        if selection.tuning is not None:
            check_split(loaded, selection.tuning.tune, facts, (*self.policy_suites, *self.rm_suites))
        self.reward_models: dict[tuple[str, str], tuple[Subject, list[Values]]] = {}
        # Best-of-n picks among the responses of one SFT model, so that each is a row of its own.
        self.by_policy = "policy" in grid.axes and any(suite.engine == "best-of-n" for suite in self.rm_suites)
        self.datasets: dict[str, dict[str, Any]] = {}
        self.axes = tuple(dict.fromkeys((*FIRST_AXES, *grid.axes, *LAST_AXES)))
        self.known: set[tuple[str, str]] = set()
        self.place = functools.cache(functools.partial(place_of, loaded))

    def build(self) -> Plan:
        self._check_conditions()
        check_adapters(self.loaded, self.grid)
        for cell in self.grid.cells:  # before any is planned: with `match`, one cell's sets are part of another's
            self._check_names(cell)
        made = [(cell, subject) for cell in self.grid.cells if (subject := self._cell(cell)) is not None]
        known = [cell for cell in self.grid.cells if not self.selection.starts_open(cell)]
        roots = list(dict.fromkeys(root for cell in known for root in self.training.roots(cell)))
        models = {role: starting_models(self.training, self.grid, roots, role) for role in MADE_BY}
        cells = [self._started(cell, subject, models) for cell, subject in made]
        baselines = self._baselines(models)
        released = self._released_reward_models()
        check_served(self.loaded, self.served, self.evaluation.asked)
        suites = {suite.name: self.evaluation.describe(suite, self.gaps.get(suite.name, "")) for suite in self.suites}
        subjects = (*baselines, *cells, *self._reward_model_rows(), *released)
        data = tuple(describe_data(self.graph.stages, self.training.data.named))
        shared = tuple(shared_judges(self.graph.stages.values()))
        stages, tuning = self.graph.stages, self.selection.tuning
        if self.selection.waiting:  # what their methods were planned with was not found for them
            stages = self.graph.needed_by(
                stage for item in subjects for stage in (item.stage, *item.evaluations.values())
            )
        return Plan(self.loaded, self.grid, subjects, stages, suites, self.datasets, data, shared, tuning, self.gaps)

    def _suites(self, subject: str, names: Iterable[str]) -> list[Suite]:
        suites = []
        for name in names:
            written = getattr(self.loaded.experiment.evaluate, subject)
            as_written = (
                name if name in written else name.partition("@")[0]
            )  # of an axis of judges it has several suites
            place = self.loaded.origins.locate("evaluate", subject, written.index(as_written))
            suite = find_suite(self.facts.suites, name, place)
            if suite.subject != subject:
                raise SpecError(f"suite {name!r} evaluates a {suite.subject}", location=place)
            self.suites.append(suite)
            try:
                self.facts.require_files(suite, place)
                suites.append(suite)
            except DataError as error:
                self.missing.append(error)
                self.gaps[suite.name] = self._without_root(error.message)
        if self.missing and self.loaded.experiment.evaluate.without_data == "error":
            raise self.missing[0]
        return suites

    def _without_root(self, message: str) -> str:
        """Return a message without this machine's folder of data, as a table has it."""
        root = str(self.facts.root)
        return message.replace(f"{root}/", "").replace(f"the folder {root}", "the data root")

    def _cell(self, cell: Cell) -> Subject | None:
        """Return the policy of a cell; None where it is about its reward model alone."""
        check_cell(self.facts, cell, functools.partial(self.place, cell.block))
        tuned, axes = self._tuned(cell), {axis: cell.values.get(axis) for axis in self.axes}
        untuned = Subject("policy", "cell", axes, f"untuned-{digest(repr(axes))}", {}, {}, tuned=tuned)
        if self.selection.starts_open(cell):
            return untuned
        made = self.training.cell(cell)
        if "dataset" in made.inputs:
            self._describe_dataset(str(cell.values["dataset"]), made.inputs["dataset"])
        if made.reward_model is not None:
            self._reward_model(cell, made.reward_model, made.inputs["sft"])
            if not cell.method.entry:
                return None
        if cell in self.selection.waiting:
            return untuned
        # A policy that is not trained was held to nothing: against itself every pair would be a tie, and a tie is lost.
        reference = self.training.reference_of(cell).model if cell.method.entry else None
        evaluations = self._evaluate_policy(made.policy, chat=made.chat, reference=reference)
        return Subject("policy", "cell", axes, made.policy.id, evaluations, made.inputs, tuned=tuned)

    def _tuned(self, cell: Cell) -> Tuned | None:
        tuning = self.selection.tuning
        return None if tuning is None else Tuned(*tuning.found(cell), self.selection.waiting.get(cell, ""))

    def _started(self, cell: Cell, subject: Subject, models: Mapping[Role, Mapping[Cell, StartingModel]]) -> Subject:
        """Add the axes of the model under a cell that are not the cell's own; of a merge, its first policy's."""
        if self.selection.starts_open(cell):
            return subject
        root, own = next(self.training.roots(cell)), subject.axes
        start = {
            key: value for role in MADE_BY for key, value in models[role][root].axes.items() if own.get(key) != value
        }
        return replace(subject, start=start) if start else subject

    def _check_names(self, cell: Cell) -> None:
        for chain in chains_in(cell.policy):
            self._check_chain(chain)
        for key in (*MODEL_KEYS, *DATASET_KEYS):
            name = cell.values.get(key)
            if name is not None and not isinstance(name, Chain):
                as_prompts = key == "dataset" and cell.scored_without_model
                self._check_name("prompts" if as_prompts else key, str(name), self.place(cell.block, key))

    def _check_chain(self, chain: Chain) -> None:
        """Look up the names that a chain gives, each where it is written."""
        if isinstance(chain, Merged):
            for index, policy in enumerate(chain.policies):
                if not isinstance(policy, Chain):
                    self._check_name("policy", policy, chain.origins.locate("merge", index))
        elif isinstance(chain, Trained):
            for key in (*MODEL_KEYS, *DATASET_KEYS):
                name = chain.written.get(key)
                if name is not None and not isinstance(name, Chain):
                    is_files = key == "policy" and not chain.origins.has("policy")
                    place = self.loaded.origins.locate("policy") if is_files else written_at(chain.origins, key)
                    self._check_name(key, str(name), place)

    def _check_name(self, key: str, name: str, place: Location) -> None:
        """Look the name that a key is given up, once, so that an error says where it was written."""
        if (key, name) in self.known:  # a set may take part in making itself, too: planning refuses it
            return
        self.known.add((key, name))
        self._look_up(key, name, place)
        if key in DATASET_KEYS:
            self._check_dataset(self.facts.dataset(name, place), key, place)
        elif key in (*MODEL_KEYS, WRITER):
            self._check_corpus(name, place)

    def _check_dataset(self, named: NamedSet, key: str, place: Location) -> None:
        allowed = DATASET_KEYS[key]
        if named.format not in allowed:
            wanted = f"{key} needs a set of {' or '.join(allowed)} data"
            raise SpecError(f"{named.name!r} holds {named.format} data; {wanted}", location=place)
        for entry in entries_of(named):
            self._check_files(entry, place)
        for entry, where in answered_prompts(named):
            check_disjoint(self.facts, entry, where)
        check_label(self.facts, named)
        for other in takes_part(named):
            self._check_name(*other)

    def _check_files(self, entry: DatasetEntry, place: Location) -> None:
        """Ask whether a set, and the one whose prompts it is cut to, may be used, and for their files and code."""
        check_embedded(self.loaded, self.facts, entry, place)
        check_licence(self.loaded, entry, place)
        self.facts.converter_code(entry, place)
        self.facts.digests(entry, place)
        if entry.only_prompts_of is not None:
            self._check_files(self.facts.entry(entry.only_prompts_of), place)

    def _check_corpus(self, model: str, place: Location) -> None:
        """Ask for the files of the corpus that a model made here is trained on."""
        entry = self.facts.models.get(model)
        if entry is not None and entry.scratch is not None:
            self._check_files(self.facts.entry(entry.scratch.corpus), place)

    def _check_conditions(self) -> None:
        """Look every name in ``when`` and ``exclude`` up: a misspelt one would silently match nothing."""
        for key, value, place in conditions(self.loaded):
            if value is not None:
                self._look_up(key, str(value), place)

    def _look_up(self, key: str, name: str, place: Location) -> None:
        if key == "algorithm":
            find_method(name, location=place)
        elif key in MODEL_KEYS:
            own = (OWN_START,) if key == "reference" else ()
            if name not in own:
                self.training.check_model(name, place, others=own)
        elif key == WRITER:
            self.training.check_model(name, place, others=CELLS_OWN)
        elif key in DATASET_KEYS and name not in self.facts.own_sets.names:
            self.facts.dataset(name, place)
        elif key in JUDGES:
            find_reward(read_judge(key, name, lambda *path: place), axis=key, location=place)

    def _describe_dataset(self, name: str, stage: str) -> None:
        if name not in self.datasets:
            named = self.facts.dataset(name)
            self.datasets[name] = {
                "title": named.shown_title,
                "label_kind": named.label_kind,
                "licence": ", ".join(named.licence),
                "embedded": any(entry.reads_sample for entry in entries_of(named)),
                "stage": stage,
            }

    def _evaluate_policy(self, policy: Stage, *, chat: bool, reference: Stage | None = None) -> dict[str, str]:
        stages = {
            suite.name: self.evaluation.policy(suite, policy, chat=chat, reference=reference)
            for suite in self.policy_suites
        }
        return {name: stage.id for name, stage in stages.items()}

    def _reward_model(self, cell: Cell, stage: Stage, sft: str) -> None:
        key = (stage.id, sft if self.by_policy else "")
        if key in self.reward_models:
            self.reward_models[key][1].append(cell.values)
            return
        axes = {axis: cell.values[axis] for axis in (*(["policy"] if self.by_policy else []), *RM_AXES)}
        axes |= {
            axis: cell.values[axis]
            for axis in self.grid.axes
            if axis.startswith(("reward_model.", "data.", "sft.", "pretrain.")) and axis in cell.values
        }
        name, records = str(axes["reward_model.dataset"]), learns_from_records(cell.sections()["reward_model"])
        learnt = self.training.data.dataset(name, cell.sections()["data"], cell, records=records)
        self._describe_dataset(name, learnt.id)
        self._check_picks(cell)
        policy = self.graph.stages[sft]
        evaluations = {suite.name: self.evaluation.reward_model(suite, stage, policy).id for suite in self.rm_suites}
        subject = Subject("reward_model", "cell", axes, stage.id, evaluations, {"sft": sft})
        self.reward_models[key] = subject, [cell.values]

    def _reward_model_rows(self) -> list[Subject]:
        """Return the reward models; a set that a policy takes part in makes one a policy or round, told apart by it."""
        shared = [SharedModel(key, subject.axes, cells) for key, (subject, cells) in self.reward_models.items()]
        subjects = (subject for subject, _ in self.reward_models.values())
        return [
            replace(subject, axes=axes)
            for subject, axes in zip(subjects, tell_apart(shared, self.grid.axes), strict=True)
        ]

    def _released_reward_models(self) -> list[Subject]:
        """Return a row for each reward model as it is; of best-of-n they pick among what the first cell's SFT says."""
        policy = self.training.sft_of(self.grid.cells[0]).model if self.grid.cells else None
        picking = [suite.name for suite in self.rm_suites if suite.engine == "best-of-n"]
        subjects = []
        for index, name in enumerate(self.loaded.experiment.reward_models):
            place = self.loaded.origins.locate("reward_models", index)
            if picking and policy is None:
                raise SpecError(
                    f"suite {picking[0]!r} lets a reward model pick among responses, and no policy is there to respond",
                    location=place,
                    hint="add a block to the grid, e.g. {policy: …, algorithm: none}",
                )
            stage = self.training.released(name, place, scores=True).model
            found = {suite.name: self.evaluation.reward_model(suite, stage, policy).id for suite in self.rm_suites}
            inputs = {} if policy is None else {"sft": policy.id}
            subjects.append(Subject("reward_model", "cell", {"reward_model.init": name}, stage.id, found, inputs))
        return subjects

    def _check_picks(self, cell: Cell) -> None:
        """Refuse suites in which a reward model picks by its scores where it compares two responses and has none."""
        picking = [suite.name for suite in self.rm_suites if suite.engine == "best-of-n"]
        if cell.values.get("reward_model.loss") == "pairwise" and picking:
            names = self.loaded.experiment.evaluate.reward_model
            raise SpecError(
                f"suite {picking[0]!r} picks by score, and a reward model with loss pairwise scores no single response",
                location=self.loaded.origins.locate("evaluate", "reward_model", names.index(picking[0])),
                hint="evaluate it on suites of pairs",
            )

    def _baselines(self, models: Mapping[Role, Mapping[Cell, StartingModel]]) -> list[Subject]:
        """Return a baseline for each model that cells start from; one without SFT is no second baseline."""
        baselines: dict[tuple[str, ...], Subject] = {}
        role_of: dict[str, str] = {}
        for role in self.loaded.experiment.baselines:
            for model in models[role].values():
                start, key = model.start, (role, repr(model.axes))
                if key in baselines or role_of.setdefault(start.model.id, role) != role:
                    continue
                evaluations = self._evaluate_policy(start.model, chat=start.chat)
                baselines[key] = Subject("policy", role, model.axes, start.model.id, evaluations, {})
        return list(baselines.values())
