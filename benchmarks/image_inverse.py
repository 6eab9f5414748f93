"""Pictures restored: molflow, D-Flow and other methods on the same prior, and two without one."""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.inverse import ours, pictures
from benchmarks.inverse.gallery import gallery, strip
from benchmarks.inverse.methods import ON_A_PRIOR
from benchmarks.inverse.metrics import flip, psnr, ssim
from benchmarks.inverse.problem import Method, Problem
from benchmarks.inverse.race import memory, race
from benchmarks.inverse.reporting import against_seconds, decibels, spelt, standing, without_shown
from benchmarks.inverse.rivals import total_variation, wavelets
from benchmarks.record import Parts
from benchmarks.tables import Picture, Table, number
from molflow.adapters import image
from molflow.extras import require
from molflow.nn.weights import SHIPPED

WEIGHTS = "digits", "photos"
METHODS = {
    "molflow": ours.PICTURES,
    **ON_A_PRIOR,
    "total_variation": Method("total variation", total_variation.solve, total_variation.GRID),
    "wavelets": Method("wavelets", wavelets.solve, wavelets.GRID),
}
SHOWN = 8
"""Pictures of each task that are shown."""


def run(*, parts: Parts, pictures: list[Picture], n: int = 64, seed: int = 0, signals: str = "digits",
        weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` pictures a task. Raises DataError, ValueError or WeightsError where something is missing."""
    require("flip_evaluator")
    tasks, validation = problems(signals, n, seed, weights)
    rows = race(METHODS, tasks, validation, judge, "psnr", parts=parts, show=show, seed=seed)
    held = memory(METHODS, functools.partial(example, signals, weights), parts, seed)
    linear = {task: methods for task, methods in rows.items() if tasks[task][0].operator.linear}
    results = {"n": n, "signals": signals, "memory_mb": held, "tasks": rows,
               "standing": {"linear": standing(linear, "psnr"), "all": standing(rows, "psnr")}}
    pictures += [against_seconds(results, METHODS, "psnr", "picture"), *galleries(tasks, rows)]
    return without_shown(results)


def problems(signals: str, n: int, seed: int,
             weights: Path) -> tuple[dict[str, tuple[Problem, Tensor]], dict[str, tuple[Problem, Tensor]]]:
    """For each task what is to be solved with the clean pictures; and the same for validation."""
    clean, other = pictures.clean(signals, n, seed)
    adapter = image.prior(weights / f"{signals}.safetensors")
    found: list[dict[str, tuple[Problem, Tensor]]] = [
        {task: (pictures.problem(task, x, adapter, seed + 1), x) for task in pictures.TASKS} for x in (clean, other)]
    return found[0], found[1]


def example(signals: str, weights: Path, count: int) -> Problem:
    """For memory, which does not depend on the pictures."""
    torch.manual_seed(0)
    adapter = image.prior(weights / f"{signals}.safetensors")
    return pictures.problem("Gaussian deblurring", torch.rand(count, *adapter.shape) - 0.5, adapter, 0)


def judge(made: Tensor, clean: Tensor, problem: Problem) -> dict[str, Tensor | float]:
    misfit = (problem.operator(made) - problem.measured).flatten(1).square().mean(1).sqrt() / problem.noise
    return {"psnr": psnr(made, clean), "ssim": ssim(made, clean), "flip": flip(made, clean), "misfit": misfit}


def show(made: Tensor) -> str:
    """The first pictures as one PNG, in letters."""
    return base64.b64encode(strip(made[:SHOWN])).decode()


def galleries(tasks: dict[str, tuple[Problem, Tensor]],
              rows: dict[str, dict[str, list[dict[str, Any]]]]) -> list[Picture]:
    """A page for each task: what was measured, what each method made of it, what it was."""
    found = []
    for place, (task, (problem, clean)) in enumerate(tasks.items(), start=1):
        lines = {"measured": strip(problem.measured[:SHOWN], tuple(clean.shape[2:]))}
        lines |= {METHODS[name].label: base64.b64decode(measured[-1]["shown"]) for name, measured in rows[task].items()}
        lines["clean"] = strip(clean[:SHOWN])
        found.append(Picture(f"{place}", f"{task[0].upper()}{task[1:]}", gallery(lines),
                             f"The first {min(SHOWN, len(clean))} of {len(clean)}, none chosen."))
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    tasks = results["tasks"]
    names = [name for name in METHODS if any(name in methods for methods in tasks.values())]
    lines = [[METHODS[name].label, *(decibels(methods[name][-1]["psnr"]) if name in methods else "–"
                                     for methods in tasks.values())] for name in names]
    found = [Table(f"PSNR, dB, of {results['n']} {results['signals']} a task", ["", *tasks], lines,
                   f"Noise of {pictures.NOISE} ({pictures.MUCH} for denoising) on pixels in [-1, 1]. HDR: contrast "
                   "doubled, what exceeds the scale cut off. OT-ODE knows linear operators only.")]
    for task, methods in tasks.items():
        rows = [[METHODS[name].label, spelt(row["knobs"]), f"{decibels(row['psnr'])} ± "
                 f"{number(row.get('psnr_standard_error'), 1)}", number(row["ssim"]), number(row["flip"]),
                 number(row["misfit"]), number(row["nfe"]), number(row["seconds"]), number(row["cpu_seconds"]),
                 number(results["memory_mb"].get(name))]
                for name, measured in methods.items() for row in measured]
        found.append(Table(
            f"{task[0].upper()}{task[1:]}", ["", "knobs", "PSNR, dB", "SSIM", "FLIP", "misfit", "NFE", "s a picture",
                                             "processor s", "MB"], rows,
            "Misfit: root mean square of what is measured of the result, less what was measured, in units of the "
            "noise. FLIP: a difference as it is seen, 0 to 1. Memory: for each of 16 pictures at once."))
    return found
