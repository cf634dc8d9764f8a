"""The batch script is a pure function: golden text, and the shell's own word on quoting and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from ablate.execution.slurm.arrays import Array, Need
from ablate.execution.slurm.profile import Profile
from ablate.execution.slurm.script import Paths, options, render
from ablate.execution.slurm.shapes import Shape
from ablate.execution.slurm.submit import gpu_hours

TEMPLATE = Path(__file__).parents[3] / "slurm" / "stage.sbatch.j2"
SHAPE = Shape("train", 90, 8, 61440, 1, pack=2, processes=1)
ARRAY = Array(
    "03-train",
    SHAPE,
    {0: ("train-a", "train-b"), 1: ("train-c",), 4: ("train-d",)},
    (Need("01-sft", "afterok", (0,)), Need("02-data", "aftercorr"), Need("771", "afterany")),
)
PROFILE = Profile.model_validate(
    {
        "partitions": ["a100", "h100"],
        "account": "nlp",
        "constraint": "ib",
        "exclude": ["n7", "n9"],
        "flags": ["--mail-type=FAIL"],
        "environment": {"HF_HOME": "a b's"},
        "setup": "module load cuda/12.4\n",
        "container": "apptainer exec --nv image.sif",
        "gpu": {"per_node": 8, "name": "a100"},
        "limits": {"at_once": 20},
    }
)
GOLDEN = """\
#!/bin/bash
# A job array of ablate: 3 x train. Rendered from slurm/stage.sbatch.j2.
#SBATCH --job-name=train.study.0a1b2c3d.03
#SBATCH --array=0-1,4%20
#SBATCH --dependency=afterok:70_0,aftercorr:71,afterany:771
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --partition=a100,h100
#SBATCH --account=nlp
#SBATCH --constraint=ib
#SBATCH --exclude=n7,n9
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=122880M
#SBATCH --gres=gpu:a100:2
#SBATCH --time=90
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --mail-type=FAIL
#SBATCH --output=store/slurm/x/03-train/%a.out
#SBATCH --open-mode=append

export HF_HOME='a b'"'"'s'
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1
module load cuda/12.4
export PYTHONPATH=store/code/package-1"${PYTHONPATH:+:$PYTHONPATH}"
set -u  # not before: what setup sources (conda, modules) reads variables that are not set
"""


def rendered(array: Array, profile: Profile, python: str = "python3", record: str = "store/slurm/x/03-train") -> str:
    jobs = {"01-sft": "70", "02-data": "71", "771": "771"}
    paths = Paths(Path(record), Path("store/code/package-1"), python)
    return render(TEMPLATE.read_text(), array, "train.study.0a1b2c3d.03", jobs, profile, paths, "stage.sbatch.j2")


def test_the_script_of_an_array() -> None:
    text = rendered(ARRAY, PROFILE)
    assert text[: len(GOLDEN)] == GOLDEN
    line = 'apptainer exec --nv image.sif python3 -P -m ablate.execution.slurm.element store/slurm/x/03-train "$SLURM'
    assert line in text


def test_a_bare_profile_asks_for_nothing_it_does_not_say() -> None:
    text = rendered(Array("00-dataset", Shape("dataset", 60, 1, 4096), {0: ("dataset-a",)}, ()), Profile())
    asked = [line.split("=")[0] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert asked == [
        *("#SBATCH --job-name", "#SBATCH --array", "#SBATCH --nodes", "#SBATCH --ntasks", "#SBATCH --cpus-per-task"),
        *("#SBATCH --mem", "#SBATCH --time", "#SBATCH --signal", "#SBATCH --requeue", "#SBATCH --output"),
        "#SBATCH --open-mode",
    ]
    assert "--no-requeue" in options(SHAPE, Profile(requeue=False))


def test_a_packed_stage_gets_its_own_gpus_and_ranks_share_cores() -> None:
    resources = [SHAPE.resources(position) for position in range(2)]
    assert [item.gpus for item in resources] == [(0,), (1,)]
    assert (resources[0].threads, resources[0].processes) == (8, 1)
    four = Shape("train", 90, 32, 1, gpus=4, processes=4).resources()
    assert (four.gpus, four.processes, four.threads) == ((0, 1, 2, 3), 4, 8)


def run_script(tmp_path: Path, python: str, profile: Profile | None = None) -> subprocess.Popen[str]:
    """Start the rendered script with a stand-in for Python and for scontrol."""
    (tmp_path / "python").write_text(f"#!/bin/bash\n{python}\n")
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/requeued\nkill -TERM $SCRIPT\n')
    (tmp_path / "sleep").write_text('#!/bin/bash\n[ "$1" = 600 ] || exec /bin/sleep "$@"\nkill -KILL $PPID\n')
    for name in ("python", "scontrol", "sleep"):
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "stage.sbatch"
    text = rendered(ARRAY, profile or Profile(), str(tmp_path / "python"), str(tmp_path))
    script.write_text(text.replace("set -u", "export SCRIPT=$$\nset -u"))
    place = {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "4", "SLURM_JOB_ID": "79", "SLURMD_NODENAME": "n1"}
    place |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.Popen(["bash", str(script)], env={**os.environ, **place}, text=True)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_script_ends_as_its_element_does(tmp_path: Path, code: int) -> None:
    assert run_script(tmp_path, f"exit {code}").wait(timeout=60) == code
    assert not (tmp_path / "requeued").exists()


def test_a_python_that_is_not_on_the_node_is_not_asked_for_again_and_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = run_script(tmp_path, "exit 0", Profile(setup=f"rm {tmp_path}/python"))
    assert script.wait(timeout=60) == 127 and not (tmp_path / "requeued").exists()
    assert f"{tmp_path}/python: No such file or directory" in capfd.readouterr().err


def test_what_setup_sources_may_read_variables_that_are_not_set(tmp_path: Path) -> None:
    (tmp_path / "activate.sh").write_text('export CONDA_BACKUP_CC="$CC_THAT_NOBODY_SET"\n')
    profile = Profile(setup=f"source {tmp_path}/activate.sh")
    assert run_script(tmp_path, "exit 3", profile).wait(timeout=60) == 3


def test_a_scratch_is_the_jobs_own_and_goes_with_it(tmp_path: Path) -> None:
    scratch = Profile(scratch="$STORAGE/local", environment={"STORAGE": str(tmp_path)})
    element = 'touch "$TMPDIR/spill"; echo "$TMPDIR" > "$STORAGE/seen"; exit 3'
    assert run_script(tmp_path, element, scratch).wait(timeout=60) == 3
    assert (tmp_path / "seen").read_text() == f"{tmp_path}/local/ablate-79\n"
    assert list((tmp_path / "local").iterdir()) == []


def test_a_scratch_that_is_not_there_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run_script(tmp_path, "exit 0", Profile(scratch=f"{tmp_path}/file")).wait(timeout=60) == 1
    assert f"scratch of the profile: no {tmp_path}/file/ablate-79 on n1" in capfd.readouterr().out
    with pytest.raises(ValidationError):
        Profile(scratch='/tmp/"$(reboot)"')


def test_gpu_hours_are_those_that_jobs_ask_for() -> None:
    profile = Profile.model_validate({"gpu": {"per_node": 8}, "services": {"judge": {"model": "m", "gpus": 4}}})
    packed = replace(ARRAY, shape=replace(SHAPE, services=("judge",)))
    assert "--gres=gpu:6" in options(packed.shape, profile)
    assert gpu_hours([packed], profile) == 3 * 6 * 1.5  # three elements, one of them half full
    assert gpu_hours([replace(ARRAY, shape=replace(SHAPE, pack=1, nodes=2, gpus=4))], profile) == 3 * 8 * 1.5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 130)])
def test_the_script_hands_signals_on_and_requeues_its_own_element(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    element = "trap 'sleep 1; exit 75' USR1\ntrap 'exit 130' TERM\ntouch \"$4.ready\"\nwhile true; do sleep 0.1; done"
    process = run_script(tmp_path, element)
    deadline = time.monotonic() + 60
    while not Path(f"{tmp_path}.ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    ended = process.wait(timeout=60)
    if code == 75:
        assert (tmp_path / "requeued").read_text() == "requeue 77_4\n"
    else:
        assert ended == 130 and not (tmp_path / "requeued").exists()


def test_the_script_sets_the_time_limit_that_its_element_asks_for(tmp_path: Path) -> None:
    """Once the job waits again, though SLURM asks the script to end at the same moment."""
    run_script(tmp_path, f"echo 120 > {tmp_path}/4.minutes; exit 75").wait(timeout=60)
    assert (tmp_path / "requeued").read_text() == "requeue 77_4\nupdate JobId=77_4 TimeLimit=120\n"


def test_jobs_with_a_way_out_may_ask_the_hub() -> None:
    off = "export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1\n"
    online = rendered(replace(ARRAY, shape=replace(SHAPE, hub=True)), PROFILE)
    text = rendered(ARRAY, PROFILE)
    assert off in text and text.replace(off, "") == online
