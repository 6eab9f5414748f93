"""One trainer for every model: a task says what a batch is and what the loss is, Fabric says where it runs."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import CSVLogger, TensorBoardLogger
from tqdm import tqdm

from molflow.allocator import keep_freed
from molflow.training.config import ConfigError, Run
from molflow.training.feed import Feed
from molflow.training.learner import Learner
from molflow.training.task import Task
from molflow.writing import written_whole

OFTEN = 50
"""Steps between two lines of the metrics: reading them waits for the GPU."""


def train(task: Task, out: Path, *, resume: bool = False, accelerator: str = "auto", devices: int = 1,
          stop_after: float = math.inf) -> dict[str, float]:
    """Train to the end of ``task.config.run`` or for ``stop_after`` seconds; returns the last validation.

    ``out`` receives ``config.json``, ``state.ckpt`` (to resume from, every few minutes, written under another
    name first), and the metrics as CSV and TensorBoard.

    Raises:
        FileExistsError: ``out`` holds a run and ``resume`` was not asked for.
        FileNotFoundError: there is nothing to resume.
    """
    run: Run = task.config.run
    state_file = out / "state.ckpt"
    if state_file.exists() and not resume:
        raise FileExistsError(f"{out} holds a run already: resume it with --resume or choose another --out")
    if resume and not state_file.exists():
        raise FileNotFoundError(f"nothing to resume in {out}: begin without --resume")
    out.mkdir(parents=True, exist_ok=True)

    fabric = Fabric(accelerator=accelerator, devices=devices, precision="32-true",
                    # no version given: a resumed run writes beside what the first one wrote, not over it
                    loggers=[CSVLogger(out, name="csv", flush_logs_every_n_steps=1),
                             TensorBoardLogger(out, name="tensorboard")])
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed()
    fabric.seed_everything(run.seed + fabric.global_rank, verbose=False)
    rank, world = fabric.global_rank, fabric.world_size
    learner = Learner(task, fabric)
    at_once = run.batch_size * world
    total = run.molecules // at_once
    step, spent = 0, 0.0
    if resume:
        check_same(json.loads((out / "config.json").read_text()), dataclasses.asdict(task.config), out)
        saved = torch.load(state_file, map_location="cpu", weights_only=True)
        learner.load_state_dict(saved)
        step, spent = saved["step"], saved["seconds"]

    def save() -> None:
        if fabric.is_global_zero:
            state = io.BytesIO()  # torch's own word on a full disk is about its own parts
            torch.save({**learner.state_dict(), "step": step, "molecules": step * at_once,
                        "seconds": spent + time.monotonic() - begun}, state)
            with written_whole(state_file) as temporary:
                temporary.write_bytes(state.getbuffer())

    def judge() -> dict[str, float]:
        figures = task.validate(learner.average.module, fabric.device)
        fabric.log_dict({f"valid/{key}": value for key, value in figures.items()}, step)
        return figures

    if fabric.is_global_zero:
        with written_whole(out / "config.json") as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(task.config), indent=1))
    feed = Feed(task, fabric, range(step * world + rank, total * world, world))
    begun = saved_at = judged_at = time.monotonic()
    bar = tqdm(total=total * at_once, initial=step * at_once, unit=" seen", smoothing=0.05,
               disable=not fabric.is_global_zero, mininterval=2)
    learner.network.train()
    for batch in feed:
        loss, parts = learner.loss(batch)
        learner.backward(loss)
        norm = learner.update(step, total)
        step += 1
        now = time.monotonic()
        bar.update(at_once)
        if step % OFTEN == 0:
            figures = {key: value.item() for key, value in {"loss": loss, "norm": norm, **parts}.items()}
            figures |= {"seconds": spent + now - begun, "molecules": step * at_once, **feed.figures()}
            fabric.log_dict(figures, step)
            bar.set_postfix({key: f"{figures[key]:.3g}" for key in ("loss", *parts, "waiting", "padding_pairs")})
        if now - saved_at > 60 * run.checkpoint_minutes:
            save()
            saved_at = now
        if now - judged_at > 60 * run.validate_minutes:
            figures = judge()
            if fabric.is_global_zero:
                tqdm.write(json.dumps({"molecules": step * at_once, **figures}))
            judged_at = time.monotonic()
        # all processes have to stop at the same step, and to agree on it takes time
        if (world == 1 or step % OFTEN == 0) and fabric.broadcast(now - begun > stop_after):
            break
    save()
    fabric.barrier()
    figures = judge()
    for logger in fabric.loggers:
        logger.finalize("success")
    return figures


def check_same(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """A resumed run may be longer or stop elsewhere, but not be another one. Raises ConfigError."""
    free = {"molecules", "compile", "workers", "weights", "checkpoint_minutes", "validate_minutes"}

    def fixed(config: dict[str, Any]) -> dict[str, Any]:
        run = {"batches": "molecules", **config["run"]}  # older runs had no choice of these, nor of the data
        return {"data": "qm9", **config, "run": {key: value for key, value in run.items() if key not in free}}

    if fixed(json.loads(json.dumps(now))) != fixed(before):
        raise ConfigError(f"the run in {out} has other settings: resume it with its own, {out / 'config.json'}")
