"""Drug-like molecules as they come from a generator, in the protocol of the corrected GEOM-Drugs evaluation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import distributions, figures, groups, plausibility, qm9_unconditional, strain, uncertainty
from benchmarks.data import smiles_of
from benchmarks.pool import processes
from benchmarks.qm9_unconditional import SHOWN, Examined, draw
from benchmarks.tables import Picture, Table, number, percent
from molflow.data.store import MoleculeStore, data_folder
from molflow.designer import choose_sizes
from molflow.models import STEPS, Generator
from molflow.molecules import metrics
from molflow.molecules.convert import collate, unbatch
from molflow.molecules.labels import DRUGLIKE
from molflow.molecules.stability import molecules_stable, stable_by_geom
from molflow.nn.weights import SHIPPED
from molflow.oracles import xtb

ATOM_STABILITY, MOLECULE_STABILITY = "atom_stability_geom", "molecule_stability_geom"
FIGURES = {
    ATOM_STABILITY: "atoms stable, GEOM-Drugs' valences", MOLECULE_STABILITY: "molecules stable, GEOM-Drugs' valences",
    metrics.MOLECULE_STABILITY_BONDS: "molecules stable, closed shells", metrics.CONNECTED: "connected",
    metrics.VALID: "valid and connected", metrics.NEUTRAL: "neutral", metrics.UNIQUE: "unique",
    metrics.VALID_UNIQUE: "valid × unique", metrics.NOVEL: "novel",
}  # fmt: skip


def run(*, pictures: list[Picture], n: int = 1000, seed: int = 0, device: str = "auto",
        weights: Path = SHIPPED / "moses3d", checked: int = 200, relaxed: int = 100) -> dict[str, Any]:
    """The same ``n`` molecules as ``molflow sample -n N --seed S --generator FILE``, beside as many real ones of the
    test split of the data that the generator has learnt from.

    Of either, ``checked`` are given to PoseBusters and ``relaxed`` valid ones to xTB.
    """
    programs = {"posebusters": plausibility.version(), "strain": xtb.version()}
    generator = Generator.load(weights / "generator.safetensors", device)
    begun = time.perf_counter()
    batch = generator.sample(choose_sizes(generator, n, seed, None), seed=seed)
    seconds = time.perf_counter() - begun

    data, part = generator.card.data, generator.card.training.get("part", "half_b")
    path = data_folder() / f"{data}.safetensors"
    store = MoleculeStore.load(path) if path.exists() else None
    rng = np.random.default_rng([seed, 1])
    known = None
    with processes() as pool:
        found = {"generated": unbatch(batch)}
        if store is not None:
            rows = store.parts()
            known = smiles_of(store, path, rows[part], pool)
            test = rng.choice(rows["test"], min(n, len(rows["test"])), replace=False)
            found["real"] = unbatch(store.batch(torch.as_tensor(test)))
        sets = {name: qm9_unconditional.examine(molecules, pool, name) for name, molecules in found.items()}
        made_of = {}
        for name, one in sets.items():
            if one.valid:
                made_of[name], values = groups.measure(pool, one.valid, name)
                one.features.properties.update(values)
        checks = {name: plausibility.measure(pool, draw(one.molecules, checked, rng), name)
                  for name, one in sets.items()}
        strains = {name: strain.measure(pool, draw(one.valid, relaxed, rng), name)
                   for name, one in sets.items() if one.valid}

    made, real = sets["generated"], sets.get("real")
    if made.valid and real:
        curves = figures.histograms(made.features, real.features, (strains["generated"][1], strains["real"][1]))
        pictures.append(Picture("distributions", "Valid generated molecules over real ones", curves,
                                "What lies outside of a window is in its first and last bin."))
    pictures.append(Picture("molecules", f"{min(n, SHOWN)} of the generated molecules, drawn at random",
                            figures.structures(draw(made.molecules, SHOWN, rng)), "Shaded: not valid, and why."))
    judged = {name: judge(one, known) for name, one in sets.items()}
    return {
        "data": data,
        **{name: judged[name][0] if name in judged else None for name in ("generated", "real")},
        "standard_errors": {name: errors for name, (_, errors) in judged.items()},
        "nfe": STEPS,
        "seconds_per_1000": 1000 * seconds / n,
        "training_part": part,
        "distances": distributions.distances(made.features, real.features) if made.valid and real else None,
        "groups": made_of,
        "posebusters": {"version": programs["posebusters"], **checks},
        "strain": {"method": xtb.METHOD, "version": programs["strain"],
                   **{name: measured for name, (measured, _) in strains.items()}},
        "missing": None if store is not None else f"real molecules and novelty: no prepared data at {path}",
    }


def judge(one: Examined, known: set[str] | None) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of QM9's benchmark, and stability by the valences that occur in GEOM-Drugs, kekulised."""
    found, errors = qm9_unconditional.judge(one.molecules, known)
    stable, sizes, whole = [], [], 0
    for start in range(0, len(one.molecules), 100):
        batch = collate(one.molecules[start : start + 100])
        atoms = stable_by_geom(batch)
        stable += atoms.sum(1).tolist()
        sizes += batch.sizes.tolist()
        whole += int(molecules_stable(atoms, batch).sum())
    share = whole / len(one.molecules)
    return (found | {ATOM_STABILITY: sum(stable) / sum(sizes), MOLECULE_STABILITY: share},
            errors | {ATOM_STABILITY: uncertainty.ratio(stable, sizes),
                      MOLECULE_STABILITY: uncertainty.binomial(share, len(one.molecules))})


def tables(results: dict[str, Any]) -> list[Table]:
    sets = {name: results[name] for name in ("generated", "real") if results[name]}
    rows = [[label, *(percent(values.get(key), results["standard_errors"][name].get(key))
                      for name, values in sets.items())] for key, label in FIGURES.items()]
    blank = ["–"] * (len(sets) - 1)
    rows += [["NFE", str(results["nfe"]), *blank], ["seconds for 1,000", number(results["seconds_per_1000"]), *blank]]
    note = ("Per cent ± standard error. Stable: every atom's kekulised bonds add up to a valence that its element has "
            "at its charge, in GEOM-Drugs or in closed shells. Valid: sanitised whole, in one piece, no open valence. "
            "Neutral, unique: of the valid. Novel: of the distinct, not in "
            f"{results['training_part']}." + (f" Missing: {results['missing']}." if results["missing"] else ""))
    title = f"{results['generated']['n']:.0f} molecules, learnt from {results['data']}"
    found = [Table(title, ["", *sets], rows, note)]
    if results["groups"]:
        found.append(groups.table(results["groups"]))
    if results["distances"]:
        found.append(_distances(results["distances"]))
    found.append(plausibility.table(results["posebusters"]))
    if results["strain"].keys() & {"generated", "real"}:
        found.append(strain.table(results["strain"]))
    return found


def _distances(found: dict[str, Any]) -> Table:
    rows = [["atoms in a molecule", "atoms", number(found["sizes"])],
            *([label, "% TV", number(None if found[name] is None else 100 * found[name])] for name, label in
              (("elements", "elements"), ("bonds", "kinds of bonds"), ("rings", "ring sizes"))),
            *([name, DRUGLIKE[name], number(value)] for name, value in found["properties"].items()),
            *([f"{kind} {what}", unit, number(value)]
              for what, name, unit in (("length", "lengths", "Å"), ("angle", "angles", "degrees"))
              for kind, value in found[name].items())]
    return Table("Distances to real molecules", ["", "unit", "generated"], rows,
                 "Of valid ones. TV: total variation of the shares; all others are Wasserstein-1 distances. “:” is "
                 "aromatic.")

