"""Judging molecules that there are: properties, likelihood, soundness, quantum chemistry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from molflow.commands.console import Device, Overwrite, Seed, Weights, check_free, deliver, live, read


def predict(
    file: Annotated[Path, typer.Argument(help="SDF file with 3D coordinates and all hydrogens.")],
    model: Annotated[str, typer.Option(help="evaluator, guide, moses3d/evaluator, moses3d/guide, or a "
                                            "file of weights.")] = "evaluator",
    out: Annotated[Path | None, typer.Option(help="CSV file to write instead of printing.")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Predict the properties of the molecules in a file: the six of QM9, or those that another model reads."""
    from molflow import grade

    check_free(overwrite, out)
    molecules = read(file)
    deliver(grade.predict(molecules, model=model, device=device), out)


def likelihood(
    file: Annotated[Path, typer.Argument(help="SDF file with 3D coordinates and all hydrogens.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write instead of printing.")] = None,
    steps: Annotated[int, typer.Option(help="Solver steps, each eight evaluations of the network.")] = 32,
    draws: Annotated[int, typer.Option(help="Independent estimates, whose mean is given with its error.")] = 4,
    probes: Annotated[int, typer.Option(help="Random vectors for the trace at each evaluation.")] = 1,
    seed: Seed = 0,
    device: Device = "auto",
    generator: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    """Bound the log-likelihood (nats) of the molecules in a file under the flow, given their numbers of atoms."""
    from molflow import grade

    check_free(overwrite, out)
    molecules = read(file)
    with live() as tell:
        table = grade.likelihood(molecules, generator=generator, steps=steps, draws=draws, probes=probes, seed=seed,
                                 device=device, progress=tell)
    deliver(table, out)


def evaluate(
    file: Annotated[Path, typer.Argument(help="SDF file with 3D coordinates and all hydrogens.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge the molecules in a file: stability, validity, uniqueness."""
    import json as text

    from rich.console import Console
    from rich.table import Table

    from molflow import grade

    figures = grade.evaluate(read(file))
    if json:
        print(text.dumps(figures, indent=1))
        return
    table = Table("figure", "value")
    for key, value in figures.items():
        table.add_row(key, f"{value:.4g}")
    Console().print(table)


def verify(
    file: Annotated[Path, typer.Argument(help="SDF file with 3D coordinates and all hydrogens.")],
    method: Annotated[str, typer.Option(help="xtb: GFN2-xTB, a second a molecule. dft: B3LYP/6-31G(2df,p), "
                                             "minutes.")] = "xtb",
    relax: Annotated[bool, typer.Option("--relax", help="Relax first: tells strain and broken bonds.")] = False,
    out: Annotated[Path | None, typer.Option(help="CSV to write instead of printing; a name in .sdf for an "
                                                  "SDF.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core by default.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Calculate the molecules in a file by quantum chemistry and compare with what they are said to be."""
    from collections import Counter

    import pandas as pd

    from molflow.molecules.io import write_sdf
    from molflow.verification import verify as run_verify

    check_free(overwrite, out)
    molecules = read(file)
    with live() as tell:
        verdicts = run_verify(molecules, method=method, relax=relax, workers=workers,  # type: ignore[arg-type]
                              progress=tell)
    if out and out.suffix.lower() == ".sdf":
        write_sdf(out, [verdict.annotated() for verdict in verdicts])
        print(f"{len(verdicts)} molecules, written to {out}")
    else:
        deliver(pd.DataFrame([verdict.row() for verdict in verdicts]), out)
    words = Counter(verdict.word for verdict in verdicts)
    print(", ".join(f"{count} {word}" for word, count in words.most_common()), file=sys.stderr)
