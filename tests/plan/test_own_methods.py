"""Methods of a researcher's own: named by file or module, checked as ablate's are, identified by their code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate.algorithms.registry import METHODS
from ablate.catalogs.digests import sha256_file
from ablate.cli import app
from ablate.errors import AblateError, UsageError
from ablate.experiment.sections import SECTIONS, cell_keys
from ablate.plan.plan import Plan

MakePlan = Callable[..., Plan]

MANUAL = (Path(__file__).resolve().parents[2] / "docs/algorithms.md").read_text(encoding="utf-8")


def block(after: str) -> str:
    """Return the first code block of the manual after a text."""
    return MANUAL.partition(after)[2].partition("```")[2].partition("\n")[2].partition("```")[0]


CODE, SPEC = block("This is all of `dpop.py`"), block("A specification beside it")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the manual, in the folder of the specification; methods and modules of a test are forgotten."""
    (tmp_path / "dpop.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    path, modules, methods, sections = list(sys.path), set(sys.modules), dict(METHODS), dict(SECTIONS)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    for known, before in ((METHODS, methods), (SECTIONS, sections)):
        known.clear()  # type: ignore[attr-defined]
        known.update(before)  # type: ignore[attr-defined]
    cell_keys.cache_clear()


def trained(plan: Plan) -> list[dict[str, object]]:
    stages = [stage for stage in plan.stages.values() if stage.kind == "train"]
    return [stage.identity.config.value for stage in stages if stage.identity.config.value["algorithm"] == "dpop"]


def said(plan: MakePlan, text: str, *overrides: str) -> str:
    with pytest.raises(AblateError) as caught:
        plan(text, *overrides)
    assert isinstance(caught.value, UsageError)
    return str(caught.value)


def test_the_example_of_the_manual_shares_all_but_its_training_with_dpo(plan: MakePlan, project: Path) -> None:
    made = plan(SPEC, "evaluate.policy=[pocket-gold]")
    configs = trained(made)
    assert [config["parameters"]["penalty"] for config in configs] == [0.0, 5.0]  # type: ignore[index]
    digest = sha256_file(project / "dpop.py")
    assert all(config["code"] == {"method": digest, "step": digest} for config in configs)
    alone = plan(SPEC.replace("  - {dataset: pocket-hh, algorithm: ./dpop.py:METHOD, dpop.penalty: [0.0, 5.0]}\n", ""))
    assert {made.stages[stage].kind for stage in made.stages.keys() - alone.stages.keys()} == {
        "train", "generate", "evaluate",
    }  # fmt: skip
    rows = [(item.axes["algorithm"], item.axes["dpop.penalty"]) for item in made.subjects if item.role == "cell"]
    assert rows[1:3] == [("dpop", 0.0), ("dpop", 5.0)]
    assert made.as_json()["algorithms"]["dpop"] == "DPO-Positive"
    assert str(project) not in str(configs)


def test_an_edited_file_and_a_raised_revision_train_again_and_nothing_else(plan: MakePlan, project: Path) -> None:
    before = plan(SPEC)
    (project / "dpop.py").write_text(CODE + "# a remark\n")
    after = plan(SPEC)
    changed = {after.stages[stage].kind for stage in after.stages.keys() - before.stages.keys()}
    assert changed == {"train", "generate", "evaluate"}
    (project / "dpop.py").write_text(CODE)
    assert set(plan(SPEC).stages) == set(before.stages)


def test_a_module_with_its_step_in_another_file(plan: MakePlan, project: Path) -> None:
    (project / "lab").mkdir()
    (project / "lab/__init__.py").write_text(CODE.replace('entry="run"', 'entry="lab.step:train"'))
    (project / "lab/step.py").write_text("def train(context):\n    return {}\n")
    made = plan(SPEC.replace("./dpop.py:METHOD", "lab:METHOD"))
    files = {"method": project / "lab/__init__.py", "step": project / "lab/step.py"}
    assert trained(made)[0]["code"] == {role: sha256_file(file) for role, file in files.items()}
    stage = next(stage for stage in made.stages.values() if stage.execution.locations.get("step"))
    assert (stage.execution.entry, stage.execution.locations) == ("ablate.training.own:run", {"step": "lab.step:train"})


def test_it_is_known_by_its_name_in_sections_conditions_and_overrides(plan: MakePlan) -> None:
    more = (
        SPEC + "when: [{if: {algorithm: dpop}, set: {dpop.beta: 0.4}}]\nexclude: [{algorithm: dpop, dpop.penalty: 0}]\n"
    )
    [config] = trained(plan(more, "dpop.epochs=2"))
    assert config["parameters"]["beta"] == 0.4 and config["parameters"]["epochs"] == 2  # type: ignore[index]
    [config] = trained(plan(SPEC, "grid=[{dataset: pocket-hh, algorithm: './dpop.py:METHOD'}]"))
    assert config["parameters"]["penalty"] == 5.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "penalty: [0.0",
            "penalti: [0.0",
            "mine.yaml:6: dpop.penalti: unknown axis 'dpop.penalti'\n  did you mean 'dpop.pen",
        ),
        ("dpop: {learning", "dpop: {kl_coefficient: 1, learning", "mine.yaml:3: dpop.kl_coefficient: unknown key"),
        ("[0.0, 5.0]", "[0.0, -5.0]", "mine.yaml:6: dpop.penalty: Input should be greater than or equal to 0"),
        ("./dpop.py", "./dpo.py", "mine.yaml:6: grid.1.algorithm: there is no file "),
        (
            "./dpop.py:METHOD",
            "dopp:METHOD",
            "mine.yaml:6: grid.1.algorithm: there is no Python file of the module 'dopp'",
        ),
        (":METHOD", ":METHODS", "unknown function of "),
        (":METHOD", ":loss", "./dpop.py:loss is function, not a method\n  a method is a value of the class Method"),
    ],
)
def test_what_is_wrong_in_a_specification_is_said_where(
    plan: MakePlan, project: Path, old: str, new: str, message: str
) -> None:
    assert old in SPEC
    file = project / "mine.yaml"
    file.write_text(SPEC.replace(old, new))
    with pytest.raises(UsageError) as caught:
        plan(file)
    assert message in str(caught.value).replace(f"{project}/", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name="dpop"', 'name="dpo"', "its name, 'dpo', is that of the method DPO"),
        ('name="dpop"', 'name="sft"', "its name, 'sft', is that of a key of specifications"),
        ('name="dpop"', 'name="D P"', "is named 'D P'\n  a name is small letters"),
        ('entry="run"', 'entry="rum"', "unknown function of dpop.py 'rum'\n  did you mean 'run'?"),
        (
            '"reference_logprobs")',
            '"reference_logprob")',
            "which nothing provides\n  did you mean 'reference_logprobs'?",
        ),
        ('{"dataset"}', '{"datasets"}', "DPO-Positive reads 'datasets', which is no axis\n  did you mean 'dataset'?"),
        ("parameters=Parameters", "parameters=dict", "the parameters of ./dpop.py:METHOD are <class 'dict'>"),
        ("(PairParameters):", "(PairParameters:", "dpop.py:10: not valid Python"),
        ("from pydantic", "from pidantic", "can't import the method "),
        ("import COST_OF_PAIRS, Method, PairParameters", "import *", None),
    ],
)
def test_what_is_wrong_in_a_method_is_said_where_it_is_named(
    plan: MakePlan, project: Path, old: str, new: str, message: str | None
) -> None:
    assert old in CODE
    (project / "dpop.py").write_text(CODE.replace(old, new))
    if message is None:
        assert trained(plan(SPEC))
    else:
        assert message in said(plan, SPEC).replace(f"{project}/", "")


def test_parameters_that_lack_what_a_need_is_made_by(plan: MakePlan, project: Path) -> None:
    narrow = CODE.replace("(PairParameters):", "(OptimiserParameters):").replace(
        "import COST_OF_PAIRS, Method, PairParameters",
        "import COST_OF_PAIRS, Method\nfrom ablate.catalogs.parameters import OptimiserParameters",
    )
    (project / "dpop.py").write_text(narrow)
    text = SPEC.replace("dpop: {learning_rate: 1.0e-4, epochs: 1, max_length: 256}", "dpop: {learning_rate: 1.0e-4}")
    assert "needs 'pairs', and its parameters have no 'max_length'" in said(plan, text)


@pytest.mark.parametrize("reads", ["{'dataset'}", "()"])
def test_a_method_that_needs_nothing_beside_the_policy_is_trained(plan: MakePlan, project: Path, reads: str) -> None:
    alone = CODE.replace('needs=("pairs", "reference_logprobs")', "needs=()")
    (project / "dpop.py").write_text(alone.replace('frozenset({"dataset"})', f"frozenset({reads})"))
    own = "dataset: pocket-hh, algorithm: ./dpop.py"
    made = plan(SPEC if "dataset" in reads else SPEC.replace(own, own.partition(", ")[2]))
    stages = [stage for stage in made.stages.values() if stage.execution.entry == "ablate.training.own:run"]
    assert len(stages) == 2  # a penalty each
    assert [[role for role, _ in stage.identity.inputs] for stage in stages] == [["policy"]] * 2
    names = {"DPO-Positive on pocket-hh" if "dataset" in reads else "DPO-Positive"}
    assert {stage.execution.label.partition(" (")[0] for stage in stages} == names
    rows = [item for item in made.subjects if item.role == "cell" and item.axes["algorithm"] == "dpop"]
    assert [item.stage for item in rows] == [stage.id for stage in stages] and all(item.evaluations for item in rows)


def test_what_an_edited_method_reads_is_read_anew(plan: MakePlan, project: Path) -> None:
    plan(SPEC)  # the method is known as it was before
    (project / "dpop.py").write_text(CODE.replace('{"dataset"}', '{"dataset", "prompts"}'))
    made = plan(SPEC.replace("dpop.penalty: [0.0, 5.0]", "prompts: [pocket-hh, pocket-shp]"))
    cells = [cell for cell in made.grid.cells if cell.method.name == "dpop"]
    assert [cell.values["prompts"] for cell in cells] == ["pocket-hh", "pocket-shp"]


def test_two_methods_of_one_name_are_refused(plan: MakePlan, project: Path) -> None:
    (project / "other.py").write_text(CODE)
    text = SPEC + "  - {dataset: pocket-shp, algorithm: ./other.py:METHOD}\n"
    assert "its name, 'dpop', is that of the method DPO-Positive" in said(plan, text.replace("report: null\n", ""))


def test_the_command_shows_it(project: Path) -> None:
    shown = CliRunner().invoke(app, ["algorithms", "show", "./dpop.py:METHOD"])
    assert shown.exit_code == 0
    assert "dpop: DPO-Positive" in shown.output and "penalty = 5.0  (float)" in shown.output
    assert "Pal et al. 2024" in shown.output
    assert CliRunner().invoke(app, ["algorithms", "show", "./dpo.py:METHOD"]).exit_code != 0
