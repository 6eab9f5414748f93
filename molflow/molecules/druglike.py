"""What a structure formula alone says of a molecule as a drug: the usual scores, by RDKit."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from rdkit import Chem, RDConfig
from rdkit.Chem import QED, Descriptors, rdMolDescriptors


def scores(mol: Chem.Mol) -> dict[str, float]:
    """The values of `labels.DRUGLIKE` for a sanitised molecule; hydrogens that are atoms count as implicit ones do."""
    heavy = Chem.RemoveHs(mol)
    partition, _ = rdMolDescriptors.CalcCrippenDescriptors(heavy)
    return {"qed": QED.qed(heavy), "logp": partition, "tpsa": rdMolDescriptors.CalcTPSA(heavy),
            "sa": _accessibility().calculateScore(heavy),
            "mw": Descriptors.MolWt(heavy)}  # type: ignore[attr-defined]


def scores_of(smiles: str) -> dict[str, float]:
    """The same of the SMILES of a valid molecule."""
    return scores(Chem.MolFromSmiles(smiles))


@cache
def _accessibility() -> ModuleType:
    """RDKit's own script beside the library: it is not a module that can be imported by name everywhere."""
    spec = importlib.util.spec_from_file_location("sascorer", Path(RDConfig.RDContribDir, "SA_Score", "sascorer.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
