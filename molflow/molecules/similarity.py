"""How much molecules are alike, by Tanimoto's coefficient of their Morgan fingerprints.

Rogers & Hahn 2010, J. Chem. Inf. Model. 50, 742; radius 2, 2048 bits.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from rdkit.DataStructs import ExplicitBitVect

_GENERATOR = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)

MOST = 1000
"""Of more molecules than these, a thousand spread evenly over them stand for all: the pairs are quadratic."""


def fingerprint(smiles: str) -> ExplicitBitVect:
    """Of a molecule that RDKit can read."""
    return _GENERATOR.GetFingerprint(Chem.MolFromSmiles(smiles))


def diversity(smiles: Collection[str]) -> float:
    """1 less the mean similarity of two different molecules: internal diversity (Benhenda 2017, arXiv 1708.08227).

    0 for fewer than two.
    """
    chosen = sorted(smiles)
    if len(chosen) > MOST:
        chosen = [chosen[place] for place in np.linspace(0, len(chosen) - 1, MOST).astype(int)]
    if len(chosen) < 2:
        return 0.0
    prints = [fingerprint(one) for one in chosen]
    total = sum(sum(DataStructs.BulkTanimotoSimilarity(one, prints[:number])) for number, one in enumerate(prints))
    return 1 - total / (len(prints) * (len(prints) - 1) / 2)
