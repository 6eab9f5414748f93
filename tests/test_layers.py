"""Arrows one way: no part of molflow imports what imports it, not even late, in a function."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import molflow

ROOT = Path(molflow.__file__).parent


def part(name: str) -> str:
    """The package or module right under molflow that a dotted name is in."""
    return name.split(".")[1]


def imported(tree: ast.Module) -> set[str]:
    """The parts that a module imports when it runs: what only the type checker reads is left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    return {part(name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
            for name in ([f"molflow.{alias.name}" for alias in node.names] if node.module == "molflow"
                         else [str(node.module)]) if name.startswith("molflow.")}


def test_no_part_imports_what_imports_it() -> None:
    graph: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        me = part(".".join(("molflow", *path.relative_to(ROOT).with_suffix("").parts)))
        if me != "__init__":  # gathers what users call
            graph.setdefault(me, set()).update(imported(ast.parse(path.read_text())) - {me})
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("flow") < order.index("nn") < order.index("designer") < order.index("cli")
    assert "report" in graph["designer"]  # late imports are seen
