"""An oracle of one's own, as somebody outside brings it: a calculator of ASE."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential

import molflow

SAMPLE = Path(__file__).parents[1] / "molecules" / "qm9_sample.sdf"

SCRIPT = '''
"""What a user would write: calculators in a module, molecules in a file, a list of verdicts."""
import json, sys
from dataclasses import replace
import numpy as np
import molflow
from molflow.molecules.io import read_sdf
from ase.calculators.calculator import Calculator, CalculationFailed, all_changes

class Spring(Calculator):
    """Each atom on a spring that pulls it outwards; a dipole of one debye; fails for three atoms, raises nonsense for
    four."""
    implemented_properties = ["energy", "forces", "dipole"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if len(atoms) == 3:
            raise CalculationFailed("no convergence")
        if len(atoms) == 4:
            raise KeyError("four")
        if not hasattr(self, "home"):
            middle = atoms.positions.mean(0)
            self.home = middle + 1.02 * (atoms.positions - middle)
        away = atoms.positions - self.home
        self.results = {"energy": 2.0 * (away**2).sum(), "forces": -4.0 * away, "dipole": np.array([0, 0, 0.20819434])}

if __name__ == "__main__":
    molecules, _ = read_sdf(sys.argv[1])
    chosen = [next(m for m in molecules if len(m.numbers) == size) for size in (3, 4, 9)]
    chosen.append(replace(chosen[-1], properties={"target_mu": 1.8, "level": "B3LYP/6-31G(2df,p)"}))
    said = molflow.verify(chosen, method=Spring, relax=True, workers=1)
    said += molflow.verify(chosen[-1:], method=Spring, relax=True, workers=1, allowed={"mu": 0.5})
    print(json.dumps([[v.word, v.reason, v.values.energy, v.values.mu, v.keeps_bonds, v.method, v.values.version,
                       v.values.relaxation and v.values.relaxation.strain,
                       float(((v.molecule.positions - v.molecule.positions.mean(0))**2).sum())] for v in said]))
'''


def test_a_users_script_gets_a_verdict_for_every_molecule_whatever_happens(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py", SAMPLE], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(Path(molflow.__file__).parents[1])})
    assert done.returncode == 0, done.stderr
    three, four, well, claimed, compared = json.loads(done.stdout)
    assert three[:2] == ["failed", "calculation failed (no convergence)"]
    assert four[0] == "failed" and "KeyError" in four[1] and "four" in four[1]
    word, reason, energy, mu, keeps, method, version, strain, square = well
    assert (word, reason, keeps, method) == ("calculated", "", True, "spring") and version.startswith("ase 3.")
    assert energy == pytest.approx(0, abs=1e-4) and mu == pytest.approx(1.0, abs=1e-6)
    assert strain == pytest.approx(2.0 * 0.02**2 * square, abs=1e-4)  # by hand: the springs' energy before
    assert claimed[0] == "calculated"  # a calculator's values are not on B3LYP's scale, unless that is said
    assert compared[:2] == ["off target", "mu off by -0.80 D"]


@pytest.fixture(scope="module")
def ammonia(qm9):
    return next(molecule for molecule in qm9 if molecule.formula == "H3N")


def test_ases_own_emt(ammonia) -> None:
    """It was made for metals: whatever it says of ammonia, it is what ASE says, too."""
    (alone,) = molflow.verify([ammonia], method=EMT(), workers=1)
    atoms = ammonia.to_ase()
    atoms.calc = EMT()
    assert alone.values.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert alone.word == "calculated" and alone.keeps_bonds is None and np.isnan(alone.values.mu)
    row = alone.row()
    assert row["emt_energy [eV]"] == alone.values.energy and row["emt_method"].startswith("EMT (ase 3.")
    assert not any("homo" in column for column in row)


def test_emt_relaxes_and_refuses_what_it_does_not_know(qm9, ammonia) -> None:
    fluorine = next(molecule for molecule in qm9 if 9 in molecule.numbers)
    relaxed, refused = molflow.verify([ammonia, fluorine], method=EMT, relax=True, workers=1)
    path = relaxed.values.relaxation
    assert path.energy_after < path.energy_before and relaxed.values.energy == pytest.approx(path.energy_after)
    assert relaxed.word == ("breaks" if not relaxed.keeps_bonds else "strained" if path.strain
                            > 10 * units.kcal / units.mol else "calculated")
    assert refused.word == "failed" and "F" in refused.reason and np.isnan(refused.values.energy)


class NoForces(Calculator):
    implemented_properties = ["energy"]  # noqa: RUF012


class NoEnergy(Calculator):
    implemented_properties = ["dipole"]  # noqa: RUF012


def broken():
    raise OSError("no licence")


@pytest.mark.parametrize(("method", "words"), [
    (lambda: EMT(), "cannot be sent to other processes: give a class, or a function"),
    ("mopac", "unknown method 'mopac'"),
])
def test_what_cannot_be_a_method_is_refused_in_one_sentence(ammonia, method, words) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        molflow.verify([ammonia], method=method, relax=True, workers=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("method", "words"), [
    (NoForces(), "NoForces calculates no forces: molecules cannot be relaxed with it"),
    (NoEnergy(), "NoEnergy calculates no energy"), (broken, "cannot be made: OSError: no licence"),
])
def test_what_a_calculator_lacks_is_said_before_anything_is_calculated(ammonia, method, words) -> None:
    with pytest.raises(ValueError, match=words):
        molflow.verify([ammonia], method=method, relax=True, workers=1)


def test_a_morse_potential_has_its_minimum_where_it_is_known_to_be(qm9, ammonia) -> None:
    """Of two atoms at r0, -epsilon."""
    molecule = next(molecule for molecule in qm9 if len(molecule.numbers) == 3)
    pair = type(molecule)(np.array([[0, 0, 0], [0, 0, 1.1]]), np.array([1, 1]), np.zeros(2, int),
                          np.array([[0, 1], [1, 0]]))
    (verdict,) = molflow.verify([pair], method=MorsePotential(epsilon=2.0, r0=0.9, rho0=4.0), relax=True, workers=1)
    found = verdict.values.relaxation.relaxed.positions
    assert np.linalg.norm(found[0] - found[1]) == pytest.approx(0.9, abs=5e-3)
    assert verdict.values.energy == pytest.approx(-2.0, abs=1e-3) and verdict.method == "morsepotential"


def test_only_properties_can_be_compared(ammonia) -> None:
    with pytest.raises(ValueError, match="no property 'colour' to compare"):
        molflow.verify([ammonia], method=EMT, allowed={"colour": 1.0}, workers=1)
