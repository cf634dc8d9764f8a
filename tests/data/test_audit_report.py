"""A whole audit: the account of the rows, the three files, the command, and real rows counted a second way."""

from __future__ import annotations

import gzip
import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.datasets import DatasetEntry, datasets
from ablate.cli import main
from ablate.context import read_json
from ablate.data.audit.audit import Audit, audit
from ablate.data.audit.report import write
from ablate.errors import DataError, UsageError

BASE = {"name": "small", "title": "A <b>small</b> set", "licence": "MIT", "source": {"files": ["rows.jsonl"]}}
BINARIZED = {**BASE, "format": "preference", "label_kind": "ai", "converter": "ultrafeedback_binarized"}


def row(prompt: str, chosen: str, rejected: str, scores: tuple[float, float] = (5, 3)) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | dict(
        zip(("score_chosen", "score_rejected"), scores, strict=True)
    )


ROWS = [
    row("What is <i>rain</i> | $5?", "Water that falls.", "No."),
    row("What is snow?", "Ice.", "Water that is frozen."),
    row("What is hail?", "Ice.", "Ice."),  # identical
    row("What is fog?", "A cloud.", ""),  # empty
    row("What is sleet?", "Snow.", "Rain.", (2, 2)),  # tied
]


def entry(root: Path, rows: list[Any], **change: Any) -> DatasetEntry:
    (root / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return DatasetEntry.model_validate({**BINARIZED, **change})


def numbers(made: Audit, check: str) -> Any:
    return next(finding for finding in made.findings if finding.check == check).numbers


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    made = audit(entry(tmp_path, ROWS), tmp_path)
    found = numbers(made, "rows")
    assert (found["rows"], found["kept"], found["records"], found["pairs"]) == (5, 2, 2, 2)
    assert found["dropped"] == {"empty-message": 1, "identical-responses": 1, "tied": 1}
    assert made.findings[0].look == ("3 of 5 (60.0 %) rows are dropped",)
    assert numbers(made, "longer-wins")["longer"]["count"] == 1


def test_rows_of_groups_and_of_the_other_part_are_accounted_for(tmp_path: Path) -> None:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

    def steer(prompt: str, text: str, rating: Any) -> dict[str, Any]:
        return {"prompt": prompt, "response": text, **dict.fromkeys(names, rating)}

    rows = [steer("p", "good", 4), steer("q", "alone", 4), steer("p", "bad", 1), steer("p", "unrated", "N/A")]
    found = numbers(audit(entry(tmp_path, rows, converter="helpsteer"), tmp_path), "rows")
    assert (found["kept"], found["dropped"]) == (2, {"fewer-than-two-responses": 1, "no-rating": 1})
    rows = [row(f"Prompt {n}?", "yes it is", "no") for n in range(200)]
    part = {"by": "prompt", "part": "heldout", "heldout_share": 0.25}
    found = numbers(audit(entry(tmp_path, rows, split=part), tmp_path), "rows")
    assert found["kept"] + found["dropped"]["other-part-of-split"] == 200
    assert 30 < found["kept"] < 70


def test_conversations_and_prompts_are_audited_as_what_they_are(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}]
    rows = [{"messages": talk}, {"messages": [*talk, {"role": "user", "content": "Bye"}]}]
    change = {"converter": "messages", "format": "instruction", "label_kind": None}
    made = audit(entry(tmp_path, rows, **change), tmp_path)
    assert numbers(made, "rows")["dropped"] == {"last-turn-not-assistant": 1}
    assert numbers(made, "lengths")["words"]["response"]["mean"] == 2
    verdicts = {finding.check: finding.verdict for finding in made.findings}
    unchecked = {check for check, verdict in verdicts.items() if verdict == "not checked"}
    assert unchecked == {
        "label-direction",
        "score-gaps",
        "label-agreement",
        "pair-duplicates",
        "evaluation-overlap",
        "longer-wins",
    }
    prompts = audit(
        entry(
            tmp_path, [{"prompt": "Hi"}, {"prompt": "Hi"}], **{**change, "converter": "prompts", "format": "prompts"}
        ),
        tmp_path,
    )
    assert numbers(prompts, "prompt-duplicates")["exact"]["count"] == 1
    assert "refusals" in {finding.check for finding in prompts.findings if finding.verdict == "not checked"}


def test_a_sample_is_drawn_by_content_and_said(tmp_path: Path) -> None:
    rows = [row(f"What is {n} plus {n}?", f"It is {2 * n}.", "I do not know") for n in range(50)]
    made = [audit(entry(tmp_path, order, name="s"), tmp_path, sampled=10) for order in (rows, rows[::-1])]
    assert made[0].as_json()["findings"][8] == made[1].as_json()["findings"][8]
    assert numbers(made[0], "lengths") == numbers(made[1], "lengths")
    assert numbers(made[0], "rows")["audited"] == 10 and numbers(made[0], "lengths")["words"]["prompt"]["n"] == 10
    assert "a seeded sample of 10 records is audited" in made[0].findings[0].summary


def test_documents_and_empty_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has documents"):
        audit(datasets()["pocket-corpus"], None)
    with pytest.raises(
        DataError, match=r"'small': nothing is left of 2 rows; dropped by reason: identical-responses: 1"
    ):
        audit(entry(tmp_path, ROWS[2:4]), tmp_path)
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2: .*lacks rejected"):
        audit(entry(tmp_path, [ROWS[0], {"prompt": "p", "chosen": "c"}]), tmp_path)
    with pytest.raises(DataError, match="no data root is set"):
        audit(entry(tmp_path, ROWS), None)


class Page(HTMLParser):
    """Collects tags, their links to elsewhere, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_three_files_say_the_same_and_stand_alone(tmp_path: Path) -> None:
    rows = ROWS + [
        row(f"Say {n}.", "one two three " * (n % 7 + 1) + ".", "four five.", (n % 5 + 1, 1)) for n in range(60)
    ]
    made = audit(entry(tmp_path, rows), tmp_path)
    first, second = (write(made, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == ["audit.json", "audit.md", "audit.html"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    stored = read_json(first[0])
    assert stored == json.loads(json.dumps(made.as_json()))
    text, html = (path.read_text(encoding="utf-8") for path in first[1:])
    page = Page()
    page.feed(html)
    for finding in made.findings:
        assert finding.summary.replace("|", "\\|") in text and finding.summary in page.text
        assert f"## {finding.title}: {finding.verdict}" in text
        assert all(why in text and why in page.text for why in finding.look)
    assert "<b>small</b>" not in html and "<i>rain</i>" not in html
    assert all(link.startswith("#") for link in page.links)
    drawings = [drawing for finding in made.findings for drawing in finding.drawings]
    assert page.tags.count("svg") == len(drawings) == 3
    for start in [place for place in range(len(html)) if html.startswith("<svg", place)]:
        ElementTree.fromstring(html[start : html.index("</svg>", start) + 6])


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABLATE_DATA", raising=False)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ablate", "data", "audit", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return call


def orca(root: Path) -> None:
    rows = [
        {"system": "", "question": f"What is {n} + 1?", "chosen": f"It is {n + 1}.", "rejected": "I do not know that."}
        for n in range(30)
    ]
    (root / "Intel/orca_dpo_pairs").mkdir(parents=True)
    text = "".join(json.dumps(one) + "\n" for one in rows)
    (root / "Intel/orca_dpo_pairs/orca_rlhf.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def test_the_command_prints_a_summary_and_writes_the_files(command: Command, tmp_path: Path) -> None:
    orca(tmp_path)
    code, out, err = command("orca-dpo-pairs", "--root", ".", "--against", "pocket-gold,pocket-chat", "--out", "pages")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "look: the shorter response wins in most pairs: longer in 0 of 30 (0.0 %)" in out
    assert "0 of 2,100 (0.0 %) questions of 1 evaluation sets are in a prompt (30 prompts)" in " ".join(out.split())
    assert sorted(path.name for path in (tmp_path / "pages/orca-dpo-pairs").iterdir()) == [
        "audit.html",
        "audit.json",
        "audit.md",
    ]
    assert set(read_json(tmp_path / "pages/orca-dpo-pairs/audit.json")["facts"]["sha256"]) == {
        "Intel/orca_dpo_pairs/orca_rlhf.jsonl.gz"
    }


def test_a_file_in_the_place_of_the_pages_is_said_before_anything_is_read(command: Command, tmp_path: Path) -> None:
    (tmp_path / "pages").touch()
    code, out, err = command("pocket-shp", "--out", "pages/audits")
    assert (code, out, err) == (2, "", "error: --out: pages is no folder\n")


def test_json_of_several_sets(command: Command, tmp_path: Path) -> None:
    orca(tmp_path)
    code, out, _ = command("orca-dpo-pairs", "pocket-shp", "--root", ".", "--json", "--sample", "20")
    first, second = json.loads(out)
    assert (code, first["name"], second["name"]) == (0, "orca-dpo-pairs", "pocket-shp")
    assert second["findings"][0]["numbers"]["rows"] == 3000
    assert (tmp_path / "out/audits/pocket-shp/audit.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pocket-hhh",), "unknown dataset 'pocket-hhh'\n  did you mean 'pocket-hh'?"),
        (("pocket-hh", "--against", "pocket-golden"), "unknown suite 'pocket-golden'\n  did you mean 'pocket-gold'?"),
        (("pocket-hh", "orca-dpo-pairs"), "needs the file Intel/orca_dpo_pairs/orca_rlhf.jsonl"),
        (
            ("pocket-hh", "--against", "mmlu"),
            "suite 'mmlu' needs the file mmlu/mmlu_data.tar.gz, and no data root is set",
        ),
        (("pocket-corpus",), "has documents"),
    ],
)
def test_bad_input_ends_with_2_and_writes_nothing(
    command: Command, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def turns_of(text: str) -> list[tuple[str, str]]:
    """HH-RLHF's markers, cut apart once more: (speaker, text)."""
    parts = ("\n\n" + text.strip()).replace("\n\nAssistant:", "\n\nHuman:\0").split("\n\nHuman:")[1:]
    return [("assistant", part[1:].strip()) if part.startswith("\0") else ("user", part.strip()) for part in parts]


def test_real_hh_rlhf_counted_a_second_way(data_root: Path) -> None:
    name = "hh-rlhf-harmless"
    whole = DatasetEntry.model_validate({**datasets()[name].model_dump(mode="python"), "split": None})
    made = audit(whole, data_root)
    longer = equal = shorter = repeated = 0
    prompts: set[tuple[Any, ...]] = set()
    by_turns: dict[str, int] = {}
    with gzip.open(data_root / whole.source.names()[0], "rt", encoding="utf-8") as lines:
        for line in lines:
            chosen, rejected = (turns_of(json.loads(line)[side]) for side in ("chosen", "rejected"))
            shared = 0
            while chosen[shared] == rejected[shared]:
                shared += 1
            sides = [chosen, rejected]
            speakers = [[speaker for speaker, _ in side] for side in sides]
            good = all(one == ["user", "assistant"] * (len(one) // 2) for one in speakers)
            if not good or not chosen[shared][1] or not rejected[shared][1]:
                continue
            one, other = (len(side[shared][1].split()) for side in sides)
            longer, equal, shorter = longer + (one > other), equal + (one == other), shorter + (one < other)
            prompt = tuple(chosen[:shared])
            repeated += prompt in prompts
            prompts.add(prompt)
            by_turns[str(shared)] = by_turns.get(str(shared), 0) + 1
    found = numbers(made, "longer-wins")
    assert (found["longer"]["count"], found["longer"]["of"], found["equal"]["count"]) == (
        longer,
        longer + shorter,
        equal,
    )
    assert numbers(made, "prompt-duplicates")["exact"]["count"] == repeated
    assert numbers(made, "turns")["by_turns"] == dict(sorted(by_turns.items(), key=lambda item: int(item[0])))
    assert numbers(made, "rows")["kept"] == longer + equal + shorter == 2299


def test_real_ultrafeedback_counted_a_second_way(data_root: Path) -> None:
    entry = datasets()["ultrafeedback-small"]
    made = audit(entry, data_root)
    with gzip.open(data_root / entry.source.names()[0], "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    kept = [
        r
        for r in rows
        if r["chosen"].strip() != r["rejected"].strip() and r["chosen"].strip() and r["rejected"].strip()
    ]
    gaps = [r["metadata"]["score_chosen"] - r["metadata"]["score_rejected"] for r in kept]
    found = numbers(made, "score-gaps")
    assert (found["scored"], found["ties"]["count"]) == (len(kept), gaps.count(0)) == (994, 110)
    assert found["gap"]["mean"] == pytest.approx(sum(gaps) / len(gaps))
    assert numbers(made, "label-direction")["chosen_lower"]["count"] == sum(gap < 0 for gap in gaps)
    lengths = [(len(r["chosen"].split()), len(r["rejected"].split())) for r in kept]
    assert numbers(made, "longer-wins")["longer"]["count"] == sum(one > other for one, other in lengths)
    assert numbers(made, "longer-wins")["equal"]["count"] == sum(one == other for one, other in lengths)
