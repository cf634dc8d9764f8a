"""The page in a real browser: what its numbers lead to, hostile text, keyboard, dark mode; and what it is made of."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.results.layout import Layout
from ablate.results.page import examples
from ablate.results.page.examples import Graded, choose
from ablate.results.report import render_page, render_report

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "<a href='javascript:window.hacked=3'>click</a> ]]> --> <!--",
    "\u202eright to left\u202c {{ 7 * 7 }} ${hacked} \u2028 &amp; \ud800",
    "plain",
]
EXAMPLES = 20


def grade(run: int, example: int) -> float:
    return float((run * 7 + example * 3) % 5 < 2)


@pytest.fixture
def store(study: Any) -> Any:
    """The study of two sets with hostile names, and for facts the prompts and responses behind its grades."""
    study.plan["datasets"]["hh"]["title"] = HOSTILE[0]
    study.plan["question"] = f"Which is better, {HOSTILE[1]} or {HOSTILE[2]}?"
    for number, subject in enumerate(study.plan["subjects"]):
        evaluation = subject["evaluations"].get("facts")
        if evaluation is None:
            continue
        generate = study.stage(f"generate-{number}", inputs={"policy": subject["stage"]})
        items = [
            {"id": f"e{place}", "prompt": [{"role": "user", "content": f"{place}: {HOSTILE[place % len(HOSTILE)]}"}]}
            for place in range(EXAMPLES)
        ]
        (generate / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        grades = [grade(number, place) for place in range(EXAMPLES)]
        study.evaluation(evaluation, grades)
        responses = [f"{number}.{place} {HOSTILE[(place + 1) % 3]}" for place in range(EXAMPLES)]
        path = study.store.stage(evaluation).artifact("examples.parquet")
        table = pq.read_table(path)
        place = table.schema.get_field_index("response")
        pq.write_table(table.set_column(place, "response", pa.array(responses)), path)
        folder = study.store.stage(evaluation)
        wired = {"responses": {"stage": f"generate-{number}", "artifact": ""}}
        folder.stage_json.write_text(json.dumps({"id": evaluation, "kind": "evaluate", "inputs": wired}))
    train = study.store.stage("train-hh_ppo_0")
    written = {"kind": "train", "label": HOSTILE[1], "config": {"beta": 0.1, "note": HOSTILE[0]}, "inputs": {}}
    train.stage_json.write_text(json.dumps(written))
    records = [{"step": step, "score": step / 10, "kl": 0.0} for step in range(1, 200)]
    train.artifact("history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return study.write()


@pytest.fixture
def page(store: Any, tmp_path: Path) -> Path:
    (file,) = render_page(store, "study", None, tmp_path / "out").files
    return file


def click(browser: Any, selector: str, number: int = 0) -> None:
    browser.run(f"document.querySelectorAll({json.dumps(selector)})[{number}].click()")


def texts(browser: Any, selector: str) -> list[str]:
    found: list[str] = browser.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText)")
    return found


def open_number(browser: Any, row: str, column: str) -> None:
    """Click the number of the first row with this text under the heading of this text."""
    found = browser.run(f"""(() => {{
        const table = document.querySelector("main table");
        const place = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === {json.dumps(column)});
        const row = [...table.tBodies[0].rows].find(row => row.textContent.includes({json.dumps(row)}));
        row.cells[place].querySelector("button").click();
        return true;
    }})()""")
    assert found


def test_transposed_tables_and_headings_over_columns(store: Any, tmp_path: Path, chromium: Any) -> None:
    columns = [{"category": "factuality", "by": "algorithm", "heading": "{name}"}]
    turned = {"name": "turned", "rows": ["dataset", "algorithm"], "columns": ["categories"], "transpose": True}
    layout = Layout.model_validate({"tables": [turned, {"name": "headed", "rows": ["dataset"], "columns": columns}]})
    (file,) = render_page(store, "study", layout, tmp_path / "out").files
    chromium.open(file)
    assert chromium.run("document.querySelectorAll('#turned thead button').length") == 0
    click(chromium, "#turned button.number", 1)  # the first line is factuality, the second model PPO on the first set
    title = "document.getElementById('detail-title').textContent"
    assert chromium.run(title) == f"{HOSTILE[0]} · PPO: Factuality"
    assert "train-hh_ppo_0" in texts(chromium, "button.stage")
    click(chromium, "#close")
    assert texts(chromium, "#headed thead tr:first-child th") == ["Factuality"]
    click(chromium, "#headed thead button", 2)
    assert chromium.run("document.querySelector('#headed th[aria-sort]').textContent") == "PPO"
    click(chromium, "#headed button.number", 1)
    assert chromium.run(title).endswith(": Factuality: PPO")
    assert chromium.errors == []


def test_it_opens_from_disk_and_asks_for_nothing(page: Path, chromium: Any) -> None:
    chromium.open(page)
    assert chromium.errors == []
    assert [url for url in chromium.requests if not url.startswith("data:image/png")] == [page.as_uri()]
    assert chromium.run("document.querySelectorAll('svg').length") == 1
    chromium.run("fetch('https://example.org').catch(() => 0)")
    assert any("connect-src" in error or "default-src" in error for error in chromium.errors)


def test_no_text_of_a_model_is_markup(page: Path, chromium: Any) -> None:
    chromium.open(page)
    numbers = chromium.run("document.querySelectorAll('button.number').length")
    assert numbers > 30
    for number in range(0, numbers, 9):
        click(chromium, "button.number", number)
        for stage in range(chromium.run("document.querySelectorAll('button.stage').length")):
            click(chromium, "button.stage", stage)
            click(chromium, "#back")
        click(chromium, "#close")
    open_number(chromium, "PPO", "Factuality")
    shown = texts(chromium, ".response")
    assert any("</script><script>window.hacked = 1</script>" in text for text in shown)
    assert any("onerror='window.hacked = 2'" in text for text in shown)
    assert any("right to left" in text for text in texts(chromium, ".prompt"))
    assert chromium.run("window.hacked") is None
    assert chromium.run("document.querySelectorAll('img, a, iframe, object, embed, link, base').length") == 0
    assert chromium.run("document.querySelectorAll('script').length") == 2
    assert chromium.errors == []


def test_its_policy_stops_scripts_that_are_not_its_own(page: Path, chromium: Any) -> None:
    chromium.open(page)
    chromium.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.own = 1'}))"
    )
    chromium.run("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.own = 2\">x</b>')")
    chromium.run("document.body.lastChild.click()")
    assert chromium.run("window.own") is None


def test_a_number_leads_to_its_stages(page: Path, chromium: Any) -> None:
    chromium.open(page)
    open_number(chromium, "PPO", "Factuality")
    assert chromium.run("document.getElementById('detail').open")
    assert "train-hh_ppo_0" in texts(chromium, "button.stage")
    assert texts(chromium, ".chart div")[0] == "score: 0.1 to 19.6, steps 1 to 196"
    click(chromium, "button.stage")
    assert chromium.run("document.getElementById('detail-title').textContent") == f"train: {HOSTILE[1]}"
    config = json.loads(chromium.run("document.querySelector('pre').textContent"))
    assert config == {"beta": 0.1, "note": HOSTILE[0]}
    click(chromium, "#back")
    names = texts(chromium, "button.stage")
    click(chromium, "button.stage", names.index("evaluate-facts-train-hh_ppo_0"))
    found = texts(chromium, "dl")[0]
    assert "from (responses)" in found and "generate-" in found
    assert '"decoding": "greedy"' in texts(chromium, "pre")[1]


def test_two_cells_side_by_side(page: Path, chromium: Any, study: Any) -> None:
    chromium.open(page)
    labels = [subject["label"] for subject in study.plan["subjects"]]
    first, second = labels.index("hh ppo 0"), labels.index("hh dpo 0")
    open_number(chromium, "Δ PPO − DPO", "Factuality")
    counted = re.search(
        r"Of (\d+) examples \(of 20.*: (\d+) wins, (\d+) losses, (\d+) equal", texts(chromium, ".fact")[-1]
    )
    assert counted is not None
    ids = [text.partition("\n")[0] for text in texts(chromium, ".example")]
    pairs = [(grade(first, int(name[1:])), grade(second, int(name[1:]))) for name in ids]
    expected = (len(ids), *(sum(fits(a, b) for a, b in pairs) for fits in (float.__gt__, float.__lt__, float.__eq__)))
    assert tuple(map(int, counted.groups())) == expected
    for kind, count in (("wins", expected[1]), ("losses", expected[2]), ("disagreements", expected[1] + expected[2])):
        chromium.run(f"""(() => {{
            const show = [...document.querySelectorAll("dialog select")].at(-1);
            show.value = "{kind}"; show.dispatchEvent(new Event("change"));
        }})()""")
        assert len(texts(chromium, ".example")) == count
    assert texts(chromium, ".sides")[0].count("grade") == 2


def test_any_two_rows_can_be_compared(page: Path, chromium: Any) -> None:
    chromium.open(page)
    open_number(chromium, "PPO", "Factuality")
    chromium.run("""(() => {
        const rows = document.querySelector("dialog select");
        rows.value = [...rows.options].find(option => option.text === "SFT").value;
        rows.dispatchEvent(new Event("change"));
    })()""")
    assert chromium.run("document.getElementById('detail-title').textContent").endswith("beside SFT")
    assert "examples (of 20" in texts(chromium, ".fact")[-1]


def test_tables_are_sorted_and_filtered(page: Path, chromium: Any) -> None:
    chromium.open(page)
    shown = "#main tbody tr:not([hidden])"
    whole = texts(chromium, shown)
    heads = texts(chromium, "#main thead th")
    place = heads.index("Reasoning")
    column = f"{shown} > :nth-child({place + 1})"
    for order, is_descending in (("descending", True), ("ascending", False)):
        click(chromium, "#main button.sort", place)
        assert chromium.run(f"document.querySelectorAll('#main thead th')[{place}].ariaSort") == order
        values = [float(text.split()[0].strip("▲▼")) for text in texts(chromium, column)]
        assert values == sorted(values, reverse=is_descending) and len(values) == 6
    click(chromium, "#main button.sort", place)
    assert texts(chromium, shown) == whole
    chromium.run("""(() => {
        const filter = document.querySelector("input.filter");
        filter.value = "ULTRA ppo"; filter.dispatchEvent(new Event("input"));
    })()""")
    (row,) = texts(chromium, shown)
    assert "UltraFeedback & co" in row and "PPO" in row


def test_all_is_within_reach_of_the_keyboard(page: Path, chromium: Any) -> None:
    chromium.open(page)
    reached = set()
    for _ in range(40):
        chromium.press("Tab", 9)
        reached.add(chromium.run("document.activeElement.className"))
    assert {"filter", "sort", "number"} <= reached
    chromium.run("document.querySelector('button.number').focus()")
    chromium.press("Enter", 13)
    assert chromium.run("document.getElementById('detail').open")
    assert chromium.run("document.activeElement.closest('dialog') !== null")
    chromium.press("Escape", 27)
    assert not chromium.run("document.getElementById('detail').open")
    assert chromium.run("document.activeElement === document.querySelector('button.number')")


def luminance(color: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read_in_either_scheme(scheme: str, page: Path, chromium: Any) -> None:
    chromium.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    chromium.open(page)
    paper = luminance(chromium.run("getComputedStyle(document.body).backgroundColor"))
    assert paper > 0.9 if scheme == "light" else paper < 0.05
    for selector in ("body", ".fact", ".better", "button.number", "caption"):
        ink = luminance(chromium.run(f"getComputedStyle(document.querySelector('{selector}')).color"))
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, (selector, contrast)  # WCAG 2.2, level AA
    chromium.send("Emulation.setEmulatedMedia", features=[])


def test_the_page_alone_leaves_the_rest_of_a_report(store: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    render_report(store, "study", None, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    render_page(store, "study", None, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_stage_that_is_not_done_says_why(study: Any, tmp_path: Path) -> None:
    study.store.stage("evaluate-facts-train-hh_ppo_0").done_json.unlink()
    (file,) = render_page(study.write(), "study", None, tmp_path / "out").files
    text = re.search(r'id="content">(.*?)</script>', file.read_text(), re.DOTALL)
    assert text is not None
    content = json.loads(text[1])
    assert content["stages"]["evaluate-facts-train-hh_ppo_0"]["missing"] == "not run"
    assert "evaluate-facts-train-hh_ppo_0" not in content["evaluations"]


def graded(rows: list[list[float | None]]) -> list[Graded]:
    return [Graded("accuracy", {f"e{place}": (value, None) for place, value in enumerate(row)}) for row in rows]


def test_half_of_the_examples_are_those_that_models_differ_on_most() -> None:
    rows: list[list[float | None]] = [[1.0] * 50, [1.0] * 50]
    for place in (3, 17, 41):
        rows[1][place] = 0.0
    rows[1][8] = None
    chosen = choose(graded(rows), 6)
    assert set(chosen[:3]) == {"e3", "e17", "e41"} and len(set(chosen)) == 6
    assert choose(graded(rows), 6) == chosen
    assert choose(graded([row[::-1] for row in rows]), 100) and len(choose(graded(rows), 100)) == 50


def test_more_models_have_fewer_examples_each(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = study.write()
    sizes = []
    for letters in (10**9, 200_000, 1):
        monkeypatch.setattr(examples, "LETTERS", letters)
        text = render_page(store, "study", None, tmp_path / "out").files[0].read_text()
        found = re.search(r'id="content">(.*?)</script>', text, re.DOTALL)
        assert found is not None
        sizes.append(len(json.loads(found[1])["examples"]["facts"]["ids"]))
    assert sizes == [examples.MOST, 200_000 // (76 * examples.LONGEST_RESPONSE), examples.FEWEST]


def test_no_two_values_of_a_page_are_stored_twice(page: Path) -> None:
    text = re.search(r'id="content">(.*?)</script>', page.read_text(), re.DOTALL)
    assert text is not None
    shared = json.loads(text[1])["shared"]
    assert all(first != second for first, second in itertools.combinations(shared, 2))
