"""The table of every suite's score: a row for each, gaps with their reason."""

from __future__ import annotations

from typing import Any

from ablate.results.layout import default_layout
from ablate.results.long import collect
from ablate.results.report import build_report
from ablate.results.tables.scores import NAME, build_scores
from ablate.results.tables.table import Table, cell_text
from ablate.results.tables.text import to_csv

GAP = "suite 'far' needs the file far.jsonl, which is not there"


def looked_at(maker: Any, *models: str) -> Any:
    maker.plan |= {"axes": ["policy"] if len(models) > 1 else []}
    maker.suite("facts", "factuality")
    maker.suite("gold", "gold", unit="reward")
    maker.suite("far", "coding", gap=GAP)
    maker.suite("late", "chat")
    for index, model in enumerate(models):
        label = f"policy={model}" if len(models) > 1 else "policy"
        values = {"facts": [1.0, 0.0, 0.0, float(index)], "gold": [1.5, 1.0], "late": None}
        maker.subject(label, {"policy": model, "algorithm": "none"}, values, stage=f"model-{model}")
    return maker.write()


def texts(table: Table) -> list[list[str]]:
    return [[cell_text(table, row, index).plain() for index in range(len(table.columns))] for row in table.rows]


def test_every_suite_has_a_row_by_hand(maker: Any) -> None:
    table = build_scores(collect(looked_at(maker, "one"), "study"))
    assert [column.key for column in table.columns] == ["suite", "category", "metric", "score", "stderr", "n", "unit"]
    assert texts(table) == [
        ["facts", "factuality", "accuracy", "25.0", "10.0", "4", "%"],
        ["gold", "gold", "accuracy", "1.25", "0.10", "2", "reward"],
        ["far", "coding", "accuracy", "– [a]", "", "", "%"],
        ["late", "chat", "accuracy", "– [b]", "", "", "%"],
    ]
    assert dict(table.notes) == {"a": GAP, "b": "not run"}
    rows = to_csv(table).splitlines()
    assert rows[1] == "cell,facts,factuality,accuracy,25,10,4,%," and rows[3].endswith(f'"score: {GAP}"')


def test_rows_of_several_models_say_whose_they_are(maker: Any) -> None:
    table = build_scores(collect(looked_at(maker, "one", "two"), "study"))
    assert [(row[0], row[1], row[4]) for row in texts(table) if row[1] == "facts"] == [
        ("one", "facts", "25.0"),
        ("two", "facts", "50.0"),
    ]


def test_prompts_that_were_not_asked_and_judges_are_told(maker: Any) -> None:
    """A model whose context is too short for a suite's shots scores 0 there: the row says that nothing was asked."""
    maker.suite("long", "reasoning")
    maker.suite("talk", "chat")
    told = {"long": {"health": {"responses": 3, "too_long": 2}}, "talk": {"health": {"judge": "m-1", "unparsable": 1}}}
    scores = {"long": [0.0, 0.0, 1.0], "talk": [1.0, 1.0]}
    maker.subject("policy", {"policy": "one", "algorithm": "none"}, scores, stage="model-one", evaluation=told)
    report = build_report(maker.write(), "study")
    table = report.tables[-1]
    assert [row[3] for row in texts(table)] == ["33.3 [a]", "100.0"]
    assert dict(table.notes) == {"a": "2 of 3 responses have a prompt without room in the model's context"}
    assert table.remarks[-1] == "talk: judged by m-1; 1 of 0 answers could not be read."
    (main,) = report.tables[:-1]
    assert any(
        "responses to prompts without room in the model's context up to 67% (long" in remark for remark in main.remarks
    )


def test_suites_that_have_no_mean_are_rows_alone(maker: Any) -> None:
    """A category of several units has no column, where every suite has a row."""
    maker.suite("win", "chat")
    maker.suite("rating", "chat", unit="rating")
    maker.subject("policy", {"policy": "one", "algorithm": "none"}, {"win": [1.0], "rating": [7.0]})
    report = build_report(maker.write(), "study")
    assert [table.name for table in report.tables] == [NAME]


def test_an_average_names_the_categories_of_other_units(maker: Any) -> None:
    """IFEval is a proportion, MT-Bench a rating: their category has no mean, and the average of the rest says so."""
    for name, category, unit in (
        ("facts", "factuality", "proportion"), ("sums", "reasoning", "proportion"), ("gold", "gold", "reward"),
        ("ifeval", "instruction-following", "proportion"), ("mt-bench", "instruction-following", "rating"),
        ("talk", "chat", "rating"),
    ):  # fmt: skip
        maker.suite(name, category, unit=unit)
    values = {"facts": [1.0], "sums": [0.0], "gold": [1.0], "ifeval": [1.0], "mt-bench": [7.0], "talk": [8.0]}
    maker.subject("policy", {"policy": "one", "algorithm": "none"}, values)
    main = build_report(maker.write(), "study").tables[0]
    assert cell_text(main, main.rows[-1], main.column_index("average(factuality,reasoning)")).plain() == "50.0"
    assert main.remarks[-1] == (
        "Averages are means of the categories' scores; a category is the plain mean of its suites. Without Instruction"
        " following (proportion, rating); Chat (rating): numbers of different units have no mean."
    )


def test_models_as_they_are_get_it_without_asking(maker: Any, study: Any) -> None:
    assert not default_layout(study.plan).scores, "an experiment that trains has tables of what it varies"
    study.plan |= {"subjects": [], "suites": {}}
    report = build_report(looked_at(study, "one"), "study")
    assert report.tables[-1].name == NAME
    assert report.remarks[:2] == (
        "2 of 3 evaluations are done. Missing: 1 not run.",
        "Suites without their data files: 1 of 4.",
    )
