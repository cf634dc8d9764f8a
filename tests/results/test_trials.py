"""What a report shows of a sweep: the table of its trials, and its figures, from a journal with known numbers."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from ablate.errors import SpecError, StoreError
from ablate.results.bundle.verify import verify_bundle
from ablate.results.bundle.write import write_bundle
from ablate.results.figures.draw import draw_figures
from ablate.results.figures.search import best_so_far, importance, read_shown
from ablate.results.layout import Layout, load_layout
from ablate.results.long import collect
from ablate.results.report import Report, build_report, render_report
from ablate.results.tables.table import Table, cell_text
from ablate.trials import CAUSE, EXCESS, POLICIES, SURPLUS, best_trials, counted, read_search
from tests.results.conftest import StoreMaker

BETA = FloatDistribution(0.01, 10.0, log=True)
METHOD = CategoricalDistribution(("dpo", "ipo"))
RATE = FloatDistribution(0.0, 1.0)


class SweepMaker:
    """Writes a sweep by hand: trials in a journal, and the cells of those that are complete."""

    def __init__(self, maker: StoreMaker, maximise: Sequence[str] = ("gold",), search: Sequence[str] = ("dpo.beta",)):
        self.maker = maker
        maker.suite("gold", "gold", unit="reward", title="Gold reward")
        maker.suite("length", "chat", unit="tokens", title="Length", higher_is_better=False)
        drawn = {"sampler": "tpe", "seed": 0, "trials": 9}
        maker.plan["sweep"] = {"maximise": list(maximise), "search": list(search), **drawn}
        folder = maker.store.experiment("study")
        folder.folder.mkdir(parents=True)
        self.study = optuna.create_study(
            study_name="study",
            storage=JournalStorage(JournalFileBackend(str(folder.trials_jsonl))),
            directions=["minimize" if name.startswith("-") else "maximize" for name in maximise],
        )
        self.study.set_user_attr("asked", {"maximise": list(maximise)})

    def complete(self, params: dict[str, Any], gold: Sequence[float], length: float = 10.0, **attributes: Any) -> None:
        """Add a trial whose cells, one for each of ``gold``, earn that much."""
        number, policies = len(self.study.trials), []
        for seed, earned in enumerate(gold):
            axes = {"dataset": "uf", "algorithm": "dpo", **params, "seed": seed}
            scores = {"gold": [earned], "length": [length]}
            policies.append(self.maker.subject(f"trial{number} seed{seed}", axes, scores)["stage"])
        reached = {"gold": math.fsum(gold) / len(gold), "length": length}
        values = [reached[name.removeprefix("-")] for name in self.maker.plan["sweep"]["maximise"]]
        self.add(params, TrialState.COMPLETE, values, **{POLICIES: policies}, **attributes)

    def add(
        self, params: dict[str, Any], state: TrialState, values: Sequence[float] | None = None, **attributes: Any
    ) -> None:
        known = {"dpo.beta": BETA, "algorithm": METHOD, "rate": RATE}
        distributions = {name: known[name] for name in params}
        excess = attributes.get(EXCESS)
        self.study.add_trial(
            create_trial(
                state=state, params=params, distributions=distributions, values=values, user_attrs=attributes,
                system_attrs={"constraints": excess} if excess else None,
            )
        )  # fmt: skip

    def report(self, out: Path | None = None, layout: Layout | None = None) -> Report:
        store = self.maker.write()
        return build_report(store, "study", layout) if out is None else render_report(store, "study", layout, out)

    def numbers(self) -> Any:
        return read_shown(collect(self.maker.write(), "study"), read_search(self.maker.store, "study"))


def texts(table: Table) -> list[list[str]]:
    return [[cell_text(table, row, index).plain() for index in range(len(table.columns))] for row in table.rows]


@pytest.fixture
def sweep(maker: StoreMaker) -> SweepMaker:
    """Five trials: two complete, one of them beyond a bound, one pruned, one failed, one too many."""
    made = SweepMaker(maker)
    made.complete({"dpo.beta": 0.123456}, [1.0, 2.0])
    made.complete({"dpo.beta": 0.5}, [3.0, 5.0], **{EXCESS: [0.25]})
    made.complete({"dpo.beta": 1.0}, [2.0, 2.0])
    made.add({"dpo.beta": 7.0}, TrialState.PRUNED)
    made.add({"dpo.beta": 9.0}, TrialState.FAIL, **{CAUSE: "the loss is NaN"})
    made.add({"dpo.beta": 9.5}, TrialState.FAIL, **{SURPLUS: True})
    return made


def test_the_table_of_trials_says_what_was_tried_what_it_reached_and_how_it_ended(sweep: SweepMaker) -> None:
    report = sweep.report()
    table = report.tables[0]
    assert [column.label for column in table.columns] == ["Trial", "DPO beta", "Gold reward", "State"]
    assert texts(table) == [
        ["0", "0.1235", "1.500 ± 0.707", "complete"],
        ["1", "0.5", "4.000 ± 1.414", "out of bounds"],
        ["2", "1.0", "2.000 ± 0.000", "complete"],
        ["3", "7.0", "–", "pruned"],
        ["4", "9.0", "–", "failed [a]"],
    ]
    assert table.notes == (("a", "the loss is NaN"),)
    assert [row.cells[2].rank for row in table.rows] == [None, None, "best", None, None]
    assert "5 of 9 trials: 2 complete, 1 out of bounds, 1 pruned, 1 failed." in table.remarks[0]
    assert table.rows[0].runs == ("train-trial0_seed0", "train-trial0_seed1")  # on the page it leads to them


def test_what_is_measured_otherwise_now_gives_no_spread(sweep: SweepMaker) -> None:
    sweep.maker.evaluation("evaluate-gold-train-trial0_seed0", [7.0])
    assert texts(sweep.report().tables[0])[0][2] == "1.500"


def test_a_sweep_has_its_figures_in_every_format(sweep: SweepMaker, tmp_path: Path) -> None:
    report = sweep.report(tmp_path / "out")
    names = {file.relative_to(tmp_path / "out").as_posix() for file in report.files}
    assert {f"figures/{name}.{form}" for name in ("history", "slices") for form in ("pdf", "png")} <= names
    assert not {name for name in names if "parallel" in name or "importance" in name or "pareto" in name}
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("<svg") == 2 and "Trials in order" in page and "id='trials'" in page
    _, _, content = page.partition('"trials":')
    links, _ = json.JSONDecoder().raw_decode(content)
    assert links["rows"][0]["runs"] == ["train-trial0_seed0", "train-trial0_seed1"]
    assert [column["suites"] for column in links["columns"]] == [[], [], ["gold"], []]  # what a number was measured by
    assert "figures/history.png" in (tmp_path / "out/report.md").read_text()


def test_the_best_so_far_is_of_feasible_trials_alone(sweep: SweepMaker) -> None:
    shown = sweep.numbers()
    assert best_so_far(shown.complete, shown.objectives[0]) == ([0, 2], [1.5, 2.0])


@pytest.mark.parametrize("maximise", [("gold",), ("-length",), ("gold", "-length")])
def test_the_best_trials_are_those_that_optuna_names(maker: StoreMaker, maximise: tuple[str, ...]) -> None:
    sweep, draws = SweepMaker(maker, maximise), np.random.default_rng(0)
    assert not best_trials(counted(sweep.study), sweep.study.directions)
    for drawn in draws.integers(0, 4, (40, 3)):
        gold, length, excess = map(float, drawn)
        values = [length if name == "-length" else gold for name in maximise]
        sweep.add({"dpo.beta": 1.0}, TrialState.COMPLETE, values, **{EXCESS: [excess - 1.0]})
        best = best_trials(counted(sweep.study), sweep.study.directions)
        feasible = [trial for trial in sweep.study.trials if trial.user_attrs[EXCESS] <= [0.0]]
        optunas = (sweep.study.best_trials if len(maximise) > 1 else [sweep.study.best_trial]) if feasible else []
        assert [trial.number for trial in best] == sorted(trial.number for trial in optunas)


def test_the_best_so_far_of_what_is_to_be_low_falls(maker: StoreMaker) -> None:
    made = SweepMaker(maker, ["-length"])
    for length in (5.0, 6.0, 5.0, 3.0):
        made.complete({"dpo.beta": 0.1}, [0.0], length)
    shown = made.numbers()
    assert best_so_far(shown.complete, shown.objectives[0]) == ([0, 3], [5.0, 3.0])


def test_a_front_is_bold_in_all_its_objectives_and_drawn(maker: StoreMaker, tmp_path: Path) -> None:
    made = SweepMaker(maker, ["gold", "-length"])
    for beta, gold, length in ((0.1, 1.0, 1.0), (0.2, 2.0, 2.0), (0.3, 1.0, 3.0)):
        made.complete({"dpo.beta": beta}, [gold], length)
    report = made.report(tmp_path / "out")
    assert [[cell.rank for cell in row.cells[2:4]] for row in report.tables[0].rows] == [["best"] * 2] * 2 + [
        [None] * 2
    ]
    assert "to have Gold reward high and Length low. Bold: the Pareto front" in report.tables[0].remarks[0]
    assert (tmp_path / "out/figures/pareto.pdf").is_file()


def conditional(maker: StoreMaker, count: int = 40) -> SweepMaker:
    """Trials of two methods, of which one reads beta; the method decides what they earn, the rate hardly does."""
    made, random = SweepMaker(maker, search=["algorithm", "rate", "dpo.beta"]), np.random.default_rng(0)
    for number in range(count):
        method, rate = ("dpo", "ipo")[number % 2], float(random.uniform())
        params = {"algorithm": method, "rate": rate}
        params |= {"dpo.beta": float(10 ** random.uniform(-2, 1))} if method == "dpo" else {}
        made.complete(params, [(1.0 if method == "dpo" else 0.0) + 0.1 * rate])
    return made


def test_importances_are_shares_of_variance_of_the_keys_that_all_trials_have(maker: StoreMaker) -> None:
    shown = conditional(maker).numbers()
    found = importance(shown, 0)
    assert list(found) == ["algorithm", "rate"]
    # the variance of the method's part is 0.25, of the rate's 0.01 / 12
    assert found["algorithm"] == pytest.approx(0.25 / (0.25 + 0.01 / 12), abs=0.01)


def log_sweep(maker: StoreMaker, reached: Callable[[float, bool], float]) -> SweepMaker:
    made, random = SweepMaker(maker, search=["rate", "dpo.beta"]), np.random.default_rng(0)
    for _ in range(200):
        beta, rate = 10 ** random.uniform(-2, 1), random.uniform()
        made.complete({"dpo.beta": float(beta), "rate": float(rate)}, [reached(math.log10(beta), rate > 0.5)])
    return made


def test_importances_are_over_the_scale_that_keys_are_drawn_on(maker: StoreMaker) -> None:
    """Of y = a + b with a even on [-2, 1] by logarithm (variance 9/12) and b 0 or √3 (variance 3/4) each has half."""
    found = importance(log_sweep(maker, lambda a, is_high: a + math.sqrt(3) * is_high).numbers(), 0)
    assert found == pytest.approx({"dpo.beta": 0.5, "rate": 0.5}, abs=0.05)


def test_what_keys_explain_together_is_in_no_share(maker: StoreMaker) -> None:
    found = importance(log_sweep(maker, lambda a, is_high: float((a > -0.5) == is_high)).numbers(), 0)
    assert max(found.values()) < 0.1


def test_importances_of_few_trials_are_said_to_be_unreliable(maker: StoreMaker, tmp_path: Path) -> None:
    report = conditional(maker, 12).report(tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    assert "from 12 complete trials. So few trials (10 a key are 20) don't order keys reliably." in text
    assert "Not compared, as not every trial reads them: DPO beta." in text
    assert "Below its range: a trial that does not read the key." in text
    assert {"parallel.pdf", "importance.pdf"} <= {file.name for file in report.files}


def test_trials_that_all_reached_the_same_have_no_importances(maker: StoreMaker) -> None:
    made = SweepMaker(maker, search=["algorithm", "rate"])
    for rate in (0.1, 0.2, 0.3):
        made.complete({"algorithm": "dpo", "rate": rate}, [1.0])
    assert importance(made.numbers(), 0) == {}


def test_a_sweep_without_a_complete_trial_has_a_table_and_no_figure(maker: StoreMaker, tmp_path: Path) -> None:
    made = SweepMaker(maker)
    made.add({"dpo.beta": 0.1}, TrialState.FAIL, **{CAUSE: "out of memory"})
    maker.subject("cell", {"dataset": "uf", "algorithm": "dpo", "dpo.beta": 0.1, "seed": 0}, {"gold": None})
    report = made.report(tmp_path / "out")
    assert texts(report.tables[0]) == [["0", "0.1", "–", "failed [a]"]]
    assert not [file for file in report.files if file.suffix == ".pdf"]


@pytest.mark.parametrize(("title", "caption"), [("", "Trials in order"), ("title: ''", "")])
def test_a_figure_of_trials_needs_no_title(sweep: SweepMaker, tmp_path: Path, title: str, caption: str) -> None:
    (tmp_path / "own.yaml").write_text(f"trials: true\nfigures:\n  - name: own\n    kind: history\n    {title}\n")
    layout = load_layout(tmp_path / "own.yaml", sweep.maker.plan)
    store = sweep.maker.write()
    (drawn,) = draw_figures(collect(store, "study"), layout, (), None, read_search(store, "study"))
    assert drawn.caption.startswith(caption) and not drawn.caption.startswith(" ")


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ("pareto", "a Pareto front is of several objectives, the sweep has one"),
        ("importance", "several keys are compared here, the sweep searches one"),
        ("parallel", "several keys are compared here, the sweep searches one"),
    ],
)
def test_a_figure_that_the_sweep_can_not_have_is_told_at_its_line(
    sweep: SweepMaker, tmp_path: Path, figure: str, message: str
) -> None:
    (tmp_path / "own.yaml").write_text(f"trials: true\nfigures:\n  - name: own\n    kind: {figure}\n")
    with pytest.raises(SpecError, match=message) as caught:
        load_layout(tmp_path / "own.yaml", sweep.maker.plan)
    assert "own.yaml:4: figures.0.kind" in str(caught.value)


def test_an_experiment_without_a_sweep_has_no_trials_to_show(study: StoreMaker, tmp_path: Path) -> None:
    for text, place in (("trials: true\n", "own.yaml:1"), ("data: true\nfigures: [{name: a, kind: history}]\n", ":2")):
        (tmp_path / "own.yaml").write_text(text)
        with pytest.raises(SpecError, match="the experiment has no section sweep") as caught:
            load_layout(tmp_path / "own.yaml", study.plan)
        assert place in str(caught.value)


def test_a_declared_report_may_have_trials_and_single_figures(sweep: SweepMaker, tmp_path: Path) -> None:
    values = {"trials": True, "figures": [{"name": "beta", "kind": "slices", "title": "Which beta?"}]}
    report = sweep.report(tmp_path / "out", Layout.model_validate(values))
    assert [table.name for table in report.tables] == ["trials"]
    assert "![Which beta? Bars: standard deviation over a trial's cells.]" in (tmp_path / "out/report.md").read_text()


def test_a_bundle_of_a_sweep_has_its_trials(sweep: SweepMaker, tmp_path: Path) -> None:
    written = write_bundle(sweep.maker.write(), "study", None, tmp_path / "b.zip")
    found = verify_bundle(written.path)
    assert found.findings == () and found.tables == 2
    with zipfile.ZipFile(written.path) as archive:
        assert "report/figures/history.pdf" in archive.namelist()


@pytest.mark.parametrize("line", [b"garbage\n", b"5\n", b"{}\n", b'{"op_code": 99}\n', b"\xff\xfe\n", b"\n"])
def test_a_damaged_line_of_a_journal_is_named(sweep: SweepMaker, line: bytes) -> None:
    file = sweep.maker.write().experiment("study").trials_jsonl
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], line, *lines[4:]]))
    with pytest.raises(StoreError, match=r"trials\.jsonl:4: not a line of Optuna's journal"):
        sweep.report()


def test_a_journal_that_lacks_what_others_refer_to_is_refused(sweep: SweepMaker) -> None:
    file = sweep.maker.write().experiment("study").trials_jsonl
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(StoreError, match=r"trials\.jsonl can't be read"):
        sweep.report()


def test_a_line_that_is_being_written_is_left_out(sweep: SweepMaker) -> None:
    file = sweep.maker.write().experiment("study").trials_jsonl
    file.write_bytes(file.read_bytes() + b'{"op_code": 4, "stu')
    assert len(sweep.report().tables[0].rows) == 5
