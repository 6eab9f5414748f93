"""Molecules as they come from the QM9 generator: how sound, how new, how like real ones, how strained; time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import distributions, figures, plausibility, strain, uncertainty
from benchmarks.data import MISSING, load_qm9, qm9_path, smiles_of
from benchmarks.distributions import Features
from benchmarks.pool import processes, spread
from benchmarks.published import UNCONDITIONAL
from benchmarks.tables import Picture, Table, number, percent
from molflow.data.store import qm9_split
from molflow.designer import choose_sizes
from molflow.models import STEPS, Generator, Predictor
from molflow.molecules import metrics
from molflow.molecules.convert import Molecule, collate, unbatch
from molflow.molecules.stability import stable_by_bonds, stable_by_distance
from molflow.nn.property import PROPERTIES, UNITS
from molflow.nn.weights import SHIPPED
from molflow.oracles import xtb

SHOWN = 24  # structures in the picture

FIGURES = {
    metrics.ATOM_STABILITY: "atoms stable", metrics.MOLECULE_STABILITY: "molecules stable",
    metrics.ATOM_STABILITY_BONDS: "atoms, by bonds", metrics.MOLECULE_STABILITY_BONDS: "molecules, by bonds",
    metrics.VALID: "valid", metrics.NEUTRAL: "neutral", metrics.UNIQUE: "unique",
    metrics.VALID_UNIQUE: "valid × unique", metrics.NOVEL: "novel",
}  # fmt: skip


@dataclass(frozen=True)
class Examined:
    """Molecules, the valid ones among them, and what those have in common."""

    molecules: list[Molecule]
    valid: list[Molecule]
    features: Features


def run(*, pictures: list[Picture], n: int = 10_000, seed: int = 0, device: str = "auto", weights: Path = SHIPPED,
        checked: int = 200, relaxed: int = 200) -> dict[str, Any]:
    """The same ``n`` molecules as ``molflow sample -n N --seed S``, beside as many real ones of the test split.

    Of either, ``checked`` are given to PoseBusters and ``relaxed`` valid ones to xTB. Properties are as the shipped
    evaluator sees them, of generated and of real molecules.
    """
    programs = {"posebusters": plausibility.version(), "strain": xtb.version()}  # here, not after all the sampling
    generator = Generator.load(weights / "generator.safetensors", device)
    evaluator = Predictor.load("evaluator", device)
    begun = time.perf_counter()
    batch = generator.sample(choose_sizes(generator, n, seed, None), seed=seed)
    seconds = {"sampling": time.perf_counter() - begun}

    store, part = load_qm9(), generator.card.training.get("part", "half_b")
    rng = np.random.default_rng([seed, 1])  # the sizes are drawn with the seed alone
    known, training = None, None
    with processes() as pool:
        made = examine(unbatch(batch), pool, "generated", evaluator)
        pair = {"generated": made}
        if store is not None:
            split = qm9_split()
            known = smiles_of(store, qm9_path(), split[part], pool)
            pair["real"] = examine(unbatch(store.batch(torch.as_tensor(split["test"][:n]))), pool, "test", evaluator)
            like = rng.choice(split[part], min(max(len(made.valid), 1), len(split[part])), replace=False)
            training = examine(unbatch(store.batch(torch.as_tensor(like))), pool, "training", evaluator)
        seconds["examining"] = time.perf_counter() - begun - sum(seconds.values())
        checks = {name: plausibility.measure(pool, draw(one.molecules, checked, rng), name)
                  for name, one in pair.items()}
        seconds["posebusters"] = time.perf_counter() - begun - sum(seconds.values())
        strains = {name: strain.measure(pool, draw(one.valid, relaxed, rng), name)
                   for name, one in pair.items() if one.valid}
        seconds["xtb"] = time.perf_counter() - begun - sum(seconds.values())

    if made.valid and "real" in pair:
        curves = figures.histograms(made.features, pair["real"].features, (strains["generated"][1], strains["real"][1]))
        pictures.append(Picture("distributions", "Valid generated molecules over real ones", curves,
                                "What lies outside of a window is in its first and last bin. Properties are the "
                                "evaluator's. Kinds of bonds: “:” is aromatic."))
    pictures.append(Picture("molecules", f"{min(n, SHOWN)} of the generated molecules, drawn at random",
                            figures.structures(draw(made.molecules, SHOWN, rng)), "Shaded: not valid, and why."))
    judged = {name: judge(one.molecules, known) for name, one in pair.items()}
    apart = None
    if training and made.valid:
        sides = {"generated": made, "training": training, "test": pair["real"]}
        apart = {"molecules": {name: len(side.valid) for name, side in sides.items()},
                 **{name: distributions.distances(sides[name].features, sides["test"].features)
                    for name in ("generated", "training")}}
    return {
        **{name: judged[name][0] if name in judged else None for name in ("generated", "real")},
        "standard_errors": {name: errors for name, (_, errors) in judged.items()},
        "nfe": STEPS,
        "seconds": seconds,
        "seconds_per_10000": 10_000 * seconds["sampling"] / n,
        "training_part": part,
        "distances": apart,
        "posebusters": {"version": programs["posebusters"], **checks},
        "strain": {"method": xtb.METHOD, "version": programs["strain"],
                   **{name: found for name, (found, _) in strains.items()}},
        "missing": None if store is not None else f"real molecules, novelty and distances: {MISSING}",
        "published": {row: dict(zip((metrics.ATOM_STABILITY, metrics.MOLECULE_STABILITY, metrics.VALID), values,
                                    strict=True)) for row, values in UNCONDITIONAL.items()},
    }


def examine(molecules: list[Molecule], pool: Executor, what: str, evaluator: Predictor | None = None) -> Examined:
    """Of each its verdict and, if it is valid, its features; of all valid ones together what the evaluator sees."""
    done = spread(pool, distributions.examine, molecules, f"examining, {what}", chunk=50)
    judged, valid = [molecule for molecule, _ in done], [molecule for molecule, found in done if found]
    features = Features.total(found for _, found in done if found)
    if valid and evaluator:
        values = evaluator.predict(collate(valid)).T.tolist()
        features = replace(features, properties=dict(zip(PROPERTIES, values, strict=True)))
    return Examined(judged, valid, features)


def draw(molecules: Sequence[Molecule], n: int, rng: np.random.Generator) -> list[Molecule]:
    """So many at random, or all."""
    return [molecules[i] for i in rng.choice(len(molecules), min(n, len(molecules)), replace=False)]


def judge(molecules: list[Molecule], known: AbstractSet[str] | None) -> tuple[dict[str, float], dict[str, float]]:
    """The literature's metrics and their standard errors."""
    found = metrics.evaluate(molecules, known)
    n = len(molecules)
    valid = round(found[metrics.VALID] * n)
    trials = {metrics.MOLECULE_STABILITY: n, metrics.MOLECULE_STABILITY_BONDS: n, metrics.CONNECTED: n,
              metrics.VALID: n, metrics.VALID_UNIQUE: n, metrics.NEUTRAL: valid, metrics.UNIQUE: valid,
              metrics.NOVEL: round(found[metrics.VALID_UNIQUE] * n)}
    errors = {key: uncertainty.binomial(found[key], count) for key, count in trials.items() if key in found}
    batches = [collate(molecules[i : i + 500]) for i in range(0, n, 500)]
    sizes = torch.cat([batch.sizes for batch in batches]).tolist()
    for key, stable in ((metrics.ATOM_STABILITY, stable_by_distance), (metrics.ATOM_STABILITY_BONDS, stable_by_bonds)):
        hits = torch.cat([stable(batch).sum(1) for batch in batches]).tolist()
        errors[key] = uncertainty.ratio(hits, sizes)
    return found, errors


def tables(results: dict[str, Any]) -> list[Table]:
    found = [_soundness(results)]
    if results["distances"]:
        found += _distances(results["distances"], results["training_part"])
    found.append(plausibility.table(results["posebusters"]))
    if results["strain"].keys() & {"generated", "real"}:  # unless there is nothing valid
        found.append(strain.table(results["strain"]))
    return found


def _soundness(results: dict[str, Any]) -> Table:
    columns = {"molflow": ("generated", results["generated"])}
    if results["real"]:
        columns["real, test split"] = ("real", results["real"])
    columns |= {f"{name}, as quoted": (name, figures) for name, figures in results["published"].items()}
    rows = [[label, *(percent(values.get(key), results["standard_errors"].get(name, {}).get(key))
                      for name, values in columns.values())] for key, label in FIGURES.items()]
    blank = ["–"] * (len(columns) - 1)
    rows += [["NFE", str(results["nfe"]), *blank],
             ["seconds for 10,000", number(results["seconds_per_10000"]), *blank]]
    notes = ["Per cent ± standard error. Stable: EDM's distance rule, or by generated bonds and charges. Valid: "
             "sanitised whole, in one piece, no open valence; quoted validity is of the largest fragment. Neutral, "
             f"unique: of the valid. Novel: of the distinct, not in {results['training_part']}."]
    if results["missing"]:
        notes.append(f"Missing: {results['missing']}.")
    return Table(f"{results['generated']['n']:.0f} molecules of QM9's kind", ["", *columns], rows, " ".join(notes))


def _distances(found: dict[str, Any], part: str) -> list[Table]:
    """Of the generated molecules to the test split, beside those of the training ``part`` to it."""
    heads = ["", "unit", "generated", f"{part} (floor)", "generated / floor"]

    def row(label: str, unit: str, *keys: str, factor: float = 1.0) -> list[str]:
        values = [_scaled(found[side], keys, factor) for side in ("generated", "training")]
        over = values[0] / values[1] if values[0] is not None and values[1] else None
        return [label, unit, *map(number, values), number(over, 2)]

    whole = [row("atoms in a molecule", "atoms", "sizes"),
             *(row(label, "% TV", name, factor=100.0)
               for name, label in (("elements", "elements"), ("bonds", "kinds of bonds"), ("rings", "ring sizes"))),
             *(row(name, UNITS[name].replace("^3", "³"), "properties", name)
               for name in found["generated"]["properties"])]
    counts = found["molecules"]
    note = (f"From {counts['generated']} valid generated molecules, and from {counts['training']} of the training "
            f"molecules, to {counts['test']} of the test split. TV: total variation of the shares; all others are "
            "Wasserstein-1 distances. Properties are the evaluator's.")
    return [Table("Distances to real molecules", heads, whole, note),
            *(Table(title, heads, [row(kind, unit, name, kind) for kind in found["generated"][name]], note)
              for name, title, unit, note in (
                  ("lengths", "Bond lengths: Wasserstein-1 distances to real molecules", "Å", "“:” is aromatic."),
                  ("angles", "Bond angles, by centre: Wasserstein-1 distances to real molecules", "degrees", "")))]


def _scaled(values: Any, keys: Sequence[str], factor: float) -> float | None:
    for key in keys:
        values = values[key]
    return None if values is None else factor * values
