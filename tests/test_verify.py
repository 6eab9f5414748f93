"""Quantum chemistry's word on molecules, from Python and from the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import molflow
from molflow.molecules.convert import Molecule
from molflow.molecules.io import read_sdf, write_sdf
from molflow.parallel import Crash, spread
from molflow.verification import Verdict, tolerances


def shell(*arguments: object, command: str = "verify") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "molflow.cli", command, *map(str, arguments)], capture_output=True,
                          text=True, env={**os.environ, "COLUMNS": "120"}, check=False)


@pytest.fixture(scope="module")
def formaldehyde(qm9: list[Molecule]) -> Molecule:
    return next(molecule for molecule in qm9 if molecule.formula == "CH2O")


@pytest.fixture(scope="module")
def claimed(qm9: list[Molecule], formaldehyde: Molecule) -> dict[str, Molecule]:
    """A molecule for each word; QM9's gap of formaldehyde is 6.16 eV, its dipole 2.11 D."""
    mu = {"target_mu": 2.11}
    stretched, apart = formaldehyde.positions.copy(), formaldehyde.positions.copy()
    hydrogen = int(np.flatnonzero(formaldehyde.numbers == 1)[0])
    carbon = int(np.flatnonzero(formaldehyde.numbers == 6)[0])
    stretched[hydrogen] += 0.35 * (stretched[hydrogen] - stretched[carbon])
    zwitterion = next(m for m in qm9 if m.properties["name"] == "qm9_81579")  # opens by GFN2-xTB
    return {
        "agrees": replace(formaldehyde, properties={"name": "a", "target_gap": 6.16, **mu, "evaluator_gap": 99.0}),
        "off target": replace(formaldehyde, properties={"name": "b", "target_gap": 8.5, **mu}),
        "strained": replace(formaldehyde, positions=stretched, properties={"name": "c", **mu}),
        "breaks": replace(zwitterion, properties={"name": "d"}),
        "failed": replace(formaldehyde, positions=0 * apart, properties={"name": "e", **mu}),
        "calculated": replace(formaldehyde, properties={"name": "f", "evaluator_cv": 6.4}),
    }


def test_every_word_by_xtb_and_the_same_from_the_shell(claimed: dict[str, Molecule], tmp_path: Path) -> None:
    verdicts = molflow.verify(list(claimed.values()), relax=True, workers=2)
    assert [verdict.word for verdict in verdicts] == list(claimed)
    reasons = {verdict.word: verdict.reason for verdict in verdicts}
    assert "gap off by -" in reasons["off target"] and "eV" in reasons["off target"]
    assert "mu" not in reasons["off target"] and "kcal/mol" in reasons["strained"]
    assert "on top of each other" in reasons["failed"] and reasons["agrees"] == ""

    write_sdf(tmp_path / "in.sdf", list(claimed.values()))
    done = shell(tmp_path / "in.sdf", "--relax", "--workers", 1, "--out", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert "1 agrees" in done.stderr and "Traceback" not in done.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["xtb_verdict"]) == list(claimed)
    assert not any("solvation" in column for column in table)  # which is not calculated
    assert list(table["target_gap [eV]"].dropna()) == [6.16, 8.5] and table["evaluator_gap [eV]"][0] == 99
    np.testing.assert_allclose(table["xtb_gap [eV]"], [verdict.values.gap for verdict in verdicts], atol=1e-3)
    assert (table["xtb_strain [kcal/mol]"] > 10).sum() == 2 and table["xtb_method"].str.contains("tblite").all()


def test_an_sdf_has_the_fields_and_the_geometry_they_are_about(claimed: dict[str, Molecule], tmp_path: Path) -> None:
    source, out = tmp_path / "in.sdf", tmp_path / "out.sdf"
    write_sdf(source, [claimed["strained"], claimed["failed"]])
    assert shell(source, "--relax", "--out", out).returncode == 0
    [strained, failed], skipped = read_sdf(out)
    assert not skipped and strained.properties["name"] == "c" and strained.properties["target_mu"] == 2.11
    assert strained.properties["xtb_verdict"] == "strained" and failed.properties["xtb_verdict"] == "failed"
    assert strained.properties["xtb_method"].startswith("GFN2-xTB//GFN2-xTB (tblite")
    assert "xtb_gap [eV]" in strained.properties and "xtb_gap [eV]" not in failed.properties
    assert abs(strained.positions - claimed["strained"].positions).max() > 0.1
    assert (failed.positions == 0).all()
    refused = shell(source, "--out", out)
    assert refused.returncode == 2 and "--overwrite" in refused.stderr


def test_dft_finds_what_qm9_says(formaldehyde: Molecule) -> None:
    right = replace(formaldehyde, properties={"target_gap": 6.158, "target_mu": 2.1089})
    wrong = replace(formaldehyde, properties={"target_gap": 6.158 + 1.2 * tolerances("dft", "")["gap"]})
    found = molflow.verify([right, wrong], method="dft", workers=1)
    assert [verdict.word for verdict in found] == ["agrees", "off target"]
    row = found[0].row()
    assert row["dft_gap [eV]"] == pytest.approx(6.158, abs=3e-3)
    assert row["dft_mu [D]"] == pytest.approx(2.1089, abs=1e-3)
    assert "DF-B3LYP/6-31G(2df,p) (PySCF" in row["dft_method"] and "dft_strain [kcal/mol]" not in row
    assert np.isnan(row["dft_alpha [Bohr^3]"])  # not claimed


def test_a_design_is_verified_as_its_file_is_later(tmp_path: Path) -> None:
    arguments = ["--target", "gap=6", "--target", "alpha=70", "-n", 2, "--lookups", 1, "--generations", 0,
                 "--gradients", 0, "--device", "cpu"]
    done = shell(*arguments, "--verify", "xtb", "--out", tmp_path / "run", command="design")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "by GFN2-xTB*" in done.stdout and "GFN2-xTB//GFN2-xTB: " in done.stdout
    designed, relaxed = (read_sdf(tmp_path / "run" / name)[0] for name in ("molecules.sdf", "relaxed.sdf"))
    table = pd.read_csv(tmp_path / "run" / "results.csv")
    page = (tmp_path / "run" / "report.html").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["verify"] == "xtb"
    assert "--verify xtb" in page
    for i, verdict in enumerate(molflow.verify(designed, relax=True, workers=1)):
        path = verdict.values.relaxation
        assert verdict.values.converged and path is not None and path.relaxed is not None
        for properties in (designed[i].properties, relaxed[i].properties, table.loc[i]):
            assert properties["xtb_verdict"] == verdict.word
            assert properties["xtb_gap [eV]"] == pytest.approx(verdict.values.gap, abs=0.02)
            assert properties["xtb_strain [kcal/mol]"] == pytest.approx(verdict.found["xtb_strain [kcal/mol]"], abs=0.1)
            assert {"evaluator_gap", "guide_gap"} <= set(properties.keys())
        assert f"GFN2-xTB: {verdict.word}" in page
        assert path.rmsd == pytest.approx(np.sqrt(((relaxed[i].positions - designed[i].positions) ** 2).sum(1).mean()),
                                          abs=0.01)
    with pytest.raises(ValueError, match="'mp2': known are xtb, dft"):
        molflow.design({"gap": 6.0}, verify="mp2")


@pytest.mark.parametrize(("arguments", "words"), [
    (["--method", "mp2"], ["mp2", "xtb, dft"]), (["--workers", "0"], ["at least 1"]),
])
def test_bad_input(formaldehyde: Molecule, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    write_sdf(tmp_path / "m.sdf", [formaldehyde])
    done = shell(tmp_path / "m.sdf", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr and all(word in done.stderr for word in words)


def test_a_job_that_dies_costs_no_other() -> None:
    jobs = [partial(int, "3"), partial(int, "x"), partial(os._exit, 1), *(partial(divmod, i, 7) for i in range(20))]
    shares: list[float] = []
    three, raised, died, *others = spread(jobs, 2, shares.append)
    assert three == 3 and others == [divmod(i, 7) for i in range(20)]
    assert isinstance(raised, Crash) and raised.why.startswith("ValueError: invalid literal")
    assert died == Crash("its process ended")
    assert shares == sorted(shares)
    assert spread([]) == []


def test_without_relaxation_nothing_is_said_of_bonds(formaldehyde: Molecule) -> None:
    [verdict] = molflow.verify([formaldehyde], workers=1)
    assert isinstance(verdict, Verdict) and verdict.word == "calculated" and verdict.keeps_bonds is None
