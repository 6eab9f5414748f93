"""Whether a campaign that is killed again and again ends with the records of one that is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import ase.db
import numpy as np
import psutil
import yaml

from benchmarks.tables import Table, number
from molflow import campaign

KILLS = 10

SPEC = {"name": "killed", "targets": [{"gap": 5.0}, {"gap": 6.5, "mu": 1.5}, {"homo": -6.5}, {"alpha": 50}],
        "batch": 5, "atoms": 12, "budget": {"lookups": 1, "generations": 0, "gradients": 0, "steps": 8}}
"""Of a budget so small that most of the time goes into what is measured."""

LOOK = 0.5
"""Seconds between looks at the database."""


def run(*, n: int = 200, seed: int = 0) -> dict[str, Any]:
    """``n`` molecules in all, designed and relaxed by GFN2-xTB, once undisturbed and once killed `KILLS` times.

    A kill comes when as many results are stored as were drawn at random, and up to a second later. It is drawn, too,
    whether it hits one of the workers, or the coordinator and with it everything.
    """
    chance = Random(seed)
    with TemporaryDirectory() as folder:
        files = {name: write(Path(folder), name, n, seed) for name in ("undisturbed", "killed")}
        begun = time.perf_counter()
        _end(_start(files["undisturbed"]))
        seconds = {"undisturbed": time.perf_counter() - begun}
        wanted = content(files["undisturbed"])
        stages = len(wanted) + sum("xtb_verdict" in values for values, *_ in wanted.values())

        begun = time.perf_counter()
        kills, redone, kept = [], 0, {}
        coordinator = _start(files["killed"])
        for moment in sorted(chance.sample(range(stages - stages // 20), KILLS)):
            while _stored(files["killed"]) < moment:
                if coordinator.poll() is not None:
                    raise RuntimeError(f"the campaign ended by itself, with status {coordinator.returncode}")
                time.sleep(LOOK)
            time.sleep(chance.random())
            everything = chance.random() < 0.5 or not (workers := _workers(coordinator))
            (coordinator if everything else psutil.Process(chance.choice(workers))).kill()
            if everything:
                coordinator.wait()
                now = times(files["killed"])
                redone += sum(now.get(key) != value for key, value in kept.items())
                kept = now
                coordinator = _start(files["killed"])
            kills.append({"stored": moment, "killed": "everything" if everything else "a worker"})
        _end(coordinator)
        seconds["killed"] = time.perf_counter() - begun
        found, now = content(files["killed"]), times(files["killed"])
        redone += sum(now.get(key) != value for key, value in kept.items())
        return {
            "molecules": n, "records": len(found), "kills": kills, "seconds": seconds, "redone": redone,
            "lost": len(wanted.keys() - found.keys()), "added": len(found.keys() - wanted.keys()),
            "different": sum(found[key] != wanted[key] for key in found.keys() & wanted.keys()),
            "status": campaign.status(files["killed"]).words,
        }


def tables(results: dict[str, Any]) -> list[Table]:
    kinds = [kill["killed"] for kill in results["kills"]]
    rows = [["records", str(results["records"])], ["lost", str(results["lost"])], ["added", str(results["added"])],
            ["different", str(results["different"])], ["stored, and calculated again", str(results["redone"])],
            ["seconds, undisturbed", number(results["seconds"]["undisturbed"])],
            ["seconds, killed", number(results["seconds"]["killed"])]]
    return [Table(f"A campaign of {results['molecules']} molecules killed {len(kinds)} times", ["", "number"], rows,
                  f"{kinds.count('everything')} times everything was killed, {kinds.count('a worker')} times a worker. "
                  "Records are compared in all they hold but times, positions to the last bit. Status of the "
                  "molecules: " + ", ".join(f"{count} {word}" for word, count in results["status"].items()) + ".")]


def write(folder: Path, name: str, n: int, seed: int) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**SPEC, "seed": seed, "molecules": -(-n // len(SPEC["targets"])),
                                    "database": f"{name}.db"}))
    return path


def _start(file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "molflow.cli", "campaign", str(file)],
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def _end(coordinator: subprocess.Popen[bytes]) -> None:
    if coordinator.wait():
        raise RuntimeError(f"the campaign ended with status {coordinator.returncode}")


def _workers(coordinator: subprocess.Popen[bytes]) -> list[int]:
    return [child.pid for child in psutil.Process(coordinator.pid).children(recursive=True)
            if "spawn_main" in " ".join(child.cmdline())]


def _stored(file: Path) -> int:
    status = campaign.status(file)
    return status.design[0] + status.xtb[0]


def _rows(file: Path) -> list[Any]:
    path = file.with_suffix(".db")
    return list(ase.db.connect(path, use_lock_file=False).select()) if path.exists() else []


def content(file: Path) -> dict[str, Any]:
    """All that a record holds, but ids and times."""
    return {row.key: ({key: value for key, value in row.key_value_pairs.items() if not key.endswith("_seconds")},
                      row.numbers.tolist(), row.positions.tolist(), row.initial_charges.tolist(),
                      row.data["generated"].tolist(), np.asarray(row.data["bonds"]).tolist()) for row in _rows(file)}


def times(file: Path) -> dict[tuple[str, str], float]:
    """When each record was designed and how long xTB took: both change if it is done again."""
    rows = _rows(file)
    return {(row.key, "made"): row.ctime for row in rows} | {(row.key, "xtb"): row.xtb_seconds for row in rows
                                                             if "xtb_seconds" in row}
