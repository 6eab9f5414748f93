"""What is installed: versions, devices, extras, and the models that ship."""

from __future__ import annotations

import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from molflow import __version__, provenance
from molflow.extras import EXTRAS
from molflow.nn.weights import SHIPPED, WeightsError, read_card

CORE = ("torch", "torch-geometric", "e3nn", "rdkit", "ase", "numpy", "scipy", "pandas", "safetensors")
"""Packages whose versions can decide a result."""


def info() -> dict[str, Any]:
    """What is installed here, to be printed or put into JSON.

    Returns:
        ``molflow`` and ``python`` (versions), ``commit`` (None outside a checkout), ``folder``, ``weights`` (the folder
        of those that ship), ``data`` (that of prepared data), ``packages`` {name: version}, ``devices`` {name: what it
        is, with memory}, ``extras`` {name: {module: version, or None where it is missing}}, ``models`` {name: see
        `model`}.
    """
    from molflow.data.store import data_folder

    brought = metadata.packages_distributions()
    return {
        "molflow": __version__, "python": platform.python_version(), "commit": provenance.commit(),
        "folder": str(Path(__file__).parent), "weights": str(SHIPPED), "data": str(data_folder()),
        "packages": {name: _version(name) for name in CORE},
        "devices": devices(),
        "extras": {extra: {name: _version(*brought.get(name, [name])) if find_spec(name) else None for name in modules}
                   for extra, modules in EXTRAS.items()},
        "models": {str(card.relative_to(SHIPPED).with_suffix("")): model(card.with_suffix(".safetensors"))
                   for card in sorted(SHIPPED.rglob("*.json"))},
    }


def devices() -> dict[str, str]:
    """Names that ``--device`` and torch know: {"cpu": ..., "cuda:0": ...}."""
    import torch

    here = provenance.machine()
    found = {"cpu": f"{here['cpu']}, {here['cores']} cores, {here['memory_gb']:.0f} GB"}
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{card.name}, {card.total_memory / 1e9:.0f} GB"
    return found


def model(path: Path) -> dict[str, Any]:
    """What the card of a file of weights says, in short.

    Returns:
        ``file``, ``megabytes``, ``kind``, ``data`` (name of the data set), ``source`` (its card's words), ``part`` (of
        it), ``seen`` (molecules, pictures or clips while training, repeats counted, with the word), ``metrics``
        (numbers only), ``commit``; of a file that is missing or damaged ``file`` and ``fault`` alone.
    """
    try:
        card = read_card(path, None)
    except WeightsError as error:
        return {"file": str(path), "fault": str(error)}
    seen = next((f"{count:,} {key.removesuffix('_seen')}" for key, count in card.training.items()
                 if key.endswith("_seen")), None)
    return {"file": str(path), "megabytes": round(path.stat().st_size / 1e6, 1), "kind": card.kind, "data": card.data,
            "source": card.training.get("data"), "part": card.training.get("part"), "seen": seen,
            "metrics": {name: value for name, value in card.metrics.items() if isinstance(value, float)},
            "commit": card.training.get("commit")}


def _version(*distributions: str) -> str | None:
    """Of the first of these that is installed; "?" of what is there without saying so."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "?"
