"""The command line of the benchmarks."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import BENCHMARKS
from molflow.cli import answer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="What molflow achieves and what it costs.")


class InputError(ValueError):
    """What the user gave cannot be used; the message is the whole answer."""


@app.command("list")
def list_() -> None:
    """Name and subject of every benchmark."""
    for name, module in BENCHMARKS.items():
        print(f"{name:18} {subject(module)}")


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="One of `list`.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.json and NAME.md.")],
    n: Annotated[int | None, typer.Option(help="How many samples, problems, molecules or steps.")] = None,
    seed: Annotated[int, typer.Option(help="Drives everything that is drawn.")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of weights instead of the shipped one.")] = None,
    steps: Annotated[str | None, typer.Option(help="solver: numbers of steps to measure memory at, 2,4,8.")] = None,
    properties: Annotated[str | None, typer.Option(help="qm9-targets, -dft, druglike-targets: only these, "
                                                              "gap,mu.")] = None,
    minutes: Annotated[float | None, typer.Option(help="qm9-targets-dft, soak: begin nothing after so long.")] = None,
    recipe: Annotated[str | None, typer.Option(help="training: a generator's recipe or TOML file.")] = None,
    signals: Annotated[str | None, typer.Option(help="image-inverse: digits or photos.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Benchmarks with parts: skip what is there already; "
                                                          "several processes can share one --out this way.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Run one benchmark, print its tables and write them with the machine, the commit and the settings."""
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}: known are {', '.join(BENCHMARKS)}")
    if overwrite and resume:
        raise InputError("--resume keeps what is there and --overwrite replaces it: give one of them")
    if n is not None and n < 1:
        raise InputError(f"--n must be at least 1, got {n}")
    options: dict[str, Any] = {
        "n": n, "device": device, "weights": weights, "steps": _items(steps, _count), "properties": _items(properties),
        "recipe": recipe, "minutes": minutes, "signals": signals,
    }
    from benchmarks.record import execute  # only now: torch takes seconds to import

    module = importlib.import_module(BENCHMARKS[name])
    given = {key: value for key, value in options.items() if value is not None}
    known = inspect.signature(module.run).parameters
    if strange := [key for key in given if key not in known] + ["resume"] * (resume and "parts" not in known):
        raise InputError(f"{name} takes no --{strange[0]}")
    execute(name, module, out, {"seed": seed, **given}, resume=resume, overwrite=overwrite)


def _items(text: str | None, kind: Callable[[str], Any] = str) -> tuple[Any, ...] | None:
    return None if text is None else tuple(kind(item.strip()) for item in text.split(","))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--steps wants numbers of at least 1 with commas between, got {text!r}")
    return int(text)


def subject(module: str) -> str:
    """The first line of a module's docstring, read without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or "").splitlines()[0]


def main() -> None:
    answer(app, "benchmarks")


if __name__ == "__main__":
    main()
