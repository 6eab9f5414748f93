"""What molecules are labelled with, by name, as plain data. No chemistry library is imported: the scores are
calculated by `druglike`, the rest by `molflow.oracles.xtb`."""

LEVELS: dict[str, str] = {"qm9": "B3LYP/6-31G(2df,p)", "moses3d": "GFN2-xTB", "geom": "GFN2-xTB"}
"""By what quantum chemistry our own data sets' electronic properties are labelled."""

DRUGLIKE: dict[str, str] = {"qed": "", "logp": "", "tpsa": "Å^2", "sa": "", "mw": "g/mol"}
"""Name: unit. Quantitative estimate of drug-likeness, 0 to 1 (Bickerton et al. 2012, Nat. Chem. 4, 90); octanol-water
partition (Wildman, Crippen 1999, J. Chem. Inf. Comput. Sci. 39, 868); topological polar surface (Ertl et al. 2000, J.
Med. Chem. 43, 3714); synthetic accessibility, 1 easy to 10 hard (Ertl, Schuffenhauer 2009, J. Cheminf. 1, 8); molar
mass."""

DRUGLIKE_RESOLUTION: dict[str, float] = {"qed": 0.02, "logp": 0.1, "tpsa": 2.0, "sa": 0.1, "mw": 1.0}
"""What is worth telling apart of each: the unit in which a guide's errors in different scores are added."""

XTB: dict[str, str] = {"alpha": "Bohr^3", "gap": "eV", "homo": "eV", "lumo": "eV", "mu": "D", "solvation": "kcal/mol"}
"""Name: unit, of GFN2-xTB's values: polarisability, gap and orbital energies, all on a scale of their own, not QM9's;
dipole; free energy of solvation in water."""

XTB_RESOLUTION: dict[str, float] = {"solvation": 0.5}
"""As of the scores; the others are told apart as QM9's of the same names."""
