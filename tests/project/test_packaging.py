"""The project as others receive it: ranges against pins, the wheel outside a clone, the researcher's folders."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ablate
from ablate.catalogs.datasets import datasets
from ablate.errors import UsageError
from ablate.shipped import KINDS, init_project, project_datasets, search_folders, shipped_folder

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines if not line.startswith("#")]
    assert all(exact), "every line of constraints.txt is `name==version`: no local version, path, host or comment"
    return {str(canonicalize_name(match[1])): match[2] for match in exact if match}


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_range_holds_its_pin(requirement: Requirement) -> None:
    version = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), f"{requirement} excludes the pinned {version}"


@pytest.mark.parametrize("version", ["2.6.0", "2.8.0+cu128", "2.13.0+cpu", "3.0.0"])
def test_the_range_of_torch_accepts_what_a_cluster_provides(version: str) -> None:
    torch = next(item for item in requirements() if item.name == "torch")
    assert torch.specifier.contains(Version(version))


def test_setuptools_is_pinned_below_the_version_that_drops_pkg_resources() -> None:
    assert Version(pins()["setuptools"]) < Version("82")


def shipped_yaml() -> list[Path]:
    return [path for kind in KINDS for path in sorted(shipped_folder(kind).rglob("*.yaml"))]


@pytest.mark.parametrize("path", shipped_yaml(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_yaml_parses_to_a_mapping(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_projects_own_folder_comes_before_the_shipped_one(tmp_path: Path) -> None:
    assert search_folders("evals", tmp_path) == [shipped_folder("evals")]
    (tmp_path / "evals").mkdir()
    assert search_folders("evals", tmp_path) == [tmp_path / "evals", shipped_folder("evals")]
    assert search_folders("evals", ROOT) == [ROOT / "evals"]


def test_init_copies_the_folders_into_an_empty_project(tmp_path: Path) -> None:
    target = tmp_path / "a" / "study"
    written = init_project(target)
    assert sorted(written) == sorted(path for path in target.rglob("*") if path.is_file())
    for kind in KINDS:
        for path in shipped_folder(kind).rglob("*.yaml"):
            copy = target / kind / path.relative_to(shipped_folder(kind))
            assert copy.read_bytes() == path.read_bytes()


def test_a_new_project_has_an_example_of_a_dataset_that_holds(tmp_path: Path) -> None:
    init_project(tmp_path)
    (folder,) = project_datasets(tmp_path)
    text = (folder / "own.yaml").read_text(encoding="utf-8")
    assert "house-votes" not in datasets(folder)
    bare = tmp_path / "bare"
    bare.mkdir()
    entry = text.partition("\n\n")[2]
    (bare / "own.yaml").write_text("".join(line.removeprefix("# ") + "\n" for line in entry.splitlines()))
    assert datasets(bare)["house-votes"].converter_options["first"] == "answer_a"


@pytest.mark.parametrize("obstacle", ["README.md", "evals", "datasets", "datasets/own.yaml", "slurm/README.md"])
def test_init_refuses_existing_files_and_writes_nothing(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).parent.mkdir(exist_ok=True)
    (tmp_path / obstacle).write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="exists already"):
        init_project(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / obstacle).read_text(encoding="utf-8") == "mine"


def test_init_refuses_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        init_project(tmp_path / "study" / "deeper")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's package alone, in a folder of its own; the libraries come from the running environment."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, timeout=300)
    return target


def run_installed(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run Python with the wheel's package first on the path, outside the clone, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    answer = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_the_wheel_carries_package_and_folders_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = [
        path for path in (ROOT / "ablate").rglob("*") if path.suffix in {".py", ".yaml", ".json", ".jinja", ".typed"}
    ]
    assert {path.relative_to(ROOT).as_posix() for path in package} <= names
    assert {"ablate/py.typed"} | {f"ablate/_shipped/{p.relative_to(ROOT).as_posix()}" for p in shipped_yaml()} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    assert wheel.name.startswith(f"ablate-{ablate.__version__}-")


def test_the_installed_wheel_finds_its_folders(installed: Path, tmp_path: Path) -> None:
    code = "import ablate.shipped as s; print(*[s.shipped_folder(kind) for kind in s.KINDS], sep='\\n')"
    assert run_installed(installed, tmp_path, "-c", code).splitlines() == [
        str(installed / "ablate" / "_shipped" / kind) for kind in KINDS
    ]


@pytest.mark.parametrize("name", ["pocket_quick", "pocket_datasets"])
def test_the_installed_wheel_plans_the_shipped_studies(installed: Path, tmp_path: Path, name: str) -> None:
    printed = run_installed(installed, tmp_path, "-m", "ablate", "plan", name)
    assert "train" in printed
    assert not (tmp_path / "store").exists(), "a plan writes nothing"
