"""What drug-like molecules are made of: rings, aromatic systems, functional groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import Fragments, rdMolDescriptors

from benchmarks.distributions import total_variation
from benchmarks.pool import spread
from benchmarks.tables import Table, number, percent
from molflow.molecules.convert import Molecule, sanitise
from molflow.molecules.druglike import scores

SHOWN = 15
"""Functional groups in the table, the commonest of the real molecules."""

GROUPS = {name.removeprefix("fr_"): getattr(Fragments, name) for name in dir(Fragments) if name.startswith("fr_")}
"""RDKit's functional groups: how many of each a molecule has."""

SYSTEMS = {
    "rings": rdMolDescriptors.CalcNumRings, "aromatic rings": rdMolDescriptors.CalcNumAromaticRings,
    "saturated rings": rdMolDescriptors.CalcNumSaturatedRings,
    "spiro atoms": rdMolDescriptors.CalcNumSpiroAtoms, "bridgehead atoms": rdMolDescriptors.CalcNumBridgeheadAtoms,
    "rotatable bonds": rdMolDescriptors.CalcNumRotatableBonds,
}  # fmt: skip


def describe(molecule: Molecule) -> tuple[dict[str, float], dict[str, int], dict[str, int]]:
    """Scores, ring systems and functional groups of a valid molecule."""
    mol, fault = sanitise(molecule.to_rdkit())
    if mol is None:
        raise ValueError(f"not a molecule: {fault}")
    heavy = Chem.RemoveHs(mol)
    return (scores(heavy), {name: count(heavy) for name, count in SYSTEMS.items()},
            {name: count(heavy) for name, count in GROUPS.items()})


def measure(pool: Executor, molecules: Sequence[Molecule], what: str) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Ring systems and functional groups a molecule, over valid ones; and the scores of each."""
    done = spread(pool, describe, molecules, f"groups, {what}", chunk=20)
    found = {kind: {name: float(np.mean([each[place][name] for each in done])) for name in names}
             for place, kind, names in ((1, "systems", SYSTEMS), (2, "groups", GROUPS))}
    values = {name: [each[0][name] for each in done] for name in done[0][0]}
    return {"molecules": len(molecules), **found}, values


def table(results: Mapping[str, Any]) -> Table:
    sets = {name: results[name] for name in ("generated", "real") if name in results}
    last = list(sets.values())[-1]["groups"]  # the real ones where there are some
    shown = sorted(last, key=lambda name: -last[name])[:SHOWN]
    rows = [[name, *(number(found[kind][name]) for found in sets.values())]
            for kind, names in (("systems", SYSTEMS), ("groups", shown)) for name in names]
    counts = " and ".join(f"{found['molecules']} {name}" for name, found in sets.items())
    note = f"A molecule; of {counts} valid ones."
    if len(sets) == 2:
        apart = total_variation(*(Counter({name: round(1e6 * share) for name, share in found["groups"].items()})
                                  for found in sets.values()))
        note += f" All {len(GROUPS)} functional groups of RDKit: total variation {percent(apart)} %."
    return Table("Rings and functional groups", ["", *sets], rows, note)
