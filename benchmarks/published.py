"""Numbers of others, as quoted in the literature; D-Flow's could not be checked against the paper's own text."""

from __future__ import annotations

# Mean absolute errors on QM9 in the field's units: alpha Bohr³, gap homo lumo meV, mu D, cv cal/(mol K).
COLUMNS = ("alpha", "gap", "homo", "lumo", "mu", "cv")
FIELD_UNITS = {"alpha": "Bohr³", "gap": "meV", "homo": "meV", "lumo": "meV", "mu": "D", "cv": "cal/(mol K)"}
FIELD_FACTOR = {name: 1000.0 if unit == "meV" else 1.0 for name, unit in FIELD_UNITS.items()}

FLOOR = "evaluator's own error (floor)"
# "perfect generator": real QM9 molecules of the right size drawn K times, guide and judge both off by the floor.
TARGETS: dict[str, dict[str, float]] = {
    row: dict(zip(COLUMNS, values, strict=True))
    for row, values in {
        "shuffled (upper bound)": (9.01, 1470, 645, 1457, 1.616, 6.857),
        "knows n_atoms only": (3.86, 866, 426, 813, 1.053, 1.971),
        "EDM (conditional)": (2.76, 655, 356, 584, 1.111, 1.101),
        "D-Flow": (1.39, 344, 182, 330, 0.300, 0.784),
        "best of 8, perfect generator": (1.42, 294, 172, 257, 0.349, 0.634),
        "best of 64, perfect generator": (0.32, 117, 74, 71, 0.099, 0.139),
        "best of 512, perfect generator": (0.18, 97, 60, 56, 0.075, 0.069),
        "molflow's bar": (0.15, 95, 58, 54, 0.065, 0.060),
        FLOOR: (0.10, 64, 39, 36, 0.043, 0.040),
    }.items()
}

# Unconditional QM9 with hydrogens: atom stability, molecule stability, validity, as fractions; by the field's rules,
# which read bonds off the distances and call the largest fragment valid.
UNCONDITIONAL: dict[str, tuple[float, float, float | None]] = {
    "QM9 itself": (0.990, 0.952, 0.977),
    "EDM": (0.987, 0.820, 0.919),
    "GeoLDM": (0.989, 0.894, 0.938),
    "EquiFM": (0.989, 0.883, None),
    "GeoBFN, 2000 steps": (0.993, 0.933, 0.969),
}
