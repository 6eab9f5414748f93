"""The same functions, for the shell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    import pandas as pd


class RunByDefault(TyperGroup):
    """`campaign FILE` is short for `campaign run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Molecules with the properties you ask for.")
data = typer.Typer(no_args_is_help=True, help="Prepare data sets.")
train = typer.Typer(no_args_is_help=True, help="Train the networks.")
campaign = typer.Typer(no_args_is_help=True, cls=RunByDefault,
                       help="Design and verify many molecules for many targets: `campaign FILE` begins, or goes on.")
app.add_typer(data, name="data")
app.add_typer(campaign, name="campaign")
app.add_typer(train, name="train")

Seed = Annotated[int, typer.Option(help="Drives everything: same seed, same machine, same molecules.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Atoms = Annotated[int | None, typer.Option(help="Size of every molecule, hydrogens counted.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Weights = Annotated[Path | None, typer.Option(help="File of weights instead of the shipped one.")]


class InputError(Exception):
    """What the user gave cannot be used; the message is the whole answer."""


def main() -> None:
    """Run the command line. Exit status 2 for bad input, 1 for work that failed, one sentence either way."""
    try:
        app(standalone_mode=True)
    except (InputError, ValueError, FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        fail(sentence(error), 2)
    except (OSError, MemoryError, RuntimeError) as error:
        fail(f"failed: {sentence(error)}", 1)
    except KeyboardInterrupt:
        fail("stopped", 130)


def sentence(error: BaseException) -> str:
    """What an exception says, in one line and without the operating system's number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def fail(message: str, status: int) -> None:
    """Say what is wrong in one line and leave."""
    print(f"molflow: {message}", file=sys.stderr)
    raise SystemExit(status)


def check_free(overwrite: bool, *files: Path | None) -> None:
    """Raise InputError where one of the files to be written exists already and may not be overwritten."""
    for file in filter(None, files):
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists: choose another name or give --overwrite")


@contextmanager
def live() -> Iterator[object]:
    """A progress display on stderr that shows one phase after the other."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description:>12}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                  TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def tell(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=1.0)
            bars.update(tasks[what], completed=share)  # type: ignore[arg-type]

        yield tell


@app.command()
def design(
    target: Annotated[list[str], typer.Option(help="What is wanted of a property, repeatable: gap=5.0, gap=0.18Ha, "
                                                   "gap=4..5, 'mu<1', alpha=max.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    n: Annotated[int, typer.Option("-n", help="How many molecules.")] = 16,
    seed: Seed = 0,
    atoms: Atoms = None,
    formula: Annotated[str | None, typer.Option(help="Of every molecule, for example C7H10O2.")] = None,
    fragment: Annotated[Path | None, typer.Option(help="SDF file of a piece that every molecule is to "
                                                       "contain.")] = None,
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
    """Design molecules with the wanted properties: alpha (Bohr³), gap, homo, lumo (eV), mu (D), cv (cal/(mol K))."""
    from rich.console import Console

    from molflow import report
    from molflow.designer import design as run_design
    from molflow.search import Budget
    from molflow.targets import parse_targets

    report.check_folder(out, overwrite)
    if min(lookups, draws) < 1 or min(generations, gradients) < 0:
        raise InputError("--lookups and --draws must be at least 1, --generations and --gradients at least 0, got "
                         f"{lookups}, {draws}, {generations} and {gradients}")
    targets = parse_targets(target)
    with live() as tell:
        run = run_design(targets, n, seed, atoms=atoms, formula=formula,
                         fragment=_read(fragment)[0] if fragment else None, lead=_read(lead)[0] if lead else None,
                         similarity=similarity, device=device,
                         budget=Budget(lookups, draws, generations, gradients=gradients), generator=generator,
                         guide=guide, evaluator=evaluator, verify=verify,  # type: ignore[arg-type]
                         progress=tell)  # type: ignore[arg-type]
    for sentence in run.warnings:
        print(f"molflow: warning: {sentence}", file=sys.stderr)
    run.save(out, overwrite)
    Console().print(report.summary(run))
    print(f"written to {out}")


@app.command("report")
def write_report(
    folder: Annotated[Path, typer.Argument(help="Folder that molflow design has written.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default report.html in the folder.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run as one HTML page: what was asked, what came out, every molecule flat and in 3D."""
    from molflow import report

    print(f"written to {report.write_report(folder, out, overwrite)}")


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="SDF file to write.")],
    n: Annotated[int, typer.Option("-n", help="How many molecules.")] = 100,
    seed: Seed = 0,
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
    molecules = run_sample(n, seed, atoms=atoms, steps=steps, device=device, generator=generator)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_sdf(out, molecules)
    valid = sum(m.is_valid for m in molecules)
    print(f"{n} molecules, {valid} valid, written to {out}")


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="SDF file with 3D coordinates and all hydrogens.")],
    model: Annotated[str, typer.Option(help="evaluator, guide, or a file of weights.")] = "evaluator",
    out: Annotated[Path | None, typer.Option(help="CSV file to write instead of printing.")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Predict the six properties of the molecules in a file."""
    from molflow import grade

    check_free(overwrite, out)
    molecules = _read(file)
    _deliver(grade.predict(molecules, model=model, device=device), out)


@app.command()
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
    molecules = _read(file)
    with live() as tell:
        table = grade.likelihood(molecules, generator=generator, steps=steps, draws=draws, probes=probes, seed=seed,
                                 device=device, progress=tell)  # type: ignore[arg-type]
    _deliver(table, out)


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="SDF file with 3D coordinates and all hydrogens.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge the molecules in a file: stability, validity, uniqueness."""
    import json as text

    from rich.console import Console
    from rich.table import Table

    from molflow import grade

    figures = grade.evaluate(_read(file))
    if json:
        print(text.dumps(figures, indent=1))
        return
    table = Table("figure", "value")
    for key, value in figures.items():
        table.add_row(key, f"{value:.4g}")
    Console().print(table)


@app.command()
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
    molecules = _read(file)
    with live() as tell:
        verdicts = run_verify(molecules, method=method, relax=relax, workers=workers,  # type: ignore[arg-type]
                              progress=tell)  # type: ignore[arg-type]
    if out and out.suffix.lower() == ".sdf":
        out.parent.mkdir(parents=True, exist_ok=True)
        write_sdf(out, [verdict.annotated() for verdict in verdicts])
        print(f"{len(verdicts)} molecules, written to {out}")
    else:
        _deliver(pd.DataFrame([verdict.row() for verdict in verdicts]), out)
    words = Counter(verdict.word for verdict in verdicts)
    print(", ".join(f"{count} {word}" for word, count in words.most_common()), file=sys.stderr)


Specification = Annotated[Path, typer.Argument(help="YAML file: name, targets, molecules and more.")]


@campaign.command("run")
def run_campaign(spec: Specification) -> None:
    """Begin a campaign, or go on with it after any stop. Results are in its database, for `ase db`."""
    from molflow import campaign

    with live() as tell:
        done = campaign.run(spec, progress=tell)  # type: ignore[arg-type]
    print(done)


@campaign.command("status")
def campaign_status(spec: Specification) -> None:
    """Say how far a campaign is, from its database: while it runs, too, and from another machine."""
    from molflow import campaign

    print(campaign.status(spec))


def _read(file: Path) -> list:
    """Molecules of a file; broken records are named on stderr. Raises ValueError if none is left."""
    from molflow.molecules.io import read

    molecules, skipped = read(file)
    for record in skipped:
        print(f"molflow: skipped record {record.record} ({record.name or 'unnamed'}): {record.reason}", file=sys.stderr)
    if skipped:
        print(f"molflow: skipped {len(skipped)} of {len(skipped) + len(molecules)} records", file=sys.stderr)
    if not molecules:
        raise InputError(f"{file} holds no molecule that can be read")
    return molecules


def _deliver(table: pd.DataFrame, out: Path | None) -> None:
    """Write a table to a CSV file, whole or not at all, or print it."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(out.name + ".part")
        table.to_csv(part, index=False)
        part.replace(out)
        print(f"{len(table)} molecules, written to {out}")
    else:
        print(table.round(4).to_csv(index=False), end="")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="Damaged picture (PNG, JPEG, TIFF) or recording (WAV, FLAC).")],
    task: Annotated[str, typer.Option(help="Of a picture: inpaint, superresolve, deblur, denoise, hdr. Of a recording: "
                                           "inpaint, extend, declip, denoise.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    mask: Annotated[Path | None, typer.Option(help="inpaint: picture, bright where to fill in.")] = None,
    gaps: Annotated[str | None, typer.Option(help="inpaint: where to fill in, seconds: 0.50-0.53,1.20-1.24.")] = None,
    factor: Annotated[int, typer.Option(help="superresolve: 2 or 4.")] = 2,
    blur: Annotated[float | None, typer.Option(help="deblur: standard deviation of a Gaussian, pixels.")] = None,
    motion: Annotated[str | None, typer.Option(help="deblur: a straight movement, LENGTH,DEGREES.")] = None,
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise, of a full scale of 1.")] = 0.0,
    prior: Annotated[str | None, typer.Option(help="photos, digits, speech, or a file of weights.")] = None,
    compare: Annotated[Path | None, typer.Option(help="PNG file for before and after, side by side.")] = None,
    evals: Annotated[int, typer.Option(help="Most gradients for each tile.")] = 60,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Restore a damaged picture or recording with the flow of a prior."""
    from molflow.inverse.files import Wanted, restore_file
    from molflow.models import pick_device

    check_free(overwrite, out, compare)
    wanted = Wanted(task, mask, gaps, factor, blur, motion, noise, prior, seed, evals, str(pick_device(device)))
    with live() as tell:
        said = restore_file(file, out, wanted, compare=compare, progress=tell)  # type: ignore[arg-type]
    print(said)


SOURCES = {"geom": "GEOM-Drugs in one of its public forms", "digits": "t10k-images-idx3-ubyte.gz",
           "photos": "usr/share of the unpacked Debian packages", "speech": "fsdd.zip"}
"""Data sets that are not fetched from PyPI, and what they are prepared from."""


@data.command("prepare")
def prepare(
    name: Annotated[str, typer.Argument(help="Data set: qm9, moses3d, geom, digits, photos or speech.")],
    out: Annotated[Path | None, typer.Option(help="File to write; default in ~/.cache/molflow.")] = None,
    source: Annotated[Path | None, typer.Option(help="qm9: folder with qm9pack's CSV files. moses3d: wheel of molsets. "
                                                     "Others: folder with what they are made from.")] = None,
    n: Annotated[int, typer.Option("-n", help="moses3d: how many molecules.")] = 100_000,
    conformers: Annotated[int, typer.Option(min=1, help="geom: how many of lowest energy, of each molecule.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overwrite: Overwrite = False,
) -> None:
    """Turn a data set's public form into one compact file; moses3d and geom go on where they were stopped."""
    from molflow.data.store import data_folder

    if name not in ("qm9", "moses3d", *SOURCES):
        raise InputError(f"unknown data set {name!r}: known are qm9, moses3d, {', '.join(SOURCES)}")
    out = out or data_folder() / f"{name}.safetensors"
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists: give --overwrite to prepare it again")
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


@data.command()
def couple(
    out: Annotated[Path, typer.Option(help="File to write.")],
    n: Annotated[int, typer.Option("-n", help="How many source points.")] = 15_000,
    first: Annotated[int, typer.Option(help="Number of the first: other processes take others.")] = 0,
    steps: Annotated[int, typer.Option(help="Solver steps, each one evaluation of the network.")] = 40,
    device: Device = "auto",
    generator: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    """Run a generator from numbered source points: pairs for `train reflow` to straighten its flow with."""
    from molflow.coupling import couple as run_couple
    from molflow.models import Generator

    check_free(overwrite, out)
    with live() as tell:
        store = run_couple(Generator.load(generator, device), first, n, steps=steps,
                           progress=tell)  # type: ignore[arg-type]
    store.save(out)
    print(f"{len(store)} of {n} molecules are whole, written to {out}")


@data.command()
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
            made = run_couple(model, first, n, steps=STEPS, power=POWER, progress=tell)  # type: ignore[arg-type]
            if keep:
                made.save(keep)
            stores.append(made)
    atlas = Atlas.of(MoleculeStore.cat(stores), model, Predictor.load(guide or "guide", device))
    atlas.save(out)
    print(f"{len(atlas)} source points, each of another molecule, written to {out}")


Config = Annotated[str, typer.Option(help="TOML file of settings, or a shipped recipe: generator, guide, evaluator, "
                                           "moses3d, moses3d-guide, geom-drugs, digits, photos, speech.")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints and metrics.")]
Data = Annotated[Path | None, typer.Option("--data", help="Prepared data; default in ~/.cache/molflow.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")]
Devices = Annotated[int, typer.Option(help="GPUs, or CPU processes.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after this long; --resume goes on.")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Start = Annotated[Path | None, typer.Option(help="Weights to begin with instead of random ones.")]


@train.command("generator")
def train_generator(out: Out, config: Config = "generator", data: Data = None, resume: Resume = False,
                    accelerator: Accelerator = "auto", devices: Devices = 1, minutes: Minutes = None,
                    start: Start = None) -> None:
    """Train the flow; writes generator.safetensors and its card into --out."""
    from molflow.training.config import GeneratorConfig
    from molflow.training.generator import GeneratorTask

    _train(GeneratorConfig, GeneratorTask, "generator", out, config, data, resume, accelerator, devices, minutes,
           start)


@train.command("reflow")
def train_reflow(out: Out, start: Annotated[Path, typer.Option(help="Weights of the flow to straighten.")],
                 pairs: Annotated[list[Path], typer.Option(help="What `molflow data couple` wrote; repeatable.")],
                 config: Config = "reflow", data: Data = None, resume: Resume = False,
                 accelerator: Accelerator = "auto", devices: Devices = 1, minutes: Minutes = None) -> None:
    """Straighten a trained flow, so that fewer steps do; writes generator.safetensors and its card into --out."""
    from molflow.data.store import MoleculeStore
    from molflow.training.config import GeneratorConfig
    from molflow.training.reflow import ReflowTask

    couplings = MoleculeStore.cat([MoleculeStore.load(file) for file in pairs])
    _train(GeneratorConfig, lambda config, store: ReflowTask(config, store, couplings), "generator", out, config, data,
           resume, accelerator, devices, minutes, start)


@train.command("property")
def train_property(out: Out, config: Config = "guide", data: Data = None, resume: Resume = False,
                   accelerator: Accelerator = "auto", devices: Devices = 1, minutes: Minutes = None,
                   start: Start = None) -> None:
    """Train a property network; writes property.safetensors and its card into --out."""
    from molflow.training.config import PropertyTraining
    from molflow.training.properties import PropertyTask

    _train(PropertyTraining, PropertyTask, "property", out, config, data, resume, accelerator, devices, minutes,
           start)


@train.command("join")
def train_join(
    files: Annotated[list[Path], typer.Argument(help="Weights of property networks, trained on the same molecules.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    data: Data = None,
    overwrite: Overwrite = False,
) -> None:
    """Put property networks together in one file: their mean reads, their disagreement says how far to believe it."""
    from molflow.data.store import MoleculeStore, data_folder
    from molflow.joining import join
    from molflow.nn.weights import read_card

    check_free(overwrite, out)
    data = data or data_folder() / f"{read_card(files[0], 'property').data}.safetensors"
    figures = join(files, MoleculeStore.load(data), out)
    print(", ".join(f"{key} {value:.4g}" for key, value in figures.items() if isinstance(value, float)))


@train.command("prior")
def train_prior(out: Out, config: Config = "digits", data: Data = None, resume: Resume = False,
                accelerator: Accelerator = "auto", devices: Devices = 1, minutes: Minutes = None,
                start: Start = None) -> None:
    """Train a prior of pictures or of sound; writes it, with the name of its data set, and its card into --out."""
    from molflow.data.signals import SignalStore
    from molflow.training.config import SignalConfig
    from molflow.training.signals import SignalTask

    _train(SignalConfig, SignalTask, None, out, config, data, resume, accelerator, devices, minutes, start, SignalStore)


def _train(settings, task, name, out, config, data, resume, accelerator, devices, minutes, start, store=None) -> None:
    import math

    from molflow.data.store import MoleculeStore, data_folder
    from molflow.nn.weights import fill
    from molflow.training import config as configuration
    from molflow.training.export import export
    from molflow.training.trainer import train as run

    chosen = configuration.load(settings, config)
    job = task(chosen, (store or MoleculeStore).load(data or data_folder() / f"{chosen.data}.safetensors"))
    if start:
        fill(job.network, start)
    figures = run(job, out, resume=resume, accelerator=accelerator, devices=devices,
                  stop_after=math.inf if minutes is None else 60 * minutes)
    export(job, out, out / f"{name or chosen.data}.safetensors", figures)
    print(", ".join(f"{key} {value:.4g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
