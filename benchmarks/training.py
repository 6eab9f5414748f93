"""Training the generator: molecules a second, where the time goes, and how far from what the machine could do."""

from __future__ import annotations

import dataclasses
import io
import os
import time
from itertools import count
from statistics import mean
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from benchmarks import floors
from benchmarks.data import needed_qm9
from benchmarks.floors import Cost
from benchmarks.memory import peak_mb
from benchmarks.tables import Table, number, percent
from molflow.models import pick_device
from molflow.training.config import GeneratorConfig, load
from molflow.training.feed import Feed
from molflow.training.generator import GeneratorTask
from molflow.training.learner import Learner
from molflow.training.pairing import pair
from molflow.training.task import Batch

CPU = torch.device("cpu")


def run(*, n: int = 40, seed: int = 0, device: str = "auto", recipe: str = "generator") -> dict[str, Any]:
    """The first steps of a recipe: a few to compile, ``n`` as they come, ``n`` more with a stop after each part."""
    where, load_average = pick_device(device), os.getloadavg()[0]
    config = load(GeneratorConfig, recipe)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, seed=seed))
    task = GeneratorTask(config, needed_qm9())
    learner = Learner(task, Fabric(accelerator=where.type, devices=1, precision="32-true"))
    learner.network.train()

    begun = time.perf_counter()
    first = warm_up(learner, task)
    floors.clock(where)  # waits for a GPU
    compiling = time.perf_counter() - begun
    training = whole(learner, task, range(first, first + n + 1))
    apart = split(learner, task, range(first + n + 1, first + 2 * n + 1))
    return {
        "recipe": recipe,
        "parameters": sum(p.numel() for p in task.network.parameters()),
        "batch_size": config.run.batch_size,
        "precision": config.run.precision,
        "compiled": config.run.compile,
        "load_average": load_average,
        "warm_up_seconds": compiling,
        "training": training,
        "milliseconds": apart,
        "data": data(task, range(first, first + max(2, 2000 // config.run.batch_size))),
        "peak_mb": torch.cuda.max_memory_allocated(where) / 1e6 if where.type == "cuda" else peak_mb(),
        "state_mb": _megabytes(learner.state_dict()),
        "floors": bounds(learner, task, range(first + n + 1, first + 2 * n + 1), apart["forward"] + apart["backward"]),
    }


def step(learner: Learner, batch: Batch, number: int) -> None:
    """One step of training."""
    loss, _ = learner.loss(batch)
    learner.backward(loss)
    learner.update(number, learner.run.molecules // learner.run.batch_size)


def warm_up(learner: Learner, task: GeneratorTask) -> int:
    """Steps until both kinds of batch were met, with and without self-conditioning, and at least three of them:
    whatever has to be compiled is then compiled. How many there were."""
    kinds: set[bool] = set()
    for i in count():
        if len(kinds) == 2 and i > 2:
            return i
        batch = learner.fabric.to_device(task.batch(i))
        kinds.add(batch["alone"])
        step(learner, batch, i)
    raise AssertionError


def whole(learner: Learner, task: GeneratorTask, numbers: range) -> dict[str, float]:
    """Training as it is, from the end of the first of these steps on."""
    feed = Feed(task, learner.fabric, numbers)
    for i, batch in zip(numbers, feed, strict=True):
        step(learner, batch, i)
        if i == numbers[0]:
            floors.clock(learner.fabric.device)
            feed.figures()  # what came before does not count
    floors.clock(learner.fabric.device)
    return feed.figures()


def split(learner: Learner, task: GeneratorTask, numbers: range) -> dict[str, float]:
    """Mean milliseconds of the parts of a step when each waits for the one before, data without workers."""
    device, total = learner.fabric.device, learner.run.molecules // learner.run.batch_size
    spent: dict[str, list[float]] = {"data": [], "forward": [], "backward": [], "optimiser": []}
    for i in numbers:
        batch = floors.timed(lambda i=i: learner.fabric.to_device(task.batch(i)), device, spent["data"])
        loss, _ = floors.timed(lambda batch=batch: learner.loss(batch), device, spent["forward"])
        floors.timed(lambda loss=loss: learner.backward(loss), device, spent["backward"])
        floors.timed(lambda i=i: learner.update(i, total), device, spent["optimiser"])
    return {key: 1000 * mean(values) for key, values in spent.items()}


def data(task: GeneratorTask, numbers: range) -> dict[str, float]:
    """Microseconds of one core that a molecule takes, and molecules a second that the recipe's workers supply."""
    read, paired, everything = [], [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    for i in numbers:
        batch = floors.timed(lambda i=i: task.batch(i), CPU, everything)
        molecules = floors.timed(lambda i=i: task.store.batch(task.buckets[i]), CPU, read)
        noise = torch.randn_like(batch["noise_positions"]) * batch["mask"][..., None]
        floors.timed(lambda x=noise, y=batch["positions"], n=molecules.sizes: pair(x, y, n), CPU, paired)
    torch.set_num_threads(threads)
    run = task.config.run
    each = {key: 1e6 * mean(values) / run.batch_size
            for key, values in {"read": read, "pair": paired, "all": everything}.items()}
    return {**each, "workers": run.workers, "supply": max(run.workers, 1) * 1e6 / each["all"]}


def bounds(learner: Learner, task: GeneratorTask, numbers: range, milliseconds: float) -> dict[str, Any]:
    """What a molecule costs in a forward and a backward pass, on the mean of these batches, what that allows at the
    machine's measured rates, and how much of that is reached by a step that takes so long for the two."""
    run, device = learner.run, learner.fabric.device
    network = learner.average.module  # never compiled, so that every operator is seen
    parameters = list(network.parameters())

    def cost(batch: Batch, alone: bool) -> Cost:
        def forward(molecules: int) -> Tensor:
            few = {key: value[:molecules] if isinstance(value, Tensor) else value for key, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"):
                return task.loss(network, {**few, "alone": alone})[0]

        return floors.at_size(lambda molecules: floors.count(lambda: forward(molecules), parameters), run.batch_size)

    mean_cost, seen, inputs = Cost(), {}, 0.0
    share = task.config.self_condition
    for i in numbers:
        batch = learner.fabric.to_device(task.batch(i))
        width = batch["mask"].shape[1]
        if width not in seen:
            seen[width] = Cost().plus(cost(batch, True), 1 - share).plus(cost(batch, False), share)
        mean_cost = mean_cost.plus(seen[width], 1 / len(numbers))
        inputs += sum(x.nbytes for x in batch.values() if isinstance(x, Tensor)) / len(numbers)

    weights = sum(p.nbytes for p in parameters)
    # saved: written once, read once; weights: read in each pass, their gradients written; self-conditioning: read again
    fused = 2 * mean_cost.saved + (3 + share) * weights + (1 + share) * inputs
    dtype = torch.bfloat16 if run.precision == "bf16" else torch.float32
    matmul, copy = floors.matmul_rate(device, dtype), floors.copy_rate(device)
    a_molecule = {"arithmetic": mean_cost.flops / run.batch_size, "unfused": 2 * mean_cost.written / run.batch_size,
                  "fused": fused / run.batch_size}
    at_best = {key: (matmul if key == "arithmetic" else copy) / amount for key, amount in a_molecule.items()}
    rate = 1000 * run.batch_size / milliseconds
    loss, _ = learner.loss(batch)
    learner.backward(loss)
    with floors.Written() as update:
        learner.update(numbers[-1], run.molecules // run.batch_size)
    return {"matmul_flops_per_second": matmul, "copy_bytes_per_second": copy, "a_molecule": a_molecule,
            "molecules_per_second": at_best, "reached": {key: rate / best for key, best in at_best.items()},
            "operators": {"forward and backward": mean_cost.operators, "optimiser": update.operators}}


def _megabytes(state: dict[str, Any]) -> float:
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell() / 1e6


def tables(results: dict[str, Any]) -> list[Table]:
    speed, apart, supply, limit = (results[key] for key in ("training", "milliseconds", "data", "floors"))
    total = sum(apart.values())
    rows = [["molecules/s", number(speed["molecules_per_second"])],
            ["waiting for data, %", percent(speed["waiting"])],
            ["padding, % of the atoms", percent(speed["padding"])],
            ["padding, % of the pairs", percent(speed["padding_pairs"])],
            ["peak memory, MB", number(results["peak_mb"])],
            ["state.ckpt, MB", number(results["state_mb"])],
            ["compiling and first steps, s", number(results["warm_up_seconds"])],
            ["other work on this machine's processor, load average", number(results["load_average"])]]
    names = {"arithmetic": ("matrix products, GFLOP", 1e9), "unfused": ("traffic if nothing is fused, MB", 1e6),
             "fused": ("traffic if all is fused, MB", 1e6)}
    bests = [[text, number(limit["a_molecule"][key] / unit), number(limit["molecules_per_second"][key]),
              percent(limit["reached"][key])] for key, (text, unit) in names.items()]
    return [
        Table(f"Training `{results['recipe']}`: {results['parameters'] / 1e6:.2f} M parameters, batches of "
              f"{results['batch_size']}, {results['precision']}", ["", "value"], rows),
        Table("A step, part by part", ["", "ms", "%"],
              [[key, number(value), percent(value / total)] for key, value in apart.items()],
              "Each part waits for the one before; on a CPU, time given to this process. Operators before compiling: "
              + ", ".join(f"{key} {value:.0f}" for key, value in limit["operators"].items()) + "."),
        Table("Data, µs of one core for a molecule", ["read", "pair", "all", "workers", "molecules/s of the workers"],
              [[*(number(supply[key]) for key in ("read", "pair", "all")), str(supply["workers"]),
                number(supply["supply"])]]),
        Table("Floors of the forward and the backward pass together",
              ["", "a molecule", "molecules/s at best", "reached, %"], bests,
              f"Measured here: {limit['matmul_flops_per_second'] / 1e12:.3g} TFLOP/s in {results['precision']}, "
              f"{limit['copy_bytes_per_second'] / 1e9:.3g} GB/s copying. Nothing fused: each operator's result written "
              "and read once, an estimate. All fused: saved tensors written and read once, weights read once a pass, "
              "gradients written and inputs read once."),
    ]
