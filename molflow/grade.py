"""Judging molecules that are already there: their properties by a network, their soundness by chemistry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molflow.models import LIKELIHOOD_STEPS, Generator, Predictor
from molflow.molecules.convert import Molecule, collated
from molflow.molecules.elements import Vocabulary
from molflow.molecules.io import Molecules, read
from molflow.molecules.metrics import evaluate as _metrics

if TYPE_CHECKING:
    import pandas as pd

def predict(molecules: Molecules, *, model: Path | str = "evaluator", device: str = "auto") -> pd.DataFrame:
    """What a network says of molecules: ``alpha`` Bohr³, ``gap`` ``homo`` ``lumo`` eV, ``mu`` D, ``cv`` cal/(mol K),
    or the scores that another one has learnt.

    Molecules with elements that the network has not seen, or no atoms, get no numbers (NaN) and a ``note``.

    Args:
        molecules: a list, or the path of an SDF file with 3D coordinates and all hydrogens.
        model: ``evaluator``, ``guide``, the same with ``moses3d/`` in front, or a file of weights.
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
    table = pd.DataFrame(float("nan"), index=range(len(read_in)), columns=list(predictor.network.properties))
    for places, batch in collated([read_in[i] for i in fit]):
        table.loc[[fit[place] for place in places]] = predictor.predict(batch).double().numpy()
    table.insert(0, "smiles", [m.smiles for m in read_in])
    table["note"] = [f"elements {elements} are unknown to the model" if elements else "" for elements in strange]
    return table


def likelihood(
    molecules: Molecules,
    *,
    generator: Path | None = None,
    steps: int = LIKELIHOOD_STEPS,
    draws: int = 4,
    probes: int = 1,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[str, float], None] | None = None,
) -> pd.DataFrame:
    """How likely each molecule is under the flow, given its number of atoms: ``log_p`` in nats.

    A lower bound, estimated by the mean of independent draws, with its Monte-Carlo standard error ``log_p_error`` (NaN
    for a single draw); see `molflow.models.Generator.log_likelihood` for what the number is. Molecules that the
    generator cannot make get no numbers (NaN) and a ``note``.

    Args:
        molecules: a list, or the path of an SDF file with 3D coordinates and all hydrogens.
        generator: file of weights instead of the shipped one.
        steps, probes: as `molflow.models.Generator.log_likelihood`.
        draws: of the noise and the probes.
        seed: the same seed and molecules give the same numbers.
        progress: called with what is being done and the share of it that is done.

    Raises:
        FileNotFoundError, ValueError: the file is missing or holds no molecule; steps, probes or draws below 1, or a
            negative seed.
        WeightsError, DeviceError: as ``design``.
    """
    import pandas as pd

    if draws < 1 or seed < 0:
        raise ValueError(f"need draws >= 1 and seed >= 0, got {draws} and {seed}")
    read_in, _ = read(molecules)
    flow = Generator.load(generator, device)
    notes = [_beyond(molecule, flow.vocabulary) for molecule in read_in]
    fit = [i for i, note in enumerate(notes) if not note]
    said = np.full((draws, len(read_in)), np.nan)
    for draw, own_seed in enumerate(np.random.SeedSequence(seed).generate_state(draws).tolist()):
        for places, batch in collated([read_in[i] for i in fit]):
            bounds = flow.log_likelihood(batch, steps=steps, probes=probes, seed=own_seed)
            said[draw, [fit[place] for place in places]] = bounds.numpy()
        if progress:
            progress("likelihood", (draw + 1) / draws)
    error = said.std(0, ddof=1) / draws**0.5 if draws > 1 else np.full(len(read_in), np.nan)
    return pd.DataFrame({
        "name": [molecule.properties.get("name", "") for molecule in read_in],
        "smiles": [molecule.smiles for molecule in read_in],
        "n_atoms": [len(molecule.numbers) for molecule in read_in],
        "log_p": said.mean(0),
        "log_p_error": error,
        "note": notes,
    })


def _beyond(molecule: Molecule, vocabulary: Vocabulary) -> str:
    """Why a generator of this vocabulary cannot make a molecule; empty if it can."""
    for what, values, known in (("elements", molecule.numbers, vocabulary.elements),
                                ("charges", molecule.charges, vocabulary.charges),
                                ("bond orders", molecule.bonds, vocabulary.bonds)):
        if strange := sorted(set(values.ravel().tolist()) - set(known)):
            return f"{what} {strange} are unknown to the model"
    if not len(molecule.numbers):
        return "no atoms"
    return "" if np.isfinite(molecule.positions).all() else "positions are not finite"


def evaluate(molecules: Molecules, training_smiles: set[str] | None = None) -> dict[str, float]:
    """Stability, validity, uniqueness (and novelty) of a set of molecules; see ``molflow.molecules.metrics``."""
    read_in, _ = read(molecules)
    return _metrics(read_in, training_smiles)
