"""What is installed, from where, and which part of molflow may lean on which."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = sorted((ROOT / "molflow").rglob("*.py"))

CONDA_NAME = {
    "torch": "pytorch-gpu",  # the metapackage that insists on a CUDA build
    "torch-geometric": "pytorch_geometric",
    "torch-scatter": "pytorch_scatter",
    "matplotlib": "matplotlib-base",
    "psycopg2-binary": "psycopg2",
    "opencv-python-headless": "py-opencv",
    "soundfile": "pysoundfile",
    "msgpack": "msgpack-python",
    "tblite": "tblite-python",  # tblite there is the program without its Python interface
}
"""PyPI's name: conda-forge's, where they differ."""

MODULE_NAME = {"torch-geometric": "torch_geometric", "pyyaml": "yaml", "dask-jobqueue": "dask_jobqueue",
               "psycopg2-binary": "psycopg2", "opencv-python-headless": "cv2", "gpu4pyscf-cuda12x": "gpu4pyscf",
               "cupy-cuda12x": "cupy"}
"""PyPI's name: the module's, where they differ."""


def requirements(*groups: str) -> dict[str, SpecifierSet]:
    lines = [line for group in groups for line in PROJECT["optional-dependencies"][group]]
    found = [Requirement(line) for line in (PROJECT["dependencies"] if not groups else []) + lines]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


# ---- pyproject.toml and environment.yml ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_environment_yml_is_the_conda_form_of_pyproject(conda: dict) -> None:
    wanted = requirements() | requirements("train", "oracles", "campaign", "signals", "adapters", "benchmarks",
                                           "scatter")
    from_pip = {canonicalize_name(r.name): r.specifier
                for entry in conda["dependencies"] if isinstance(entry, dict) for r in map(Requirement, entry["pip"])}
    specs = [entry.partition(" ") for entry in conda["dependencies"] if isinstance(entry, str)]
    from_conda = {name: SpecifierSet(version) for name, _, version in specs}

    assert from_conda.pop("pip") == SpecifierSet(), "needed for the pip section"
    assert from_conda.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert from_pip | from_conda == {name if name in from_pip else CONDA_NAME.get(name, name): specifier
                                     for name, specifier in wanted.items()}


def test_conda_understands_the_specs(conda: dict) -> None:
    for entry in conda["dependencies"]:
        if isinstance(entry, str):
            name, _, version = entry.partition(" ")
            spec = MatchSpec(entry, strict=True)
            assert spec.name is not None and spec.name.normalized == name
            assert str(spec.version or "") == version


def test_every_dependency_has_a_lower_bound() -> None:
    for name, specifier in (requirements() | requirements(*PROJECT["optional-dependencies"])).items():
        assert name == "molflow" or any(clause.operator in (">=", "==") for clause in specifier), name


# ---- what is imported, and by whom -----------------------------------------------------------------------------------


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in it. ``from molflow.a import b`` counts as molflow.a."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: write imports in full"
            names.update([f"molflow.{alias.name}" for alias in node.names] if node.module == "molflow"
                         else [node.module])
    return names


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    third_party = {name.split(".")[0] for path in SOURCES for name in imports(path)}
    third_party -= sys.stdlib_module_names | {"molflow"}
    core, extras = ({MODULE_NAME.get(name, name) for name in requirements(*groups)}
                    for groups in ((), ("train", "oracles", "oracles-gpu", "campaign", "signals", "adapters")))
    assert third_party <= core | extras
    assert core <= third_party


MAY_IMPORT = {
    "flow": ["flow"],
    "molecules": ["molecules", "flow.state", "writing"],
    "nn": ["nn", "molecules", "flow", "writing"],
    "data": ["data", "molecules", "flow", "parallel", "writing"],
    "oracles": ["oracles", "molecules"],
    "commands": ["commands", "adapters", "campaign", "coupling", "data", "designer", "flow", "grade", "inverse",
                 "joining", "labelling", "models", "molecules", "nn", "report", "search", "targets", "training",
                 "verification", "writing"],
    "adapters": ["adapters", "data", "flow", "nn"],
    "inverse": ["inverse", "adapters", "data", "flow", "writing"],
    "training": ["training", "data", "nn", "molecules", "flow", "provenance", "writing"],
    "report": ["report", "designer", "molecules", "nn", "oracles", "provenance", "targets", "verification",
               "writing", "__version__"],
    "search": ["search", "conditions", "data", "flow", "models", "molecules", "nn"],
    "campaign": ["campaign", "designer", "models", "molecules", "nn", "oracles", "parallel", "search", "targets",
                 "verification", "__version__"],
    "provenance.py": [],
    "writing.py": [],
}
"""Package: the parts of molflow that it may import. Other modules directly in molflow/: all but the shell."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "molflow")))
def test_arrows_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT / "molflow").parts[0]
    for name in imports(path):
        if name.split(".")[0] != "molflow":
            continue
        inside = name.removeprefix("molflow").lstrip(".")
        if package not in ("cli.py", "commands"):
            assert inside.split(".")[0] not in ("cli", "commands"), f"{path} imports the shell"
        if package in MAY_IMPORT or not package.endswith(".py"):
            assert any(f"{inside}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[package]), f"{path}: {name}"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_molflow_is_lazy() -> None:
    heavy = "torch", "torch_geometric", "e3nn", "rdkit", "ase", "pandas", "matplotlib", "scipy", "typer", "jinja2"
    assert python(f"import sys, molflow; print(*sorted(set({heavy}) & set(sys.modules)))") == ""
    version = python("import molflow; print(molflow.__version__)")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_molflow_design_is_a_function_whatever_was_imported_before() -> None:
    python("import molflow\n"
           "assert callable(molflow.design) and callable(molflow.design)\n"
           "import molflow.cli, molflow.models\n"
           "assert callable(molflow.design)")


def test_training_and_sampling_need_neither_rdkit_nor_ase() -> None:
    python("import sys\n"
           "sys.modules['rdkit'] = sys.modules['ase'] = None\n"
           "import molflow.data.store, molflow.models\n"
           "import molflow.training.trainer, molflow.training.generator, molflow.training.properties")


# ---- ./run -----------------------------------------------------------------------------------------------------------

FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo made >>"$3/../log" ;;
    "-m pip") echo "pip $*" >>"$(dirname "$0")/../../log"; exit "${FAKE_PIP:-0}" ;;
    *version_info*) exit "${FAKE_OLD:-0}" ;;
    *ensurepip*) exit "${FAKE_BARE:-0}" ;;
    *) echo 2.13.0+cpu ;;
esac
"""


class Project:
    """A folder with ./run, pyproject.toml and a Python that only pretends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("run", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        self.python = folder / "fake-python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.folder / "run", *command], capture_output=True, text=True, timeout=600, cwd="/",
                              env=os.environ | {"PYTHON": str(self.python)} | environment)

    def log(self) -> list[str]:
        file = self.folder / "log"
        text = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return text.splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "a folder")


def test_run_makes_the_environment_once_and_passes_on_the_exit_status(project: Project) -> None:
    assert project.run("sh", "-c", 'echo "$VIRTUAL_ENV"').stdout.strip() == str(project.folder / ".venv")
    made, *pip = project.log()
    assert made == "made" and len(pip) == 2
    assert project.run("sh", "-c", "exit 7").returncode == 7
    assert project.log() == []


def test_run_never_asks_for_a_cuda_build_by_itself(project: Project) -> None:
    project.run("true")
    torch = [word for line in project.log() for word in line.split() if re.match(r"torch\b", word)]
    assert torch and all(word == "torch" or word.endswith("+cpu") for word in torch)  # "--only-binary torch"


def test_run_starts_afresh_after_an_installation_that_was_cut_short(project: Project) -> None:
    failed = project.run("echo", "done", FAKE_PIP="1")
    assert failed.returncode == 1 and failed.stdout == "" and "could not install" in failed.stderr
    (project.folder / ".venv" / "half").touch()
    project.log()
    assert project.run("echo", "done").stdout == "done\n"
    assert "made" in project.log()
    assert not (project.folder / ".venv" / "half").exists()


def test_run_updates_when_pyproject_changes_and_starts_afresh_when_moved(project: Project) -> None:
    project.run("true")
    project.log()
    with (project.folder / "pyproject.toml").open("a") as file:
        file.write("\n")
    project.run("true")
    assert len(project.log()) == 1
    moved = project.folder.rename(project.folder.with_name("moved"))
    project.folder, project.python = moved, moved / "fake-python"
    project.run("true")
    assert "made" in project.log()


@pytest.mark.parametrize(("environment", "words"), [
    ({"FAKE_OLD": "1"}, "too old"), ({"FAKE_BARE": "1"}, "no venv module"),
    ({"PYTHON": "no-such-python"}, "no no-such-python"),
])
def test_run_says_in_one_line_what_python_lacks(project: Project, environment: dict[str, str], words: str) -> None:
    done = project.run("echo", "done", **environment)
    assert done.returncode == 1 and done.stdout == ""
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not (project.folder / ".venv").exists()


def test_run_leaves_an_environment_alone_that_it_did_not_make(project: Project) -> None:
    (project.folder / ".venv").mkdir()
    (project.folder / ".venv" / "mine").touch()
    done = project.run("echo", "done")
    assert done.returncode == 1 and "was not made by" in done.stderr
    assert (project.folder / ".venv" / "mine").exists()
