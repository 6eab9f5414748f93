"""What comes of an input, and what is kept of many."""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from pathlib import Path

from molflow.cli import sentence
from tests.fuzzing.targets import Target

LONGEST_MESSAGE = 500


def fault(target: Target, data: bytes, folder: Path) -> str:
    """How an input ended otherwise than by being read or by being refused in a line; empty if it did not.

    Args:
        folder: to put files in; what is there is removed.
    """
    for left in folder.iterdir():
        left.unlink()
    try:
        target.read(data, folder)
    except target.refusals as error:
        said, told, what = str(error), sentence(error), f"message of {type(error).__name__} at {place(error)}"
        if not said or "\n" in said:
            return f"{what} is not a line: {said[:200]!r}"
        if not told.isprintable() or len(told) > LONGEST_MESSAGE:
            return f"{what} cannot be printed: {told[:200]!r}"
    except Exception as error:
        return f"{type(error).__name__} at {place(error)}: {str(error)[:200]!r}"
    return ""


def place(error: BaseException) -> str:
    """The innermost line of molflow, or else of the target, that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/molflow/" in frame.filename] or frames
    return f"{'/'.join(Path(ours[-1].filename).parts[-2:])}:{ours[-1].lineno}"


class Session:
    """Counts inputs, and keeps of each fault the shortest; writes both down now and then, and after the last of
    ``runs``: libFuzzer leaves a forked process without another word."""

    def __init__(self, target: Target, notes: Path, runs: int) -> None:
        self.target, self.notes, self.runs = target, notes, runs
        self.inputs = 0
        self.found: dict[str, tuple[str, bytes]] = {}
        self.begun = time.perf_counter()
        self.folder = Path(tempfile.mkdtemp(dir=notes.parent))

    def __call__(self, data: bytes) -> None:
        words = fault(self.target, data, self.folder)
        self.inputs += 1
        kind = words.partition(": ")[0]
        new = words and (kind not in self.found or len(data) < len(self.found[kind][1]))
        if new:
            self.found[kind] = words, data
        if new or self.inputs % 100 == 0 or self.inputs >= self.runs:
            self.write()

    def write(self) -> None:
        part = self.notes.with_suffix(".part")
        part.write_text(json.dumps({"inputs": self.inputs, "seconds": round(time.perf_counter() - self.begun, 2),
                                    "found": {words: data.hex() for words, data in self.found.values()}}))
        part.replace(self.notes)
