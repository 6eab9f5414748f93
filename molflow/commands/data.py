"""Preparing what networks learn from, and what the search looks up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from molflow.commands.console import Device, InputError, Overwrite, Weights, check_free, live
from molflow.extras import require

app = typer.Typer(no_args_is_help=True, help="Prepare data sets.")

SOURCES = {"geom": "GEOM-Drugs in one of its public forms", "digits": "t10k-images-idx3-ubyte.gz",
           "photos": "usr/share of the unpacked Debian packages", "speech": "fsdd.zip", "sdf": "SDF files"}
"""Data sets that are not fetched from PyPI, and what they are prepared from."""


@app.command("prepare")
def prepare(
    name: Annotated[str, typer.Argument(help="Data set: qm9, moses3d, geom, digits, photos or speech; sdf: your own.")],
    out: Annotated[Path | None, typer.Option(help="File to write; default in ~/.cache/molflow.")] = None,
    called: Annotated[str | None, typer.Option("--name", help="sdf: what to call it; default as the source.")] = None,
    source: Annotated[Path | None, typer.Option(help="qm9: folder with qm9pack's CSV files. moses3d: wheel of molsets. "
                                                     "Others: folder with what they are made from.")] = None,
    n: Annotated[int, typer.Option("-n", help="moses3d: how many molecules.")] = 100_000,
    conformers: Annotated[int, typer.Option(min=1, help="geom: how many of lowest energy, of each molecule.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overwrite: Overwrite = False,
) -> None:
    """Turn a data set's public form, or SDF files of your own, into one compact file; moses3d and geom go on where they
    were stopped."""
    from molflow.data.store import PARTS, data_folder

    if name not in ("qm9", "moses3d", *SOURCES):
        raise InputError(f"unknown data set {name!r}: known are qm9, moses3d, {', '.join(SOURCES)}")
    if called is not None and name != "sdf":
        raise InputError("--name is for sdf, your own data set")
    stem = name
    if name == "sdf" and source is not None:
        stem = called or source.resolve().stem
        if stem in ("qm9", "moses3d", *SOURCES) or Path(stem).name != stem:
            raise InputError(f"a data set of your own cannot be called {stem!r}: give another --name")
    out = out or data_folder() / f"{stem}.safetensors"
    check_free(overwrite, out)
    if name == "qm9":
        from molflow.data import qm9

        store = qm9.prepare(out, source=source, workers=workers)
        flawed = qm9.flaws(store)
        print(f"{len(store)} molecules written to {out}; {len(flawed)} without consistent bonds: QM9 numbers {flawed}")
    elif name == "moses3d":
        from molflow.data import moses3d

        print(f"{len(moses3d.prepare(out, source=source, n=n, workers=workers))} molecules written to {out}")
    elif source is None:
        raise InputError(f"--source is missing: the folder with {SOURCES[name]}")
    elif name == "sdf":
        from molflow.data import sdf
        from molflow.molecules.elements import SYMBOL_OF

        store, refused = sdf.prepare(out, source=source, tell=lambda said: print(f"molflow: {said}", file=sys.stderr))
        counts = {part: len(rows) for part, rows in store.parts().items() if part in PARTS}
        print(f"{len(store)} molecules written to {out}, {refused} left out; "
              + ", ".join(f"{part} {count}" for part, count in counts.items()))
        print("elements: " + ", ".join(SYMBOL_OF[number] for number in store.vocabulary(stem).elements))
        for column, (what, unit) in zip(store.properties.T, zip(store.names, store.units, strict=True), strict=True):
            print(f"property {what}{f' [{unit}]' * bool(unit)}: of {int(column.isfinite().sum())} molecules")
    elif name == "geom":
        from molflow.data import geom

        store = geom.prepare(out, source=source, conformers=conformers, workers=workers)
        print(f"{len(store)} molecules written to {out}")
    else:
        from importlib import import_module

        signals = import_module(f"molflow.data.{name}").read(source)
        signals.save(out)
        print(f"{sum(map(len, signals.train))} {signals.unit} to train on and {sum(map(len, signals.held_out))} held "
              f"out, written to {out}")


@app.command()
def label(
    name: Annotated[str, typer.Argument(help="Data set with one geometry a molecule, such as moses3d, or a file of "
                                             "what `data couple` made.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many molecules.")] = 10_000,
    polarisabilities: Annotated[int, typer.Option(min=0, help="Of how many of them the polarisability, too.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    out: Annotated[Path | None, typer.Option(help="File to write; default NAME-xtb beside the data.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Add GFN2-xTB's values of some molecules to a prepared data set; goes on where it was stopped."""
    from molflow.data.store import MoleculeStore, prepared
    from molflow.labelling import label as run_label

    require("tblite")
    source = prepared(name)
    out = out or source.with_name(f"{source.stem}-xtb.safetensors")
    check_free(overwrite, out)
    store = MoleculeStore.load(source)
    labelled, refused = run_label(store, out, n, polarisabilities=polarisabilities, workers=workers)
    print(f"{len(store)} molecules written to {out}, with labels: "
          + ", ".join(f"{count} {label}" for label, count in labelled.items()))
    for reason, times in refused.most_common():
        print(f"without: {times}, {reason}")


@app.command()
def couple(
    out: Annotated[Path, typer.Option(help="File to write.")],
    n: Annotated[int, typer.Option("-n", help="How many source points.")] = 15_000,
    first: Annotated[int, typer.Option(help="Number of the first: other processes take others.")] = 0,
    steps: Annotated[int, typer.Option(help="Solver steps, each one evaluation of the network.")] = 40,
    settle: Annotated[bool, typer.Option("--settle", help="Put bonds and angles right by MMFF94s.")] = False,
    device: Device = "auto",
    generator: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    """Run a generator from numbered source points: pairs for `train reflow` to straighten its flow with."""
    from molflow.coupling import couple as run_couple
    from molflow.models import Generator

    check_free(overwrite, out)
    with live() as tell:
        store = run_couple(Generator.load(generator, device), first, n, steps=steps, settle=settle,
                           progress=tell)
    store.save(out)
    print(f"{len(store)} of {n} molecules are whole, written to {out}")


@app.command()
def atlas(
    out: Annotated[Path, typer.Option(help="File to write.")],
    pairs: Annotated[list[Path] | None, typer.Option(help="What this command has kept before; repeatable.")] = None,
    keep: Annotated[Path | None, typer.Option(help="File for the molecules themselves, to be read again by another "
                                                   "guide.")] = None,
    n: Annotated[int, typer.Option("-n", help="How many source points to add.")] = 0,
    first: Annotated[int, typer.Option(help="Number of the first.")] = 100_000,
    device: Device = "auto",
    generator: Weights = None,
    guide: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    """Map the source space of a generator: what numbered source points become, as the guide reads it."""
    from molflow.coupling import couple as run_couple
    from molflow.data.store import MoleculeStore
    from molflow.models import Generator, Predictor
    from molflow.search.atlas import Atlas
    from molflow.search.problem import POWER, STEPS

    check_free(overwrite, out, keep)
    stores = [MoleculeStore.load(file) for file in pairs or []]
    if not n and not stores:
        raise InputError("give -n, how many source points to map, or --pairs")
    model = Generator.load(generator, device)
    with live() as tell:
        if n:
            made = run_couple(model, first, n, steps=STEPS, power=POWER, progress=tell)
            if keep:
                made.save(keep)
            stores.append(made)
    atlas = Atlas.of(MoleculeStore.cat(stores), model, Predictor.load(guide or "guide", device))
    atlas.save(out)
    print(f"{len(atlas)} source points, each of another molecule, written to {out}")
