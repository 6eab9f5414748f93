"""What DFT says of molecules designed for wanted property values, beside what guide and evaluator claim."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks import uncertainty
from benchmarks.published import FIELD_FACTOR, FIELD_UNITS
from benchmarks.qm9_targets import BUDGET, wanted
from benchmarks.record import Parts
from benchmarks.tables import Table, number
from molflow.commands.console import live
from molflow.models import Generator, Predictor
from molflow.molecules.convert import Molecule, unbatch
from molflow.molecules.geometry import keeps_bonds
from molflow.nn.property import PROPERTIES, UNITS
from molflow.nn.weights import SHIPPED
from molflow.oracles import dft, xtb
from molflow.oracles.qm9_level import FITTED_METHOD
from molflow.oracles.record import Properties
from molflow.parallel import Crash, spread
from molflow.search import Atlas, Budget, solve
from molflow.targets import TargetError
from molflow.verification import KCAL_PER_MOL

WAYS = {"guide": "by the guide", "evaluator": "by the evaluator", "generated": "by DFT, as generated",
        "xtb": "by DFT, relaxed by GFN2-xTB", "relaxed": "by DFT, relaxed by DFT"}
STATES = ("generated", "xtb", "relaxed")


def run(*, parts: Parts, n: int = 20, seed: int = 0, device: str = "auto", weights: Path = SHIPPED,
        properties: Sequence[str] = PROPERTIES, budget: Budget = BUDGET, minutes: float = math.inf) -> dict[str, Any]:
    """``n`` molecules for each property, each a part of its own: as generated, relaxed by GFN2-xTB, relaxed by DFT. The
    first of every property come first, and what is quick.

    None is begun after ``minutes``: those that have not had their turn are counted as such.
    """
    if unknown := [name for name in properties if name not in PROPERTIES]:
        raise TargetError(f"unknown property {unknown[0]!r}: known are {', '.join(PROPERTIES)}")
    begun, version = time.perf_counter(), dft.version()
    for name in properties:
        parts(f"{name}-designed", partial(design, name, n, seed, budget, weights, device))
    for state in STATES:
        for i in range(n):
            for name in properties:
                if time.perf_counter() - begun < 60 * minutes:
                    parts(f"{name}-{i + 1}-{state}", partial(examine, parts, name, i, state))
    measured = {name: {"unit": UNITS[name], "n": n,
                       "molecules": [each for i in range(n) if (each := _measured(parts, name, i))]}
                for name in PROPERTIES if parts.read(f"{name}-designed")}
    return {"version": version, "method": FITTED_METHOD, "properties": {
        name: {**part, "summary": _summary(part["molecules"])} for name, part in measured.items()}}


def design(name: str, n: int, seed: int, budget: Budget, weights: Path, device: str) -> dict[str, Any]:
    """Molecules for the targets of `qm9-targets`, with what both networks say of them."""
    generator = Generator.load(weights / "generator.safetensors", device)
    guide, evaluator = (Predictor.load(weights / f"{role}.safetensors", device) for role in ("guide", "evaluator"))
    problem, column = wanted(name, n, seed, generator, guide), PROPERTIES.index(name)
    print(f"{name}: designing", file=sys.stderr)
    with live() as tell:
        found = solve(problem, generator, guide, budget, atlas=Atlas.beside(generator), seed=seed, progress=tell)
    said = evaluator.predict(found.batch)[:, column].tolist()
    return {"molecules": [
        {"target": target, "guide": led, "evaluator": judged, "smiles": molecule.smiles, "valid": molecule.is_valid,
         "numbers": molecule.numbers.tolist(), "charges": molecule.charges.tolist(), "bonds": molecule.bonds.tolist(),
         "positions": molecule.positions.tolist()}
        for target, led, judged, molecule in zip(problem.low[:, 0].tolist(), found.guide[:, column].tolist(), said,
                                                 unbatch(found.batch), strict=True)]}


def rebuilt(designed: dict[str, Any], properties: Mapping[str, float] = MappingProxyType({})) -> Molecule:
    """A molecule of `design`."""
    positions = np.array(designed["positions"], dtype=float)  # None where they are not finite
    parts = (np.array(designed[key]) for key in ("numbers", "charges", "bonds"))
    return Molecule(positions, *parts, properties=dict(properties))


def examine(parts: Parts, name: str, i: int, state: str) -> dict[str, Any]:
    """One designed molecule by DFT, in a process of its own, which it may take with it."""
    if name == "cv" and state != "relaxed":
        return {"fault": "no heat capacity off a minimum"}
    designed = parts.read(f"{name}-designed")
    assert designed is not None
    claims = designed["molecules"][i]
    print(f"{name} {i + 1}, {state}: {claims['smiles']}", file=sys.stderr)
    molecule = rebuilt(claims)
    if state == "xtb":
        return _calculated(name, partial(at_xtb_minimum, molecule, alpha=name == "alpha"))
    return _calculated(name, partial(dft.properties, molecule, relax=state == "relaxed", alpha=name == "alpha",
                                     cv=name == "cv"))


def at_xtb_minimum(molecule: Molecule, alpha: bool) -> Properties:
    """DFT's values, and GFN2-xTB's relaxation."""
    path = xtb.relax(molecule)
    if path.fault or path.relaxed is None:
        return Properties(method=path.method, version=path.version, seconds=path.seconds, fault=path.fault,
                          relaxation=path)
    return replace(dft.properties(path.relaxed, alpha=alpha), relaxation=path)


def _measured(parts: Parts, name: str, i: int) -> dict[str, Any] | None:
    """What is known of a molecule of which something was calculated."""
    designed = parts.read(f"{name}-designed")
    assert designed is not None
    found = {state: part for state in STATES if (part := parts.read(f"{name}-{i + 1}-{state}"))}
    claims = designed["molecules"][i]
    claimed = {key: claims[key] for key in ("target", "guide", "evaluator", "smiles", "valid")}
    return {**claimed, "n_atoms": len(claims["numbers"]), **found} if found else None


def _calculated(name: str, job: Callable[[], Properties]) -> dict[str, Any]:
    """The property, or why there is none; of a relaxation what became of the molecule, too."""
    begun = time.perf_counter()
    [values] = spread([job], 1)
    found: dict[str, Any] = {"seconds": time.perf_counter() - begun}
    if isinstance(values, Crash):
        return {**found, "fault": values.why}
    found |= {"value": getattr(values, name), "fault": values.fault}
    if (path := values.relaxation) is not None:
        found |= {"strain": KCAL_PER_MOL * path.strain, "rmsd": path.rmsd,
                  "keeps_bonds": None if path.relaxed is None else keeps_bonds(path.relaxed)}
    return found


def _summary(molecules: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean absolute errors over all that have a value, how many these are, and why others have none."""

    kept = [each for each in molecules if _relaxation(each).get("keeps_bonds")]

    def errors(way: str, among: Sequence[dict[str, Any]], truth: str = "target") -> dict[str, Any]:
        pairs = [(_value(each, way), _value(each, truth)) for each in among]
        return _mean([abs(value - wanted) for value, wanted in pairs if value is not None and wanted is not None])

    strains = [strain for each in molecules if (strain := _relaxation(each).get("strain")) is not None]
    return {"all": {way: errors(way, molecules) for way in WAYS}, "kept": {way: errors(way, kept) for way in WAYS},
            "evaluator_against_dft": errors("evaluator", molecules, "generated"),
            "valid": sum(each["valid"] for each in molecules), "keeps_bonds": len(kept),
            "calculated": {way: sum(way in each for each in molecules) for way in STATES},
            "strain_median": float(np.median(strains)) if strains else None,
            "seconds": {way: float(np.mean(times)) for way in STATES if (
                times := [each[way]["seconds"] for each in molecules if "seconds" in each.get(way, {})])},
            "faults": dict(Counter(f"{WAYS[way]}: {each[way]['fault'].split(' (')[0]}" for way in STATES
                                   for each in molecules if each.get(way, {}).get("fault")))}


def _relaxation(molecule: dict[str, Any]) -> dict[str, Any]:
    """By DFT, or as long as there is none by GFN2-xTB."""
    return molecule.get("relaxed") or molecule.get("xtb", {})


def _value(molecule: dict[str, Any], said_by: str) -> float | None:
    said = molecule.get(said_by)
    return said.get("value") if isinstance(said, dict) else said


def _mean(errors: Sequence[float]) -> dict[str, Any]:
    return {"molecules": len(errors), "mae": float(np.mean(errors)) if errors else None,
            "mae_standard_error": uncertainty.mean(errors), "median": float(np.median(errors)) if errors else None}


def tables(results: dict[str, Any]) -> list[Table]:
    measured = results["properties"]

    def cells(pick: Callable[[dict[str, Any]], dict[str, Any]]) -> list[str]:
        return [_with_error(pick(part["summary"]), FIELD_FACTOR[name]) for name, part in measured.items()]

    rows = [[f"{label}{more}", *cells(lambda summary, way=way, group=group: summary[group][way])]
            for group, more in (("all", ""), ("kept", ", of those that keep their bonds")) for way, label in
            WAYS.items()]
    rows.append(["evaluator against DFT, as generated", *cells(lambda summary: summary["evaluator_against_dft"])])
    faults = [f"{name}: {count} {fault}" for name, part in measured.items()
              for fault, count in part["summary"]["faults"].items()]
    about = [[name, str(part["n"]), *(str(part["summary"]["calculated"][way]) for way in STATES),
              str(part["summary"]["valid"]),
              str(part["summary"]["keeps_bonds"]), number(part["summary"]["strain_median"]),
              *(number(part["summary"]["seconds"].get(way)) for way in STATES)]
             for name, part in measured.items()]
    one_by_one = [[f"{name} {i + 1}", each["smiles"] or "–", number(each["target"]), number(each["guide"]),
                   number(each["evaluator"]), *(number(_value(each, state)) for state in STATES),
                   number(_relaxation(each).get("strain")), _word(each)]
                  for name, part in measured.items() for i, each in enumerate(part["molecules"])]
    return [
        Table(f"Mean absolute error, by {results['method']} ({results['version']}); in brackets of how many molecules",
              ["", *(f"{name}, {FIELD_UNITS[name]}" for name in measured)], rows,
              "Every molecule that has a value counts, whatever its state. Without one: "
              f"{'; '.join(faults) or 'none'}."),
        Table("The molecules", ["", "designed", "calculated as generated", "relaxed by xTB", "by DFT", "valid",
                                "keep their bonds when relaxed", "strain, median, kcal/mol", "s, as generated",
                                "s, relaxed by xTB", "s, by DFT"], about,
              "Strain and bonds by DFT's relaxation, or where there is none by GFN2-xTB's."),
        Table("One by one, energies in eV", ["", "SMILES", "target", "guide", "evaluator", "DFT, as generated",
                                             "DFT, relaxed by xTB", "DFT, relaxed by DFT", "strain, kcal/mol", ""],
              one_by_one),
    ]


def _word(each: dict[str, Any]) -> str:
    words = [f"{WAYS[way]}: {each[way]['fault']}" for way in STATES if each.get(way, {}).get("fault")]
    words += ["not valid"] * (not each["valid"])
    words += ["breaks"] * (_relaxation(each).get("keeps_bonds") is False)
    return "; ".join(words)


def _with_error(mean: dict[str, Any], scale: float) -> str:
    if mean["mae"] is None:
        return "–"
    error = mean["mae_standard_error"]
    spread_of = "" if error is None else f" ± {number(scale * error, 1)}"
    return f"{number(scale * mean['mae'])}{spread_of} ({mean['molecules']})"
