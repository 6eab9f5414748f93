"""Molecules as they come from the QM9 generator: stability, validity, uniqueness, novelty, time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import MISSING, load_qm9, qm9_path, smiles_of
from benchmarks.published import UNCONDITIONAL
from benchmarks.tables import Table, number, percent
from molflow.data.store import qm9_split
from molflow.designer import choose_sizes
from molflow.models import STEPS, Generator
from molflow.molecules import metrics
from molflow.molecules.convert import unbatch
from molflow.nn.weights import SHIPPED

FIGURES = {
    metrics.ATOM_STABILITY: "atoms stable", metrics.MOLECULE_STABILITY: "molecules stable",
    metrics.ATOM_STABILITY_BONDS: "atoms, by bonds", metrics.MOLECULE_STABILITY_BONDS: "molecules, by bonds",
    metrics.VALID: "valid", metrics.UNIQUE: "unique", metrics.VALID_UNIQUE: "valid × unique", metrics.NOVEL: "novel",
}  # fmt: skip


def run(*, n: int = 1000, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    """The same ``n`` molecules as ``molflow sample -n N --seed S``, beside as many real ones of the test split."""
    generator = Generator.load(weights / "generator.safetensors", device)
    sizes = choose_sizes(generator, n, seed, None)
    begun = time.perf_counter()
    batch = generator.sample(sizes, seed=seed)
    seconds = time.perf_counter() - begun

    store, real, known = load_qm9(), None, None
    part = generator.card.training.get("part", "half_b")
    if store is not None:
        split = qm9_split()
        known = smiles_of(store, qm9_path(), split[part])
        beside = torch.as_tensor(split["test"][:n])
        real = metrics.evaluate(unbatch(store.batch(beside)), known)
    return {
        "generated": metrics.evaluate(unbatch(batch), known),
        "nfe": STEPS,
        "seconds_sampling": seconds,
        "seconds_per_1000": 1000 * seconds / n,
        "training_part": part,
        "real": real,
        "missing": None if store is not None else f"real molecules and novelty: {MISSING}",
        "published": {row: dict(zip((metrics.ATOM_STABILITY, metrics.MOLECULE_STABILITY, metrics.VALID), values,
                                    strict=True)) for row, values in UNCONDITIONAL.items()},
    }


def tables(results: dict[str, Any]) -> list[Table]:
    def row(name: str, figures: dict[str, float], nfe: str = "–", seconds: float | None = None) -> list[str]:
        return [name, *(percent(figures.get(key)) for key in FIGURES), nfe, number(seconds)]

    rows = [row("molflow", results["generated"], str(results["nfe"]), results["seconds_per_1000"])]
    if results["real"]:
        rows.append(row("real molecules of the test split", results["real"]))
    rows += [row(f"{name}, as quoted", figures) for name, figures in results["published"].items()]
    notes = ["Per cent. Stable: EDM's distance rule, or by generated bonds and charges. Valid: sanitised whole, in one "
             "piece, no open valence; quoted validity is of the largest fragment. Unique: of the valid. Novel: of the "
             f"distinct, not in {results['training_part']}."]
    if results["missing"]:
        notes.append(f"Missing: {results['missing']}.")
    return [Table(f"{results['generated']['n']:.0f} molecules of QM9's kind",
                  ["", *FIGURES.values(), "NFE", "s per 1000"], rows, " ".join(notes))]
