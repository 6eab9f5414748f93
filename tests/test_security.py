"""What no file and no text can make molflow do: run code, write elsewhere, open a connection."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from molflow.commands.console import LONGEST, printable
from molflow.molecules.convert import Molecule
from molflow.molecules.io import write_sdf

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "molflow").rglob("*.py"))

RUNS_CODE = {"eval", "exec", "compile", "__import__", "execfile", "input"}
FORBIDDEN: dict[str, set[str] | None] = {
    **dict.fromkeys(("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "tarfile", "pty", "code",
                     "runpy", "urllib.request", "http.client", "requests", "httpx", "ftplib", "smtplib")),
    "socket": {"socket", "create_connection", "create_server"},
    "os": {"system", "popen", "execv", "execvp", "execve", "spawnv"}, "shutil": {"unpack_archive"},
}
"""Modules, and of some the functions, that have no business in molflow."""

PICKLES = {"read_pickle", "to_pickle", "load_module", "unsafe_load", "full_load", "load_all", "extractall", "extract"}
"""Methods that unpickle, load code, or write files where an archive says."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call, with what is called as it is written: yaml.load."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "molflow")))
def test_nothing_runs_code_out_of_files(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        for module in modules:
            assert FORBIDDEN.get(module, ()) is not None, f"{path} imports {module}"
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            assert names.isdisjoint(FORBIDDEN.get(node.module or "", ())), f"{path}: {names}"
    safe_loaders = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
                    and [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]}
    for name, call in calls(tree):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        module, _, function = name.rpartition(".")
        where = f"{path.name}:{call.lineno}: {name}"
        assert name not in RUNS_CODE, where
        assert function not in PICKLES, where
        assert function not in (FORBIDDEN.get(module) or ()), where
        assert options.get("allow_pickle", "False") == "False", where
        if name == "torch.load":
            assert options.get("weights_only") == "True", where
        if name == "yaml.load":
            assert ast.unparse(call.args[1]) in safe_loaders, where
        if name in ("subprocess.run", "subprocess.Popen", "subprocess.check_output", "subprocess.call"):
            assert isinstance(call.args[0], ast.List | ast.Name) and "shell" not in options, f"{where}: not for a shell"
        if name in ("ase.io.read", "ase.io.iread"):
            assert "format" in options, f"{where}: ASE would choose a reader by what is in the file"
            assert "path" not in ast.unparse(call.args[0]).lower(), f"{where}: ASE would look into the name"


BLOCKED = """
import socket, sys

tried = []
kinds = socket.AF_INET, socket.AF_INET6


def refuse(what):
    def refused(self, *arguments):
        if not isinstance(self, socket.socket) or self.family in kinds:
            tried.append((what, arguments))
            raise OSError(f"{what} {arguments}")
        return real[what](self, *arguments)
    return refused


real = {what: getattr(socket.socket, what) for what in ("connect", "connect_ex", "sendto")}
for what in real:
    setattr(socket.socket, what, refuse(what))
socket.getaddrinfo = refuse("getaddrinfo")
socket.gethostbyname = refuse("gethostbyname")

import molflow
from molflow.cli import main

for words in WORDS:
    sys.argv = ["molflow", *words]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 0, (words, ended.code)
assert tried == [], tried
try:
    socket.create_connection(("127.0.0.1", 9))
except OSError:
    print("blocked", len(tried))
"""


def test_nothing_is_asked_of_the_network(tmp_path: Path, tiny_weights: dict[str, Path], qm9: list[Molecule]) -> None:
    """Design with small networks, its report, and what judges molecules, with every way to a connection closed."""
    write_sdf(tmp_path / "m.sdf", qm9[:3])
    weights = [word for role, path in tiny_weights.items() for word in (f"--{role}", str(path))]
    little = ["-n", "2", "--atoms", "5", "--draws", "1", "--generations", "0", "--gradients", "0"]
    words = [["design", "--target", "gap=5", *little, "--out", "run", *weights],
             ["report", "run", "--out", "page.html"], ["evaluate", "m.sdf"], ["predict", "m.sdf"]]
    done = subprocess.run([sys.executable, "-c", f"WORDS = {words!r}\n{BLOCKED}"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=1800, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "blocked 1" in done.stdout.splitlines()[-1]  # that it is closed
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page


# ---- what is printed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "shown"), [
    ("gap must be 5 Å", "gap must be 5 Å"), ("a\x1b[2Jb", "a\\x1b[2Jb"), ("a\rb\nc\td", "a\\rb\\nc\\td"),
    ("\u202eexe.png", "\\u202eexe.png"), ("\x9b31m", "\\x9b31m"), ("\udcff", "\\udcff"),
])
def test_a_terminal_shows_what_it_would_obey(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_sentence_has_an_end() -> None:
    assert len(printable("a" * 10**6)) < LONGEST and len(printable("\x1b" * 10**6)) < LONGEST
    assert printable("b" * LONGEST) == "b" * LONGEST


def test_names_in_a_file_do_not_reach_the_terminal_as_they_are(molflow, tmp_path: Path, qm9: list[Molecule]) -> None:
    write_sdf(tmp_path / "m.sdf", qm9[:2])
    text = (tmp_path / "m.sdf").read_text()
    evil = "\x1b]0;owned\x07\x1b[31m\u202e"
    text = text.replace(str(qm9[0].properties["name"]), evil, 1).replace("M  END", "M  EDN", 1)
    (tmp_path / "m.sdf").write_text(text)
    done = molflow("evaluate", tmp_path / "m.sdf")
    assert done.returncode == 0 and "skipped record 1 (\\x1b]0;owned" in done.stderr
    assert not set("\x1b\x07\u202e") & set(done.stderr + done.stdout)
    done = molflow("design", "--target", evil, "--out", tmp_path / "run")
    assert done.returncode == 2 and not set("\x1b\x07\u202e") & set(done.stderr)
