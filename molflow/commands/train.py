"""Training the networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molflow.commands.console import Overwrite, check_free
from molflow.extras import require

if TYPE_CHECKING:
    from molflow.training.generator import GeneratorTask
    from molflow.training.properties import PropertyTask
    from molflow.training.signals import SignalTask

app = typer.Typer(no_args_is_help=True, help="Train the networks.")

LEARNING = "lightning", "tensorboard"
"""What training needs beyond the core; asked for first, before data are."""

Config = Annotated[str, typer.Option(help="TOML file of settings, or a shipped recipe: generator, guide, evaluator, "
                                           "moses3d, moses3d-reflow, moses3d-guide, moses3d-xtb-guide, "
                                           "moses3d-generated-guide, geom-drugs, digits, photos, speech.")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints and metrics.")]
Data = Annotated[Path | None, typer.Option("--data", help="Prepared data; default in ~/.cache/molflow.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")]
Devices = Annotated[int, typer.Option(help="GPUs, or CPU processes.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after this long; --resume goes on.")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Start = Annotated[Path | None, typer.Option(help="Weights to begin with instead of random ones.")]


@app.command("generator")
def train_generator(out: Out, config: Config = "generator", data: Data = None, resume: Resume = False,
                    accelerator: Accelerator = "auto", devices: Devices = 1, minutes: Minutes = None,
                    start: Start = None) -> None:
    """Train the flow; writes generator.safetensors and its card into --out."""
    from molflow.data.store import MoleculeStore, prepared
    from molflow.training.config import GeneratorConfig, load
    from molflow.training.generator import GeneratorTask

    require(*LEARNING)
    chosen = load(GeneratorConfig, config)
    task = GeneratorTask(chosen, MoleculeStore.load(data or prepared(chosen.data)))
    _train(task, "generator", out, start, minutes, resume=resume, accelerator=accelerator, devices=devices)


@app.command("reflow")
def train_reflow(out: Out, start: Annotated[Path, typer.Option(help="Weights of the flow to straighten.")],
                 pairs: Annotated[list[Path], typer.Option(help="What `molflow data couple` wrote; repeatable.")],
                 config: Config = "reflow", data: Data = None, resume: Resume = False,
                 accelerator: Accelerator = "auto", devices: Devices = 1, minutes: Minutes = None) -> None:
    """Straighten a trained flow, so that fewer steps do; writes generator.safetensors and its card into --out."""
    from molflow.data.store import MoleculeStore, prepared
    from molflow.training.config import GeneratorConfig, load
    from molflow.training.reflow import ReflowTask

    require(*LEARNING)
    couplings = MoleculeStore.cat([MoleculeStore.load(file) for file in pairs])
    chosen = load(GeneratorConfig, config)
    task = ReflowTask(chosen, MoleculeStore.load(data or prepared(chosen.data)), couplings)
    _train(task, "generator", out, start, minutes, resume=resume, accelerator=accelerator, devices=devices)


@app.command("property")
def train_property(out: Out, config: Config = "guide",
                   data: Annotated[list[Path] | None, typer.Option(help="Prepared data; default in ~/.cache/molflow. "
                                                                   "Repeatable, of the same properties.")] = None,
                   resume: Resume = False, accelerator: Accelerator = "auto", devices: Devices = 1,
                   minutes: Minutes = None, start: Start = None) -> None:
    """Train a property network; writes property.safetensors and its card into --out."""
    from molflow.data.store import MoleculeStore, prepared
    from molflow.training.config import PropertyTraining, load
    from molflow.training.properties import PropertyTask

    require(*LEARNING)
    chosen = load(PropertyTraining, config)
    store = MoleculeStore.cat([MoleculeStore.load(file) for file in data or [prepared(chosen.data)]])
    task = PropertyTask(chosen, store)
    _train(task, "property", out, start, minutes, resume=resume, accelerator=accelerator, devices=devices)


@app.command("join")
def train_join(
    files: Annotated[list[Path], typer.Argument(help="Weights of property networks, trained on the same molecules.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    data: Data = None,
    overwrite: Overwrite = False,
) -> None:
    """Put property networks together in one file: their mean reads, their disagreement says how far to believe it."""
    from molflow.data.store import MoleculeStore, prepared
    from molflow.joining import join
    from molflow.nn.weights import read_card

    check_free(overwrite, out)
    store = MoleculeStore.load(data or prepared(read_card(files[0], "property").data))
    figures = join(files, store, out)
    print(", ".join(f"{key} {value:.4g}" for key, value in figures.items() if isinstance(value, float)))


@app.command("prior")
def train_prior(out: Out, config: Config = "digits", data: Data = None, resume: Resume = False,
                accelerator: Accelerator = "auto", devices: Devices = 1, minutes: Minutes = None,
                start: Start = None) -> None:
    """Train a prior of pictures or of sound; writes it, with the name of its data set, and its card into --out."""
    from molflow.data.signals import SignalStore
    from molflow.data.store import prepared
    from molflow.training.config import SignalConfig, load
    from molflow.training.signals import SignalTask

    require(*LEARNING)
    chosen = load(SignalConfig, config)
    task = SignalTask(chosen, SignalStore.load(data or prepared(chosen.data)))
    _train(task, chosen.data, out, start, minutes, resume=resume, accelerator=accelerator, devices=devices)


def _train(task: GeneratorTask | PropertyTask | SignalTask, name: str, out: Path, start: Path | None,
           minutes: float | None, *, resume: bool, accelerator: str, devices: int) -> None:
    from molflow.training.export import export
    from molflow.training.start import begin_with
    from molflow.training.trainer import train

    if start:
        begin_with(task.network, start)
    figures = train(task, out, resume=resume, accelerator=accelerator, devices=devices,
                    stop_after=math.inf if minutes is None else 60 * minutes)
    export(task, out, out / f"{name}.safetensors", figures)
    print(", ".join(f"{key} {value:.4g}" for key, value in figures.items()))
