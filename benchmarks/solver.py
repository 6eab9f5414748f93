"""The solver core: error against NFE, memory against steps, batched L-BFGS against one sample at a time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from benchmarks.memory import available_mb, peak_mb, resident_mb
from benchmarks.tables import Table, number, percent
from molflow.flow.lbfgs import minimise
from molflow.flow.solvers import Method, integrate, integrate_adaptive, memoryless, nfe_of, time_grid
from molflow.flow.state import State, per_sample
from molflow.models import Generator, pick_device
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace
from molflow.nn.velocity import MoleculeField, VelocityConfig, VelocityNetwork
from molflow.nn.weights import SHIPPED

POWERS = (1.0, 1.3)  # of the time grid: 1 is uniform, more makes the steps near the data shorter
NFE = (4, 8, 16, 32, 64, 128)
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
MOLECULES, ATOMS = 16, 18
DIMENSIONS = 50
MAX_EVALS, GTOL = 1000, 1e-6


def run(*, n: int = 64, seed: int = 0, device: str = "auto", weights: Path = SHIPPED,
        steps: Sequence[int] = (2, 4, 8, 16, 32, 64)) -> dict[str, Any]:
    """``n`` samples of the known flow and ``n`` problems of each kind; ``steps`` at which memory is measured."""
    where = pick_device(device)
    return {"accuracy": accuracy(n, seed), "memory": memory(steps, weights, where, seed), "lbfgs": lbfgs(n, seed)}


# Error against NFE


def accuracy(n: int, seed: int) -> list[dict[str, Any]]:
    """Root-mean-square error of x(1) on the flow from N(0, 1) to N(m, diag s²), whose answer is m + s x(0).

    The path has x(t) ~ N(t m, σ²), σ² = (1 - t)² + t² s², so u = m + (dσ/dt / σ)(x - t m). The widths s reach
    from 0.05 to 2, as a molecule's stiff bonds and soft torsions do: narrow ones make the field stiff near t = 1.
    """
    rng = torch.Generator().manual_seed(seed)
    s = torch.logspace(math.log10(0.05), math.log10(2.0), DIMENSIONS, dtype=torch.float64)
    m = torch.randn(DIMENSIONS, generator=rng, dtype=torch.float64)
    x0 = torch.randn(n, DIMENSIONS, generator=rng, dtype=torch.float64)

    def velocity(t: Tensor, x: State) -> State:
        time = per_sample(t, x["x"])
        rate = (time * s**2 - (1 - time)) / ((1 - time) ** 2 + (time * s) ** 2)
        return {"x": m + rate * (x["x"] - time * m)}

    def error(end: State) -> float:
        return (end["x"] - (m + s * x0)).square().mean().sqrt().item()

    field, start = memoryless(velocity), {"x": x0}
    rows = []
    for power in POWERS:
        for method in get_args(Method):
            for nfe in NFE:
                steps = nfe // nfe_of(method, 1)
                end = integrate(field, start, grid=time_grid(steps, power=power), method=method).state
                rows.append({"method": method, "grid_power": power, "nfe": nfe, "error": error(end)})
    for tolerance in TOLERANCES:
        end = integrate_adaptive(field, start, t0=0.0, t1=1.0, rtol=tolerance, atol=tolerance)
        rows.append({"method": "dopri5", "tolerance": tolerance, "nfe": end.nfe, "error": error(end.state)})
    return rows


# Memory against steps


def memory(steps: Sequence[int], weights: Path, device: torch.device, seed: int) -> dict[str, Any]:
    """Peak memory of one gradient to the source through the generator, each measured in a process of its own.

    Without checkpoints memory is expected to grow with the steps: what would not fit is not tried.
    """
    trained = weights != SHIPPED or (weights / "generator.safetensors").exists()
    rows: list[dict[str, Any]] = []
    for checkpoint in (True, False):
        per_step = 0.0
        for count in sorted(steps):
            row: dict[str, Any] = {"steps": count, "checkpoint": checkpoint, "nfe_per_molecule": 3 * count}
            expected = per_step * count
            if not checkpoint and expected > available_mb(device) / 2:
                row |= {"peak_mb": None, "seconds_per_molecule": None,
                        "skipped": f"about {expected:.0f} MB, more than half of what is free"}
            else:
                # Spawned, not forked: a forked child starts with its parent's memory.
                # glibc keeps freed blocks of up to 32 MB; told to give them back, resident memory is memory in use
                os.environ["MALLOC_MMAP_THRESHOLD_"] = os.environ["MALLOC_TRIM_THRESHOLD_"] = "65536"
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    work = pool.submit(_gradient, count, checkpoint, weights if trained else None, device.type, seed)
                    row |= work.result()
                per_step = row["peak_mb"] / count
            rows.append(row)
    return {"network": "generator.safetensors" if trained else "random weights of the default size",
            "molecules": MOLECULES, "atoms": ATOMS, "rows": rows}


def _gradient(steps: int, checkpoint: bool, weights: Path | None, device: str, seed: int) -> dict[str, float]:
    if weights is None:
        torch.manual_seed(seed)
        network = VelocityNetwork(QM9, VelocityConfig()).eval().requires_grad_(False).to(device)
    else:
        network = Generator.load(weights / "generator.safetensors", device).network
    gpu = device == "cuda"

    def descend(molecules: int, steps: int) -> None:
        space = MoleculeSpace(torch.ones(molecules, ATOMS, dtype=torch.bool, device=device), QM9)
        source = space.pack(space.noise(torch.Generator().manual_seed(seed))).requires_grad_()
        end = integrate(MoleculeField(network, space.mask), space.unpack(source), method="adams",
                        grid=time_grid(steps), checkpoint=checkpoint).state
        torch.autograd.grad(sum(value.square().sum() for value in end.values()), source)
        if gpu:
            torch.cuda.synchronize()

    descend(1, 1)  # libraries allocate for themselves on first use
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() / 1e6 if gpu else resident_mb()
    begun = time.perf_counter()
    descend(MOLECULES, steps)
    seconds = time.perf_counter() - begun
    after = torch.cuda.max_memory_allocated() / 1e6 if gpu else peak_mb()
    return {"peak_mb": after - before, "seconds_per_molecule": seconds / MOLECULES}


# Batched L-BFGS


def lbfgs(n: int, seed: int) -> dict[str, Any]:
    """``n`` problems at once by molflow's L-BFGS, and one after the other by torch's, stopping by the same rules:
    largest gradient entry or number of evaluations, strong-Wolfe line search and ten pairs in both.
    """
    rng = torch.Generator().manual_seed(seed)
    start = torch.randn(n, DIMENSIONS, generator=rng, dtype=torch.float64)
    optimum = torch.randn(n, DIMENSIONS, generator=rng, dtype=torch.float64)
    curvature = 10 ** (3 * torch.rand(n, DIMENSIONS, generator=rng, dtype=torch.float64))

    def quadratic(z: Tensor, index: Tensor) -> Tensor:
        return 0.5 * (curvature[index] * (z - optimum[index]).square()).sum(1)

    def rosenbrock(z: Tensor, index: Tensor) -> Tensor:
        """In pairs, so that there is one minimum only: z = 1."""
        a, b = z[:, ::2], z[:, 1::2]
        return (100 * (b - a.square()).square() + (1 - a).square()).sum(1)

    kinds = {"quadratic, condition 1000": quadratic, "Rosenbrock": rosenbrock}
    return {name: _race(fun, start) for name, fun in kinds.items()}


def _race(fun: Callable[[Tensor, Tensor], Tensor], start: Tensor) -> dict[str, Any]:
    begun = time.perf_counter()
    ours = minimise(fun, start, max_evals=MAX_EVALS, gtol=GTOL, ftol=0.0)
    batched = _outcome(ours.loss, ours.evals.double(), time.perf_counter() - begun)

    begun = time.perf_counter()
    losses, evals = [], []
    for i in range(len(start)):
        index = torch.tensor([i])
        z = start[i : i + 1].clone().requires_grad_()
        optimiser = torch.optim.LBFGS([z], max_iter=MAX_EVALS, max_eval=MAX_EVALS, history_size=10,
                                      tolerance_grad=GTOL, tolerance_change=0.0, line_search_fn="strong_wolfe")
        spent = 0

        def closure(z: Tensor = z, index: Tensor = index, optimiser: torch.optim.LBFGS = optimiser) -> float:
            nonlocal spent
            spent += 1
            optimiser.zero_grad()
            loss = fun(z, index).sum()
            loss.backward()
            return loss.item()

        optimiser.step(closure)
        losses.append(fun(z.detach(), index))
        evals.append(float(spent))
    single = _outcome(torch.cat(losses), torch.tensor(evals), time.perf_counter() - begun)
    return {"batched": batched, "torch_one_at_a_time": single,
            "throughput_ratio": batched["problems_per_second"] / single["problems_per_second"]}


def _outcome(loss: Tensor, evals: Tensor, seconds: float) -> dict[str, float]:
    return {"median_loss": loss.median().item(), "worst_loss": loss.max().item(),
            "solved": (loss < 1e-8).double().mean().item(), "mean_evals": evals.mean().item(),
            "seconds": seconds, "problems_per_second": len(loss) / seconds}


def tables(results: dict[str, Any]) -> list[Table]:
    rows = results["accuracy"]
    fixed = {(row["method"], row["grid_power"]): {} for row in rows if "grid_power" in row}
    for row in rows:
        if "grid_power" in row:
            fixed[row["method"], row["grid_power"]][row["nfe"]] = row["error"]
    lines = [[f"{method}, grid power {power:g}", *(f"{errors[nfe]:.1e}" for nfe in NFE)]
             for (method, power), errors in fixed.items()]
    adaptive = [[f"{row['tolerance']:.0e}", str(row["nfe"]), f"{row['error']:.1e}"]
                for row in rows if "tolerance" in row]
    costs = [[str(row["steps"]), "yes" if row["checkpoint"] else "no", str(row["nfe_per_molecule"]),
              number(row["peak_mb"]) if row["peak_mb"] is not None else row["skipped"],
              number(row["seconds_per_molecule"])] for row in results["memory"]["rows"]]
    races = [[f"{kind}: {label}", number(race[key]["median_loss"]), number(race[key]["worst_loss"]),
              percent(race[key]["solved"]), number(race[key]["mean_evals"]), number(race[key]["problems_per_second"]),
              number(race["throughput_ratio"]) if key == "batched" else "1"]
             for kind, race in results["lbfgs"].items()
             for key, label in (("batched", "molflow, one batch"), ("torch_one_at_a_time", "torch, one at a time"))]
    setting = results["memory"]
    return [
        Table("Error of x(1), Gaussian to Gaussian in 50 dimensions, by NFE", ["method", *map(str, NFE)], lines),
        Table("The same by dopri5", ["tolerance", "NFE", "error"], adaptive),
        Table(f"One gradient to the source, {setting['molecules']} molecules of {setting['atoms']} atoms, "
              f"{setting['network']}", ["steps", "checkpoints", "NFE a molecule", "peak MB", "s a molecule"], costs,
              "NFE: a backward pass counts as two. Memory: above what the process held before, in its own process."),
        Table("L-BFGS, 50 dimensions, known optimum 0",
              ["", "median loss", "worst loss", "below 1e-8, %", "evaluations", "problems/s", "throughput ratio"],
              races),
    ]
