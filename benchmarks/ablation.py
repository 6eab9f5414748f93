"""Design choices of the generator, each trained anew for the same time from the same start.

The switches exist on this commit only; what won is the code that follows.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import Parts, _commit
from molflow.data.prior import Prior
from molflow.data.store import MoleculeStore, data_folder
from molflow.designer import choose_sizes
from molflow.models import Generator
from molflow.molecules import metrics
from molflow.molecules.convert import unbatch
from molflow.nn.weights import SHIPPED, read_card
from molflow.training.config import GeneratorConfig, Run
from molflow.training.generator import GeneratorTask
from molflow.training.trainer import train

MOLECULES = 24_000  # of the base; others get as many as they can see in the same time
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "noise not paired with the data": {"pairing": False},
    "bonds only read out at the end": {"network": {"bonds_flow": False}},
    "no self-conditioning": {"self_condition": 0.0, "network": {"remembers": False}},
    "times uniform": {"time_power": 1.0},
    "times later, density 2t": {"time_power": 0.5},
    "class losses weighted by 1/(1-t), at most 5": {"late_weight": 1.0},
    "4 layers, wider": {"network": {"layers": 4, "scalars": 176, "vectors": 44, "pairs": 40, "messages": 80}},
    "9 layers, narrower": {"network": {"layers": 9, "scalars": 96, "vectors": 24, "pairs": 28, "messages": 48}},
    "l = 2 beside l = 1": {"network": {"tensors": 16}},
    "bond loss weight 0.3": {"weight_bonds": 0.3},
    "type loss weight 0.1": {"weight_types": 0.1},
}  # fmt: skip


def config(variant: str, seed: int, molecules: int) -> GeneratorConfig:
    base = GeneratorConfig(run=Run(part="half_b", molecules=molecules, cooldown=0.5, ema=0.995, compile=False, seed=seed,
                                   checkpoint_minutes=60, validate_minutes=600))
    change = dict(VARIANTS[variant])
    if "network" in change:
        change["network"] = dataclasses.replace(base.network, **change["network"])
    return dataclasses.replace(base, **change)


def seconds_per_molecule(tasks: dict[str, GeneratorTask], rounds: int = 24) -> dict[str, float]:
    """Of forward and backward, the candidates in turn: CPU time of this process, so that a neighbour matters little."""
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for step in range(rounds):
        for name, task in tasks.items():
            batch = task.batch(step)
            begun = time.process_time()
            with torch.autocast("cpu", torch.bfloat16):
                loss, _ = task.loss(task.network, batch)
            loss.backward()
            spent[name].append(time.process_time() - begun)
            task.network.zero_grad()
    return {name: float(np.mean(values[2:])) for name, values in spent.items()}


def measure(variant: str, seed: int, out: Path) -> dict[str, Any]:
    store = MoleculeStore.load(data_folder() / "qm9.safetensors")
    trial = {name: GeneratorTask(config(name, seed, MOLECULES), store) for name in {"base", variant}}
    cost = seconds_per_molecule(trial)
    relative = cost[variant] / cost["base"]
    task = GeneratorTask(config(variant, seed, int(MOLECULES / relative)), store)
    begun = time.process_time()
    figures = train(task, out, accelerator="cpu")
    spent = time.process_time() - begun
    saved = torch.load(out / "state.ckpt", weights_only=True)["ema"]
    network = task.network
    network.load_state_dict({k.removeprefix("module."): v for k, v in saved.items() if k != "n_averaged"})
    card = read_card(SHIPPED / "generator.safetensors", "generator")
    generator = Generator(network.eval().requires_grad_(False), Prior.from_json(card.prior or {}), card, out,
                          torch.device("cpu"))
    batch = generator.sample(choose_sizes(generator, 500, 0, None), seed=0)
    made = metrics.evaluate(unbatch(batch))
    return {"relative_cost": relative, "molecules": task.config.run.molecules, "cpu_seconds": spent,
            "parameters": sum(p.numel() for p in network.parameters()), "validation": figures, "generated": made}


def main() -> None:
    out = Path(sys.argv[1])
    parts = Parts(out, {"molecules": MOLECULES}, _commit())
    for seed, names in ((0, sys.argv[2:] or list(VARIANTS)),):
        for name in names:
            slug = f"{name.replace(' ', '-').replace('/', '').replace(',', '').replace('=','')}-{seed}"
            print(slug, parts(slug, lambda: measure(name, seed, out / "runs" / slug)), flush=True)


if __name__ == "__main__":
    main()
