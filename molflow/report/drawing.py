"""A structure drawn flat, hydrogens of a valid one implied, a broken one exactly as it was generated."""

from __future__ import annotations

from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from molflow.molecules.convert import Molecule, sanitise

CELL = (260, 190)
"""Pixels of a drawing."""

# Carbon and bonds take the colour of the text around, the rest can be read on white and on black.
_INK, _PALETTE = (0.0, 0.0, 0.0), {1: (0.5, 0.5, 0.5), 6: (0.0, 0.0, 0.0), 7: (0.2, 0.45, 0.95), 8: (0.9, 0.25, 0.2),
                                   9: (0.1, 0.6, 0.35)}


def png(molecule: Molecule) -> bytes | None:
    """On white, ``CELL`` pixels large; None if RDKit cannot draw it."""
    canvas = rdMolDraw2D.MolDraw2DCairo(*CELL)
    return canvas.GetDrawingText() if _draw(molecule, canvas) else None


def svg(molecule: Molecule) -> str | None:
    """An <svg> element on no background, in the colour of the text around it; None if RDKit cannot draw it.

    Letters are paths: no text of the molecule's is in it.
    """
    canvas = rdMolDraw2D.MolDraw2DSVG(*CELL)
    options: Any = canvas.drawOptions()
    options.clearBackground = False
    options.setAtomPalette({-1: _INK, **_PALETTE})
    if not _draw(molecule, canvas):
        return None
    text = canvas.GetDrawingText()
    return text[text.index("<svg"):].replace("#000000", "currentColor").replace("\n", "")


def _draw(molecule: Molecule, canvas: Any) -> bool:
    with rdBase.BlockLogs():
        try:
            mol = molecule.to_rdkit()
            sanitised, _ = sanitise(mol)
            if sanitised is not None:
                Chem.AssignStereochemistryFrom3D(sanitised)
                mol = Chem.RemoveHs(sanitised)
            options: Any = canvas.drawOptions()  # RDKit's type stubs are wrong
            options.prepareMolsBeforeDrawing, options.fixedBondLength = False, 35
            sound = sanitised is not None
            canvas.DrawMolecule(rdMolDraw2D.PrepareMolForDrawing(mol, sound, sound, sound, forceCoords=True))
            canvas.FinishDrawing()
        except (ValueError, RuntimeError, Chem.MolSanitizeException):
            return False
    return True
