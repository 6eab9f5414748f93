"""All methods on all tasks: what each restores, and what it costs."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from benchmarks.inverse.problem import Method, Problem, Solved
from benchmarks.memory import peak_mb, resident_mb
from benchmarks.record import Parts

AT_ONCE = 16
"""Signals that are solved together."""

Judge = Callable[[Tensor, Tensor, Problem], dict[str, Tensor | float]]
"""(restored, clean, problem) -> figures, each (B,) or, of all together, one number."""


def race(methods: Mapping[str, Method], tasks: Mapping[str, tuple[Problem, Tensor]],
         validation: Mapping[str, tuple[Problem, Tensor]], judge: Judge, best: str, *, parts: Parts,
         show: Callable[[Tensor], Any], seed: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """For each task and method a row for each effort.

    Args:
        methods: by name.
        tasks, validation: by name, what is to be solved and the clean signals, which are for the judge alone.
        judge: what is measured of a result.
        best: the figure, more of which is better, that knobs are chosen by.
        parts: one for each task and method.
        show: what is kept of a result, for pictures.
        seed: of what methods draw.
    """
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task, (problem, clean) in tasks.items():
        results[task] = {}
        for name, method in methods.items():
            if not method.applies(problem):
                continue
            print(f"{task}: {method.label}", file=sys.stderr)

            def measure(task=task, problem=problem, clean=clean, method=method) -> dict[str, Any]:
                knobs = tuned(method, *validation[task], judge, best, seed)
                return {"rows": [row(method, {**knobs, **effort}, problem, clean, judge, show, seed)
                                 for effort in method.efforts]}

            results[task][name] = parts(f"{_file(task)}.{name}", measure)["rows"]
    return results


def tuned(method: Method, problem: Problem, clean: Tensor, judge: Judge, best: str, seed: int) -> Mapping[str, Any]:
    """The knobs that serve the validation signals best, at the effort that is reported."""
    if len(method.grid) == 1:
        return method.grid[0]

    def merit(knobs: Mapping[str, Any]) -> float:
        figure = torch.as_tensor(judge(solved(method, problem, {**knobs, **method.efforts[-1]}, seed).signal, clean,
                                       problem)[best]).mean().item()
        return figure if math.isfinite(figure) else -math.inf  # it fell apart

    return max(method.grid, key=merit)


def row(method: Method, knobs: Mapping[str, Any], problem: Problem, clean: Tensor, judge: Judge,
        show: Callable[[Tensor], Any], seed: int) -> dict[str, Any]:
    """Figures of all signals, and what they cost."""
    begun, spent = time.perf_counter(), time.process_time()
    found = solved(method, problem, knobs, seed)
    wall, cpu = time.perf_counter() - begun, time.process_time() - spent
    figures: dict[str, Any] = {}
    for key, values in judge(found.signal, clean, problem).items():
        values = torch.as_tensor(values).double()
        figures[key] = values.mean().item()
        if values.dim() and len(values) > 1:
            figures[f"{key}_standard_error"] = values.std().item() / math.sqrt(len(values))
    return {**figures, "knobs": dict(knobs), "nfe": found.nfe, "seconds": wall / len(clean),
            "cpu_seconds": cpu / len(clean), "shown": show(found.signal)}


def solved(method: Method, problem: Problem, knobs: Mapping[str, Any], seed: int) -> Solved:
    """`AT_ONCE` signals at a time; what falls apart counts as silence, or grey."""
    chunks = torch.arange(len(problem)).split(AT_ONCE)
    found = [method.solve(problem.select(index), seed=seed + number, **knobs) for number, index in enumerate(chunks)]
    nfe = sum(one.nfe * len(index) for one, index in zip(found, chunks, strict=True)) / len(problem)
    return Solved(torch.cat([one.signal.detach().cpu() for one in found]).nan_to_num(0, 0, 0), nfe)


def memory(methods: Mapping[str, Method], problem: Callable[[int], Problem], parts: Parts,
           seed: int) -> dict[str, float]:
    """MB a signal where `AT_ONCE` are solved together, each method in a process of its own, which remembers the most it
    ever held."""
    # glibc keeps freed blocks of up to 32 MB; told to give them back, resident memory is memory in use
    os.environ["MALLOC_MMAP_THRESHOLD_"] = os.environ["MALLOC_TRIM_THRESHOLD_"] = "65536"

    def measure() -> dict[str, Any]:
        found = {}
        for name, method in methods.items():
            print(f"memory: {method.label}", file=sys.stderr)
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                found[name] = pool.submit(_held, method, problem, seed).result()
        return found

    return {name: value for name, value in parts("memory", measure).items() if name in methods}


def _held(method: Method, problem: Callable[[int], Problem], seed: int) -> float:
    knobs = {**method.grid[0], **method.efforts[0]}
    many = problem(AT_ONCE)
    solved(method, problem(1), knobs, seed)  # libraries allocate for themselves on first use
    before = resident_mb()
    solved(method, many, knobs, seed)
    return max(0.0, peak_mb() - before) / AT_ONCE


def _file(task: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in task).split())
