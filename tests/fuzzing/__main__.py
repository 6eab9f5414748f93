"""The command: fuzz one target, or all, and print what came out as JSON, a line each."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import atheris

INSTRUMENTED = ["molflow", "yaml", "tomllib", "pickletools", "ase.io.extxyz", "ase.io.ulm", "ase.io.trajectory", "wave",
                "zipfile", "gzip"]
HANG, LIMIT = 20, 2048
"""Seconds for one input, and MB beyond what importing everything takes."""

LONGEST_MESSAGE = 500
ENDED = {0: "", 70: "hang", 71: "memory", 77: "crash"}
"""What libFuzzer's exit status means; -9 and the like are signals."""


class Session:
    """Inputs read so far, and those that ended otherwise than they should: one of each kind, the shortest."""

    def __init__(self, read: Any, refusals: tuple[type[Exception], ...], notes: Path) -> None:
        self.read, self.refusals, self.notes = read, refusals, notes
        self.inputs = self.accepted = 0
        self.found: dict[str, bytes] = {}
        self.begun = time.perf_counter()
        self.folder = Path(tempfile.mkdtemp(dir=notes.parent))

    def __call__(self, data: bytes) -> None:
        for left in self.folder.iterdir():
            left.unlink()
        fault = ""
        try:
            self.read(data, self.folder)
            self.accepted += 1
        except self.refusals as error:
            fault = self.complaint(error)
        except Exception as error:
            fault = f"{type(error).__name__} at {place(error)}: {str(error)[:200]!r}"
        if (self.folder / "PWNED").exists():
            fault = "ran something"
        self.inputs += 1
        kind = fault.partition(": ")[0]
        if fault and (kind not in self.kinds or len(data) < len(self.found[self.kinds[kind]])):
            self.found.pop(self.kinds.get(kind, ""), None)
            self.found[fault] = data
            self.write()
        elif self.inputs % 500 == 0:
            self.write()

    @property
    def kinds(self) -> dict[str, str]:
        return {fault.partition(": ")[0]: fault for fault in self.found}

    @staticmethod
    def complaint(error: Exception) -> str:
        """What is wrong with how an input was refused; empty if nothing is."""
        from molflow.cli import sentence

        said, told = str(error), sentence(error)
        if not said or "\n" in said:
            return f"message of {type(error).__name__} at {place(error)} is not a line: {said[:200]!r}"
        if not told.isprintable() or len(told) > LONGEST_MESSAGE:
            return f"message of {type(error).__name__} at {place(error)} cannot be printed: {told[:200]!r}"
        return ""

    def write(self) -> None:
        found = {fault: data.hex() for fault, data in self.found.items()}
        seconds = round(time.perf_counter() - self.begun, 2)
        part = self.notes.with_suffix(".part")
        part.write_text(json.dumps({"inputs": self.inputs, "accepted": self.accepted, "seconds": seconds,
                                    "found": found}))
        part.replace(self.notes)


def place(error: BaseException) -> str:
    """The innermost line of molflow, or else of the target, that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/molflow/" in frame.filename] or frames
    return f"{'/'.join(Path(ours[-1].filename).parts[-2:])}:{ours[-1].lineno}"


def fuzz(name: str, runs: int, seconds: int, seed: int) -> dict[str, Any]:
    """One target, in a process of its own."""
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
        session = Session(target.read, target.refusals, notes)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        atheris.Setup(["fuzz", f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed + 1}", f"-timeout={HANG}",
                       f"-rss_limit_mb={resident + LIMIT}", f"-max_len={target.longest}", f"-dict={scratch / 'words'}",
                       f"-artifact_prefix={scratch}/ended-", "-close_fd_mask=3", "-verbosity=0", str(corpus)], session,
                      **({"custom_mutator": target.mutate} if target.mutate else {}))
        try:
            atheris.Fuzz()
        finally:
            session.write()
    _, status, usage = os.wait4(child, 0)
    status = os.waitstatus_to_exitcode(status)
    result = json.loads(notes.read_text()) if notes.exists() else {"inputs": 0, "accepted": 0, "seconds": 0.0,
                                                                   "found": {}}
    if ended := ENDED.get(status, f"ended with {status}"):
        data = next((file.read_bytes() for file in scratch.glob("ended-*")), b"")
        result["found"][ended] = data.hex()
    shutil.rmtree(scratch)
    return {"target": name, **result, "peak_memory_mb": round(usage.ru_maxrss / 1024)}


def main() -> None:
    """Exit status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("name", help="a target, several with commas between, or all")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long, 0 for no limit")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzzing.targets import TARGETS
    names = list(TARGETS) if asked.name == "all" else asked.name.split(",")
    if strange := [name for name in names if name not in TARGETS]:
        parser.error(f"unknown target {strange[0]}: known are {', '.join(TARGETS)}")
    clean = True
    for name in names:
        result = fuzz(name, asked.runs, asked.seconds, asked.seed)
        print(json.dumps(result), flush=True)
        clean &= not result["found"]
    raise SystemExit(not clean)


if __name__ == "__main__":
    main()
