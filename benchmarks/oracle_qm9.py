"""The DFT oracle against QM9's own numbers, on QM9's own geometries, and what density fitting changes and saves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.data import needed_qm9
from benchmarks.record import Parts
from benchmarks.tables import Table, number
from molflow.data.store import MoleculeStore
from molflow.molecules.convert import unbatch
from molflow.oracles import dft

CHOSEN = {
    1: "methane", 2: "ammonia", 3: "water", 4: "acetylene", 5: "hydrogen cyanide", 6: "formaldehyde", 8: "methanol",
    10: "acetonitrile", 12: "formamide", 16: "cyclopropane", 17: "oxirane", 27: "cyanoformaldehyde", 25: "cyanogen",
    20: "urea", 45: "N-methylaziridine", 166: "1,2,3-triazole", 177: "oxatetrazole", 52: "furan", 51: "imidazole",
    105: "bicyclo[1.1.1]pentane", 184: "tetrafluoromethane", 827: "trifluoroacetonitrile",
    282: "an amidinium carboxylate", 271: "beta-alanine as a zwitterion",
}
"""QM9's numbers: every element, chains, rings and cages, double and triple bonds, zwitterions."""

LARGE = {911: "4-pyranone", 4258: "uracil", 128975: "an azapurine", 132140: "a difluorooxazinimine"}
"""Of 7 to 9 heavy atoms: orbitals and dipole only, since without fitting the polarisability takes most of the time."""

BARS = {"homo": 0.003, "lumo": 0.003, "mu": 0.001, "alpha": 0.05}
"""eV, eV, D, Bohr³: how near the oracle has to come. QM9's last digits are worth 0.0027 eV, 0.0001 D, 0.01 Bohr³."""

WAYS = "exact", "fitted"

SHOWN = {"homo": ("HOMO, meV", 1e3), "lumo": ("LUMO, meV", 1e3), "mu": ("dipole, 0.001 D", 1e3),
         "alpha": ("alpha, 0.01 Bohr³", 1e2)}


def run(*, n: int = len(CHOSEN) + len(LARGE), seed: int = 0, parts: Parts) -> dict[str, Any]:
    """The first ``n`` molecules, each a part of its own; ``seed`` has nothing to drive."""
    store = needed_qm9()
    chosen = list({**CHOSEN, **LARGE}.items())[:n]
    return {"version": dft.version(), "molecules": [
        parts(f"qm9_{index}", lambda index=index, name=name: compare(store, index, name)) for index, name in chosen]}


def compare(store: MoleculeStore, index: int, name: str) -> dict[str, Any]:
    """Oracle less QM9, exactly and with density fitting, and processor seconds."""
    member = (store.index == index).nonzero().flatten()
    [molecule] = unbatch(store.batch(member))
    [wanted] = store.columns(tuple(BARS)).double()[member].tolist()
    found: dict[str, Any] = {"index": index, "name": name, "smiles": molecule.smiles,
                             "atoms": len(molecule.numbers), "heavy_atoms": int((molecule.numbers > 1).sum())}
    for fitted in (False, True):
        begun = time.process_time()
        values = dft.properties(molecule, alpha=index in CHOSEN, density_fitting=fitted)
        found[WAYS[fitted]] = {
            "seconds": time.process_time() - begun, "fault": values.fault, "method": values.method,
            **{key: getattr(values, key) - value for key, value in zip(BARS, wanted, strict=True)}}
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    """Molecule by molecule, and the largest deviations beside the bars."""
    molecules = results["molecules"]
    columns = [f"{label}{by}" for by in ("", ", DF") for label, _ in SHOWN.values()]
    rows = [[each["name"], str(each["heavy_atoms"]),
             *(number(_times(each[way][key], scale), 2) for way in WAYS for key, (_, scale) in SHOWN.items()),
             *(number(each[way]["seconds"]) for way in WAYS)] for each in molecules]
    one_by_one = Table(f"Oracle less QM9, {results['version']}", ["", "heavy atoms", *columns, "s", "s, DF"], rows,
                       "B3LYP/6-31G(2df,p) at QM9's geometries; DF: density fitting; s: processor seconds. QM9 gives "
                       "orbital energies to 2.7 meV, dipoles to 0.0001 D, polarisabilities to 0.01 Bohr³.")
    rows = [[label, number(BARS[key] * scale), *(part for way in WAYS for part in _summary(molecules, way, key, scale))]
            for key, (label, scale) in SHOWN.items()]
    failed = [f"{each['name']} ({each[way]['fault']})" for each in molecules for way in WAYS if each[way]["fault"]]
    return [Table(f"Deviations from QM9, {len(molecules)} molecules",
                  ["", "bar", "largest", "mean", "largest, DF", "mean, DF"], rows,
                  f"Of absolute values. Failed: {', '.join(failed) or 'none'}."), one_by_one]


def _summary(molecules: Sequence[dict[str, Any]], way: str, key: str, scale: float) -> tuple[str, str]:
    misses = [scale * abs(each[way][key]) for each in molecules if each[way][key] is not None]
    return (number(max(misses)), number(sum(misses) / len(misses))) if misses else (number(None), number(None))


def _times(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value
