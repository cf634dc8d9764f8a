"""Every kind of figure: what it shows of known numbers, how it reads in a paper's column, what it refuses."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablate.errors import AblateError
from ablate.results.figures import style
from ablate.results.figures.draw import draw, draw_figures
from ablate.results.figures.lines import pareto_front
from ablate.results.layout import Layout, load_layout
from ablate.results.long import collect
from ablate.results.tables.build import build_table
from ablate.results.tables.correlation import build_correlations

MAIN: dict[str, Any] = {
    "name": "main", "title": "Main", "rows": ["dataset", "algorithm"], "columns": ["categories", "average", "gold"],
    "baselines": ["base", "sft"],
    "deltas": [{"axis": "algorithm", "values": ["ppo", "dpo"], "match_on": ["dataset"], "label": "Δ"}],
}  # fmt: skip
MAIN["columns"] = ["categories", "average", {"category": "gold"}]
MODELS: dict[str, Any] = {
    "name": "models", "subject": "reward_model", "rows": ["reward_model.dataset", "reward_model.init"],
    "columns": ["suites"],
}  # fmt: skip
DOWN: dict[str, Any] = {"name": "down", "reward_model": [{"suite": "pairs"}], "policy": ["average"]}
LONG = [
    "StackExchange (paired)", "SHP-2", "PRM800K (phase 2)", "Chatbot Arena (2023)", "Chatbot Arena (2024)",
    "AlpacaFarm (human preferences)", "Capybara", "HH-RLHF", "HelpSteer", "AlpacaFarm (GPT-4 preferences)",
    "Orca pairs", "Nectar", "UltraFeedback (overall)", "UltraFeedback (mean of the fine-grained aspects)",
]  # fmt: skip


class Drawer:
    """Draws one figure of the experiment in a store."""

    def __init__(self, maker: Any, folder: Path) -> None:
        self.maker, self.folder = maker, folder

    def layout(self, **figure: Any) -> Layout:
        file = self.folder / "report.yaml"
        figures = [{"name": "f", "title": "A title of $5 that is long enough to need a second line", **figure}]
        file.write_text(
            yaml.safe_dump({"tables": [MAIN, MODELS], "correlations": [DOWN], "figures": figures}), encoding="utf-8"
        )
        return load_layout(file, self.maker.plan)

    def __call__(self, **figure: Any) -> Figure:
        layout = self.layout(**figure)
        results = collect(self.maker.write(), "study")
        tables = {table.name: build_table(results, table) for table in layout.tables}
        tables |= {one.name: build_correlations(results, one) for one in layout.correlations}
        with matplotlib.rc_context(style.STYLE):  # type: ignore[arg-type]
            drawing = draw(layout.figures[0], results, layout, tables)
            assert drawing is not None
            drawing.figure.draw_without_rendering()
        return drawing.figure


@pytest.fixture
def drawer(study: Any, tmp_path: Path) -> Drawer:
    for dataset, seed in itertools.product(("hh", "uf"), range(3)):
        records = [{"step": n, "samples": 8 * n, "score": n + seed, "kl": 0.1 * n, "loss": 1.0 / n} for n in (1, 2, 3)]
        for stage in (f"train-{dataset}_ppo_{seed}", f"reward_model-{dataset}-{seed}"):
            lines = "".join(json.dumps(record) + "\n" for record in records)
            study.store.stage(stage).artifact("history.jsonl").write_text(lines)
    return Drawer(study, tmp_path)


STEPS = [
    {"label": "SFT", "where": {"baseline": "sft"}},
    {"label": "+ DPO", "where": {"dataset": "hh", "algorithm": "dpo"}},
    {"label": "+ better data", "where": {"dataset": "uf", "algorithm": "dpo"}},
    {"label": "+ PPO", "where": {"dataset": "uf", "algorithm": "ppo"}},
]
SPOKES = ["factuality", "reasoning", "chat"]
KINDS: dict[str, dict[str, Any]] = {
    "bar": {"table": "main"},
    "bar of two": {"table": "main", "columns": ["average", "gold"]},
    "recipe": {"kind": "recipe", "table": "main", "columns": SPOKES, "steps": STEPS},
    "dumbbell": {"kind": "dumbbell", "table": "main", "columns": ["average", "gold"]},
    "heatmap": {"kind": "heatmap", "table": "main", "columns": [*SPOKES, "average"], "against": "sft"},
    "heatmap of all": {"kind": "heatmap", "table": "main"},
    "scaling": {"kind": "scaling", "table": "models", "axis": "reward_model.init", "columns": ["pairs"]},
    "radar": {"kind": "radar", "table": "main", "columns": SPOKES},
    "curves": {"kind": "curves", "table": "main", "suite": "facts"},
    "front": {"kind": "front", "table": "main"},
    "training": {"kind": "training", "table": "models", "y": ["loss", "score"]},
    "scatter": {"kind": "scatter", "correlation": "down"},
}


def fourteen(drawer: Drawer, answers: Any) -> None:
    """Add twelve sets with long names, and a reward model on each."""
    maker = drawer.maker
    for number, title in enumerate(LONG):
        name = f"set{number}" if number > 1 else ("hh", "uf")[number]
        maker.plan["datasets"][name] = {"title": title, "label_kind": "human"}
        if number < 2:
            continue
        for algorithm in ("dpo", "ppo"):
            maker.subject(
                f"{name} {algorithm}", {"dataset": name, "algorithm": algorithm, "seed": 0},
                dict.fromkeys(("facts", "math", "chat", "rules", "gold"), answers(40 + number, 100)),
            )  # fmt: skip
        axes = {"reward_model.init": "tiny", "reward_model.dataset": name, "seed": 0}
        maker.subject(f"rm {name}", axes, {"pairs": answers(50 + number, 100)}, subject="reward_model")


def shown_texts(figure: Figure) -> list[Text]:
    drawn = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text().strip()]
    offstage = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not low_high(axis.get_view_interval())[0] <= tick.get_loc() <= low_high(axis.get_view_interval())[1]
    }
    return [text for text in drawn if text.get_visible() and id(text) not in offstage]


def low_high(interval: Any) -> tuple[float, float]:
    slack = abs(interval[1] - interval[0]) * 1e-9
    return min(interval) - slack, max(interval) + slack


@pytest.mark.parametrize("many", [False, True], ids=["two", "fourteen"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_in_a_column(kind: str, many: bool, drawer: Drawer, answers: Any) -> None:
    if many and kind == "radar":
        pytest.skip("refused: see below")
    if many:
        fourteen(drawer, answers)
    figure = drawer(**KINDS[kind])
    width, height = figure.get_size_inches()
    assert width in (style.COLUMN, style.PAGE) and height < 9
    texts = shown_texts(figure)
    assert len(texts) > 5
    assert min(text.get_fontsize() for text in texts) >= 7
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert inside, f"{text!r} leaves the figure"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        shared_x = min(first.x1, second.x1) - max(first.x0, second.x0)
        shared_y = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(shared_x, shared_y) < 1.0, f"{one!r} lies over {other!r}"


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_written_as_pdf_and_png_of_the_same_bytes(kind: str, drawer: Drawer, tmp_path: Path) -> None:
    layout = drawer.layout(**KINDS[kind])
    results = collect(drawer.maker.write(), "study")
    tables = [build_table(results, table) for table in layout.tables]
    tables += [build_correlations(results, one) for one in layout.correlations]
    first, second = (draw_figures(results, layout, tables, tmp_path / name)[0] for name in ("a", "b"))
    assert [file.suffix for file in first.files] == [".pdf", ".png"]
    assert [file.read_bytes() for file in first.files] == [file.read_bytes() for file in second.files]
    svg = first.svg
    assert svg == second.svg and svg.startswith("<svg") and not re.search(r'(href|src)="(?!#|data:image/png)', svg)


def main_axes(figure: Figure) -> Axes:
    return figure.axes[0]


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for group in axes.containers if isinstance(group, BarContainer) for bar in group]


def test_steps_of_a_recipe_are_bars_with_their_spread(drawer: Drawer) -> None:
    axes = main_axes(drawer(**KINDS["recipe"]))
    assert heights(axes) == pytest.approx([40, 41, 61, 71] * 3)
    first = next(group for group in axes.containers if isinstance(group, BarContainer) and group.errorbar)
    assert first.errorbar is not None
    (low, high) = first.errorbar.lines[2][0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 1.0)  # seeds 40, 41, 42: a standard deviation of 1


def test_a_dumbbell_has_both_ends_and_their_difference(drawer: Drawer) -> None:
    axes = main_axes(drawer(kind="dumbbell", table="main", columns=["average"]))
    ends = [
        float(group.lines[0].get_xdata()[0])  # type: ignore[index, arg-type]
        for group in axes.containers
        if isinstance(group, ErrorbarContainer) and group.lines[0] is not None
    ]
    assert ends == pytest.approx([51, 41, 71, 61])
    assert [text.get_text() for text in axes.texts] == ["+10.0", "+10.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["HH_50%", "UltraFeedback & co"]


def test_a_missing_end_is_said(drawer: Drawer) -> None:
    for seed in range(3):
        drawer.maker.store.stage(f"evaluate-facts-train-hh_dpo_{seed}").done_json.unlink(missing_ok=True)
    for kind in ("dumbbell", "bar"):
        figure = drawer(table="main", columns=["average"], kind=kind)
        assert "missing" in [text.get_text() for text in main_axes(figure).texts]


def test_cells_of_a_heat_map_are_coloured_by_their_difference_from_the_baseline(drawer: Drawer) -> None:
    axes = main_axes(drawer(kind="heatmap", table="main", columns=["factuality"], against="sft"))
    assert [text.get_text() for text in axes.texts] == ["10.0", "40.0", "41.0", "51.0", "61.0", "71.0"]
    base, sft, *_, best = [collection.get_facecolor()[0] for collection in axes.collections]  # type: ignore[index]
    assert tuple(sft[:3]) == pytest.approx((1.0, 1.0, 1.0), abs=0.01)
    assert base[0] > base[2] and best[2] > best[0]  # orange below, blue above


def test_a_line_of_scaling_goes_from_size_to_size(drawer: Drawer, answers: Any) -> None:
    axes = {"reward_model.init": "large", "reward_model.dataset": "hh", "seed": 0}
    drawer.maker.subject("rm hh large", axes, {"pairs": answers(90, 100)}, subject="reward_model")
    figure = drawer(**KINDS["scaling"], sizes={"tiny": 1e6, "large": 1e9})
    assert main_axes(figure).get_xscale() == "log"
    hh = next(group for group in main_axes(figure).containers if group.get_label() == "HH_50%")
    assert isinstance(hh, ErrorbarContainer) and hh.lines[0] is not None
    assert list(hh.lines[0].get_xdata()) == [1e6, 1e9]
    assert list(hh.lines[0].get_ydata()) == pytest.approx([51, 90])


def test_the_front_is_what_no_point_is_beyond() -> None:
    points = [(0.3, 1.0), (0.1, 0.5), (0.2, 0.4), (0.3, 2.0), (0.4, 2.0), (0.5, 2.1), (0.0, 0.1)]
    slow = sorted(
        (x, y) for x, y in points
        if not any((a <= x and b > y) or (a < x and b >= y) for a, b in points)
    )  # fmt: skip
    assert list(zip(*pareto_front(points), strict=True)) == slow


def test_points_of_a_scatter_are_cells_and_the_models_they_were_trained_on(drawer: Drawer) -> None:
    axes = main_axes(drawer(**KINDS["scatter"]))
    found = {str(line.get_label()): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.lines}
    assert found["HH_50%"] == [(pytest.approx(50 + seed), pytest.approx(50 + seed)) for seed in range(3)]
    assert axes.get_title(loc="left") == "r = 1.00, n = 6"


def test_training_curves_of_reward_models(drawer: Drawer) -> None:
    loss, score = drawer(**KINDS["training"]).axes
    assert [list(line.get_ydata()) for line in loss.lines] == [pytest.approx([1, 1 / 2, 1 / 3])] * 2
    assert [list(line.get_ydata()) for line in score.lines] == [pytest.approx([2, 3, 4])] * 2


STEP = STEPS[0]


def heatmap(**more: Any) -> dict[str, Any]:
    return {"kind": "heatmap", "table": "main", **more}


def recipe(*steps: dict[str, Any]) -> dict[str, Any]:
    return {**KINDS["recipe"], "steps": [STEP, *steps]}


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        (heatmap(kind="heatmpa"), r"figures.0.kind: unknown kind of figure 'heatmpa'.*did you mean 'heatmap'"),
        (heatmap(agains="sft"), r"figures.0.agains: unknown key.*did you mean 'against'"),
        (heatmap(against="sff"), r"figures.0.against.*did you mean 'sft'"),
        (heatmap(columns=["factulity"]), r"figures.0.columns.0.*did you mean 'factuality'"),
        (heatmap(columns=["chat", "gold"], against="sft"), r"no common colours"),
        ({"kind": "radar", "table": "main", "columns": ["chat"]}, r"figures.0.columns"),
        ({"kind": "radar", "table": "main", "columns": [*SPOKES, "gold"]}, r"spokes of a radar need one unit"),
        ({"kind": "dumbbell", "table": "models"}, r"figures.0.table: table 'models' has no deltas"),
        ({"kind": "scatter", "correlation": "dwon"}, r"figures.0.correlation.*did you mean 'down'"),
        ({"kind": "scaling", "table": "models", "axis": "dataset"}, r"figures.0.axis: unknown axis 'dataset'"),
        (KINDS["scaling"] | {"sizes": {"tyni": 1}}, r"figures.0.sizes.tyni.*allowed: tiny"),
        (KINDS["training"] | {"y": ["los"]}, r"no training curve has 'los'.*did you mean 'loss'"),
        (KINDS["front"] | {"y": "scor"}, r"no training curve has 'scor'.*did you mean 'score'"),
        (recipe(), r"figures.0.steps"),
        (recipe({"label": "x", "where": {"dtaset": "hh"}}), r"steps.1.where.dtaset.*did you mean 'dataset'"),
        (recipe({"label": "x", "where": {"dataset": "hx"}}), r"steps.1.where.dataset.*allowed: hh, uf"),
        (recipe({"label": "x", "where": {"dataset": "hh"}}), r"step 'x' is 2 rows \(HH_50% DPO; HH_50% PPO\)"),
    ],
)
def test_what_is_declared_wrongly_is_said(figure: dict[str, Any], message: str, drawer: Drawer) -> None:
    with pytest.raises(AblateError) as caught:
        drawer(**figure)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


def test_a_radar_of_many_rows_is_refused(drawer: Drawer, answers: Any) -> None:
    fourteen(drawer, answers)
    with pytest.raises(AblateError, match="rows are too many to tell apart on a radar"):
        drawer(**KINDS["radar"])


def test_without_numbers_there_is_no_figure(maker: Any, tmp_path: Path, answers: Callable[..., Any]) -> None:
    maker.suite("facts", "factuality")
    maker.subject("one", {"dataset": "d", "algorithm": "dpo", "seed": 0}, {"facts": None})
    layout = Layout.model_validate({
        "tables": [{"name": "main", "rows": ["dataset", "algorithm"], "columns": ["categories"]}],
        "figures": [{"name": name, "table": "main", "kind": name} for name in ("bar", "heatmap", "curves", "front")],
    })  # fmt: skip
    results = collect(maker.write(), "study")
    assert draw_figures(results, layout, [build_table(results, layout.tables[0])], tmp_path) == []
