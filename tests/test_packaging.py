"""What is installed, from where, and what of it is imported."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

from molflow.extras import EXTRAS

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

MODULE_NAME = {"torch-geometric": "torch_geometric", "torch-scatter": "torch_scatter", "pyyaml": "yaml",
               "dask-jobqueue": "dask_jobqueue", "ase-db-backends": "ase_db_backends", "psycopg2-binary": "psycopg2",
               "opencv-python-headless": "cv2", "gpu4pyscf-cuda12x": "gpu4pyscf", "cupy-cuda12x": "cupy",
               "scikit-image": "skimage", "scikit-learn": "sklearn", "pywavelets": "pywt",
               "flip-evaluator": "flip_evaluator"}
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


# ---- what is imported ------------------------------------------------------------------------------------------------


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
                    for groups in ((), tuple(EXTRAS)))
    assert third_party <= core | extras
    assert core <= third_party


def test_extras_are_those_of_pyproject() -> None:
    modules = {extra: {MODULE_NAME.get(name, name) for name in requirements(extra)} - {"molflow"}
               for extra in PROJECT["optional-dependencies"] if extra not in ("dev", "docs")}
    modules["campaign"].add("distributed")  # of dask[distributed]
    assert {extra: set(names) for extra, names in EXTRAS.items()} == modules


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


# ---- the wheel, in an environment that holds what the core asks for and nothing else ---------------------------------


def brought_by(lines: Iterable[str]) -> set[str]:
    """The distributions that these requirements bring, with what those require, and so on."""
    wanted, seen = [Requirement(line) for line in lines], set()
    while wanted:
        one = wanted.pop()
        for extra in ("", *one.extras):
            if (key := (canonicalize_name(one.name), extra)) not in seen:
                seen.add(key)
                needs = [Requirement(line) for line in importlib.metadata.requires(one.name) or []]
                wanted += [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def files_of(distribution: str) -> list[Path]:
    return [Path(str(file)) for file in importlib.metadata.files(distribution) or []]


def tree(*folders: str) -> set[str]:
    return {str(file.relative_to(ROOT)) for folder in folders for file in (ROOT / folder).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.suffix: file for file in out.iterdir()}


@pytest.fixture(scope="module")
def bare(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin of an environment with the wheel and links to the packages that it asks for, as pip would find them."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, symlinks=True)
    [site] = folder.glob("lib/python*/site-packages")
    for name in brought_by(PROJECT["dependencies"]):
        for top in {file.parts[0] for file in files_of(name)} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(top))))
    subprocess.run([sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet",
                    "--no-deps", "--no-index", built[".whl"]], check=True, timeout=600)
    return folder / "bin"


def alone(*command: object, cwd: Path, said: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that sees no other molflow than its environment's, and no prepared data."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run([str(word) for word in command], input=said, capture_output=True, text=True, timeout=600,
                          cwd=cwd, env=environment | {"MOLFLOW_DATA": str(cwd / "none"), "COLUMNS": "120"})


def test_the_wheel_and_the_sdist_are_whole(built: dict[str, Path]) -> None:
    wheel = set(zipfile.ZipFile(built[".whl"]).namelist())
    assert {name for name in wheel if ".dist-info/" not in name} == tree("molflow")
    for pattern in (r"weights/generator\.safetensors", r"weights/guide\.json", r"weights/generator\.atlas\.safetensors",
                    r"recipes/generator\.toml", r"web/page\.html", r"web/3Dmol-min\.js"):
        assert any(re.search(pattern, name) for name in wheel), pattern
    with tarfile.open(built[".gz"]) as sdist:
        files = {name.partition("/")[2]: sdist.getmember(name) for name in sdist.getnames()}
    assert tree("molflow", "benchmarks", "datasets", "examples", "tests") <= set(files)
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "environment.yml"} <= set(files)
    assert files["run"].mode & 0o111


def test_the_core_is_small_beside_torch(built: dict[str, Path]) -> None:
    names = brought_by(PROJECT["dependencies"]) - brought_by(["torch"])
    size = sum(file.stat().st_size for name in names for part in files_of(name)
               if (file := Path(str(importlib.metadata.distribution(name).locate_file(part)))).is_file())
    size += sum(one.file_size for one in zipfile.ZipFile(built[".whl"]).infolist())
    assert 0.3e9 < size < 1.5e9


def test_the_wheel_designs_molecules_without_a_network(bare: Path, tmp_path: Path) -> None:
    offline = ("unshare", "--map-root-user", "--net")
    if shutil.which(offline[0]) is None:
        pytest.skip("no unshare here, to take the network away")
    if (tried := alone(*offline, "true", cwd=tmp_path)).returncode:
        pytest.skip(f"no network namespaces here: {tried.stderr.strip()}")
    reached = alone(*offline, bare / "python", "-c", "import socket; socket.create_connection(('1.1.1.1', 53), 5)",
                    cwd=tmp_path)
    assert "unreachable" in reached.stderr

    done = alone(*offline, bare / "molflow", "design", "--target", "gap=5.0", "-n", 2, "--seed", 0, "--device", "cpu",
                 "--generations", 0, "--gradients", 0, "--out", "gap5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "gap5").iterdir()} == {
        "molecules.sdf", "trajectory.xyz", "results.csv", "run.json", "molecules.png", "optimisation.png",
        "report.html"}
    assert pd.read_csv(tmp_path / "gap5" / "results.csv")["evaluator_gap"].sub(5.0).abs().max() < 0.5

    done = alone(*offline, bare / "python", "-c",
                 "import molflow\n"
                 "molecules = molflow.sample(3, 0, steps=10)\n"
                 "print(molflow.__file__, len(molflow.predict(molecules)), int(molflow.evaluate(molecules)['n']))",
                 cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{next(bare.parent.glob('lib/*/site-packages'))}/molflow/__init__.py 3 3\n"


COMMANDS: list[tuple[str, str, str]] = [
    ("tblite", "oracles", "verify one.sdf"),
    ("pyscf", "oracles", "verify one.sdf --method dft"),
    ("tblite", "oracles", "design --target gap=5 --out o --verify xtb"),
    ("pyscf", "oracles", "design --target gap=5 --out o --verify dft"),
    ("tblite", "oracles", "data label moses3d"),
    ("yaml", "campaign", "campaign campaign.yaml"),
    ("yaml", "campaign", "campaign status campaign.yaml"),
    ("cv2", "signals", "restore photo.png --task denoise --out o.png"),
    ("soundfile", "signals", "restore speech.wav --task denoise --out o.wav"),
    ("cv2", "signals", "data prepare photos --source ."),
    ("qm9pack", "train", "data prepare qm9"),
    ("msgpack", "train", "data prepare geom --source ."),
    *(("lightning", "train", f"train {what} --out o") for what in ("generator", "property", "prior")),
    ("lightning", "train", "train reflow --start a.safetensors --pairs b.safetensors --out o"),
]
"""What is missing, the extra that brings it, and the command that says so."""

EACH = """
import contextlib, io, json, sys
from molflow.cli import main

said = []
for words in json.load(sys.stdin):
    sys.argv, err = ["molflow", *words.split()], io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        except BaseException as error:
            code = repr(error)
    said.append([code, err.getvalue().strip()])
json.dump(said, sys.stdout)
"""
"""Python that runs each of the commands on its standard input, without a second for torch every time."""


def test_what_is_missing_is_named_with_its_extra_by_every_command(bare: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "molecules" / "qm9_sample.sdf", tmp_path / "one.sdf")
    shutil.copy(ROOT / "examples" / "campaign.yaml", tmp_path)
    for name in ("photo.png", "speech.wav", "drugs_crude.msgpack"):
        (tmp_path / name).touch()
    before = set(tmp_path.iterdir())
    done = alone(bare / "python", "-c", EACH, cwd=tmp_path, said=json.dumps([words for _, _, words in COMMANDS]))
    assert done.returncode == 0, done.stderr
    for (module, extra, words), (code, said) in zip(COMMANDS, json.loads(done.stdout), strict=True):
        assert code == 2 and said.startswith("molflow: ") and said.count("\n") == 0, (words, code, said)
        assert module in said and f"pip install 'molflow[{extra}]'" in said, (words, said)
    assert set(tmp_path.iterdir()) == before


def test_every_module_imports_in_the_core_or_names_its_extra(bare: Path) -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
               for folder in ("molflow", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    done = alone(bare / "python", "-c",
                 "import importlib, json, sys\n"
                 "from molflow.extras import ExtraMissing, needed\n"
                 "for name in json.load(sys.stdin):\n"
                 "    try:\n"
                 "        with needed():\n"
                 "            importlib.import_module(name)\n"
                 "    except ExtraMissing as error:\n"
                 "        print(name, error)\n", cwd=ROOT, said=json.dumps(modules))
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert line.startswith(("molflow.training.", "molflow.data.", "molflow.labelling", "benchmarks.")), line
    assert "molflow.training.trainer lightning is not installed: `pip install 'molflow[train]'`" in done.stdout


def test_benchmarks_name_what_is_missing(bare: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("results"))
    done = alone(bare / "python", "-m", "benchmarks", "run", "training", "--out", "o", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "lightning" in done.stderr and "pip install 'molflow[train]'" in done.stderr


def test_info_of_the_core(bare: Path, tmp_path: Path) -> None:
    found = json.loads(alone(bare / "molflow", "info", "--json", cwd=tmp_path).stdout)
    assert found["folder"].startswith(str(bare.parent)) and found["commit"] is None
    assert set(found["models"]) >= {"generator", "guide", "evaluator", "digits"}
    there = {name for modules in found["extras"].values() for name, version in modules.items() if version}
    assert there <= {"psutil", "tqdm"}, "which torch-geometric asks for"


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
