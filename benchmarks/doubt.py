"""The guide's doubt: the errors it promises against those it makes, on real, generated and shaken molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import needed_qm9
from benchmarks.qm9_rivals import Setting
from benchmarks.tables import Table, number
from molflow.data.store import qm9_split
from molflow.designer import choose_sizes
from molflow.models import Predictor
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.stability import is_whole
from molflow.nn.property import PROPERTIES, RESOLUTION
from molflow.nn.weights import SHIPPED

GROUPS = 5
SHAKES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Standard deviations in Å of what is added to each coordinate."""

SCALE = torch.tensor([RESOLUTION[name] for name in PROPERTIES])


def run(*, n: int = 2000, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` test molecules of QM9 and ``n`` generated ones. Raises DataError without QM9."""
    store, setting = needed_qm9(), Setting.load(weights, device, seed)
    generator, guide, evaluator = setting.generator, setting.guide, setting.evaluator
    members = torch.as_tensor(qm9_split()["test"])[:n]
    real, truth = store.batch(members), store.columns(PROPERTIES)[members]
    made = generator.sample(np.sort(choose_sizes(generator, n, seed, None)), seed=seed)
    made = made[is_whole(made).nonzero().squeeze(1)]
    return {"real": groups(guide, real, truth), "generated": groups(guide, made, evaluator.predict(made)),
            "shaken": [shaken(guide, evaluator, real, width, seed) for width in SHAKES]}


def groups(guide: Predictor, batch: MoleculeBatch, truth: Tensor) -> list[dict[str, Any]]:
    """Molecules sorted by doubt in groups of equal size: doubt, errors promised and made, of each property and the
    mean over the six in units of the resolution."""
    said, doubts = guide.read(batch)
    promised, error = guide.expected_errors(doubts), (said - truth).abs()
    return [{"molecules": len(part), "doubt": doubts[part].mean().item(),
             "promised": (promised[part] / SCALE).mean().item(), "made": (error[part] / SCALE).mean().item(),
             "each": {name: {what: values[part, column].mean().item()
                             for what, values in (("promised", promised), ("made", error))}
                      for column, name in enumerate(PROPERTIES)}}
            for part in doubts.argsort().tensor_split(GROUPS)]


def shaken(guide: Predictor, evaluator: Predictor, batch: MoleculeBatch, width: float, seed: int) -> dict[str, float]:
    """Off equilibrium: real molecules whose coordinates are moved at random."""
    noise = torch.randn(batch.positions.shape, generator=torch.Generator().manual_seed(seed))
    moved = MoleculeBatch(batch.positions + width * noise * batch.mask[..., None], batch.numbers, batch.charges,
                          batch.bonds)
    (still, _), (said, doubts), judged = guide.read(batch), guide.read(moved), evaluator.predict(moved)
    return {"width": width, "doubt": doubts.mean().item(),
            "changed": ((said - still).abs() / SCALE).mean().item(),
            "apart": ((said - judged).abs() / SCALE).mean().item()}


def tables(results: dict[str, Any]) -> list[Table]:
    titles = {"real": "QM9's test molecules, against the truth",
              "generated": "Generated molecules, against the evaluator"}
    found = [Table(title, ["doubt", "promised", "made",
                           *(f"{name}: {what}" for name in PROPERTIES for what in ("promised", "made"))],
                   [[number(row["doubt"]), number(row["promised"]), number(row["made"]),
                     *(number(row["each"][name][what]) for name in PROPERTIES for what in ("promised", "made"))]
                    for row in results[kind]],
                   f"A fifth of the molecules in each row, {results[kind][0]['molecules']}. Errors of each property, "
                   "energies in eV; the first three columns are means over the six in units of the resolution.")
             for kind, title in titles.items()]
    shaken = [[number(row["width"]), *(number(row[key]) for key in ("doubt", "changed", "apart"))]
              for row in results["shaken"]]
    return [*found, Table("Test molecules, shaken", ["Å", "doubt", "reading changed by", "guide and evaluator apart"],
                          shaken, "Standard deviation of what is added to each coordinate; means over the six "
                                  "properties in units of the resolution.")]
