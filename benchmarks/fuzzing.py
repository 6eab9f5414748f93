"""Whether mutated files and texts are read or refused in a line, for every reader: exceptions, hangs, memory.

The inputs are what atheris and libFuzzer make of a few small real ones, by the code that they reach; see
`tests.fuzzing`, which also says what counts as a fault.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import Parts
from benchmarks.tables import Table, number

ROOT = Path(__file__).parents[1]


def run(*, n: int = 100_000, seed: int = 0, parts: Parts) -> dict[str, Any]:
    """``n`` inputs for each reader."""
    there = {path.stem: parts.read(path.stem) for path in sorted(parts.folder.glob("*.json"))}
    fuzzing = [sys.executable, "-m", "tests.fuzzing", "all", "--runs", str(n), "--seed", str(seed), "--but", *there]
    with subprocess.Popen(fuzzing, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            result = json.loads(line)
            there[result["target"]] = parts(result["target"], lambda result=result: result)
    if process.returncode not in (0, 1):
        raise RuntimeError("tests.fuzzing did not come to its end: is atheris installed?")
    return {"targets": there, "fewest_inputs": min(each["inputs"] for each in there.values()),
            "faults": sum(len(each["found"]) for each in there.values())}


def tables(results: dict[str, Any]) -> list[Table]:
    found = results["targets"]
    rows = [[name, str(each["inputs"]), number(each["processor_seconds"]), str(len(each["found"])),
             str(each["peak_memory_mb"])] for name, each in found.items()]
    rows.append(["all", str(sum(each["inputs"] for each in found.values())),
                 number(sum(each["processor_seconds"] for each in found.values())),
                 str(sum(len(each["found"]) for each in found.values())),
                 str(max(each["peak_memory_mb"] for each in found.values()))])
    faults = "; ".join(f"{name}: {how}" for name, each in found.items() for how in each["found"])
    return [Table("Readers of strangers' files, fuzzed", ["reader", "inputs", "s, processor", "faults", "MB at most"],
                  rows, "A fault is any exception that is not documented, a message that is no line or cannot be "
                        "printed, 20 s for one input, 2 GB, or the end of the process. The memory is that of all that "
                        f"is imported, too. {faults or 'None was found.'}")]
