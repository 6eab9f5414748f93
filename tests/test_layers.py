"""Arrows one way: which part of molflow may lean on which, and that none leans on what leans on it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import molflow

ROOT = Path(molflow.__file__).parent

EVERYONES = {"extras", "wording", "writing", "parallel", "provenance"}
"""Modules that know nothing of molecules and that anyone may import."""

MAY_IMPORT: dict[str, set[str]] = {
    "flow": set(),
    "molecules": {"flow"},
    "nn": {"molecules", "flow"},
    "data": {"molecules", "flow"},
    "oracles": {"molecules"},
    "adapters": {"data", "flow", "nn"},
    "inverse": {"adapters", "data", "flow"},
    "training": {"data", "nn", "molecules", "flow"},
    "search": {"conditions", "data", "flow", "models", "molecules", "nn"},
    "report": {"designer", "molecules", "nn", "oracles", "targets", "verification", "__version__"},
    "campaign": {"designer", "models", "molecules", "nn", "oracles", "search", "targets", "verification",
                 "__version__"},
    "commands": {"adapters", "campaign", "coupling", "data", "designer", "flow", "grade", "installation", "inverse",
                 "joining", "labelling", "models", "molecules", "nn", "report", "search", "targets", "training",
                 "verification"},
}
"""Packages: what each may import beside itself and what is everyone's. Other modules: anything but the shell."""

SHELL = {"cli", "commands"}


def part(name: str) -> str:
    """The package or module right under molflow that a dotted name is in."""
    return name.split(".")[1]


def imported(tree: ast.Module) -> set[str]:
    """The parts that a module imports, wherever in it."""
    return {part(name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
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
    leans_on = set[str]().union(*(imported(ast.parse(path.read_text())) for path in PARTS[name])) - {name}
    if name in EVERYONES:
        assert leans_on <= EVERYONES
    elif name in MAY_IMPORT:
        assert leans_on <= MAY_IMPORT[name] | EVERYONES
    elif name not in SHELL:
        assert not leans_on & SHELL
    assert name in MAY_IMPORT or len(PARTS[name]) == 1, "a new package says what it may import"


def test_no_part_imports_what_imports_it() -> None:
    graph = {name: set[str]().union(*(imported(running(ast.parse(path.read_text()))) for path in paths)) - {name}
             for name, paths in PARTS.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("flow") < order.index("nn") < order.index("designer") < order.index("cli")
    assert "report" in graph["designer"]  # late imports are seen
