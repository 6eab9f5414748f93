"""The learning curve: quality of generators against the molecules they had seen and the hours that took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import Table, number, percent
from molflow.designer import choose_sizes
from molflow.models import Generator
from molflow.molecules import metrics
from molflow.molecules.convert import unbatch
from molflow.nn.weights import SHIPPED

FIGURES = {metrics.ATOM_STABILITY: "atoms stable", metrics.MOLECULE_STABILITY: "molecules stable",
           metrics.MOLECULE_STABILITY_BONDS: "molecules, by bonds", metrics.VALID: "valid"}


@torch.no_grad()
def run(*, n: int = 1000, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` molecules of every ``generator*.safetensors`` in ``weights``, which need not be shipped ones."""
    rows = []
    for path in sorted(weights.glob("generator*.safetensors")):
        generator = Generator.load(path, device)
        training = generator.card.training
        made = unbatch(generator.sample(choose_sizes(generator, n, seed, None), seed=seed))
        rows.append({"weights": path.stem, "part": training["part"], "molecules_seen": training["molecules_seen"],
                     "hours": training["hours"], "note": training.get("note", ""),
                     "validation_loss": generator.card.metrics.get("loss"), **metrics.evaluate(made)})
    return {"rows": sorted(rows, key=lambda row: (row["part"], row["molecules_seen"]))}


def tables(results: dict[str, Any]) -> list[Table]:
    rows = [[row["weights"], row["part"], f"{row['molecules_seen']:,}", number(row["hours"]),
             *(percent(row[key]) for key in FIGURES), number(row["validation_loss"])] for row in results["rows"]]
    notes = [f"{row['weights']}: {row['note']}" for row in results["rows"] if row["note"]]
    return [Table("Quality against training", ["weights", "part", "molecules seen", "hours", *FIGURES.values(),
                                               "validation loss"], rows,
                  " ".join(["Per cent. Hours are those of the machine that trained.", *notes]))]
