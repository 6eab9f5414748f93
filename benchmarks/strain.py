"""How much energy molecules lose, and how far their atoms go, when GFN2-xTB relaxes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import ase.units
import numpy as np

from benchmarks import uncertainty
from benchmarks.pool import spread
from benchmarks.tables import Table, number, percent
from molflow.molecules.convert import Molecule
from molflow.molecules.geometry import keeps_bonds
from molflow.oracles import xtb

KCAL_PER_MOL = ase.units.mol / ase.units.kcal
"""In one eV."""


def measure(pool: Executor, molecules: Sequence[Molecule], what: str) -> tuple[dict[str, Any], list[float]]:
    """Figures, and the strains in kcal/mol, over all that could be relaxed; those that could not stand by name beside
    them and count as not having kept their bonds.
    """
    done = spread(pool, xtb.relax, molecules, f"xTB, {what}")
    relaxed = [each for each in done if each.converged]
    failed = [(molecule, each) for molecule, each in zip(molecules, done, strict=True) if not each.converged]
    strains = [KCAL_PER_MOL * each.strain for each in relaxed]
    kept = [each.converged and each.relaxed is not None and keeps_bonds(each.relaxed) for each in done]
    rmsds = [each.rmsd for each in relaxed]
    figures = {
        "molecules": len(molecules),
        "strain_median": float(np.median(strains)) if strains else None,
        "strain_median_standard_error": uncertainty.median(strains),
        "strain_mean": float(np.mean(strains)) if strains else None,
        "strain_mean_standard_error": uncertainty.mean(strains),
        "rmsd_median": float(np.median(rmsds)) if rmsds else None,
        "rmsd_mean": float(np.mean(rmsds)) if rmsds else None,
        "keeps_bonds": sum(kept) / len(kept),
        "keeps_bonds_standard_error": uncertainty.binomial(sum(kept) / len(kept), len(kept)),
        "failed": dict(Counter(each.fault.split(" (")[0] for _, each in failed)),
        "failures": [{"smiles": molecule.smiles, "fault": each.fault} for molecule, each in failed],
        "seconds_per_molecule": float(np.mean([each.seconds for each in done])),
    }
    return figures, strains


def table(results: Mapping[str, Any]) -> Table:
    sets = {name: results[name] for name in ("generated", "real") if name in results}

    def row(label: str, key: str) -> list[str]:
        return [label, *(_with_error(found[key], found.get(f"{key}_standard_error")) for found in sets.values())]

    rows = [row("energy lost, median, kcal/mol", "strain_median"), row("energy lost, mean, kcal/mol", "strain_mean"),
            row("RMSD of all atoms, median, Å", "rmsd_median"), row("RMSD of all atoms, mean, Å", "rmsd_mean"),
            ["keeps its bonds, %", *(percent(found["keeps_bonds"], found["keeps_bonds_standard_error"])
                                     for found in sets.values())],
            ["failed", *(", ".join(f"{count} {fault}" for fault, count in found["failed"].items()) or "none"
                         for found in sets.values())],
            row("seconds a molecule", "seconds_per_molecule")]
    return Table(f"Relaxation by {results['method']}", ["", *sets], rows,
                 "Of " + " and ".join(f"{found['molecules']} {name}" for name, found in sets.items())
                 + f" valid molecules drawn at random, {results['version']}. Failed ones have no energy and count as "
                 "not having kept their bonds.")


def _with_error(value: float | None, error: float | None) -> str:
    return number(value) + ("" if error is None else f" ± {number(error, 1)}")
