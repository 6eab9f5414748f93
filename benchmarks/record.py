"""Running a benchmark and keeping what came out: JSON with the machine, the commit and the settings, and tables."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

from benchmarks.memory import peak_mb
from benchmarks.tables import Picture
from molflow import provenance
from molflow.writing import check_writable, written_whole


def check_free(out: Path, name: str, *, resume: bool, overwrite: bool) -> None:
    """Raise FileExistsError where a result of this benchmark lies that must neither be replaced nor gone on with, and
    NotADirectoryError where none can be written."""
    taken = [path for path in (out / f"{name}.json", out / f"{name}.md", _parts_folder(out, name)) if path.exists()]
    if taken and not (resume or overwrite):
        raise FileExistsError(f"{taken[0]} exists: choose another --out, or give --overwrite")
    check_writable(out / f"{name}.json")


@dataclasses.dataclass(frozen=True)
class Parts:
    """Parts of a benchmark, each written as soon as it is measured, so that a run can be cut short or shared.

    Attributes:
        folder: one JSON file a part.
        settings: what a part must have been measured with to be taken for the same.
        commit: of the code that measures now.
    """

    folder: Path
    settings: dict[str, Any]
    commit: dict[str, Any]

    def __call__(self, part: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The results of one part: those already there, else measured and written."""
        if there := self.read(part):
            return there
        begun = time.perf_counter()
        results = measure()
        results["measured"] = {"machine": provenance.machine(), **self.commit,
                               "seconds": round(time.perf_counter() - begun, 2)}
        record = plain({"settings": self.settings, "results": results})
        write(self.folder / f"{part}.json", json.dumps(record, indent=1) + "\n")
        return record["results"]

    def read(self, part: str) -> dict[str, Any] | None:
        """What an earlier run, or another process, measured. Raises FileExistsError if with other settings."""
        path = self.folder / f"{part}.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        if record["settings"] != self.settings:
            raise FileExistsError(f"{path} was measured with other settings: choose another --out, or give --overwrite")
        return record["results"]


OF_MOLECULES = "evaluator", "generator", "generator.atlas", "guide"
"""The files of weights that a benchmark stands on, unless its module's ``WEIGHTS`` names others."""


def execute(name: str, module: ModuleType, out: Path, options: dict[str, Any], *, resume: bool = False,
            overwrite: bool = False) -> dict[str, Any]:
    """Run ``module``, print its tables, write ``out``/NAME.json, .md and pictures, and return the record.

    A ``run`` that takes ``parts`` is given a `Parts`; one that takes ``pictures`` a list to put each `Picture` in.
    """
    check_free(out, name, resume=resume, overwrite=overwrite)
    out.mkdir(parents=True, exist_ok=True)
    if overwrite and _parts_folder(out, name).exists():
        shutil.rmtree(_parts_folder(out, name))
    revision = _commit()  # of the code as it was loaded, not as it is hours later
    parameters = inspect.signature(module.run).parameters
    settings = {key: options.get(key, parameter.default) for key, parameter in parameters.items()
                if key not in ("parts", "pictures")}
    shown = {key: value for key, value in settings.items() if key != "seed"}
    if "weights" in shown:
        shown["weights"] = _fingerprints(shown["weights"], getattr(module, "WEIGHTS", OF_MOLECULES))
    if "parts" in parameters:
        # which properties are measured, and for how long, says nothing about how
        same = plain({key: value for key, value in {**shown, "seed": settings["seed"]}.items()
                      if key not in ("properties", "minutes")})
        settings["parts"] = Parts(_parts_folder(out, name), same, revision)
    pictures: list[Picture] = []
    if "pictures" in parameters:
        settings["pictures"] = pictures

    begun = time.perf_counter()
    results = module.run(**settings)
    record = plain({
        "name": name,
        "machine": provenance.machine(),
        **revision,
        "seed": settings["seed"],
        "settings": shown,
        "seconds": round(time.perf_counter() - begun, 2),
        "peak_memory_mb": round(peak_mb(), 1),
        "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1) if torch.cuda.is_available() else None,
        "results": results,
    })
    tables = module.tables(record["results"])
    write(out / f"{name}.json", json.dumps(record, indent=1) + "\n")
    files = [f"{name}.{picture.name}.png" for picture in pictures]
    for file, picture in zip(files, pictures, strict=True):
        write(out / file, picture.png)
    page = [headline(record), *(table.markdown() for table in tables),
            *(picture.markdown(file) for file, picture in zip(files, pictures, strict=True))]
    write(out / f"{name}.md", "\n\n".join(page) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 160)  # a file has no width of its own
    for table in tables:
        console.print(table.rich())
    print(f"written to {out / name}.json and .md" + (f", {len(files)} pictures" if files else ""))
    return record


def write(path: Path, content: str | bytes) -> None:
    """Under another name first, so that nobody meets half a file."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def plain(value: Any) -> Any:
    """What JSON can hold: dataclasses as dicts, tuples as lists, None for a number that is not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _parts_folder(out: Path, name: str) -> Path:
    return out / f"{name}.parts"


def _commit() -> dict[str, Any]:
    described = provenance.commit()
    return {"commit": described and described.rstrip("+"), "dirty": described and described.endswith("+")}


def _fingerprints(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Start of the SHA-256 of the files of weights that are there: their content, whatever the folder is called."""
    digests = {}
    for path in filter(Path.exists, (folder / f"{name}.safetensors" for name in sorted(names))):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return digests


def headline(record: dict[str, Any]) -> str:
    machine = record["machine"]
    commit = f"{record['commit']}{' with changes' if record['dirty'] else ''}"
    return (f"# {record['name']}\n\n"
            f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['memory_gb']} GB, "
            f"GPU: {machine['gpu'] or 'none'}, torch {machine['torch']}; commit {commit}; "
            f"seed {record['seed']}; {record['seconds']:.0f} s, {record['peak_memory_mb']:.0f} MB at most.\n\n"
            f"Settings: `{json.dumps(record['settings'])}`")
