"""From files to an Experiment: what is merged, what is refused, and which file and line an error names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.errors import AblateError, SpecError, UsageError
from ablate.experiment.loading import LoadedExperiment, load_experiment
from ablate.shipped import shipped_folder

Load = Callable[..., LoadedExperiment]
Write = Callable[..., Path]

SMALL = """\
name: small
policy: pocket-small
sft: {dataset: pocket-instructions, epochs: 2}
dpo:
  beta: 0.1
  epochs: 1
grid:
  - {dataset: [pocket-hh, pocket-shp], algorithm: dpo}
  - {dataset: pocket-hh, algorithm: ppo}
"""


def test_extends_merges_mappings_deeply_and_replaces_lists(write: Write) -> None:
    write(SMALL, "base.yaml")
    write("extends: base.yaml\ndpo: {beta: 0.5}\n", "middle.yaml")
    child = write("extends: middle.yaml\nname: child\ngrid: [{dataset: pocket-hh, algorithm: dpo}]\n", "child.yaml")
    experiment = load_experiment(child).experiment
    assert experiment.name == "child"
    assert experiment.dpo == {"beta": 0.5, "epochs": 1}
    assert experiment.sft == {"dataset": "pocket-instructions", "epochs": 2}
    assert experiment.grid == ({"dataset": "pocket-hh", "algorithm": "dpo"},)


def test_extends_several_files_and_the_later_wins(write: Write) -> None:
    write(SMALL, "a.yaml")
    write("dpo: {beta: 0.3}\nseed: 4\n", "folder/b.yaml")
    experiment = load_experiment(write("extends: [a.yaml, folder/b.yaml]\n", "c.yaml")).experiment
    assert (experiment.dpo["beta"], experiment.seed) == (0.3, 4)


def test_a_file_that_extends_itself_is_refused(write: Write) -> None:
    write("extends: b.yaml\n", "a.yaml")
    write("extends: a.yaml\n", "b.yaml")
    with pytest.raises(SpecError, match=r"b\.yaml:1: extends: extends itself: .*a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        load_experiment(write("extends: a.yaml\n", "c.yaml"))


@pytest.mark.parametrize("value", ["5", "{a: b}", "[1]", "''", '"a\\0.yaml"'])
def test_extends_is_a_name_or_names(load: Load, value: str) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:2: extends: extends is a file name"):
        load(f"name: x\nextends: {value}\n")


def test_a_missing_parent_names_the_child(load: Load) -> None:
    with pytest.raises(UsageError, match=r"study\.yaml:2: extends: no specification file .*nowhere\.yaml"):
        load("name: x\nextends: nowhere.yaml\n")


def test_a_misspelt_parent_names_the_file_that_is_meant(write: Write) -> None:
    write(SMALL, "small.yaml")
    child = write("name: x\nextends:\n  - small.yaml\n  - smal.yaml\n", "child.yaml")
    with pytest.raises(UsageError, match=r"child\.yaml:4: extends\.1: no .*smal\.yaml\n  did you mean 'small\.yaml'\?"):
        load_experiment(child)


def test_a_parent_is_looked_for_beside_the_child_then_in_the_project_then_among_the_shipped(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    child = write("extends: pocket_quick.yaml\nname: child\n", "folder/child.yaml")
    shipped = load_experiment(child)
    assert shipped.experiment.dpo["batch_size"] == 32
    assert Path(shipped.origins.locate("dpo").file or "") == (shipped_folder("experiments") / "pocket_quick.yaml")
    write(SMALL, "experiments/pocket_quick.yaml")
    assert load_experiment(child).experiment.dpo == {"beta": 0.1, "epochs": 1}
    write(SMALL.replace("beta: 0.1", "beta: 0.2"), "folder/pocket_quick.yaml")
    assert load_experiment(child).experiment.dpo == {"beta": 0.2, "epochs": 1}


def test_a_parent_in_a_folder_is_looked_for_there_only(load: Load) -> None:
    with pytest.raises(
        UsageError, match=r"study\.yaml:2: extends: no specification file .*elsewhere/pocket_quick\.yaml"
    ):
        load("name: x\nextends: elsewhere/pocket_quick.yaml\n")


def test_an_error_in_an_inherited_file_names_that_file(write: Write) -> None:
    write("name: base\npolicy: pocket-small\nseed: -3\n", "base.yaml")
    child = write("extends: base.yaml\ngrid: [{dataset: pocket-hh, algorithm: dpo}]\n")
    with pytest.raises(SpecError, match=r"base\.yaml:3: seed: .*greater than or equal to 0.*found -3"):
        load_experiment(child)


def test_a_replaced_list_is_located_in_the_file_that_replaced_it(write: Write) -> None:
    write(SMALL, "base.yaml")
    loaded = load_experiment(write("extends: base.yaml\n\n\ngrid:\n  - {algorithm: dpo, dataset: pocket-hh}\n"))
    assert str(loaded.origins.locate("grid", 0, "dataset")).endswith("study.yaml:5: grid.0.dataset")
    assert str(loaded.origins.locate("grid", 1, "dataset")).endswith("study.yaml:4: grid.1.dataset")
    assert str(loaded.origins.locate("dpo", "beta")).endswith("base.yaml:5: dpo.beta")


def test_overrides_are_yaml_values_and_5e_7_is_a_number(load: Load) -> None:
    loaded = load(SMALL, "dpo.beta=5e-7", "data.max_examples=500", "name=other", "grid.0.seed=[1, 2]", "sft=null")
    experiment = loaded.experiment
    assert experiment.dpo == {"beta": 5e-7, "epochs": 1}
    assert isinstance(experiment.dpo["beta"], float)
    assert experiment.data.max_examples == 500
    assert experiment.name == "other"
    assert experiment.grid[0]["seed"] == [1, 2]
    assert experiment.sft is None
    assert loaded.overrides[0] == "dpo.beta=5e-7"


def test_numbers_with_an_exponent_are_numbers_in_files_too(load: Load) -> None:
    experiment = load(SMALL.replace("beta: 0.1", "beta: 5e-7").replace("epochs: 1", "learning_rate: 1E3")).experiment
    assert experiment.dpo == {"beta": 5e-7, "learning_rate": 1000.0}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dpo.beta", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("dpo.beta=", "override 'dpo.beta=': no value is given for dpo.beta\n  dpo.beta=null asks for none"),
        ("polcy=x", "unknown key 'polcy'\n  did you mean 'policy'"),
        ("extends=other.yaml", "unknown key 'extends'"),
        ("name.first=x", "name: Input should be a valid string"),
        ("dpo.beta=[1", "can't set dpo.beta"),
        ("dpo.beta=a: b: c", "can't set dpo.beta"),
        ("grid.7.seed=1", "can't set grid.7.seed"),
        ("grid.first.seed=1", "can't set grid.first.seed"),
        ("seed=one", "override 'seed=one': seed: .*found 'one'"),
        ("grid=[{dataset: pocket-hh}, 5]", "override 'grid=.*': grid.1: .*found 5"),
    ],
)
def test_wrong_overrides(load: Load, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(SMALL, override)


def test_interpolation_reads_other_keys(load: Load) -> None:
    experiment = load(SMALL.replace("epochs: 1", "epochs: ${sft.epochs}")).experiment
    assert experiment.dpo["epochs"] == 2
    assert load(SMALL.replace("epochs: 1", "epochs: ${sft.epochs}"), "sft.epochs=5").experiment.dpo["epochs"] == 5


@pytest.mark.parametrize("written", ["${nowhere.epochs}", "${unknown:resolver}", "${sft.epochs", "${sft.${x}}"])
def test_a_bad_interpolation_names_its_line(load: Load, written: str) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:6: dpo\.epochs: "):
        load(SMALL.replace("epochs: 1", f"epochs: '{written}'"))


def test_a_bad_interpolation_in_a_list_names_its_line(load: Load) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:9: grid\.1\.dataset: can't resolve"):
        load(SMALL.replace("{dataset: pocket-hh,", "{dataset: '${nowhere}',"))


def test_duplicate_keys_name_both_lines(load: Load) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml:3: policy: duplicate key, first written on line 2"):
        load("name: x\npolicy: a\npolicy: b\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.replace("policy:", "polcy:"), r"study\.yaml:2: polcy: unknown key 'polcy'\n  did you mean 'policy'"),
        (SMALL.replace("name: small", "title: x"), r"title: unknown key 'title'"),
        (SMALL.replace("name: small", ""), r"'name' is required"),
        (SMALL.replace("name: small", "name: a/b"), r"study\.yaml:1: name: .*found 'a/b'"),
        (SMALL.replace("name: small", "name: 5"), r"study\.yaml:1: name: .*valid string"),
        (
            SMALL + "baselines: [base, sfy]\n",
            r"study\.yaml:10: baselines\.1: 'sfy' is not allowed\n  did you mean 'sft'",
        ),
        (
            SMALL + "evaluate: {polcy: []}\n",
            r"study\.yaml:10: evaluate\.polcy: unknown key .*\n  did you mean 'policy'",
        ),
        (SMALL + "data: {max_examples: [5]}\n", r"study\.yaml:10: data\.max_examples: .*valid integer \(found \[5\]\)"),
        (SMALL + "data: {seed: true}\n", r"study\.yaml:10: data\.seed: "),
        (SMALL + "when: [{iff: {dataset: a}, set: {}}]\n", r"when\.0\.iff: unknown key 'iff'\n  did you mean 'if'"),
        (SMALL + "when: [{if: {dataset: a}}]\n", r"study\.yaml:10: when\.0\.set: 'set' is required"),
        ("name: x\ngrid: []\n", r"study\.yaml:2: grid: the grid needs at least one block"),
        ("name: x\ngrid: {dataset: a}\n", r"study\.yaml:2: grid: "),
        ("name: x\ngrid: [5]\n", r"study\.yaml:2: grid\.0: .*found 5"),
        ("name: x\n", r"study\.yaml:1: the grid needs at least one block"),
        ("- a\n- b\n", "a specification is a mapping"),
        ("", "a specification is a mapping"),
        ("5: x\n", "a specification is a mapping"),
        ("name: [x\n", r"study\.yaml:\d: not valid YAML"),
        ("name: x\n\tgrid: y\n", r"study\.yaml:2: not valid YAML"),
        ("name: \x07\n", r"study\.yaml: not valid YAML"),
        ("? [a, b]\n: c\n", r"study\.yaml:1: a key is a single word"),
        ("name: 2020-13-45\n", r"study\.yaml: not valid YAML: month must be"),
        ("name: 2020-01-01\ngrid: []\n", r"study\.yaml:1: name: "),
        ("name: !!python/object:os.system x\n", r"study\.yaml:1: not valid YAML"),
        ("a: &a [*a]\n", "an alias that contains itself"),
    ],
)
def test_wrong_files(load: Load, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no specification file"):
        load_experiment(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="can't read"):
        load_experiment(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    with pytest.raises(AblateError, match="UTF-8"):
        load_experiment(tmp_path / "latin.yaml")
