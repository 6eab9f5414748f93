"""Arrows one way: which part of molflow may lean on which, and that none leans on what leans on it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import molflow

ROOT = Path(molflow.__file__).parent

MAY_IMPORT: dict[str, set[str]] = {
    "flow": set(),
    "molecules": {"flow.state", "writing"},
    "nn": {"molecules", "flow", "wording", "writing"},
    "data": {"extras", "molecules", "flow", "parallel", "wording", "writing"},
    "oracles": {"extras", "molecules"},
    "adapters": {"data", "flow", "nn"},
    "inverse": {"adapters", "data", "flow", "writing"},
    "training": {"allocator", "data", "nn", "molecules", "flow", "provenance", "writing"},
    "search": {"conditions", "data", "flow", "models", "molecules", "nn", "wording"},
    "report": {"designer", "molecules", "nn", "oracles", "provenance", "targets", "verification", "writing",
               "__version__"},
    "campaign": {"designer", "extras", "models", "molecules", "nn", "oracles", "parallel", "search", "targets",
                 "verification", "wording", "__version__"},
    "commands": {"adapters", "campaign", "coupling", "data", "designer", "extras", "flow", "grade", "installation",
                 "inverse", "joining", "labelling", "models", "molecules", "nn", "report", "search", "targets",
                 "training", "verification", "writing"},
    "allocator": set(),
    "provenance": set(),
    "wording": set(),
    "writing": set(),
}
"""What each part may import beside itself. Modules that are not named: anything but the shell."""

SHELL = {"cli", "commands"}


def part(name: str) -> str:
    """The package or module right under molflow that a dotted name is in."""
    return name.split(".")[1]


def imported(tree: ast.Module) -> set[str]:
    """The modules of molflow that a module imports, wherever in it, under their names within molflow."""
    return {name.removeprefix("molflow.") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
            for name in ([f"molflow.{alias.name}" for alias in node.names] if node.module == "molflow"
                         else [str(node.module)]) if name.startswith("molflow.")}


def running(tree: ast.Module) -> ast.Module:
    """The module without what only the type checker reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    return tree


def parts() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in ROOT.rglob("*.py"):
        found.setdefault(part(".".join(("molflow", *path.relative_to(ROOT).with_suffix("").parts))), []).append(path)
    del found["__init__"]  # gathers what users call
    return found


PARTS = parts()


@pytest.mark.parametrize("name", PARTS)
def test_a_part_leans_on_what_is_below_it(name: str) -> None:
    assert name in MAY_IMPORT or len(PARTS[name]) == 1, "a new package says what it may import"
    for path in PARTS[name]:
        for module in imported(ast.parse(path.read_text())):
            if name not in SHELL:
                assert module.split(".")[0] not in SHELL, f"{path} imports the shell"
            if name in MAY_IMPORT:
                assert any(f"{module}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[name] | {name}), \
                    f"{path}: {module}"


def test_no_part_imports_what_imports_it() -> None:
    graph = {name: {module.split(".")[0] for path in paths for module in imported(running(ast.parse(path.read_text())))}
             - {name} for name, paths in PARTS.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("flow") < order.index("nn") < order.index("designer") < order.index("cli")
    assert "report" in graph["designer"]  # late imports are seen
