"""Figures of a sweep: its trials in order, by value, across all keys, on a Pareto front; importance of its keys."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablate.results.figures import style
from ablate.results.figures.style import Drawing
from ablate.results.layout import RowAxis
from ablate.results.layout.figures import (
    HistoryLayout,
    ImportanceLayout,
    ParallelLayout,
    ParetoLayout,
    SearchFigure,
    SlicesLayout,
)
from ablate.results.long import Results
from ablate.results.tables.columns import Measured, key_title
from ablate.results.tables.rows import value_label
from ablate.results.tables.trials import objectives, reached, searched_keys
from ablate.trials import Search, is_feasible

_ENOUGH = 10
"""Complete trials a searched key, below which the caption warns of importances."""

_HALO = (withStroke(linewidth=2.0, foreground="white"),)
"""Around text that lines may cross."""

_TRIAL, _BEST = style.COLORS[0], style.COLORS[5]


@dataclass(frozen=True)
class Objective:
    """What trials are compared by: its name, its direction, and each complete trial's number as it is written."""

    label: str
    maximise: bool
    values: dict[int, float]
    spreads: dict[int, float]


@dataclass(frozen=True)
class Key:
    """A searched key: its name, its range, and how its values are written."""

    name: str
    label: str
    distribution: BaseDistribution
    choices: tuple[str, ...] = ()

    @property
    def is_log(self) -> bool:
        """Whether its axis is logarithmic."""
        return isinstance(self.distribution, FloatDistribution | IntDistribution) and self.distribution.log

    def place(self, value: Any) -> float:
        """Return where a value lies on an axis: the number, or a choice's position."""
        if isinstance(self.distribution, CategoricalDistribution):
            return float(self.distribution.choices.index(value))
        return float(value)

    def height(self, value: Any) -> float:
        """Return where a value lies between the lowest (0) and the highest (1) of the range."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.place(value) / max(1, len(self.choices) - 1)
        low, high = self.bounds
        turn = math.log if self.is_log else float
        return (turn(value) - turn(low)) / (turn(high) - turn(low))

    @property
    def even(self) -> BaseDistribution:
        """Its range on the scale on which values are drawn evenly: of logarithms, where it is logarithmic."""
        if not self.is_log:
            return self.distribution
        low, high = self.bounds
        return FloatDistribution(math.log(low), math.log(high))

    def drawn(self, value: Any) -> Any:
        """Return a value on that scale."""
        return math.log(value) if self.is_log else value

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest number of the range."""
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return self.distribution.low, self.distribution.high


@dataclass(frozen=True)
class Shown:
    """What the figures of a sweep are drawn from; ``best`` are numbers of trials."""

    search: Search
    objectives: tuple[Objective, ...]
    keys: tuple[Key, ...]
    best: frozenset[int]

    @property
    def complete(self) -> tuple[FrozenTrial, ...]:
        """The trials that have results."""
        return self.search.complete


def read_shown(results: Results, search: Search) -> Shown:
    """Read what the figures of a sweep are drawn from."""
    measured = objectives(results, search)
    best = frozenset(trial.number for trial in search.best)
    found = tuple(_objective(results, search, item, index) for index, item in enumerate(measured))
    return Shown(search, found, tuple(_key(results, search, name) for name in searched_keys(search)), best)


def _objective(results: Results, search: Search, measured: Measured, index: int) -> Objective:
    column = measured.column
    cells = {trial.number: reached(results, trial, measured, index) for trial in search.complete}
    label = column.label + (" (%)" if column.scale == 100.0 else "")
    values = {number: cell.value * column.scale for number, cell in cells.items() if cell.value is not None}
    spreads = {number: cell.sd * column.scale for number, cell in cells.items() if cell.sd is not None}
    return Objective(style.plain(label), search.maximises(index), values, spreads)


def _key(results: Results, search: Search, name: str) -> Key:
    distribution = next(trial.distributions[name] for trial in search.trials if name in trial.params)
    choices: tuple[str, ...] = ()
    if isinstance(distribution, CategoricalDistribution):
        choices = tuple(style.plain(value_label(results, RowAxis(axis=name), value)) for value in distribution.choices)
    return Key(name, style.plain(key_title(name)), distribution, choices)


def draw_search(figure: SearchFigure, results: Results, search: Search) -> Drawing | None:
    """Draw one figure of a sweep; None while no trial is complete."""
    if not search.complete:
        return None
    shown = read_shown(results, search)
    match figure:
        case HistoryLayout():
            return draw_history(figure, shown)
        case SlicesLayout():
            return draw_slices(figure, shown)
        case ParallelLayout():
            return draw_parallel(figure, shown)
        case ImportanceLayout():
            return draw_importance(figure, shown)
        case ParetoLayout():
            return draw_pareto(figure, shown)
    raise TypeError(f"no way to draw {figure!r}")


def draw_history(layout: HistoryLayout, shown: Shown) -> Drawing:
    """Draw a panel for each objective over the trials' numbers, with the best so far where there is one objective."""
    figure = style.new_figure(style.COLUMN, 1.9 * len(shown.objectives), layout.title)
    panels = figure.subplots(len(shown.objectives), 1, squeeze=False, sharex=True)[:, 0]
    for axes, objective in zip(panels, shown.objectives, strict=True):
        if len(shown.objectives) == 1:
            numbers, values = best_so_far(shown.complete, objective)
            last = shown.search.trials[-1].number
            x, y = [*numbers, last], [*values, *values[-1:]]
            if values:
                axes.step(x, y, where="post", color=style.INK, linewidth=0.9, label="Best so far")
        _trials(axes, shown, objective, {trial.number: float(trial.number) for trial in shown.complete})
        _unfinished(axes, shown)
        axes.set_ylabel(style.wrapped(objective.label, 1.7))
    panels[-1].set_xlabel("Trial")
    panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    style.add_legend(figure, panels[0])
    return Drawing(figure, _spread_remark(shown))


def best_so_far(complete: Sequence[FrozenTrial], objective: Objective) -> tuple[list[int], list[float]]:
    """Return the numbers of the feasible trials that beat all before them, and what they reached."""
    numbers: list[int] = []
    values: list[float] = []
    for trial in complete:
        value = objective.values[trial.number]
        if is_feasible(trial) and (not values or ((value > values[-1]) == objective.maximise and value != values[-1])):
            numbers.append(trial.number)
            values.append(value)
    return numbers, values


def draw_slices(layout: SlicesLayout, shown: Shown) -> Drawing:
    """Draw a panel for each searched key, a line of them for each objective."""
    columns, lines = len(shown.keys), len(shown.objectives)
    width = style.COLUMN if columns <= 2 else style.PAGE
    around = math.ceil(columns / 4) if lines == 1 else 1
    columns = math.ceil(columns / around)
    figure = style.new_figure(width, 1.9 * lines * around, layout.title)
    grid = figure.subplots(lines * around, columns, squeeze=False, sharey="row" if around == 1 else False).flatten()
    pairs = list(itertools.product(shown.objectives, shown.keys))
    for place, (axes, (objective, key)) in enumerate(zip(grid, pairs, strict=False)):
        places = {t.number: key.place(t.params[key.name]) for t in shown.complete if key.name in t.params}
        _trials(axes, shown, objective, places)
        _key_axis(axes, key, width / columns - 0.5)
        if place % columns == 0:
            axes.set_ylabel(style.wrapped(objective.label, 1.7))
    for unused in grid[len(pairs) :]:
        unused.remove()
    style.add_legend(figure, grid[0])
    return Drawing(figure, _spread_remark(shown))


def _key_axis(axes: Axes, key: Key, room: float) -> None:
    axes.set_xlabel(style.wrapped(key.label, room))
    if key.choices:
        names = [style.wrapped(name, room / len(key.choices)) for name in key.choices]
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    low, high = key.bounds
    if key.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        edge = (high / low) ** 0.03
        axes.set_xlim(low / edge, high * edge)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=isinstance(key.distribution, IntDistribution)))
        edge = 0.03 * (high - low)
        axes.set_xlim(low - edge, high + edge)


def _trials(
    axes: Axes,
    shown: Shown,
    objective: Objective,
    places: Mapping[int, float],
    spreads: Mapping[int, float] | None = None,
) -> None:
    """Draw complete trials where ``places`` says: filled where they keep their bounds, the best in another colour.

    ``spreads`` are those of the places.
    """
    feasible = {trial.number for trial in shown.complete if is_feasible(trial)}
    front = "Pareto front" if len(shown.objectives) > 1 else "Best"
    kinds = (
        ("Complete", [n for n in places if n in feasible - shown.best], "o", _TRIAL, _TRIAL),
        ("Out of bounds", [n for n in places if n not in feasible], "o", _TRIAL, "white"),
        (front, [n for n in places if n in shown.best], "D", _BEST, _BEST),
    )
    for label, numbers, marker, color, face in kinds:
        if numbers:
            axes.errorbar(
                [places[n] for n in numbers], [objective.values[n] for n in numbers],
                xerr=[spreads.get(n, math.nan) for n in numbers] if spreads else None,
                yerr=[objective.spreads.get(n, math.nan) for n in numbers], linestyle="none", markersize=3.5,
                elinewidth=0.6, label=label, marker=marker, color=color, markerfacecolor=face,
            )  # fmt: skip


def _unfinished(axes: Axes, shown: Shown) -> None:
    """Mark trials without a result at the lower edge."""
    for number, (label, state) in enumerate((("Pruned", TrialState.PRUNED), ("Failed", TrialState.FAIL))):
        found = [trial.number for trial in shown.search.trials if trial.state == state]
        if found:
            axes.plot(
                found, [0.0] * len(found), transform=axes.get_xaxis_transform(), clip_on=False, linestyle="none",
                marker="|x"[number], markersize=5, color=style.SOFT if number == 0 else style.INK, label=label,
            )  # fmt: skip


def _spread_remark(shown: Shown) -> tuple[str, ...]:
    is_spread = any(objective.spreads for objective in shown.objectives)
    return ("Bars: standard deviation over a trial's cells.",) if is_spread else ()


def draw_parallel(layout: ParallelLayout, shown: Shown) -> Drawing:
    """Draw every complete trial as a line over the ranges of all keys, coloured by the first objective."""
    objective = shown.objectives[0]
    width = style.COLUMN if len(shown.keys) <= 4 else style.PAGE
    figure = style.new_figure(width, 2.3, layout.title)
    axes = figure.subplots()
    low, high = min(objective.values.values()), max(objective.values.values())
    colors = ScalarMappable(Normalize(low, high), "viridis_r" if objective.maximise else "viridis")
    for trial in sorted(shown.complete, key=lambda trial: trial.number in shown.best):
        heights = [key.height(trial.params[key.name]) if key.name in trial.params else _NOT for key in shown.keys]
        is_best = trial.number in shown.best
        shade = (objective.values[trial.number] - low) / (high - low or 1.0)
        axes.plot(
            range(len(heights)), heights, color=colors.cmap(shade),
            linewidth=2.0 if is_best else 0.8, linestyle="-" if is_feasible(trial) else ":",
            marker="o", markersize=2.5 if is_best else 1.5,
        )  # fmt: skip
    room = width / len(shown.keys) - 0.15
    axes.set_xticks(range(len(shown.keys)), [style.wrapped(key.label, room) for key in shown.keys])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
    for place, key in enumerate(shown.keys):
        _range(axes, place, key)
    is_conditional = any(key.name not in trial.params for key in shown.keys for trial in shown.complete)
    axes.set_ylim(_NOT - 0.06 if is_conditional else -0.06, 1.06)
    axes.set_xlim(-0.3, len(shown.keys) - 0.5)
    bar = figure.colorbar(colors, ax=axes, aspect=30, pad=0.02)
    bar.set_label(objective.label)
    bar.outline.set_visible(False)
    remarks = ["Thick: the Pareto front." if len(shown.objectives) > 1 else "Thick: the best."]
    remarks += ["Below its range: a trial that does not read the key."] if is_conditional else []
    remarks += ["Dotted: out of bounds."] if any(not is_feasible(trial) for trial in shown.complete) else []
    return Drawing(figure, tuple(remarks))


_NOT = -0.18
"""Height of a key that a trial does not read, below the range from 0 to 1."""


def _range(axes: Axes, place: int, key: Key) -> None:
    axes.plot([place, place], [0, 1], color=style.INK, linewidth=0.6, zorder=0)
    if key.choices:
        marks = [(index / max(1, len(key.choices) - 1), name) for index, name in enumerate(key.choices)]
    else:
        marks = [(height, f"{bound:.4g}") for height, bound in zip((0.0, 1.0), key.bounds, strict=True)]
    for height, text in marks:
        axes.annotate(
            text, (place, height), (-3, 0), textcoords="offset points", ha="right", va="center", fontsize=6,
            path_effects=_HALO, zorder=4,
        )  # fmt: skip


def draw_importance(layout: ImportanceLayout, shown: Shown) -> Drawing | None:
    """Draw the share of each objective's variance that a key explains on its own; None where there is none yet."""
    found = [(objective, importance(shown, index)) for index, objective in enumerate(shown.objectives)]
    shares = [(objective, own) for objective, own in found if own]
    if not shares:
        return None
    names = list(shares[0][1])
    labels = {key.name: key.label for key in shown.keys}
    figure = style.new_figure(style.COLUMN, 0.5 + 0.2 * len(names) * len(shares), layout.title)
    axes = figure.subplots()
    thick = 0.8 / len(shares)
    for index, (objective, own) in enumerate(shares):
        heights = [place + (index - (len(shares) - 1) / 2) * thick for place in range(len(names))]
        label = objective.label if len(found) > 1 else None
        axes.barh(heights, [own[name] for name in names], thick, color=style.COLORS[index], label=label)
    axes.set_yticks(range(len(names)), [style.wrapped(labels[name], 1.2) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("Share of variance (fANOVA)")
    style.add_legend(figure, axes)
    return Drawing(figure, tuple(_importance_remarks(shown, names)))


def importance(shown: Shown, index: int) -> dict[str, float]:
    """Return the share of an objective's variance over the searched ranges that each key explains alone, largest first.

    Keys are those that all complete trials have, on the scale that they are drawn on; what their shares lack to 1 is of
    keys together. Empty where there are fewer than two such keys or complete trials, or all trials reached the same.
    By Optuna's fANOVA (Hutter et al. 2014), which takes every range to be drawn from evenly.
    """
    keys = _compared(shown)
    if len(shown.complete) < 2 or len(keys) < 2 or len({trial.values[index] for trial in shown.complete}) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator  # scikit-learn takes two seconds

    study = optuna.create_study()
    for trial in shown.complete:
        params = {key.name: key.drawn(trial.params[key.name]) for key in keys}
        distributions = {key.name: key.even for key in keys}
        study.add_trial(create_trial(params=params, distributions=distributions, value=trial.values[index]))
    return FanovaImportanceEvaluator(seed=0).evaluate(study, params=[key.name for key in keys])


def _compared(shown: Shown) -> list[Key]:
    return [key for key in shown.keys if all(key.name in trial.params for trial in shown.complete)]


def _importance_remarks(shown: Shown, names: Sequence[str]) -> list[str]:
    count = len(shown.complete)
    remarks = [f"What a key explains alone, by functional analysis of variance from {count} complete trials."]
    if count < _ENOUGH * len(names):
        remarks.append(f"So few trials ({_ENOUGH} a key are {_ENOUGH * len(names)}) don't order keys reliably.")
    if left := [key.label for key in shown.keys if key.name not in names]:
        remarks.append(f"Not compared, as not every trial reads them: {', '.join(left)}.")
    return remarks


def draw_pareto(layout: ParetoLayout, shown: Shown) -> Drawing:
    """Draw a panel for each pair of objectives; of two, with the line that no trial is beyond."""
    pairs = list(itertools.combinations(shown.objectives, 2))
    columns = min(3, len(pairs))
    lines = math.ceil(len(pairs) / columns)
    width = style.COLUMN if len(pairs) == 1 else style.PAGE
    figure = style.new_figure(width, 2.3 * lines, layout.title)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (one, other) in zip(grid, pairs, strict=False):
        if len(pairs) == 1:
            _front_line(axes, shown, one, other)
        _trials(axes, shown, other, one.values, one.spreads)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        for number in shown.best:
            place = (one.values[number], other.values[number])
            axes.annotate(str(number), place, (3, 3), textcoords="offset points", fontsize=6, path_effects=_HALO)
        axes.set_xlabel(f"{one.label} ({'higher' if one.maximise else 'lower'} is better)")
        axes.set_ylabel(style.wrapped(f"{other.label} ({'higher' if other.maximise else 'lower'} is better)", 2.1))
    for unused in grid[len(pairs) :]:
        unused.remove()
    style.add_legend(figure, grid[0])
    return Drawing(figure, ("Numbers are those of trials.", *_spread_remark(shown)))


def _front_line(axes: Axes, shown: Shown, one: Objective, other: Objective) -> None:
    """Draw the border of what the front beats: beside a point it is at that point's height, on the worse side."""
    points = sorted((one.values[number], other.values[number]) for number in shown.best)
    where: Literal["pre", "post"] = "pre" if one.maximise else "post"
    axes.step(
        [x for x, _ in points], [y for _, y in points], where=where, color=style.INK, linewidth=0.8, linestyle=":"
    )
