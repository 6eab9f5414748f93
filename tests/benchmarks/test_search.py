"""The benchmarks of the search: what they measure of known things, and that they run with untrained networks."""

from __future__ import annotations

import cProfile
import dataclasses
import math
import pstats
import time
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from scipy.spatial.transform import Rotation

from benchmarks import conditions, throughput
from molflow.molecules.convert import Molecule


def core(piece: Molecule) -> Chem.Mol:
    mol = Chem.RemoveHs(piece.to_rdkit())
    Chem.SanitizeMol(mol)
    return mol


def test_a_fragment_is_found_by_its_bonds_and_by_how_far_its_atoms_are_off() -> None:
    ketone = conditions.embedded("O=C1CCCCC1")
    inside, outside = core(conditions.embedded("O=C1CCCCC1")), core(conditions.embedded("OC1CCCCC1"))
    turned = dataclasses.replace(ketone, positions=Rotation.random(rng=0).apply(ketone.positions) + 3.0)
    assert conditions._farthest([inside], turned.to_rdkit()) < 1e-3
    assert conditions._farthest([outside], turned.to_rdkit()) == math.inf
    moved = turned.positions.copy()
    moved[0] += 0.5 * (moved[0] - moved[1]) / np.linalg.norm(moved[0] - moved[1])  # the oxygen, off by half an Å
    off = conditions._farthest([inside], dataclasses.replace(turned, positions=moved).to_rdkit())
    assert 0.25 < off < 0.5
    methyl = core(conditions.embedded("CC"))  # cyclohexane's six carbons hold three of them, not four
    assert conditions._farthest([methyl] * 3, turned.to_rdkit()) < 0.1
    assert conditions._farthest([methyl] * 4, turned.to_rdkit()) == math.inf


def test_phases_and_operations_are_shares_of_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def rest() -> None:
        time.sleep(0.05)

    def work() -> None:
        time.sleep(0.15)
        rest()

    monkeypatch.setattr(throughput, "PHASES", {"resting": (Path(__file__).name, "rest")})
    profiler = cProfile.Profile()
    with profiler:
        work()
    stats = pstats.Stats(profiler)
    phases = throughput._phases(stats)
    assert phases["resting"] + phases["the rest"] == pytest.approx(1) and 0 < phases["resting"] < 1
    operations = throughput._operations(stats)
    assert next(iter(operations)) == "<built-in method time.sleep>" and sum(operations.values()) <= 1 + 1e-9


def test_untrained_networks_meet_no_formula_and_that_is_in_the_table(tiny_weights: dict[str, Path],
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "FRAGMENTS", {})
    monkeypatch.setattr(conditions, "PAIRS", {})
    monkeypatch.setattr(conditions, "LEADS", {})
    monkeypatch.setattr(conditions, "FORMULAS", ("C2H6",))
    results = conditions.run(n=2, device="cpu", weights=tiny_weights["guide"].parent)
    assert results["rows"][0]["returned"] == 0 and results["rows"][0]["asked"] == 2
    assert conditions.tables(results)[0].rows[0][:3] == ["formula: C2H6", "2", "0"]
