"""From a training run to weights that ship: the averaged network and a card that says how it came about."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from molflow import provenance
from molflow.data.prior import Prior
from molflow.nn.property import read_of
from molflow.nn.weights import Card, save_weights
from molflow.training.generator import GeneratorTask
from molflow.training.properties import PropertyTask
from molflow.training.reflow import ReflowTask
from molflow.training.signals import SignalTask


@rank_zero_only
def export(task: GeneratorTask | PropertyTask | SignalTask, run_folder: Path, path: Path,
           metrics: dict[str, Any]) -> None:
    """Write the averaged weights of the run in ``run_folder`` to ``path`` (safetensors) with their card.

    Where several processes train together, the first of them does it.
    """
    saved = torch.load(run_folder / "state.ckpt", map_location="cpu", weights_only=True)
    # AveragedModel stores the network under "module." beside a counter
    weights = {key.removeprefix("module."): value for key, value in saved["ema"].items() if key != "n_averaged"}
    task.network.load_state_dict(weights)
    settings = dataclasses.asdict(task.config)
    network = settings.pop("network")
    settings["data"] = Path(settings["data"]).name.removesuffix(".safetensors")  # a card travels, and a path does not
    run = task.config.run
    training = {
        "data": task.store.source,
        **({} if isinstance(task, SignalTask) else {"part": run.part}),
        **({"pairs": task.pairs.source} if isinstance(task, ReflowTask) else {}),
        f"{task.store.unit}_seen": saved["molecules"],
        f"{task.store.unit}_planned": run.molecules,
        "hours": round(saved["seconds"] / 3600, 3),
        "settings": settings,
        # a card travels: of an absolute path only the name says anything elsewhere
        "command": " ".join(["molflow", *(Path(word).name if word.startswith("/") else word for word in sys.argv[1:])]),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
    }
    if isinstance(task, SignalTask):
        card = Card("signal", network, training, metrics)
    elif isinstance(task, PropertyTask):
        card = Card("property", network, training, metrics, vocabulary=dataclasses.asdict(task.vocabulary),
                    properties=task.properties, units=task.units, resolution=task.resolution)
    else:
        prior = Prior.of(task.store, task.store.parts()[run.part], read_of(task.config.data, task.store.names))
        card = Card("generator", network, training, metrics, prior.to_json(), dataclasses.asdict(task.vocabulary))
    save_weights(path, task.network.to(getattr(torch, run.weights)), card)
