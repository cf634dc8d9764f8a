"""The command line as a user meets it: a process, its exit code, what it prints and what it leaves behind."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ablate.cli import main
from ablate.context import EventLog
from ablate.liveness import Owner
from ablate.store import VERSION, Store

HELPERS = Path(__file__).parent / "execution" / "helpers"
COMMANDS = ("plan", "run", "retry", "status", "logs", "report", "results", "ui", "data", "schema", "init")
SPEC = """\
name: small
question: Is [bold]this[/nothing] a question?
policy: pocket-small
sft: {dataset: pocket-instructions}
grid:
  - {dataset: pocket-hh, algorithm: dpo, dpo.beta: [0.1, 0.2]}
evaluate: {policy: [pocket-gold]}
"""

Ablate = Callable[..., "subprocess.CompletedProcess[str]"]
Here = Callable[..., tuple[int, str, str]]


def environment(folder: Path) -> dict[str, str]:
    paths = [str(HELPERS), *(path for path in sys.path if path)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ABLATE_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "LIGHT_WORK_FOLDER": str(folder), "COLUMNS": "100"}


def command(*words: str, light: bool) -> list[str]:
    start = [str(HELPERS / "light_cli.py")] if light else ["-m", "ablate"]
    return [sys.executable, *start, *words]


@pytest.fixture
def ablate(tmp_path: Path) -> Ablate:
    """Run the command line in the test's folder; ``light``: all stages are light stand-ins."""
    (tmp_path / "small.yaml").write_text(SPEC)

    def call(*words: str, light: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words, light=light),
            cwd=tmp_path,
            env={**environment(tmp_path), **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run the command line in this process, in the test's folder: exit code, output, errors."""
    (tmp_path / "small.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ABLATE_")]:
        monkeypatch.delenv(name)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ablate", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        assert code is None or isinstance(code, int)
        return (code or 0, *capsys.readouterr())

    return call


def test_help_and_version(ablate: Ablate) -> None:
    answer = ablate("--help")
    assert answer.returncode == 0
    assert all(re.search(rf"^\W*{name} ", answer.stdout, re.M) for name in COMMANDS)
    listed = answer.stdout.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in listed[1:6]] == ["init", "plan", "run", "status", "report"]
    assert re.fullmatch(r"ablate \d+\.\d+\.\d+\S*\n", ablate("--version").stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(here: Here, name: str) -> None:
    code, out, err = here(name, "--help")
    assert (code, err) == (0, "")
    assert f" {name} [OPTIONS]" in out


@pytest.mark.parametrize("words", [("sweep", "show", "small", "--figures"), ("report", "small", "--out")])
def test_a_file_is_no_folder_to_write_into(here: Here, words: tuple[str, ...]) -> None:
    code, _, err = here(*words, "small.yaml")
    assert code == 2 and f"Invalid value for '{words[-1]}': " in err and "'small.yaml' is a file" in err


def test_what_is_no_store_has_nothing_to_delete_and_stays_none(here: Here, tmp_path: Path) -> None:
    code, out, _ = here("gc", "--store", "nowhere")
    assert (code, out) == (0, f"nothing to delete: {tmp_path}/nowhere is no store yet\n")
    assert not (tmp_path / "nowhere").exists()


def test_data_list_and_its_filters(here: Here) -> None:
    code, out, err = here("data", "list")
    assert (code, err) == (0, "")
    assert re.search(r"^tulu-2\.5-nectar-60k +preference +ai +60,908 nectar_60k +ODC-BY-1\.0", out, re.M)
    code, out, _ = here("data", "list", "--format", "preference", "--label", "construction", "--json")
    found = json.loads(out)
    assert code == 0 and {"orca-dpo-pairs", "pocket-hh"} <= {entry["name"] for entry in found}
    assert {(entry["format"], entry["label_kind"]) for entry in found} == {("preference", "construction")}
    _, out, _ = here("data", "list", "--licence", "cc-by-nc", "--json")
    assert "alpaca-farm-human" in {entry["name"] for entry in json.loads(out)}
    code, _, err = here("data", "list", "--format", "preferences")
    assert code == 2 and "did you mean 'preference'?" in err


def test_data_show(here: Here, tmp_path: Path) -> None:
    code, out, _ = here("data", "show", "orca-dpo-pairs")
    assert code == 0
    assert "no data root is set" in out and "Intel/orca_dpo_pairs/orca_rlhf.jsonl" in out and "12859" in out
    folder = tmp_path / "root/Intel/orca_dpo_pairs"
    folder.mkdir(parents=True)
    row = {"system": "Be kind.", "question": "why?", "chosen": "because", "rejected": "no"}
    text = "".join(json.dumps(item) + "\n" for item in (row, {**row, "chosen": ""}, row))
    (folder / "orca_rlhf.jsonl").write_text(text)
    code, out, _ = here("data", "show", "orca-dpo-pairs", "--root", "root")
    assert code == 0 and "Be kind." in out and "dropped: empty-message" in out and "row 3" not in out
    code, out, _ = here("data", "show", "orca-dpo-pairs", "--root", "root", "--rows", "1", "--json")
    (shown,) = json.loads(out)["rows"]
    assert [turn["role"] for turn in shown["examples"][0]["prompt"]] == ["system", "user"]
    out = here("data", "show", "pocket-hh")[1]
    assert "train.jsonl, row 2" in out and "no rows" not in out
    assert here("data", "show", "pocket-hh", "--rows", "1")[1].count('"chosen": [') == 1
    code, _, err = here("data", "show", "orca-dpo")
    assert code == 2 and "unknown dataset 'orca-dpo'" in err and "did you mean" in err
    unpinned = "none pinned: `ablate data pin capybara` writes the newest into datasets.lock.yaml"
    assert f"  revision            {unpinned}\n" in here("data", "show", "capybara")[1]
    pins = f'huggingface:\n  argilla/distilabel-capybara-dpo-7k-binarized: "{"a" * 40}"\n'
    (tmp_path / "datasets.lock.yaml").write_text(pins)
    assert f"  revision            {'a' * 40}\n" in here("data", "show", "capybara")[1]


def test_datasets_of_the_project_are_listed_and_shown(ablate: Ablate, tmp_path: Path) -> None:
    answer = ablate("init", ".")
    assert answer.returncode == 0
    files = int(answer.stdout.split()[0])
    page = (Path(__file__).parents[1] / "docs/first-experiment.md").read_text(encoding="utf-8")
    assert f"{files} files in beta/" in page, "the page is as printed"
    rows = {"q": "why?", "good": "because", "bad": "no"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_text(json.dumps(rows) + "\n")
    (tmp_path / "mine.py").write_text(
        "from ablate.data.converters.sides import two_responses, user_prompt\n\n\ndef convert(row, options):\n"
        "    return two_responses(row, user_prompt(row['q']), [row['good'], row['bad']], source='mine')\n"
    )
    keys = "title: Mine\n  format: preference\n  source: {files: [a.jsonl]}\n  label_kind: human\n  licence: MIT"
    (tmp_path / "datasets/mine.yaml").write_text(f"mine:\n  {keys}\n  converter: mine:convert\n")
    assert re.search(r"^mine +preference +human +MIT *$", ablate("data", "list").stdout, re.M)
    answer = ablate("data", "show", "mine", "--root", "data")
    assert '"content": "because"' in answer.stdout and "converter           mine:convert" in answer.stdout, answer
    (tmp_path / "mine.py").write_text("def convert(row, options):\n    return row['lost']\n")
    answer = ablate("data", "show", "mine", "--root", "data")
    assert "no rows: data/a.jsonl, row 1: the converter mine:convert raised KeyError: 'lost'" in answer.stdout, answer
    assert answer.returncode == 2, "files that are there and can't be read are an error, missing ones are not"
    (tmp_path / "data/a.jsonl").write_text("")
    answer = ablate("data", "show", "mine", "--root", "data")
    assert answer.stdout.endswith("no rows: its files hold none\n") and answer.returncode == 0, answer
    answer = ablate("data", "show", "shp-2", "--root", "mine.py")
    assert "in the data root mine.py, which is no folder" in answer.stdout and answer.returncode == 0, answer
    (tmp_path / "datasets/mine.yaml").write_text("pocket-hh: {}\n")
    answer = ablate("data", "list")
    assert answer.returncode == 2 and "datasets/mine.yaml:1: pocket-hh" in answer.stderr, answer


def test_algorithms_are_listed_and_shown(here: Here) -> None:
    code, out, _ = here("algorithms", "list")
    assert code == 0 and re.search(r"^ipo_avg +IPO \(averaged\) +pairs, reference_logprobs +Azar", out, re.M)
    assert "[k-wise]" in out
    code, out, _ = here("algorithms", "show", "dpo")
    assert code == 0 and "  formula  L = -log sigma(beta" in out and "eq. 7" in out
    assert "  beta = 0.1  (float)\n      Strength of the implicit KL penalty; Ivison et al. 2024" in out
    assert '  truncation = "keep-start"  (drop or keep-start)' in out
    assert "  quantisation = null  (4bit or null)" in out
    shown = json.loads(here("algorithms", "show", "ppo", "--json")[1])
    parameters = {item["name"]: item for item in shown["parameters"]}
    assert parameters["stop_at_kl"]["type"] == "float or null" and parameters["clip_range"]["default"] == 0.2
    assert all(item["description"] for item in shown["parameters"])
    code, _, err = here("algorithms", "show", "ipo_av")
    assert code == 2 and "did you mean 'ipo_avg'?" in err


def test_tokens_of_a_dataset(here: Here) -> None:
    words = ("data", "show", "pocket-shp", "--rows", "1")
    code, out, _ = here(*words, "--tokens", "--model", "pocket-small")
    assert code == 0 and "Tokens in [brackets] are trained" in out and "[<|end|>]" in out
    _, out, _ = here(*words, "--tokens", "--model", "pocket-small", "--json")
    shown = json.loads(out)
    sequences = shown["rows"][0]["tokens"][0]["sequences"]
    assert shown["name"] == "pocket-shp" and [item["name"] for item in sequences] == ["prompt", "chosen", "rejected"]
    assert all(len(item["ids"]) == len(item["pieces"]) == len(item["trained"]) for item in sequences)
    for extra in (["--tokens"], ["--model", "pocket-small"]):
        code, _, err = here(*words, *extra)
        assert code == 2 and "--tokens and --model go together" in err
    code, out, err = here("data", "show", "orca-dpo-pairs", "--tokens", "--model", "pocket-small")
    assert code == 2 and "no data root is set" in err and out == ""


def test_data_show_embedded(here: Here) -> None:
    code, out, _ = here("data", "show", "helpsteer")
    assert code == 0 and re.search(r"^  sample +helpsteer, 12,000 rows$", out, re.M)
    code, out, _ = here("data", "show", "helpsteer", "--embedded", "--rows", "1")
    assert code == 0 and out.startswith("helpsteer: HelpSteer (embedded sample)\n")
    assert "train.jsonl, row 1 and 3 more" in out and "generated by this package" in out
    _, out, _ = here("data", "show", "chatbot-arena-2024", "--embedded", "--json", "--rows", "20")
    assert {row.get("dropped") for row in json.loads(out)["rows"]} == {None, "tied"}
    code, _, err = here("data", "show", "llmbar", "--embedded")
    assert code == 2 and "has no embedded sample" in err and "capybara" in err
    assert re.search(
        r"^helpsteer +preference +human +35,331 train +helpsteer +CC-BY-4\.0", here("data", "list")[1], re.M
    )


def test_plan_says_which_rows_are_embedded(here: Here) -> None:
    code, out, _ = here("plan", "pocket_datasets")
    assert code == 0 and "embedded samples, not the released rows: shp-2, stack-exchange, " in out
    assert "embedded samples" not in here("plan", "pocket_quick")[1]


def test_data_show_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/train.jsonl.gz").write_bytes(gzip.compress(b'{"question": "q", "answer": "a"}\n'))
    code = (
        "import sys, ablate.cli as c\n"
        f"sys.argv = ['ablate', 'data', 'show', 'gsm8k-prompts', '--root', {str(tmp_path)!r}]\n"
        "try: c.main()\n"
        "except SystemExit: pass\n"
        "print([n for n in ('torch', 'pandas', 'pyarrow', 'numpy', 'transformers', 'datasets') if n in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert '"prompt"' in answer.stdout and answer.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "small.yaml", "seed=one"), "error: override 'seed=one': seed: "),
        (("plan", "wrong.yaml"), "wrong.yaml:6: algorithm: unknown algorithm 'dop'\n  did you mean"),
        (("run", "wrong.yaml"), "wrong.yaml:6: algorithm: unknown algorithm 'dop'\n  did you mean"),
        (("plan", "twice.yaml"), "twice.yaml:2: name: duplicate key"),
        (("plan", "pocket_quik"), "error: unknown experiment 'pocket_quik'\n  did you mean 'pocket_quick'"),
        (("plan", "small.yml"), "error: unknown experiment 'small.yml'\n  did you mean 'small.yaml'?"),
        (("run", "pocket_quick.yml"), "error: unknown experiment 'pocket_quick.yml'\n  did you mean 'pocket_quick'?"),
        (("plan", "small"), "error: unknown experiment 'small'\n  did you mean 'small.yaml'?"),
        (("plan", "small.yaml", "dpo.beta=0.7"), "'grid.0.dpo.beta=0.7'"),
        (("plan", "small.yaml", "algorithm=ppo"), "'algorithm' is an axis of block 1 of the grid"),
        (("plan", "small.yaml", "seed="), "no value is given for seed"),
        (("plan", "nowhere/else.yaml"), "error: unknown experiment 'nowhere/else.yaml'"),
        (("plan", ""), "error: unknown experiment ''"),
        (("plan", "."), "error: unknown experiment '.'"),
        (
            ("plan", "reported.yaml"),
            "table.yaml:3: tables.0.rows.0: unknown axis 'dpo.bta'\n  did you mean 'dpo.beta'?",
        ),
        (("run", "reported.yaml"), "\n  the layout is named by reported.yaml:2: report; report: null asks for"),
        (
            ("plan", "reported.yaml", "report=tabel.yaml"),
            "report: no report layout tabel.yaml\n  did you mean 'table.yaml'?",
        ),
        (
            ("plan", "small.yaml", "report=reports/pocket_quik.yaml"),
            "did you mean 'reports/pocket_quick.yaml'? allowed: ",
        ),
        (("plan", "small.yaml", "report=."), "report: no report layout ."),
        (("plan", "small.yaml", f"report={'x' * 300}"), "can't be a path"),
        (("plan", "child.yaml"), "child.yaml:2: extends: no specification file"),
        (("plan", "child.yaml"), "smal.yaml\n  did you mean 'small.yaml'? allowed: "),
        (("run", "real_small"), "real_small.yaml:23: evaluate.policy.0: suite 'mmlu-small' needs the file"),
        (("run", "real_small"), "no data root is set\n  set ABLATE_DATA"),
        (("retry", "small"), "error: unknown experiment of this store 'small'"),
        (("status", "small"), "error: unknown experiment of this store 'small'"),
        (("report", "small"), "error: unknown experiment of this store 'small'"),
        (("results", "small"), "error: unknown experiment of this store 'small'"),
        (("logs", "train-"), "error: no stage starts with 'train-'"),
        (("logs", "/x"), "error: no stage starts with '/x'"),
        (("why", "worker-7_0"), "error: worker-7_0 is a worker, not a stage\n  what it printed is in "),
        (("run", "small.yaml", "--workers", "2"), "--workers belongs to --on\n  --jobs is stages at once"),
    ],
)
def test_errors_go_to_stderr_with_exit_code_2_and_nothing_is_written(
    here: Here, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "wrong.yaml").write_text(SPEC.replace("algorithm: dpo", "algorithm: dop"))
    (tmp_path / "twice.yaml").write_text("name: a\nname: b\n")
    (tmp_path / "child.yaml").write_text("name: child\nextends: smal.yaml\n")
    (tmp_path / "reported.yaml").write_text(SPEC.replace("question:", "report: table.yaml\nquestion:"))
    (tmp_path / "table.yaml").write_text("tables:\n  - name: main\n    rows: [dpo.bta]\n    columns: [categories]\n")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = here(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_layout_that_does_not_fit_leaves_no_digests(here: Here, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    text = SPEC.replace("pocket-small", "./model").replace("sft: {dataset: pocket-instructions}", "report: table.yaml")
    (tmp_path / "reported.yaml").write_text(text)
    layout = "tables:\n  - {name: main, rows: [dpo.beta], columns: [averge]}\n"
    (tmp_path / "table.yaml").write_text(layout)
    code, _, err = here("plan", "reported.yaml")
    assert code == 2
    assert "table.yaml:2: tables.0.columns.0: unknown column 'averge'\n  did you mean 'average'?" in err
    assert not (tmp_path / "store").exists()
    (tmp_path / "table.yaml").write_text(layout.replace("averge", "average"))
    assert here("plan", "reported.yaml")[0] == 0
    assert (tmp_path / "store/cache/digests.json").exists()


def test_plan_says_what_would_run_and_writes_nothing(ablate: Ablate, tmp_path: Path) -> None:
    answer = ablate("plan", "small.yaml", "--verbose")
    assert answer.returncode == 0
    assert "small: Is [bold]this[/nothing] a question?" in answer.stdout
    assert "2 cells over dataset (1), algorithm (1), dpo.beta (2)" in answer.stdout
    assert len(re.findall(r"^  train-[0-9a-f]{16}  DPO on pocket-hh", answer.stdout, re.M)) == 2
    assert not (tmp_path / "store").exists()


def test_the_readme_s_experiment_plans_in_an_empty_folder(here: Here, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(name: beta\n.*?)```", readme, re.DOTALL)
    assert example is not None
    (tmp_path / "beta.yaml").write_text(example[1])
    code, out, err = here("plan", "beta.yaml")
    assert (code, err) == (0, "")
    assert "9 cells over dataset (1), algorithm (1), dpo.beta (3), seed (3)" in out


def test_one_cell_is_no_plural(here: Here) -> None:
    assert (
        "1 cell over dataset (1), algorithm (1), dpo.beta (1)" in here("plan", "small.yaml", "grid.0.dpo.beta=0.7")[1]
    )


def make_stage(store: Path, name: str, label: str) -> Path:
    """Write a stage that this process runs, and return the folder of its attempt."""
    attempt = store / "stages" / name / "attempts" / "1"
    attempt.mkdir(parents=True)
    (store / "stages" / name / "stage.json").write_text(json.dumps({"label": label}))
    (attempt / "owner.json").write_text(json.dumps(vars(Owner.current())))
    return attempt


def test_an_empty_log_says_so_and_shows_the_last_event(here: Here, tmp_path: Path) -> None:
    attempt = make_stage(tmp_path / "store", "train-00", "DPO")
    (attempt / "log").touch()
    code, out, err = here("logs", "train")
    assert (code, out) == (0, "")
    assert err.endswith("# the log is empty; the stage is running; it has written no event\n")
    EventLog(attempt / "events.jsonl").log(step=12, loss=0.4137)
    expected = "# the log is empty; the stage is running; the last event is step 12  loss 0.414\n"
    assert here("logs", "train")[2].endswith(expected)
    (attempt / "log").write_text("a line\n")
    assert here("logs", "train")[1] == "a line\n"


def test_an_ambiguous_stage_lists_the_candidates(here: Here, tmp_path: Path) -> None:
    for number in range(12):
        make_stage(tmp_path / "store", f"train-{number:02}", f"DPO (seed {number})")
    code, _, err = here("logs", "train-0")
    assert code == 2
    assert "error: 10 stages start with 'train-0'" in err
    assert err.endswith("\n  train-08  DPO (seed 8)\n  train-09  DPO (seed 9)\n")
    assert here("logs", "train-")[2].endswith("  train-09  DPO (seed 9)\n  … and 2 more: `ablate status NAME --all`\n")


def test_plan_as_json(ablate: Ablate) -> None:
    facts = json.loads(ablate("plan", "small.yaml", "seed=3", "--json").stdout)
    assert facts["experiment"] == "small"
    assert facts["cells"] == 2
    assert facts["axes"] == ["dataset", "algorithm", "dpo.beta"]
    assert facts["stages"] == sum(item["stages"] for item in facts["kinds"]) == len(facts["to_run"])
    assert facts["requested"] > facts["stages"], "the two cells share all but their training and what hangs on it"
    assert facts["estimated_worker_seconds"] is None


def test_run_status_logs_and_run_again(ablate: Ablate, tmp_path: Path) -> None:
    answer = ablate("run", "small.yaml", "--jobs", "2", light=True)
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"^\[\d+/\d+\] done    train              DPO on pocket-hh.* \(\d+\.\d s\)$", answer.stdout, re.M)
    assert "next: ablate report small" in answer.stdout
    again = ablate("run", "small.yaml", light=True)
    assert again.returncode == 0
    assert re.fullmatch(r"small: nothing to do, all \d+ stages are done\n", again.stdout)
    assert "nothing to do: all stages are done" in ablate("plan", "small.yaml", light=True).stdout
    status = json.loads(ablate("status", "small", "--json").stdout)["small"]
    assert {line["status"] for line in status} == {"done"}
    assert re.fullmatch(r"small: \d+ done\n", ablate("status").stdout)
    train = next(line["id"] for line in status if line["kind"] == "train")
    assert ablate("logs", train[:12]).returncode == 0
    cells = sorted(entry.name for entry in Store(tmp_path / "store").experiment("small").cells.iterdir())
    assert cells == [f"dataset=pocket-hh,algorithm=dpo,dpo.beta={beta}" for beta in (0.1, 0.2)]
    estimate = ablate("plan", "small.yaml", "grid.0.seed=[0, 1]", light=True).stdout
    assert re.search(
        r"^about \d+ s of work for one worker, if these stages are of the size of the earlier", estimate, re.M
    )
    changed = ablate("run", "small.yaml", "grid.0.seed=[0, 1]", light=True)
    assert len(re.findall(r"^\[\d+/6\] done ", changed.stdout, re.M)) == 6, "two trainings, generations, evaluations"


def test_a_failure_is_told_with_its_log_and_retry_mends_it(ablate: Ablate) -> None:
    answer = ablate("run", "small.yaml", light=True, LIGHT_WORK_FAILS="reference_logprobs")
    assert answer.returncode == 1
    assert re.search(r"^small: \d+ done, 1 failed, 6 blocked$", answer.stdout, re.M)
    assert "failed: reference log-probabilities (reference_logprobs-" in answer.stderr
    assert "  there are no rows\n" in answer.stderr
    assert "  | the last line of the log\n" in answer.stderr
    assert "Traceback" not in answer.stderr, "the error explains itself"
    assert "ablate retry small" in answer.stderr
    status = ablate("status", "small").stdout
    assert re.search(r"failed +reference_logprobs-\w+  reference log-probabilities  there are no rows", status)
    assert "failed before: there are no rows" in ablate("plan", "small.yaml", "-v", light=True).stdout
    assert "the last line of the log" in ablate("logs", "reference_logprobs").stdout
    mended = ablate("retry", "small", light=True)
    assert mended.returncode == 0, mended.stderr
    assert re.search(r"^small: 7 done$", mended.stdout, re.M)


def start_held(folder: Path, output: int) -> subprocess.Popen[str]:
    """Start a run in a process group of its own, as a shell does, and return when a stage of it holds."""
    (folder / "hold").touch()
    process = subprocess.Popen(
        command("run", "small.yaml", "--jobs", "1", light=True),
        cwd=folder,
        env={**environment(folder), "TERM": "xterm"},
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("running-dataset-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_ctrl_c_ends_with_130_and_the_same_command_continues(ablate: Ablate, tmp_path: Path) -> None:
    process = start_held(tmp_path, subprocess.PIPE)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert re.search(r"1 interrupted", out)
    assert "stopped; the same command continues" in err
    assert "Traceback" not in err
    (tmp_path / "hold").unlink()
    assert "interrupted" in ablate("status", "small").stdout
    answer = ablate("run", "small.yaml", light=True)
    assert answer.returncode == 0
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", out.rpartition("small: ")[2])}
    made = counts["done"]
    assert made > 0
    assert counts == {"done": made, "interrupted": 1, "waiting": 18 - made - 1}
    assert re.search(rf"^small: {18 - made} done$", answer.stdout, re.M), "what was done stays done"


def test_two_runs_at_once_on_one_store_run_every_stage_once(ablate: Ablate, tmp_path: Path) -> None:
    ended = run_at_once(tmp_path, *(("run", "small.yaml", "--jobs", "2"),) * 2)
    store = Store(tmp_path / "store")
    assert [(code, err) for code, _, err in ended] == [(0, "")] * 2
    stages = store.experiment("small").read_plan()["stages"]
    assert all(len(store.stage(stage).attempts()) == 1 for stage in stages)
    assert all(store.stage(stage).is_done() for stage in stages)
    assert all(f"small: {len(stages)} done\n" in out for _, out, _ in ended), "what the other made counts as done"
    cells = list(store.experiment("small").cells.iterdir())
    outputs = {store.stage(stage).output for stage in stages}
    assert len(cells) == 2 and {(cell / "checkpoint").resolve().parent for cell in cells} <= outputs
    assert {(cell / "pocket-gold").resolve() for cell in cells} <= outputs
    assert list(store.root.rglob(".*")) == [], "no temporary file, no claim that was lost"


def run_at_once(folder: Path, *commands: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """Let light command lines go at the same moment, after their imports; exit code, output and errors of each."""
    gate = folder / "gate"
    processes = [
        subprocess.Popen(
            command(*words, light=True),
            cwd=folder,
            env={**environment(folder), "LIGHT_CLI_GATE": str(gate)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in commands
    ]
    deadline = time.monotonic() + 60
    while len(list(folder.glob("gate-*"))) < len(commands):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gate.touch()
    outputs = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def test_ctrl_c_on_a_terminal_leaves_it_as_it_was(ablate: Ablate, tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    process = start_held(tmp_path, end)
    os.close(end)
    os.killpg(process.pid, signal.SIGINT)
    shown = read_all(terminal)
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in shown
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l") > 0, "the cursor comes back"
    assert shown.endswith("stopped; the same command continues, or: ablate retry small\r\n")
    (tmp_path / "hold").unlink()
    assert ablate("run", "small.yaml", light=True).returncode == 0


def read_all(terminal: int) -> str:
    """Everything that is written to a terminal until the last process that has it open ends."""
    shown = b""
    with suppress(OSError):  # EIO is the end of a terminal
        while chunk := os.read(terminal, 65536):
            shown += chunk
    os.close(terminal)
    return shown.decode()


@pytest.mark.parametrize("words", [("plan", "small.yaml"), ("run", "small.yaml"), ("status",), ("retry", "small")])
def test_a_store_of_a_newer_version_is_refused(here: Here, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/store.json").write_text(json.dumps({"version": VERSION + 1}))
    code, _, err = here(*words)
    assert code == 1
    assert f"has layout version {VERSION + 1}; this ablate knows up to {VERSION}" in err
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["store.json"]


def test_a_store_that_cannot_be_is_an_error_not_a_traceback(ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    answer = ablate("run", "small.yaml")
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("words", [("schema",), ("plan", "small.yaml"), ("status",)])
def test_an_output_that_takes_nothing_is_an_error_not_a_traceback(
    ablate: Ablate, tmp_path: Path, words: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(
            command(*words, light=False),
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
    assert answer.returncode == 1
    assert answer.stderr == f"error: ablate {words[0]}: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ui", "--port", "99999"), "less than or equal to 65535"),
        (("schema", "mine"), "error: 'mine' names no function\n  write module:name or ./file.py:name"),
    ],
)
def test_what_can_t_be_served_or_imported_is_told_at_once(here: Here, words: tuple[str, ...], message: str) -> None:
    code, _, told = here(*words)
    assert code == 2 and message in told


def test_schema_is_json(ablate: Ablate) -> None:
    assert json.loads(ablate("schema").stdout)["title"] == "ablate experiment"


LIGHT = """
import resource, sys
sys.argv = ["ablate", *sys.argv[1:]]
from ablate.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch", "transformers", "pandas", "numpy", "datasets", "trl", "lm_eval", "mlflow", "matplotlib", "scipy"}
print("heavy:", sorted(heavy & set(sys.modules)), file=sys.stderr)
usage = resource.getrusage(resource.RUSAGE_SELF)
print("seconds:", usage.ru_utime + usage.ru_stime, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [("--help",), ("plan", "pocket_quick"), ("status",), ("schema",)])
def test_what_computes_nothing_imports_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", LIGHT, *words],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "heavy: []" in answer.stderr
    seconds = float(answer.stderr.rpartition("seconds:")[2])
    assert seconds < 3.0, "processor seconds; well under one on an idle core"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("plan pocket_qu", ["pocket_quick"]),
        ("run mi", ["mine"]),
        ("status s", ["small", "small-two"]),
        ("report small-", ["small-two"]),
        ("results x", []),
        ("retry --store elsewhere ", ["other"]),
    ],
)
def test_a_shell_is_offered_experiments_without_anything_heavy(tmp_path: Path, words: str, offered: list[str]) -> None:
    for place in ("store/experiments/small", "store/experiments/small-two", "elsewhere/experiments/other"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "plan.json").write_text("{}")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.yaml").write_text(SPEC)
    line = f"ablate {words}"
    asked = {"_ABLATE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    answer = subprocess.run(
        [sys.executable, "-c", LIGHT],
        cwd=tmp_path,
        env={**environment(tmp_path), **asked},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.stdout.split() == offered, answer.stderr
    assert "heavy: []" in answer.stderr
