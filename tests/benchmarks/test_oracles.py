"""The benchmark of designed molecules by DFT, on molecules of which one knows what DFT says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import targets_dft
from benchmarks.record import Parts
from molflow.molecules.convert import Molecule


def designed(molecule: Molecule, **claims: Any) -> dict[str, Any]:
    return {"smiles": molecule.smiles, "valid": molecule.is_valid, "numbers": molecule.numbers.tolist(),
            "charges": molecule.charges.tolist(), "bonds": molecule.bonds.tolist(),
            "positions": molecule.positions.tolist(), **claims}


def test_designed_molecules_by_dft_and_those_that_fail_stay_in_the_table(qm9: list[Molecule], tmp_path: Path) -> None:
    """QM9's dipole of water is 1.8511 D."""
    water = next(molecule for molecule in qm9 if molecule.formula == "H2O")
    lost = Molecule(np.full((3, 3), np.nan), water.numbers, water.charges, water.bonds)
    parts = Parts(tmp_path, {"n": 2}, {"commit": None, "dirty": None})
    parts("mu-designed", lambda: {"molecules": [designed(water, target=1.5, guide=1.6, evaluator=1.9),
                                                designed(lost, target=2.0, guide=2.1, evaluator=float("nan"))]})
    unstarted = targets_dft.run(parts=parts, n=2, properties=("mu",), minutes=0)
    assert unstarted["properties"]["mu"]["molecules"] == []
    assert [row[1:3] for row in targets_dft.tables(unstarted)[1].rows] == [["2", "0"]]

    results = targets_dft.run(parts=parts, n=2, properties=("mu",))
    first, second = results["properties"]["mu"]["molecules"]
    assert first["generated"]["value"] == pytest.approx(1.8511, abs=1e-3)
    assert first["relaxed"]["value"] == pytest.approx(1.8511, abs=5e-3)
    assert first["relaxed"]["keeps_bonds"] is True
    assert first["relaxed"]["strain"] == pytest.approx(0, abs=0.1)  # QM9's geometry is the minimum
    assert first["xtb"]["value"] == pytest.approx(1.8, abs=0.01) and first["xtb"]["keeps_bonds"] is True
    assert first["xtb"]["strain"] > 0  # by its own energy
    assert {second[state]["fault"] for state in targets_dft.STATES} == {"positions are not finite"}
    summary = results["properties"]["mu"]["summary"]
    assert summary["all"]["guide"] == pytest.approx({
        "molecules": 2, "mae": 0.1, "mae_standard_error": 0, "median": 0.1}, abs=1e-9)
    for way, error in (("evaluator", 0.4), ("generated", 0.3511), ("xtb", 0.3), ("relaxed", 0.3511)):
        assert summary["all"][way]["molecules"] == 1
        assert summary["all"][way]["mae"] == summary["kept"][way]["mae"]
        assert summary["all"][way]["mae"] == pytest.approx(error, abs=0.01 if way == "xtb" else 5e-3)
    errors, _, one_by_one = targets_dft.tables(results)
    assert "mu: 1 by DFT, relaxed by DFT: positions are not finite" in errors.note
    assert [row[0] for row in one_by_one.rows] == ["mu 1", "mu 2"] and "not finite" in one_by_one.rows[1][-1]

    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert targets_dft.run(parts=parts, n=2, properties=("mu",)) == results
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
