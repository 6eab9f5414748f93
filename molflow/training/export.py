"""From a training run to weights that ship: the averaged network and a card that says how it came about."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from molflow import provenance
from molflow.data.prior import Prior
from molflow.data.store import qm9_split
from molflow.nn.property import PROPERTIES
from molflow.nn.weights import Card, save_weights
from molflow.training.generator import GeneratorTask
from molflow.training.properties import PropertyTask


def export(task: GeneratorTask | PropertyTask, run_folder: Path, path: Path, metrics: dict[str, Any]) -> None:
    """Write the averaged weights of the run in ``run_folder`` to ``path`` (safetensors) with their card."""
    saved = torch.load(run_folder / "state.ckpt", map_location="cpu", weights_only=True)
    # AveragedModel stores the network under "module." beside a counter
    weights = {key.removeprefix("module."): value for key, value in saved["ema"].items() if key != "n_averaged"}
    task.network.load_state_dict(weights)
    settings = dataclasses.asdict(task.config)
    network = settings.pop("network")
    run = task.config.run
    training = {
        "data": task.store.source,
        "part": run.part,
        "molecules_seen": saved["step"] * run.batch_size,
        "molecules_planned": run.molecules,
        "hours": round(saved["seconds"] / 3600, 3),
        "settings": settings,
        "command": " ".join(["molflow", *sys.argv[1:]]),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
    }
    kind = "generator" if isinstance(task, GeneratorTask) else "property"
    prior = Prior.of(task.store, qm9_split()[run.part], PROPERTIES).to_json() if kind == "generator" else None
    save_weights(path, task.network, Card(kind, network, training, metrics, prior))
