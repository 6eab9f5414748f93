"""One trainer for every model: a task says what a batch is and what the loss is, Fabric says where it runs."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from molflow.training.config import ConfigError, Run

Batch = dict[str, Any]


class Task(Protocol):
    """What is trained: a network, where its batches come from, its loss and how it is judged."""

    config: Any
    network: nn.Module

    def batch(self, step: int) -> Batch:
        """Batch number ``step``: a pure function, so that a resumed run sees what it would have seen."""
        ...

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and its parts."""
        ...

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Figures of merit of the averaged weights."""
        ...


class _Steps(Dataset):
    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitem__(self, step: int) -> Batch:
        return self.task.batch(step)


def schedule(done: float, run: Run) -> float:
    """Factor on the learning rate after a share ``done`` of the run: linear rise, flat, linear fall to zero."""
    rise = done / run.warmup if run.warmup else 1.0
    return min(1.0, rise, (1 - done) / run.cooldown if run.cooldown else 1.0)


def optimisers(network: nn.Module, run: Run) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024; orthogonalised momentum) for the hidden matrices, AdamW for everything else."""
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and is_hidden(name)]
    chosen = {id(p) for p in matrices}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=run.rate, weight_decay=run.weight_decay, betas=(0.9, 0.98))
    if not matrices:
        return [adam]
    muon = torch.optim.Muon(matrices, lr=run.rate_matrix, weight_decay=run.weight_decay,
                            adjust_lr_fn="match_rms_adamw")
    return [adam, muon]


def is_hidden(name: str) -> bool:
    """Muon is for maps between hidden features, not for first and last layers."""
    return name.startswith("layers.")


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
        raise FileNotFoundError(f"nothing to resume in {out}")
    out.mkdir(parents=True, exist_ok=True)

    # Fabric's own mixed precision would round positions and times to bfloat16 on their way into the network
    fabric = Fabric(accelerator=accelerator, devices=devices, precision="32-true",
                    # no version given: a resumed run writes beside what the first one wrote, not over it
                    loggers=[CSVLogger(out, name="csv", flush_logs_every_n_steps=1),
                             TensorBoardLogger(out, name="tensorboard")])
    fabric.launch()
    fabric.seed_everything(run.seed + fabric.global_rank, verbose=False)
    optims = optimisers(task.network, run)
    ema = torch.optim.swa_utils.AveragedModel(task.network, multi_avg_fn=ema_update(run.ema))
    ema.to(fabric.device)
    if run.compile:
        task.network.compile(dynamic=True)
    network, *optims = fabric.setup(task.network, *optims)
    total = run.molecules // (run.batch_size * fabric.world_size)
    step, spent = 0, 0.0
    if resume:
        check_same(json.loads((out / "config.json").read_text()), dataclasses.asdict(task.config), out)
        saved = torch.load(state_file, map_location=fabric.device, weights_only=True)
        task.network.load_state_dict(saved["network"])
        ema.load_state_dict(saved["ema"])
        for optim, values in zip(optims, saved["optimisers"], strict=True):
            optim.load_state_dict(values)
        step, spent = saved["step"], saved["seconds"]

    def save() -> None:
        if fabric.is_global_zero:
            part = state_file.with_suffix(".part")
            torch.save({"network": task.network.state_dict(), "ema": ema.state_dict(),
                        "optimisers": [optim.state_dict() for optim in optims], "step": step,
                        "seconds": spent + time.monotonic() - begun}, part)
            os.replace(part, state_file)

    def judge() -> dict[str, float]:
        figures = task.validate(ema.module, fabric.device)
        fabric.log_dict({f"valid/{key}": value for key, value in figures.items()}, step)
        return figures

    if fabric.is_global_zero:
        (out / "config.json").write_text(json.dumps(dataclasses.asdict(task.config), indent=1))
    rank, world = fabric.global_rank, fabric.world_size
    loader = DataLoader(_Steps(task), batch_size=None, sampler=range(step * world + rank, total * world, world),
                        num_workers=run.workers, prefetch_factor=8 if run.workers else None)
    begun = saved_at = judged_at = time.monotonic()
    waiting, wait_from = 0.0, begun
    bar = tqdm(total=total * run.batch_size * world, initial=step * run.batch_size * world, unit="mol",
               smoothing=0.05, disable=not fabric.is_global_zero, mininterval=2)
    network.train()
    for batch in loader:
        batch = fabric.to_device(batch)
        waiting += time.monotonic() - wait_from
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = group.setdefault("peak", group["lr"]) * schedule((step + 1) / (total + 1), run)
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=run.precision == "bf16"):
            loss, parts = task.loss(network, batch)
        fabric.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(task.network.parameters(), run.clip)
        # one bad batch must not spoil the weights; NaN compares false
        if bool(norm < 1e4):
            for optim in optims:
                optim.step()
        for optim in optims:
            optim.zero_grad()
        ema.update_parameters(task.network)
        step += 1
        now = time.monotonic()
        bar.update(run.batch_size * world)
        if step % 50 == 0:
            figures = {"loss": loss.item(), "norm": norm.item(), "seconds": spent + now - begun,
                       "molecules": step * run.batch_size * world, "waiting": waiting / (now - begun)}
            figures |= {key: value.item() for key, value in parts.items()}
            fabric.log_dict(figures, step)
            bar.set_postfix({key: f"{figures[key]:.3g}" for key in ("loss", *parts, "waiting")})
        if now - saved_at > 60 * run.checkpoint_minutes:
            save()
            saved_at = now
        if now - judged_at > 60 * run.validate_minutes:
            tqdm.write(json.dumps({"molecules": step * run.batch_size * world, **judge()}))
            judged_at = time.monotonic()
        if now - begun > stop_after:
            break
        wait_from = time.monotonic()
    save()
    figures = judge()
    for logger in fabric.loggers:
        logger.finalize("success")
    return figures


def check_same(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """A resumed run may be longer or stop elsewhere, but not be another one. Raises ConfigError."""
    free = {"molecules", "compile", "workers", "checkpoint_minutes", "validate_minutes"}

    def fixed(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "run": {key: value for key, value in config["run"].items() if key not in free}}

    if fixed(json.loads(json.dumps(now))) != fixed(before):
        raise ConfigError(f"the run in {out} has other settings: resume it with its own, {out / 'config.json'}")


def ema_update(decay: float) -> Any:
    """Exponential average whose window grows with the run at first, so that the start is forgotten soon."""
    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averaged, current, weight)

    return update
