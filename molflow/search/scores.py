"""RDKit's own scores in a search for them: what takes a millisecond to calculate need not be read by a network.

A network has learnt the scores of the molecules of a data set, and a search finds those where it is wrong. It still
says which way a score changes with the molecule, which RDKit does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from molflow.models import Predictor
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import unbatch
from molflow.molecules.druglike import scores_of
from molflow.molecules.labels import DRUGLIKE
from molflow.nn.property import READ
from molflow.search.problem import Problem


@dataclass(frozen=True)
class Scores:
    """Those that a problem is about.

    Attributes:
        columns: place of each among the guide's readings, by name.
    """

    columns: dict[str, int]

    @classmethod
    def of(cls, problem: Problem, guide: Predictor) -> Scores:
        """Of one's own data a column of such a name may mean anything: there the guide's word is all there is."""
        ours = READ.get(guide.card.data, ())
        return cls({name: place for name, place in zip(problem.names, problem.columns, strict=True)
                    if name in DRUGLIKE and name in ours})

    def correct(self, readings: Tensor, batch: MoleculeBatch) -> Tensor:
        """Readings (B, P) of molecules with the scores (B,) in their columns, and the gradients that they had; those of
        a molecule that is not valid stay."""
        if not self.columns:
            return readings
        known = readings.detach().cpu().clone()
        for row, molecule in enumerate(unbatch(batch)):
            if molecule.smiles is not None:
                said = scores_of(molecule.smiles)
                for name, column in self.columns.items():
                    known[row, column] = said[name]
        return readings + (known.to(readings) - readings).detach()

    def certain(self, errors: Tensor) -> Tensor:
        """Errors (..., P) to be expected of the readings, none of the scores."""
        errors = errors.clone()
        errors[..., list(self.columns.values())] = 0.0
        return errors
