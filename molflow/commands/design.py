"""Making molecules: with wanted properties, or as they come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from molflow.commands.console import Atoms, Device, InputError, Model, Overwrite, Seed, Weights, check_free, live, read


def design(
    target: Annotated[list[str], typer.Option(help="What is wanted of a property, repeatable: gap=5.0, gap=0.18Ha, "
                                                   "gap=4..5, 'mu<1', alpha=max.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    n: Annotated[int, typer.Option("-n", help="How many molecules.")] = 16,
    seed: Seed = 0,
    model: Model = "qm9",
    atoms: Atoms = None,
    formula: Annotated[str | None, typer.Option(help="Of every molecule, for example C7H10O2.")] = None,
    fragment: Annotated[list[Path] | None, typer.Option(help="SDF file of a piece that every molecule is to contain; "
                                                             "of several (a.sdf b.sdf), all of them.")] = None,
    more: Annotated[list[Path] | None, typer.Argument(hidden=True, metavar="MORE.sdf")] = None,  # after --fragment
    lead: Annotated[Path | None, typer.Option("--from", help="SDF file whose first molecule to stay near.")] = None,
    similarity: Annotated[float, typer.Option(help="How near, by Tanimoto's coefficient.")] = 0.4,
    device: Device = "auto",
    lookups: Annotated[int, typer.Option(help="Source points to start from, from the atlas, for each molecule.")] = 2,
    draws: Annotated[int, typer.Option(help="Source points to start from where there is no atlas.")] = 16,
    generations: Annotated[int, typer.Option(help="Most generations of relatives of the best.")] = 4,
    gradients: Annotated[int, typer.Option(help="Most gradients of Newton's method.")] = 2,
    generator: Weights = None,
    guide: Weights = None,
    evaluator: Weights = None,
    verify: Annotated[str | None, typer.Option(help="Relax and judge by quantum chemistry. xtb: a second a molecule. "
                                                    "dft: an hour.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Design molecules with the wanted properties: alpha (Bohr³), gap, homo, lumo (eV), mu (D), cv (cal/(mol K)); with
    --model moses3d qed, logp, sa, tpsa (Å²), mw (g/mol), solvation (kcal/mol), and all but cv by GFN2-xTB."""
    from rich.console import Console

    from molflow import report
    from molflow.designer import design as run_design
    from molflow.search import Budget
    from molflow.targets import parse_targets

    report.check_folder(out, overwrite)
    if min(lookups, draws) < 1 or min(generations, gradients) < 0:
        raise InputError("--lookups and --draws must be at least 1, --generations and --gradients at least 0, got "
                         f"{lookups}, {draws}, {generations} and {gradients}")
    if more and not fragment:
        raise InputError(f"what is {more[0]}? Files of pieces follow --fragment")
    pieces = [read(file)[0] for file in [*(fragment or []), *(more or [])]]
    targets = parse_targets(target)
    with live() as tell:
        run = run_design(targets, n, seed, model=model, atoms=atoms, formula=formula,
                         fragment=pieces or None, lead=read(lead)[0] if lead else None,
                         similarity=similarity, device=device,
                         budget=Budget(lookups, draws, generations, gradients=gradients), generator=generator,
                         guide=guide, evaluator=evaluator, verify=verify,  # type: ignore[arg-type]
                         progress=tell)
    for sentence in run.warnings:
        print(f"molflow: warning: {sentence}", file=sys.stderr)
    run.save(out, overwrite)
    Console().print(report.summary(run))
    print(f"written to {out}")


def write_report(
    folder: Annotated[Path, typer.Argument(help="Folder that molflow design has written.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default report.html in the folder.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run as one HTML page: what was asked, what came out, every molecule flat and in 3D."""
    from molflow import report

    print(f"written to {report.write_report(folder, out, overwrite)}")


def sample(
    out: Annotated[Path, typer.Option(help="SDF file to write.")],
    n: Annotated[int, typer.Option("-n", help="How many molecules.")] = 100,
    seed: Seed = 0,
    model: Model = "qm9",
    atoms: Atoms = None,
    steps: Annotated[int, typer.Option(help="Solver steps, each one evaluation of the network.")] = 20,
    device: Device = "auto",
    generator: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    """Make molecules as they come, without a target."""
    from molflow.designer import sample as run_sample
    from molflow.molecules.io import write_sdf

    check_free(overwrite, out)
    molecules = run_sample(n, seed, model=model, atoms=atoms, steps=steps, device=device, generator=generator)
    write_sdf(out, molecules)
    valid = sum(m.is_valid for m in molecules)
    print(f"{n} molecules, {valid} valid, written to {out}")
