"""Methods of a researcher's own: named by file or module, checked as ablate's are, identified by their code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate.algorithms.registry import METHODS
from ablate.catalogs.digests import sha256_file
from ablate.cli.app import app
from ablate.errors import AblateError, Location, UsageError
from ablate.experiment.sections import SECTIONS, cell_keys
from ablate.plan.checks import check_needs
from ablate.plan.needs import NEEDS
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


@pytest.mark.parametrize("name", list(METHODS))
def test_ablate_s_own_methods_have_what_they_need(name: str) -> None:
    check_needs(METHODS[name], Location())


def test_the_manual_lists_every_need_with_what_it_asks_of_a_method() -> None:
    table = MANUAL.partition("| need | entry |")[2].partition("\n\n")[0].splitlines()[2:]
    found = {}
    for line in table:
        needs, _, _, parameters, reads, beside = (re.findall(r"`([^`]*)`", cell) for cell in line.split("|")[1:-1])
        for name in needs:
            found[name] = (parameters, reads, [word for word in beside if "=" not in word and word != "judge"])
    assert found == {
        name: (list(need.parameters), list(need.axes), [*filter(None, (need.of,)), *need.after])
        for name, need in NEEDS.items()
    }


JUDGED = 'judge="reward", entry'
OWN_REWARD = '{"dataset", "prompts", "reward_model"}'


@pytest.mark.parametrize(
    ("needs", "reads", "base", "entry", "message"),
    [
        (
            "'answers',",
            "{'dataset'}",
            "TrainingParameters",
            "entry",
            "'answers', and its parameters have no 'max_length'",
        ),
        (
            "'pairs',",
            "()",
            "PairParameters",
            "entry",
            "'pairs', and it does not read 'dataset'\n  add 'dataset' to its",
        ),
        (
            "'reward_model',",
            "{'dataset'}",
            "PairParameters",
            "entry",
            "'reward_model', and it does not read 'reward_mo",
        ),
        ("'prompts',", "{'dataset'}", "RolloutParameters", "entry", "'prompts', and it does not read 'prompts'"),
        ("'prompts',", OWN_REWARD, "PairParameters", "entry", "'prompts', and its parameters have no 'max_prompt_leng"),
        ("'reward',", OWN_REWARD, "PairParameters", "entry", "'reward', and its judge is None\n  write judge='reward'"),
        ("'annotator',", OWN_REWARD, "PairParameters", JUDGED, "'annotator', and its judge is reward"),
        ("'reward_model',", OWN_REWARD, "PairParameters", JUDGED, "and its judge is reward\n  write judge=None"),
        ("'best_responses',", OWN_REWARD, "PairParameters", JUDGED, "its parameters have no 'n'"),
        ("'reference_logprobs', 'pairs'", "{'dataset'}", "PairParameters", "entry", "'pairs' does not stand before it"),
        ("'mismatched_logprobs',", "{'dataset'}", "PairParameters", "entry", "'pairs' does not stand before it"),
        ("'pairs', 'part'", "{'dataset'}", "PairParameters", "entry", "its parameters have no 'parts'"),
        ("'pairs', 'part'", "{'dataset'}", "SDPOParameters", "entry", "its rounds are None\n  write rounds='parts'"),
        (
            "'pairs', 'reference_logprobs', 'part'",
            "{'dataset'}",
            "SDPOParameters",
            'rounds="parts", entry',
            "needs 'reference_logprobs', and 'part' does not stand before it",
        ),
        ("'pairs', 'answers'", "{'dataset'}", "PairParameters", "entry", "'answers', and 'pairs' as well: both are"),
        (
            "'pairs',",
            "{'dataset'}",
            "PairParameters",
            'judge="rewards", entry',
            "judged by 'rewards', which is no axis",
        ),
        (
            "'pairs',",
            "{'dataset'}",
            "PairParameters",
            'rounds="part", entry',
            "parameters of DPO-Positive have no 'part",
        ),
    ],
)
def test_a_need_that_a_method_can_t_have_is_an_error(
    plan: MakePlan, project: Path, needs: str, reads: str, base: str, entry: str, message: str
) -> None:
    module = {"RolloutParameters": "on_policy", "SDPOParameters": "sdpo"}.get(base, "base")
    code = CODE.replace("(PairParameters):", f"({base}):").replace('{"dataset"}', reads).replace("entry=", f"{entry}=")
    code = code.replace('needs=("pairs", "reference_logprobs")', f"needs=({needs})")
    code = code.replace("import COST_OF_PAIRS, Method, PairParameters", "import COST_OF_PAIRS, Method").replace(
        "\n\nclass", f"\nfrom ablate.algorithms.{module} import {base}\n\nclass", 1
    )
    (project / "dpop.py").write_text(code)
    text = SPEC.replace(", epochs: 1, max_length: 256}", "}").replace("learning_rate: 1.0e-4", "epochs: 1")
    text = text.replace("dataset: pocket-hh, algorithm: ./d", "algorithm: ./d") if reads == "()" else text
    text = text.replace("epochs: 1}", "epochs: 1, batch_size: 8}") if base == "TrainingParameters" else text
    text = text.replace("epochs: 1", "epochs: 1, learning_rate: 1.0e-4")
    assert message in said(plan, text)


def test_a_method_of_prompts_alone_takes_no_dataset(plan: MakePlan, project: Path) -> None:
    code = CODE.replace("PairParameters", "RolloutParameters").replace('{"dataset"}', '{"prompts"}')
    code = code.replace("COST_OF_PAIRS, Method, RolloutParameters", "COST_OF_PAIRS, Method").replace(
        "\n\nclass", "\nfrom ablate.algorithms.on_policy import RolloutParameters\n\nclass", 1
    )
    (project / "dpop.py").write_text(code.replace('"pairs", "reference_logprobs"', '"prompts", "reference"'))
    text = SPEC.replace("max_length: 256", "max_prompt_length: 128, max_response_length: 64")
    one = "{algorithm: ./dpop.py:METHOD, dpop.penalty: 5.0"
    text = text.partition("grid:")[0] + f"grid: [{one}, prompts: pocket-prompts}}]\nreport: null\n"
    made = plan(text)
    (stage,) = (stage for stage in made.stages.values() if stage.kind == "train")
    assert set(dict(stage.identity.inputs)) == {"policy", "prompts", "reference", "prompt_texts"}
    assert "'prompts' is set nowhere" in said(plan, text.replace(", prompts: pocket-prompts", ""))


def test_a_method_that_learns_from_pairs_beside_a_reward_is_given_pairs(plan: MakePlan, project: Path) -> None:
    code = CODE.replace('{"dataset"}', OWN_REWARD).replace("entry=", 'judge="reward", entry=')
    (project / "dpop.py").write_text(code.replace('"pairs", "reference_logprobs"', '"pairs", "reward"'))
    text = SPEC.replace("dpop.penalty: [0.0, 5.0]", "reward: pocket-gold, prompts: pocket-prompts")
    assert [stage for stage in plan(text).stages.values() if stage.identity.config.value.get("reward")]
    assert "'pocket-prompts' holds prompts data" in said(
        plan, text.replace("pocket-hh, algorithm: ./", "pocket-prompts, algorithm: ./")
    )


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


def test_the_schema_for_editors_has_its_section_and_axes(project: Path) -> None:
    assert "dpop" not in json.loads(CliRunner().invoke(app, ["schema"]).output)["properties"]
    schema = json.loads(CliRunner().invoke(app, ["schema", "./dpop.py:METHOD"]).output)
    assert schema["properties"]["dpop"]["properties"]["penalty"]["minimum"] == 0
    assert "dpop.penalty" in schema["properties"]["grid"]["items"]["properties"]
    assert isinstance(CliRunner().invoke(app, ["schema", "dpo"]).exception, AblateError)
