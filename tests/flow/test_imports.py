"""flow/ is the core that everything rests on: it may import torch, torchdiffeq and itself, nothing else."""

import ast
import sys
from pathlib import Path

import pytest

import molflow.flow

MODULES = sorted(Path(molflow.flow.__file__).parent.glob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports could leave the package unseen"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_flow_imports_only_torch_torchdiffeq_and_itself(path: Path) -> None:
    for name in imported(ast.parse(path.read_text())):
        top = name.split(".")[0]
        if top == "molflow":
            assert name == "molflow.flow" or name.startswith("molflow.flow.")
        else:
            assert top in {"torch", "torchdiffeq"} or top in sys.stdlib_module_names, name


def test_the_modules_are_found() -> None:
    assert {"path", "solvers", "source", "lbfgs", "state"} <= {path.stem for path in MODULES}
