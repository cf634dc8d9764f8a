"""Errors of closed models: what is said of a wrong value, at which key, and where that key is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, field_validator

from ablate.catalogs.closed import Closed, unknown_name, validated
from ablate.catalogs.loading import read_yaml
from ablate.errors import Location, SpecError, suggestion


class Inner(Closed):
    size: int = Field(ge=1)
    kind: Literal["small", "large"] = "small"


class Outer(Closed):
    inner: Inner | str
    given: tuple[Inner, ...] = ()
    when: int = Field(default=0, alias="if")
    options: dict[str, Any] = Field(default={})
    tool: str = "hammer"
    ends: tuple[float, float] = (0.0, 1.0)
    some: tuple[str, ...] = Field(default=("a",), min_length=1)

    @field_validator("options")
    @classmethod
    def _complete(cls, value: dict[str, Any]) -> dict[str, Any]:
        return Inner.model_validate(value).model_dump()

    @field_validator("tool")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "hammer":
            raise unknown_name("tool", value, ("saw", "hammer"))
        return value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inner: {sise: 1}\n", "1: inner.sise: unknown key 'sise'\n  did you mean 'size'? allowed: kind, size"),
        (
            "inner: x\niff: 1\n",
            "2: iff: unknown key 'iff'\n  did you mean 'if'? allowed: ends, given, if, inner, options",
        ),
        ("\ninner: {}\n", "2: inner.size: 'size' is required"),
        ("given: []\n", "1: inner: 'inner' is required"),
        ("given: []\noptons: {}\n", "2: optons: unknown key 'optons'\n  did you mean 'options'?"),
        ("inner: x\ngiven:\n  - {size: 1}\n  - {size: 0}\n", "4: given.1.size: Input should be greater than"),
        ("inner: x\ngiven:\n  - {size: 1}\n  - {size: 0}\n", "(found 0)"),
        ("inner: x\noptions:\n  size: 1\n  kind: smal\n", "4: options.kind: 'smal' is not allowed\n  did you mean 's"),
        ("inner: x\noptions:\n  sise: 1\n", "3: options.sise: unknown key 'sise'\n  did you mean 'size'?"),
        ("inner: x\ntool: hamer\n", "2: tool: unknown tool 'hamer'\n  did you mean 'hammer'? allowed: hammer, saw"),
        ("inner: x\nends: [1]\n", "2: ends: one more value is needed (found [1])"),
        ("inner: x\nends: [1, 2, 3]\n", "2: ends: no more than 2 values are allowed (found [1, 2, 3])"),
        ("inner: x\nsome: []\n", "2: some: 1 or more values are needed (found [])"),
        ("inner: [1]\n", "1: inner: "),
        ("5: x\n", "1: unknown key '5'"),
        ("- 1\n", "1: a mapping is needed; its keys: inner, given, if, options, tool, ends, some (found [1])"),
    ],
)
def test_what_is_wrong_is_said_at_the_key_that_was_written(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    value, origins = read_yaml(file)
    with pytest.raises(SpecError) as caught:
        validated(Outer, value, origins.locate)
    assert str(caught.value).startswith(f"{file}:")
    assert said in str(caught.value)


def test_merged_values_keep_the_place_of_every_key(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("a: {b: 1, c: 2}\nlist: [{x: 1}, {x: 2}]\n")
    (tmp_path / "high.yaml").write_text("\n\na: {b: 3}\nlist:\n  - {y: 1}\n")
    low, high = (read_yaml(tmp_path / name)[1] for name in ("low.yaml", "high.yaml"))
    merged = high.over(low)
    assert str(merged.locate("a", "b")).endswith("high.yaml:3: a.b")
    assert str(merged.locate("a", "c")).endswith("low.yaml:1: a.c")
    assert str(merged.locate("list", 1, "x")).endswith("high.yaml:4: list.1.x"), "a list replaces the one below"
    assert str(merged.locate("nowhere")).endswith("high.yaml:3: nowhere"), "the first key, where nothing is written"
    assert merged.inside("a").has("b")
    assert not merged.inside("a").has("x")
    moved = merged.rewritten(("a",), Location("override 'a=1'"))
    assert str(moved.locate("a", "c")) == "override 'a=1': a.c"


def test_a_value_of_a_file_is_merged_over_another_of_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("common:\n  k: 1\n  l: 2\nsuites:\n  mine: {l: 3}\n")
    origins = read_yaml(tmp_path / "a.yaml")[1]
    mine = origins.inside("suites", "mine").over(origins.inside("common"))
    assert [str(mine.locate(key)).rpartition("/")[2] for key in ("k", "l", "m")] == [
        "a.yaml:2: suites.mine.k",
        "a.yaml:5: suites.mine.l",
        "a.yaml:5: suites.mine.m",
    ]


def test_of_many_names_the_nearest_are_listed() -> None:
    names = [f"a{number}" for number in range(600)] + ["ipo.beta", "dpo.beta"]
    said = suggestion("dpo.bata", names)
    assert said.startswith("did you mean 'dpo.beta'? allowed: dpo.beta, ipo.beta, a") and said.endswith("(602 in all)")
    assert suggestion("dpo.bata", names[-2:]) == "did you mean 'dpo.beta'? allowed: dpo.beta, ipo.beta"
