"""PoseBusters' checks of a molecule by itself (Buttenschoen, Morris, Deane, Chem. Sci. 15, 3130, 2024; its "mol")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks import uncertainty
from benchmarks.pool import spread
from benchmarks.tables import Table, percent
from molflow.molecules.convert import Molecule

if TYPE_CHECKING:
    from posebusters import PoseBusters


PATIENCE = 60
"""Seconds for the conformers of one molecule: of some that cannot be, RDKit would look for them for ever."""


class PackageMissing(ValueError):
    """A package that only the benchmarks need is not installed."""


def version() -> str:
    """Of PoseBusters. Raises PackageMissing."""
    try:
        return metadata.version("posebusters")
    except metadata.PackageNotFoundError:
        raise PackageMissing("this benchmark needs posebusters: `pip install 'molflow[benchmarks]'`") from None


def checks(molecule: Molecule) -> dict[str, bool]:
    """The verdict of every check. What cannot be checked, because the molecule is broken or PoseBusters finds no
    conformers to compare its energy with, has not passed.
    """
    verdicts = _busters().bust([molecule.to_rdkit()]).iloc[0]
    return {name: not pd.isna(verdict) and bool(verdict) for name, verdict in verdicts.items()}


@cache
def _busters() -> PoseBusters:
    from posebusters import PoseBusters
    from posebusters.modules import energy_ratio
    from rdkit.Chem.rdDistGeom import EmbedParameters, ETKDGv3

    def within_patience() -> EmbedParameters:
        parameters = ETKDGv3()
        parameters.timeout = PATIENCE
        return parameters

    energy_ratio.ETKDGv3 = within_patience
    config = PoseBusters("mol").config
    # Release 0.6.5 lists the energy twice, once with no column in the outcome: minutes for nothing.
    config["modules"] = [module for module in config["modules"] if "chosen_binary_test_output" in module]
    for module in config["modules"]:
        if module["function"] == "energy_ratio":
            module["parameters"]["num_threads"] = 1
    return PoseBusters(config)


def measure(pool: Executor, molecules: Sequence[Molecule], what: str) -> dict[str, Any]:
    """Share of the molecules that passes each check, and all of them and is valid."""
    verdicts = spread(pool, checks, molecules, f"PoseBusters, {what}")
    passed = sum(all(verdict.values()) and molecule.is_valid
                 for verdict, molecule in zip(verdicts, molecules, strict=True)) / len(molecules)
    return {"molecules": len(molecules), "all": passed,
            "all_standard_error": uncertainty.binomial(passed, len(molecules)),
            "checks": pd.DataFrame(verdicts).mean().to_dict()}


def table(results: Mapping[str, Any]) -> Table:
    sets = {name: results[name] for name in ("generated", "real") if name in results}
    rows = [["all, and valid", *(percent(found["all"], found["all_standard_error"]) for found in sets.values())]]
    rows += [[name.replace("_", " "), *(percent(found["checks"][name]) for found in sets.values())]
             for name in sets["generated"]["checks"]]
    return Table(f"PoseBusters {results['version']}, what passes", ["", *sets], rows,
                 "Per cent of " + " and ".join(f"{found['molecules']} {name}" for name, found in sets.items())
                 + " molecules drawn at random, invalid ones included. What cannot be checked, because the molecule "
                 "cannot be sanitised or no conformers are found to compare its energy with, has not passed.")
