"""Speech restored: molflow, D-Flow and other methods on the same prior; interpolation and wavelets without one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.inverse import ours, sounds
from benchmarks.inverse.methods import ON_A_PRIOR
from benchmarks.inverse.metrics import log_spectral_distance, snr, stoi
from benchmarks.inverse.problem import Method, Problem
from benchmarks.inverse.race import memory, race
from benchmarks.inverse.reporting import against_seconds, decibels, spelt, standing, without_shown
from benchmarks.inverse.rivals import interpolation, wavelets
from benchmarks.inverse.spectrograms import spectrograms
from benchmarks.record import Parts
from benchmarks.tables import Picture, Table, number
from molflow.adapters import audio
from molflow.adapters.adapter import Adapter
from molflow.data.speech import LOUDNESS
from molflow.extras import require
from molflow.nn.weights import SHIPPED

WEIGHTS = ("speech",)
METHODS = {
    "molflow": ours.SOUND,
    **ON_A_PRIOR,
    "wavelets": Method("wavelets", wavelets.solve, wavelets.GRID_OF_SOUND),
    "linear": Method("linear", interpolation.solve, interpolation.LINEAR, applies=interpolation.incomplete),
    "spline": Method("cubic spline", interpolation.solve, interpolation.SPLINE, applies=interpolation.incomplete),
}
DIGITS = 5
"""Behind the point, of the one clip of each task that is shown."""


def run(*, parts: Parts, pictures: list[Picture], n: int = 64, seed: int = 0,
        weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` clips a task. Raises DataError, ValueError or WeightsError where something is missing."""
    require("pystoi")
    adapter = prior(weights)
    clean, other = sounds.clean(n, adapter.shape[-1], seed)
    tasks, validation = ({task: (sounds.problem(task, x, adapter, seed + 1), x) for task in sounds.TASKS}
                         for x in (clean, other))
    rows = race(METHODS, tasks, validation, judge, "snr", parts=parts, show=show, seed=seed)
    held = memory(METHODS, functools.partial(example, weights), parts, seed)
    results = {"n": n, "memory_mb": held, "tasks": rows, "standing": {
        task: {**standing({task: rows[task]}, "snr"), "level_share": level_share(rows[task])} for task in rows
        if "molflow" in rows[task]}}
    pictures.append(against_seconds(results, METHODS, "snr", "clip"))
    for place, (task, methods) in enumerate(rows.items(), start=1):
        problem, _ = tasks[task]
        lines = {"measured": problem.measured[0, 0]}
        lines |= {METHODS[name].label: torch.tensor(measured[-1]["shown"]) for name, measured in methods.items()}
        pictures.append(Picture(f"{place}", f"{task[0].upper()}{task[1:]}",
                                spectrograms({**lines, "clean": clean[0, 0]}), "The first clip, not chosen."))
    return without_shown(results)


def prior(weights: Path) -> Adapter:
    """That of speech in a folder of weights. Raises WeightsError."""
    return audio.prior(weights / "speech.safetensors")


def example(weights: Path, count: int) -> Problem:
    """For memory, which does not depend on the clips."""
    torch.manual_seed(0)
    adapter = prior(weights)
    return sounds.problem("extension 4 → 8 kHz", 0.05 * torch.randn(count, 1, adapter.shape[-1]), adapter, 0)


def judge(made: Tensor, clean: Tensor, problem: Problem) -> dict[str, Tensor | float]:
    everywhere = torch.ones(1, 1, 1, dtype=torch.bool)
    return {"snr": snr(made, clean, sounds.missing(problem)), "snr_of_all": snr(made, clean, everywhere),
            "lsd": log_spectral_distance(made, clean), "stoi": stoi(made, clean)}


def level_share(methods: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """molflow's log-spectral distance as a share of each other method's."""
    return {name: methods["molflow"][-1]["lsd"] / rows[-1]["lsd"] for name, rows in methods.items()
            if name != "molflow"}


def show(made: Tensor) -> list[float]:
    """The first clip."""
    return [round(value, DIGITS) for value in made[0, 0].tolist()]


def tables(results: dict[str, Any]) -> list[Table]:
    found = []
    for task, methods in results["tasks"].items():
        rows = [[METHODS[name].label, spelt(row["knobs"]), f"{decibels(row['snr'])} ± "
                 f"{number(row.get('snr_standard_error'), 1)}", decibels(row["snr_of_all"]), number(row["lsd"]),
                 number(row["stoi"]), number(row["nfe"]), number(row["seconds"]),
                 number(row["cpu_seconds"]), number(results["memory_mb"].get(name))]
                for name, measured in methods.items() for row in measured]
        found.append(Table(
            f"{task[0].upper()}{task[1:]}, {results['n']} clips of half a second",
            ["", "knobs", "SNR, dB", "of all, dB", "LSD, dB", "STOI", "NFE", "s a clip", "processor s", "MB"],
            rows, f"Noise of {sounds.NOISE} ({sounds.MUCH} for denoising) of full scale, where speech has "
            f"{LOUDNESS}. SNR of what was missing, and of the whole clip; log-spectral distance; STOI of 16 clips one "
            "after the other. Memory: for each of 16 clips at once."))
    return found
