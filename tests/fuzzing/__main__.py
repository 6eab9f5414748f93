"""The command: fuzz one target, or all, and print what came out as JSON, a line each."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import atheris

from tests.fuzzing.mutators import Inside

INSTRUMENTED = ["molflow", "yaml", "tomllib", "pickletools", "ase.io.extxyz", "ase.io.ulm", "ase.io.trajectory", "wave",
                "zipfile", "gzip"]
HANG, LIMIT = 20, 2048
"""Seconds for one input, and MB beyond what importing everything takes."""

ENDED = {0: "", 70: "hang", 71: "memory", 77: "crash"}
"""What libFuzzer's exit status means; -9 and the like are signals."""


def fuzz(name: str, runs: int, seconds: int, seed: int) -> dict[str, Any]:
    """One target, in a process of its own."""
    from tests.fuzzing.session import Session
    from tests.fuzzing.targets import TARGETS

    target = TARGETS[name]
    scratch = Path(tempfile.mkdtemp())
    notes, corpus = scratch / "notes.json", scratch / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.seeds()):
        (corpus / f"{number:03}").write_bytes(data)
    words = "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words)
    (scratch / "words").write_text(words or "# none\n")
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2 * LIMIT * 2**20,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        session = Session(target, notes, runs)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        atheris.Setup(["fuzz", f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed + 1}", f"-timeout={HANG}",
                       f"-rss_limit_mb={resident + LIMIT}", f"-max_len={target.longest}", f"-dict={scratch / 'words'}",
                       f"-artifact_prefix={scratch}/ended-", "-close_fd_mask=3", "-verbosity=0", str(corpus)], session,
                      **({"custom_mutator": keeping(target.inside)} if target.inside else {}))
        atheris.Fuzz()  # does not return
    _, status, usage = os.wait4(child, 0)
    status = os.waitstatus_to_exitcode(status)
    result = json.loads(notes.read_text()) if notes.exists() else {"inputs": 0, "seconds": 0.0, "found": {}}
    if ended := ENDED.get(status, f"ended with {status}"):
        data = next((file.read_bytes() for file in scratch.glob("ended-*")), b"")
        result["found"][ended] = data.hex()
    shutil.rmtree(scratch)
    return {"target": name, **result, "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
            "peak_memory_mb": round(usage.ru_maxrss / 1024)}


def keeping(inside: Inside) -> Callable[[bytes, int, int], bytes]:
    """A mutator for atheris that keeps the format every other time, if it can."""

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < 0.6:
            with contextlib.suppress(Exception):  # it is not of this format any more
                made = inside(data, chance, lambda piece: atheris.Mutate(piece, longest // 2))
                if len(made) <= longest:
                    return made
        return atheris.Mutate(data, longest)

    return mutate


def main() -> None:
    """Exit status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("name", help="a target, several with commas between, or all")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs of a target")
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long, 0 for no limit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--but", nargs="*", default=[], help="not these")
    asked = parser.parse_args()
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzzing.targets import TARGETS
    names = list(TARGETS) if asked.name == "all" else asked.name.split(",")
    if strange := [name for name in names if name not in TARGETS]:
        parser.error(f"unknown target {strange[0]}: known are {', '.join(TARGETS)}")
    clean = True
    for name in (name for name in names if name not in asked.but):
        result = fuzz(name, asked.runs, asked.seconds, asked.seed)
        print(json.dumps(result), flush=True)
        clean &= not result["found"]
    raise SystemExit(not clean)


if __name__ == "__main__":
    main()
