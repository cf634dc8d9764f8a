"""A report: an experiment's tables and figures, written in every format or shown in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from ablate.context import write_text
from ablate.errors import SpecError, suggestion
from ablate.results.appendix.write import write_appendix
from ablate.results.claims.table import NAME as CLAIMS
from ablate.results.folder import keep_only, written_before
from ablate.results.layout import Layout, check_layout, default_layout, load_layout
from ablate.results.layout.figures import SearchFigure
from ablate.results.layout.names import TRIALS, published_file
from ablate.results.long import Results, collect
from ablate.results.page.content import page_content
from ablate.results.page.page import page
from ablate.results.published.read import read_published
from ablate.results.published.render import published_table
from ablate.results.tables import data_table, scores
from ablate.results.tables.analyses import build_analyses
from ablate.results.tables.build import build_table
from ablate.results.tables.correlation import build_correlations
from ablate.results.tables.latex import fragment, standalone
from ablate.results.tables.table import Table
from ablate.results.tables.text import escape_markdown, markdown, to_csv
from ablate.results.tables.text import terminal as terminal_table
from ablate.shipped import find_by_name, search_folders
from ablate.store import Store

if TYPE_CHECKING:
    from ablate.results.figures.draw import Drawn
    from ablate.trials import Search


@dataclass(frozen=True)
class Report:
    """A rendered report; ``files`` are those written (none when it was only built)."""

    experiment: str
    title: str
    question: str
    tables: tuple[Table, ...]
    remarks: tuple[str, ...]
    files: tuple[Path, ...] = ()


def build_report(
    store: Store, experiment_name: str, layout: Layout | Path | None = None, *, data: bool = False
) -> Report:
    """Build an experiment's tables from what is done so far; nothing is written.

    ``layout`` is a layout, or the path or name of one; null takes the plan's report, or a default layout when it names
    none. ``data`` adds the table of the sets that are read. Raises :class:`ablate.errors.SpecError` when the layout
    names what the experiment does not have.
    """
    results = collect(store, experiment_name)
    chosen = resolve_layout(results, layout, data=data)
    return _build(results, chosen, _search(results, chosen))


def render_report(
    store: Store,
    experiment_name: str,
    layout: Layout | Path | None,
    out: Path,
    *,
    data: bool = False,
    appendix: bool = False,
) -> Report:
    """Write report.md, report.html, tables/*.{tex,csv}, tables/*.standalone.tex, figures/* and results.csv to ``out``.

    Takes and raises what :func:`build_report` does; ``appendix`` adds appendix.md, appendix.tex and a document. Partial
    results are rendered with their gaps marked. Files of an earlier report that this one doesn't have are deleted; a
    folder with another experiment's report is refused.
    """
    results = collect(store, experiment_name)
    before = written_before(out, experiment_name)
    chosen = resolve_layout(results, layout, data=data)
    search = _search(results, chosen)
    report = _build(results, chosen, search)
    out.mkdir(parents=True, exist_ok=True)
    figures = _draw(
        results, chosen, report.tables, search, out / "figures"
    )  # first: one that can't be drawn is an error
    files = [file for table in report.tables for file in write_table(table, out / "tables")]
    files += [file for drawn in figures for file in drawn.files]
    files.append(_write_page(results, chosen, report, figures, out))
    linked = [(drawn.caption, f"figures/{drawn.name}.png") for drawn in figures]
    files.append(write_text(out / "report.md", report_markdown(report, linked)))
    files.append(write_text(out / "results.csv", results.table().to_csv(index=False, lineterminator="\n")))
    if appendix:
        files += write_appendix(results, out)
    keep_only(out, experiment_name, files, before)
    return Report(report.experiment, report.title, report.question, report.tables, report.remarks, tuple(files))


def render_page(
    store: Store, experiment_name: str, layout: Layout | Path | None, out: Path, *, data: bool = False
) -> Report:
    """Write report.html alone: one file with tables, figures and what their numbers lead to.

    Takes and raises what :func:`render_report` does; other files of an earlier report stay.
    """
    results = collect(store, experiment_name)
    before = written_before(out, experiment_name)
    chosen = resolve_layout(results, layout, data=data)
    search = _search(results, chosen)
    report = _build(results, chosen, search)
    out.mkdir(parents=True, exist_ok=True)
    file = _write_page(results, chosen, report, _draw(results, chosen, report.tables, search), out)
    keep_only(out, experiment_name, [*before, file], before)
    return replace(report, files=(file,))


def terminal(report: Report) -> RenderableType:
    """Return the report for a rich console."""
    parts: list[RenderableType] = []
    for table in report.tables:
        parts += [terminal_table(table), Text("")]
    parts += [Text(remark, style="dim") for remark in report.remarks]
    return Group(*parts)


def resolve_layout(results: Results, layout: Layout | Path | None, *, data: bool = False) -> Layout:
    """Return the layout to use: the one given, the one the experiment's plan names, or the default.

    ``data`` adds the table of the sets that are read to it.
    """
    chosen = _chosen_layout(results, layout, data)
    return chosen.model_copy(update={"data": True}) if data else chosen


def _chosen_layout(results: Results, layout: Layout | Path | None, data: bool) -> Layout:
    if isinstance(layout, Layout):
        check_layout(layout, results.plan)
        return layout
    file = resolve_layout_file(layout, results.plan)
    if file is not None:
        return load_layout(file, results.plan)
    if not results.subjects:
        raise SpecError(f"experiment {results.experiment!r} has no cells: there is no table to make")
    return default_layout(results.plan, data=data)


def resolve_layout_file(layout: Path | None, plan: Mapping[str, Any]) -> Path | None:
    """Return the file of a layout: of this path or name, else of the one that the plan names; None without one."""
    named = layout or plan.get("report")
    return None if not named else _find_layout(Path(named))


def _find_layout(named: Path) -> Path:
    """The file of this path (planning records an absolute one), else that of its name in a folder of reports."""
    if named.is_file():
        return named
    for name in dict.fromkeys((named.name, f"{named.name.removesuffix('.yaml')}.yaml")):
        found = find_by_name("reports", name, Path.cwd())
        if found is not None:
            return found
    known = {file.name for folder in search_folders("reports", Path.cwd()) for file in folder.glob("*.yaml")}
    raise SpecError(f"no report layout {named}", hint=suggestion(named.name, known))


def _search(results: Results, layout: Layout) -> Search | None:
    """Read the trials of a sweep that has begun, where a layout shows some."""
    is_shown = layout.trials or any(isinstance(figure, SearchFigure) for figure in layout.figures)
    if not is_shown or not results.store.experiment(results.experiment).trials_jsonl.exists():
        return None
    from ablate.trials import read_search  # loads Optuna, which few reports need

    return read_search(results.store, results.experiment)


def _trials(results: Results, search: Search) -> Table:
    from ablate.results.tables.trials import build_trials_table  # loads Optuna

    return build_trials_table(results, search)


def _build(results: Results, layout: Layout, search: Search | None) -> Report:
    tables: tuple[Table, ...] = (_trials(results, search),) if layout.trials and search is not None else ()
    tables += tuple(build_table(results, table) for table in layout.tables)
    tables += tuple(build_correlations(results, correlation) for correlation in layout.correlations)
    tables += build_analyses(results, layout)
    if layout.scores:
        tables += (scores.build_scores(results),)
    if layout.data:
        tables += (data_table.build_data_table(results),)
    tables += tuple(published_table(read_published(name)) for name in dict.fromkeys(layout.published))
    _refuse_same_names(tables, layout)
    question = str(results.plan.get("question") or "")
    remarks = (*_missing_remarks(results), *_drift_remarks(results), *_adopted_remarks(results))
    return Report(results.experiment, layout.title or results.experiment, question, tables, remarks)


def _refuse_same_names(tables: Sequence[Table], layout: Layout) -> None:
    """Refuse tables that would be written to the same files."""
    own = {CLAIMS: "the table of claims"} | ({data_table.NAME: "the table of data"} if layout.data else {})
    own |= {TRIALS: "the table of trials"} if layout.trials else {}
    own |= {scores.NAME: "the table of scores"} if layout.scores else {}
    own |= {published_file(name): f"the published table {name!r}" for name in layout.published}
    for name, count in Counter(table.name for table in tables).items():
        if count > 1:
            raise SpecError(f"a table of the layout has the name of {own.get(name, 'another')}, {name!r}")


def _missing_remarks(results: Results) -> tuple[str, ...]:
    """How much of the experiment is there, and why the rest is not, once for each reason."""
    wanted = {stage for subject in results.subjects for stage in subject.evaluations.values()}
    gaps = sum("gap" in about for about in results.suites.values())
    absent = (f"Suites without their data files: {gaps} of {len(results.suites)}.",) if gaps else ()
    if not results.missing:
        return (f"All {len(wanted)} evaluations are done.", *absent)
    reasons = Counter({item.stage: item.reason for item in results.missing}.values())
    done = len(wanted) - sum(reasons.values())
    listed = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return (f"{done} of {len(wanted)} evaluations are done. Missing: {listed}.", *absent)


def _drift_remarks(results: Results) -> tuple[str, ...]:
    """Whether the stages behind the tables were all made by one state of the code: revisions alone vouch for that."""
    made = (results.store.stage(stage).read_done() for stage in results.plan["stages"])
    codes = Counter(str(done["code"]) for done in made if done is not None and "code" in done)
    if len(codes) < 2:
        return ()
    listed = ", ".join(f"{count} by {code}" for code, count in codes.most_common())
    return (f"Stages were made by {len(codes)} states of the code under unchanged revisions: {listed}.",)


def _adopted_remarks(results: Results) -> tuple[str, ...]:
    """Which stages nobody ran here: their models were there before, and what they were trained with is not known."""
    found = {stage: results.store.stage(stage).read_done() or {} for stage in results.plan["stages"]}
    labels = {stage: results.plan["stages"][stage]["label"] for stage, done in found.items() if "adopted" in done}
    adopted = ((label, found[stage]["adopted"]) for stage, label in labels.items())
    return tuple(
        f"Not trained here, but adopted: {label}, from {known['path']} (sha256 {known['sha256'][:12]})."
        for label, known in adopted
    )


def _draw(
    results: Results, layout: Layout, tables: Sequence[Table], search: Search | None, folder: Path | None = None
) -> list[Drawn]:
    if not layout.figures:
        return []
    from ablate.results.figures.draw import draw_figures  # matplotlib takes half a second: loaded only to draw

    return draw_figures(results, layout, tables, folder, search)


def _write_page(results: Results, layout: Layout, report: Report, figures: Sequence[Drawn], out: Path) -> Path:
    pictures = [(drawn.caption, drawn.svg) for drawn in figures]
    content = page_content(results, layout, report.tables)
    html = page(report.title, report.question, report.tables, pictures, report.remarks, content)
    return write_text(out / "report.html", html)


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write one table as LaTeX (a fragment, and a document of its own) and CSV; returns the files."""
    folder.mkdir(exist_ok=True)
    return [
        write_text(folder / f"{table.name}.tex", fragment(table)),
        write_text(folder / f"{table.name}.standalone.tex", standalone(table)),
        write_text(folder / f"{table.name}.csv", to_csv(table)),
    ]


def report_markdown(report: Report, figures: Sequence[tuple[str, str]] = ()) -> str:
    """Return the report as Markdown; ``figures`` are (caption, path)."""
    parts = [f"# {escape_markdown(report.title)}\n"]
    if report.question and report.question != report.title:
        parts.append(f"{escape_markdown(report.question)}\n")
    parts += [markdown(table) for table in report.tables]
    parts += [f"![{escape_markdown(caption)}]({path})\n" for caption, path in figures]
    parts += [f"{escape_markdown(remark)}\n" for remark in report.remarks]
    return "\n".join(parts)
