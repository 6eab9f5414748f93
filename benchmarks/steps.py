"""Quality of the QM9 generator against solver, number of steps and time grid, from the same source points."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import Table, number, percent
from molflow.designer import choose_sizes
from molflow.flow.solvers import Method, integrate, nfe_of, time_grid
from molflow.models import Generator
from molflow.molecules import metrics
from molflow.molecules.convert import Molecule, unbatch
from molflow.molecules.state import decode
from molflow.nn.velocity import MoleculeField, PureField
from molflow.nn.weights import SHIPPED

CHUNK = 100
TRIALS: tuple[tuple[Method, int, float], ...] = (
    ("euler", 20, 1.0), ("adams", 20, 0.8), ("adams", 20, 1.0), ("adams", 20, 1.3), ("midpoint", 10, 1.0),
    ("heun", 10, 1.0), ("euler", 10, 1.0), ("adams", 10, 0.8), ("adams", 10, 1.0), ("adams", 10, 1.3),
    ("adams", 4, 1.0), ("adams", 6, 1.0), ("adams", 8, 1.0), ("adams", 14, 1.0), ("adams", 40, 1.0),
)  # fmt: skip
"""Method, steps, power of the time grid."""

PURE_STEPS = 20
"""One more row: without memory from step to step, each estimate of x(1) made anew, which doubles the NFE."""

FIGURES = {metrics.ATOM_STABILITY: "atoms stable", metrics.MOLECULE_STABILITY: "molecules stable",
           metrics.MOLECULE_STABILITY_BONDS: "molecules, by bonds", metrics.VALID: "valid"}


@torch.no_grad()
def run(*, n: int = 500, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    generator = Generator.load(weights / "generator.safetensors", device)
    sizes = np.sort(choose_sizes(generator, n, seed, None))
    trials: list[dict[str, Any]] = []
    for method, steps, power in TRIALS:
        begun = time.perf_counter()
        made = sample(generator, sizes, seed, method, time_grid(steps, power=power))
        trials.append({"method": method, "steps": steps, "power": power, "nfe": nfe_of(method, steps),
                       "seconds": time.perf_counter() - begun, **metrics.evaluate(made)})
    begun = time.perf_counter()
    made = sample(generator, sizes, seed, "adams", time_grid(PURE_STEPS), PureField)
    trials.append({"method": "adams, no memory", "steps": PURE_STEPS, "power": 1.0, "nfe": 2 * PURE_STEPS,
                   "seconds": time.perf_counter() - begun, **metrics.evaluate(made)})
    return {"trials": trials}


def sample(generator: Generator, sizes: np.ndarray, seed: int, method: Method, grid: torch.Tensor,
           kind: type[MoleculeField] | type[PureField] = MoleculeField) -> list[Molecule]:
    """A molecule of each size, from source points that depend on the seed alone."""
    rng = torch.Generator(device=generator.device).manual_seed(seed)
    made: list[Molecule] = []
    for part in np.array_split(sizes, max(1, -(-len(sizes) // CHUNK))):
        space = generator.space(part)
        field = kind(generator.network, space.mask)
        end = integrate(field, space.noise(rng), grid=grid, method=method).state
        made += unbatch(decode(end, space.mask, generator.vocabulary).to("cpu"))
    return made


def tables(results: dict[str, Any]) -> list[Table]:
    rows = [[f"{trial['method']}, power {trial['power']:g}", str(trial["nfe"]),
             *(percent(trial[key]) for key in FIGURES), number(trial["seconds"])]
            for trial in sorted(results["trials"], key=lambda trial: (trial["nfe"], trial["method"], trial["power"]))]
    count = results["trials"][0]["n"]
    error = 100 * (0.2 * 0.8 / count) ** 0.5
    return [Table(f"Solver, steps and time grid, {count:.0f} molecules each", ["", "NFE", *FIGURES.values(), "s"], rows,
                  "Times t = 1 - (1 - s)^power. Per cent; the source points are the same in every row, so that rows "
                  f"differ by less than the standard error of each (about {error:.1f} for molecules) would say.")]
