"""Design under a condition: kept fragments, a formula, a lead to stay near; what is kept, found, and how well."""

from __future__ import annotations

import math
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem, rdMolAlign, rdMolDescriptors

from benchmarks.tables import Table, number, percent
from molflow.designer import DesignRun, NothingFound, design
from molflow.molecules.convert import Molecule, from_rdkit
from molflow.molecules.similarity import diversity, fingerprint
from molflow.nn.weights import SHIPPED

TARGETS: dict[str, Any] = {"gap": 5.5, "mu": "<4"}

FRAGMENTS = {"pyrrole": "c1cc[nH]c1", "furan": "c1ccoc1", "oxirane": "C1CO1", "amide": "NC=O", "cyclobutane": "C1CCC1",
             "propyne": "CC#C", "nitrile": "CC#N", "lactone": "O=C1CCO1"}
PAIRS = {"nitrile and ether": "C#N.COC", "amide and fluoromethyl": "NC=O.CF", "cyclopropane and carbonyl": "C1CC1.CC=O",
         "furan and nitrile": "c1ccoc1.CC#N"}
FORMULAS = ("C7H10O2", "C6H11NO", "C8H14O", "C5H7N3O", "C7H8N2", "C6H8O3")
LEADS = {"cyclohexanone": "O=C1CCCCC1", "anisole's ring": "COc1ccoc1", "proline-like": "OC(=O)C1CCCN1"}
SIMILARITY = 0.4

KEPT = 0.1
"""Å from its place within which every atom of a fragment has to lie."""


def run(*, n: int = 16, seed: int = 0, device: str = "auto", weights: Path = SHIPPED) -> dict[str, Any]:
    """``n`` molecules for each condition."""
    files = {name: weights / f"{name}.safetensors" for name in ("generator", "guide", "evaluator")}
    rows = []
    asked = [*(("fragment", name, smiles) for name, smiles in {**FRAGMENTS, **PAIRS}.items()),
             *(("formula", formula, formula) for formula in FORMULAS),
             *(("lead", name, smiles) for name, smiles in LEADS.items())]
    for kind, name, text in asked:
        pieces = [] if kind == "formula" else [embedded(one) for one in text.split(".")]
        condition: dict[str, Any] = {kind: text if kind == "formula" else pieces if kind == "fragment" else pieces[0]}
        if kind == "lead":
            condition["similarity"] = SIMILARITY
        begun = time.perf_counter()
        try:
            made = design(TARGETS, n, seed, device=device, **condition, **files)
        except NothingFound:
            made = None
        rows.append({"kind": kind, "condition": name, "asked": n, "seconds": time.perf_counter() - begun,
                     **(_judged(made, kind, text, pieces) if made else {"returned": 0})})
    return {"targets": {name: str(value) for name, value in TARGETS.items()}, "rows": rows}


def embedded(smiles: str) -> Molecule:
    """As a user would make one: by RDKit's ETKDG and MMFF94."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return from_rdkit(mol)


def _judged(made: DesignRun, kind: str, text: str, pieces: list[Molecule]) -> dict[str, Any]:
    """By RDKit alone, not by what the search itself asks."""
    smiles = [str(molecule.smiles) for molecule in made.molecules]
    far: list[float] = []
    if kind == "fragment":
        cores = [Chem.RemoveHs(piece.to_rdkit()) for piece in pieces]
        for core in cores:
            Chem.SanitizeMol(core)
        far = [_farthest(cores, molecule.to_rdkit()) for molecule in made.molecules]
        meets = [distance <= KEPT for distance in far]
    elif kind == "formula":
        meets = [rdMolDescriptors.CalcMolFormula(molecule.to_rdkit()) == text for molecule in made.molecules]
    else:
        lead = fingerprint(text)
        meets = [DataStructs.TanimotoSimilarity(lead, fingerprint(one)) >= SIMILARITY for one in smiles]
    misses, over = ([abs(made.targets[name].miss(molecule.properties[f"evaluator_{name}"]))
                     for molecule in made.molecules] for name in ("gap", "mu"))
    return {"returned": len(smiles), "meet": sum(meets), "unique": len(set(smiles)),
            "diversity": diversity(set(smiles)),
            "gap_error": float(np.mean(misses)), "mu_over": float(np.mean(over)),
            "farthest": max(far) if far else None,
            "nfe": float(np.mean([molecule.properties["nfe"] for molecule in made.molecules]))}


def _farthest(cores: list[Chem.Mol], mol: Chem.Mol) -> float:
    """Å by which the worst atom is off after alignment of each piece, of the best matches that share no atom; infinite
    without any."""
    Chem.SanitizeMol(mol)
    return min((max(_off(core, mol, match) for core, match in zip(cores, matches, strict=True))
                for matches in product(*(mol.GetSubstructMatches(core, uniquify=False) for core in cores))
                if len({atom for match in matches for atom in match}) == sum(map(len, matches))), default=math.inf)


def _off(core: Chem.Mol, mol: Chem.Mol, match: tuple[int, ...]) -> float:
    moved = Chem.Mol(core)
    rdMolAlign.AlignMol(moved, mol, atomMap=list(enumerate(match)))
    apart = moved.GetConformer().GetPositions() - mol.GetConformer().GetPositions()[list(match)]
    return float(np.linalg.norm(apart, axis=1).max())


def tables(results: dict[str, Any]) -> list[Table]:
    rows = []
    for row in results["rows"]:
        if not row["returned"]:
            rows.append([f"{row['kind']}: {row['condition']}", str(row["asked"]), "0", *[""] * 7,
                         number(row["seconds"])])
            continue
        rows.append([f"{row['kind']}: {row['condition']}", str(row["asked"]), str(row["returned"]),
                     percent(row["meet"] / row["returned"]), number(row["farthest"]), str(row["unique"]),
                     number(row["diversity"]), number(1000 * row["gap_error"]), number(row["mu_over"]),
                     number(row["nfe"]), number(row["seconds"])])
    return [Table("Molecules under a condition", ["", "asked", "returned", "meet it, %", "farthest atom, Å", "unique",
                                                  "diversity", "gap error, meV", "dipole over, D", "NFE", "s"], rows,
                  f"Targets: {', '.join(f'{k} {v}' for k, v in results['targets'].items())}, by the evaluator. Whether "
                  "a molecule meets its condition is judged by RDKit: substructure with bonds, atoms after alignment.")]
