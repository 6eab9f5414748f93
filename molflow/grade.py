"""Judging molecules that are already there: their properties by a network, their soundness by chemistry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from molflow.models import Predictor
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.io import Skipped, read_sdf
from molflow.molecules.metrics import evaluate as _metrics
from molflow.nn.property import PROPERTIES

if TYPE_CHECKING:
    import pandas as pd

Molecules = Sequence[Molecule] | str | os.PathLike[str]


def read(molecules: Molecules) -> tuple[list[Molecule], list[Skipped]]:
    """Molecules as given, or those of an SDF file with the records that could not be read."""
    if isinstance(molecules, str | os.PathLike):
        return read_sdf(molecules)
    return list(molecules), []


def predict(molecules: Molecules, *, model: Path | str = "evaluator", device: str = "auto") -> pd.DataFrame:
    """Six properties of each molecule: ``alpha`` Bohr³, ``gap`` ``homo`` ``lumo`` eV, ``mu`` D, ``cv`` cal/(mol K).

    Molecules with elements that the network has not seen, or no atoms, get no numbers (NaN) and a ``note``.

    Args:
        molecules: a list, or the path of an SDF file with 3D coordinates and all hydrogens.
        model: ``evaluator``, ``guide``, or a file of weights.
    Raises:
        FileNotFoundError, ValueError: the file is missing or holds no molecule.
        WeightsError, DeviceError: as ``design``.
    """
    import pandas as pd

    read_in, _ = read(molecules)
    predictor = Predictor.load(model, device)
    known = set(predictor.vocabulary.elements)
    strange = [sorted(set(m.numbers.tolist()) - known) for m in read_in]
    fit = [i for i, elements in enumerate(strange) if not elements]
    table = pd.DataFrame(float("nan"), index=range(len(read_in)), columns=list(PROPERTIES))
    if fit:
        table.loc[fit] = predictor.predict(collate([read_in[i] for i in fit])).double().numpy()
    table.insert(0, "smiles", [m.smiles for m in read_in])
    table["note"] = [f"elements {elements} are unknown to the model" if elements else "" for elements in strange]
    return table


def evaluate(molecules: Molecules, training_smiles: set[str] | None = None) -> dict[str, float]:
    """Stability, validity, uniqueness (and novelty) of a set of molecules; see ``molflow.molecules.metrics``."""
    read_in, _ = read(molecules)
    return _metrics(read_in, training_smiles)
