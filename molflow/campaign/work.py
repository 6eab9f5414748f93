"""What a worker does, and all that campaigns know of `molflow.design` and of verification."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from molflow.designer import design as run_design
from molflow.extras import ExtraMissing
from molflow.models import DeviceError
from molflow.molecules.convert import Molecule
from molflow.molecules.io import inchikey
from molflow.nn.property import PROPERTIES, RESOLUTION
from molflow.nn.weights import WeightsError
from molflow.oracles import dft, xtb
from molflow.search import Budget
from molflow.targets import TargetError, check_targets, goal
from molflow.verification import KCAL_PER_MOL, VERIFIED, Method, verify_one

Values = dict[str, float | str]
"""Key-value pairs of a molecule, with names and values as `ase.db` allows them."""

FATAL = (TargetError, WeightsError, DeviceError, ExtraMissing, ImportError, OSError)
"""What a job raises if the specification or the machine is at fault: no molecule is to blame, so none is recorded."""

_CLAIM = re.compile(r"(target|guide|evaluator)_\w+|nfe")


@dataclass(frozen=True, eq=False)
class Result:
    """A molecule at the geometry that the latest stage has left it at, and what that stage has found."""

    molecule: Molecule
    values: Values


def check(targets: Mapping[str, Any]) -> None:
    """Raise TargetError, a ValueError, if `design` would not take these targets, of QM9's model."""
    if strange := [name for name in check_targets(targets) if name not in PROPERTIES]:
        raise TargetError(f"campaigns design QM9's molecules, by {', '.join(PROPERTIES)}, not by {strange[0]}")


def budget_fields() -> dict[str, int]:
    """Fields of the budget and the smallest value of each."""
    may_be_none = ("generations", "gradients", "trials")
    return {field.name: 0 if field.name in may_be_none else 1 for field in dataclasses.fields(Budget)}


def programs(methods: Iterable[Method]) -> None:
    """Raise ExtraMissing if one of these methods is not installed."""
    for method in methods:
        (xtb if method == "xtb" else dft).version()


def design(targets: Mapping[str, float | str], n: int, seed: int, share: tuple[int, int], atoms: int | None,
           budget: Mapping[str, int]) -> list[Result]:
    """Design ``n`` molecules, and see which are valid. Raises as `molflow.design`."""
    import torch

    torch.set_num_threads(1)  # the order of sums depends on it, and so do the molecules
    run = run_design(targets, n, seed, atoms=atoms, budget=Budget(**budget), share=share)
    return [Result(molecule, _designed(molecule)) for molecule in run.molecules]


def verify(molecule: Molecule, method: Method, relax: bool) -> Result:
    """Calculate a molecule; what cannot be calculated is a result that says so. Raises ExtraMissing."""
    verdict = verify_one(molecule, method=method, relax=relax)
    found, path = verdict.values, verdict.values.relaxation
    values: Values = {f"{method}_{name}": getattr(found, name) for name in VERIFIED}
    values |= {f"{method}_method": f"{found.method} ({found.version})", f"{method}_seconds": found.seconds,
               f"{method}_verdict": verdict.word, "status": verdict.word, "reason": verdict.reason}
    if path is not None:
        values |= {f"{method}_strain": KCAL_PER_MOL * path.strain, f"{method}_rmsd": path.rmsd}
    if path is None or path.fault or path.relaxed is None:
        return Result(molecule, _kept(values))
    return Result(path.relaxed, _kept({**values, "geometry": method}))


def miss(values: Mapping[str, float | str]) -> float:
    """How far a molecule is from its target by the evaluator: squared, in units of the resolution, summed."""
    wanted = [name for name in PROPERTIES if f"target_{name}" in values]
    return math.fsum((goal(name, str(values[f"target_{name}"])).miss(float(values.get(f"evaluator_{name}", math.inf)))
                      / RESOLUTION[name]) ** 2 for name in wanted)


def trusted(values: Mapping[str, float | str]) -> Values:
    """The best word on each property: DFT's where there is one, else the evaluator's, trained on the same level.

    Never xTB's: its gaps and polarisabilities are on a scale of their own.
    """
    found = {name: values.get(f"dft_{name}", values.get(f"evaluator_{name}")) for name in PROPERTIES}
    return {name: value for name, value in found.items() if value is not None}


def _designed(molecule: Molecule) -> Values:
    claims = {key: value for key, value in molecule.properties.items() if _CLAIM.fullmatch(key)}
    return _kept({**claims, "smiles": molecule.smiles or "", "inchikey": inchikey(molecule), "geometry": "generated",
                  "status": "valid" if molecule.is_valid else "invalid", "reason": molecule.fault})


def _kept(values: Values) -> Values:
    """Without what is empty or not a number: a query would only stumble over it."""
    return {key: value for key, value in values.items()
            if (value != "" if isinstance(value, str) else math.isfinite(value))}
