"""Commands killed at a random moment: whether anything is half-written, and what comes out when they go on."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch

from benchmarks import campaign_kill
from benchmarks.record import Parts
from benchmarks.tables import Table, number
from benchmarks.whole import is_temporary, not_whole
from molflow.data import moses3d
from molflow.data.store import PARTS, MoleculeStore, data_folder
from molflow.designer import sample
from molflow.models import Predictor
from molflow.molecules.convert import collate
from molflow.molecules.io import write_sdf
from molflow.nn.property import UNITS

CHECKPOINT = 1.2
"""Seconds between two checkpoints of the training."""

RECIPE = f"""
[run]
part = "train"
molecules = 8_000
batch_size = 8
precision = "float32"
compile = false
checkpoint_minutes = {CHECKPOINT / 60}

[network]
layers = 1
scalars = 32
density = 16
vectors = 16
tensors = 8
"""

MOST_TRIES = 3
"""Times a command is begun for each time that it is to be killed, at most."""

SMALL_PARTS = "from molflow.data import moses3d; moses3d.PART = 50; from molflow.cli import main; main()"
"""The command, with parts that take seconds and not half a minute."""

Content = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A command that is to be killed.

    Attributes:
        begin: Python's arguments that start it, for a folder in which everything lies that it writes.
        go_on: what its documentation says to add when it has been stopped.
        content: all that it makes and that must not depend on stops, by name.
        kept: what is not to be made again, by name, with something that changes if it is. None: nothing is promised.
        checkpoints: patterns of the files that mark how far it has come.
    """

    begin: Callable[[Path], list[str]]
    go_on: Callable[[Path], list[str]]
    content: Callable[[Path], Content]
    kept: Callable[[Path], Content] | None = None
    checkpoints: tuple[str, ...] = ()


def run(*, n: int = 10, seed: int = 0, parts: Parts) -> dict[str, Any]:
    """Each of five commands once undisturbed and ``n`` times killed, with all its processes, at a moment drawn evenly
    from the time that it takes undisturbed, and then told to go on."""
    with TemporaryDirectory() as folder:
        found: dict[str, Any] = {}
        for name, case in cases(prepare(Path(folder), seed), seed).items():
            part = name.replace(" ", "-")
            wanted = parts(f"{part}-undisturbed", partial(_apart, undisturbed, case))
            kills: list[dict[str, Any]] = []
            # one that ends before its moment has not been killed: another is, at the next moment that is drawn
            while sum(kill["hit"] for kill in kills) < n and len(kills) < MOST_TRIES * n:
                moment = wanted["seconds"] * Random(f"{seed} {name} {len(kills)}").random()
                kills.append(parts(f"{part}-{len(kills):02}", partial(_apart, killed, case, moment)))
            found[name] = {"seconds": wanted["seconds"], "promises": case.kept is not None, "compared":
                           sorted(wanted["content"]), "kills": [_judged(kill, wanted["content"]) for kill in kills]}
        hit = [kill for one in found.values() for kill in one["kills"] if kill["hit"]]
        return {"commands": found, "checkpoint_seconds": CHECKPOINT, "killed": len(hit),
                "survived": sum(map(survived, hit)), "half_written": sum(bool(kill["half_written"]) for kill in hit),
                "made_again": sum(len(kill["again"]) for kill in hit)}


def prepare(folder: Path, seed: int) -> Path:
    """What the commands work on: molecules of the generator, with what the evaluator reads."""
    molecules = [one for one in sample(96, seed, steps=10, device="cpu") if one.is_valid]
    batch, reader = collate(molecules), Predictor.load("evaluator", "cpu")
    split = torch.zeros(len(molecules), dtype=torch.uint8)
    split[64:] = PARTS.index("valid")
    store = MoleculeStore.of(batch, torch.arange(len(molecules)), "made up")
    replace(store, properties=reader.predict(batch), names=reader.properties,
            units=tuple(UNITS[name] for name in reader.properties), split=split).save(folder / "data.safetensors")
    write_sdf(folder / "molecules.sdf", molecules[:12])
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


def cases(inputs: Path, seed: int) -> dict[str, Case]:
    cli = ["-m", "molflow.cli"]
    wheel = moses3d.fetch(data_folder() / "sources")

    def again(name: str) -> Callable[[Path], list[str]]:
        """Nothing to add, unless the kill came after the result."""
        return lambda folder: ["--overwrite"] * (folder / name).exists()

    return {
        "data prepare": Case(
            lambda folder: ["-c", SMALL_PARTS, "data", "prepare", "moses3d", "-n", "400", "--source", str(wheel),
                            "--workers", "2", "--out", str(folder / "set.safetensors")],
            again("set.safetensors"), lambda folder: digests(folder, "set.safetensors"),
            lambda folder: {path.name: path.stat().st_mtime_ns for path in folder.glob("set.parts/[0-9]*.safetensors")},
            ("set.parts/[0-9]*.safetensors", "set.safetensors")),
        "train": Case(
            lambda folder: [*cli, "train", "property", "--config", str(inputs / "tiny.toml"), "--data",
                            str(inputs / "data.safetensors"), "--accelerator", "cpu", "--out", str(folder / "run")],
            lambda folder: ["--resume"] * (folder / "run" / "state.ckpt").exists(), _weights, _steps,
            ("run/config.json", "run/state.ckpt")),
        "design": Case(
            lambda folder: [*cli, "design", "--target", "gap=5.0", "-n", "4", "--generations", "1", "--gradients", "1",
                            "--seed", str(seed), "--device", "cpu", "--out", str(folder / "run")],
            again("run"), lambda folder: digests(folder, "run/*.sdf", "run/*.csv", "run/*.xyz", "run/*.png")),
        "verify": Case(
            lambda folder: [*cli, "verify", str(inputs / "molecules.sdf"), "--method", "xtb", "--relax", "--workers",
                            "2", "--out", str(folder / "table.csv")],
            again("table.csv"), lambda folder: _table(folder / "table.csv")),
        "campaign": Case(
            lambda folder: [*cli, "campaign", str(campaign_kill.write(folder, "spec", 8, seed))],
            lambda folder: [], lambda folder: campaign_kill.content(folder / "spec.yaml"),
            lambda folder: {str(key): value for key, value in campaign_kill.times(folder / "spec.yaml").items()},
            ("spec.db",)),
    }


def undisturbed(case: Case, folder: Path) -> dict[str, Any]:
    begun = time.monotonic()
    status, said = _wait(_start(case.begin(folder)))
    if status:
        raise RuntimeError(f"a command that nobody disturbed ended with status {status}: {said}")
    return {"seconds": time.monotonic() - begun, "content": _digested(case.content(folder))}


def killed(case: Case, moment: float, folder: Path) -> dict[str, Any]:
    """Kill a command after so many seconds, look at what it has left, and let it go on to its end."""
    begun = time.time()
    running = _start(case.begin(folder))
    try:
        running.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        family = psutil.Process(running.pid).children(recursive=True)
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        if alive := psutil.wait_procs(family, timeout=60)[1]:
            raise RuntimeError(f"{len(alive)} processes outlived the kill") from None
    stopped = time.time()
    marks = [path.stat().st_mtime for pattern in case.checkpoints for path in folder.glob(pattern)]
    broken, left, kept = not_whole(folder), _temporary(folder), case.kept(folder) if case.kept else {}
    status, said = _wait(_start([*case.begin(folder), *case.go_on(folder)]))
    now = case.kept(folder) if case.kept else {}
    return {"moment": moment, "hit": running.returncode == -signal.SIGKILL, "half_written": broken, "left": left,
            "lost_seconds": stopped - max([begun, *marks]), "kept": len(kept), "status": status, "said": said,
            "content": _digested(case.content(folder)) if status == 0 else {},
            "again": [key for key, value in kept.items() if now.get(key) != value],
            "left_at_the_end": _temporary(folder)}


def digests(folder: Path, *patterns: str) -> Content:
    """SHA-256 of files: the same to the byte or not."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for pattern in patterns
            for path in folder.glob(pattern)}


def _digested(content: Content) -> dict[str, str]:
    return {str(key): hashlib.sha256(repr(value).encode()).hexdigest()[:16] for key, value in content.items()}


def _weights(folder: Path) -> Content:
    """The weights to the byte, and what their card says of them but the time and the command, which say of the stop."""
    card = json.loads((folder / "run" / "property.json").read_text())
    training = {key: value for key, value in card["training"].items() if key not in ("hours", "command")}
    return {**digests(folder, "run/property.safetensors"), "card": {**card, "training": training}}


def _steps(folder: Path) -> Content:
    """How often each step up to the last checkpoint has been logged: once, if it was trained once."""
    state = folder / "run" / "state.ckpt"
    if not state.exists():
        return {}
    done = torch.load(state, map_location="cpu", weights_only=True)["step"]
    logged: Counter[str] = Counter()
    for path in folder.glob("run/csv/*/metrics.csv"):
        with path.open(newline="") as file:
            logged.update(row["step"] for row in csv.DictReader(file) if row.get("loss"))
    return {step: times for step, times in logged.items() if int(step) <= done}


def _table(path: Path) -> Content:
    """Row by row, without the time that each took."""
    with path.open(newline="") as file:
        return {f"row {place}": {key: value for key, value in row.items() if not key.endswith("_time [s]")}
                for place, row in enumerate(csv.DictReader(file), start=1)}


def _temporary(folder: Path) -> list[str]:
    """Files of unfinished writing; locks are there to stay."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*")
            if path.is_file() and is_temporary(path, folder) and path.suffix != ".lock"]


def _apart(measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """In a folder of its own."""
    with TemporaryDirectory() as folder:
        return measure(*arguments, Path(folder))


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    """In a process group of its own, so that a kill meets all its processes and none of ours."""
    return subprocess.Popen([sys.executable, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def _wait(running: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status, and if that is not 0 the last thing said."""
    _, said = running.communicate()
    return running.returncode, said.strip().rpartition("\n")[2] if running.returncode else ""


def _judged(kill: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
    """With the names of what is different, in place of all content."""
    made = kill["content"]
    different = sorted(key for key in wanted.keys() | made.keys() if wanted.get(key) != made.get(key))
    return {**{key: value for key, value in kill.items() if key not in ("content", "measured")}, "different": different}


def survived(kill: dict[str, Any]) -> bool:
    """Whether the command, told to go on, came to its end and made the same."""
    return kill["status"] == 0 and not kill["different"]


def tables(results: dict[str, Any]) -> list[Table]:
    rows, notes = [], []
    for name, found in results["commands"].items():
        kills = [kill for kill in found["kills"] if kill["hit"]]
        if missed := len(found["kills"]) - len(kills):
            notes.append(f"{name}: {missed} ended before their moment and are not counted.")

        def count(key: str, kills: list[dict[str, Any]] = kills) -> str:
            return str(sum(bool(kill[key]) for kill in kills))

        again = str(sum(len(kill["again"]) for kill in kills)) if found["promises"] else "–"
        rows.append([name, str(len(kills)), number(found["seconds"]), str(sum(map(survived, kills))),
                     count("half_written"), count("different"), again,
                     str(sum(kill["kept"] for kill in kills)) if found["promises"] else "–",
                     number(max((kill["lost_seconds"] for kill in kills), default=None)),
                     str(max((len(kill["left_at_the_end"]) for kill in kills), default=0))])
        notes += [f"{name}, killed after {kill['moment']:.1f} s: " + "; ".join(
            [*kill["half_written"], *(f"{one} differs" for one in kill["different"]), kill["said"]])
            for kill in kills if kill["half_written"] or kill["different"] or kill["status"]]
    return [Table(
        "Commands killed at a random moment, then told to go on",
        ["command", "kills", "s undisturbed", "survived", "half-written", "different", "made again", "of kept",
         "s lost at most", "files left over"], rows,
        "Survived: ended with exit status 0 and the same content. Compared: data sets, weights, SDF, XYZ and PNG to "
        "the byte, tables and records in all they hold but times. Made again: parts, logged steps and records that "
        "were stored before the kill. Lost: from the last that was stored, or from the start, to the kill; the "
        f"training stores every {results['checkpoint_seconds']:g} s. " + " ".join(notes))]
