"""The force field MMFF94s (Halgren 1999, J. Comput. Chem. 20, 720), by RDKit."""

from __future__ import annotations

from dataclasses import replace

from rdkit.Chem import rdForceFieldHelpers

from molflow.molecules.convert import Molecule, sanitise

WITHIN = 0.1
"""Å: so far an atom may go before it is held back. Bonds, angles and planes need no more."""

HOLD = 20.0
"""kcal/(mol Å²), of what holds it back farther out."""

STEPS = 500


def settled(molecule: Molecule) -> Molecule | None:
    """A valid molecule with its bonds, angles and planes put right, and its conformation kept; None where MMFF94s has
    no parameters for it."""
    mol, _ = sanitise(molecule.to_rdkit())
    if mol is None:
        return None
    known = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant="MMFF94s")
    if known is None:
        return None
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, known)
    field.Initialize()
    for atom in range(mol.GetNumAtoms()):
        field.MMFFAddPositionConstraint(atom, WITHIN, HOLD)
    field.Minimize(maxIts=STEPS)
    return replace(molecule, positions=mol.GetConformer().GetPositions())
