"""The benchmarks of the networks, with untrained ones: what is counted, kept and taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import data, published, qm9_targets, qm9_unconditional
from benchmarks.record import execute, plain
from molflow.data.store import MoleculeStore
from molflow.designer import Budget
from molflow.molecules.convert import collate, unbatch
from molflow.molecules.io import read_sdf
from molflow.nn.property import PROPERTIES, RESOLUTION, UNITS


@pytest.fixture(autouse=True)
def no_prepared_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOLFLOW_DATA", str(tmp_path / "nothing"))


def test_unconditional_says_what_is_missing(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = execute("qm9-unconditional", qm9_unconditional, tmp_path, {"n": 3, "seed": 1, "weights": weights})
    results = record["results"]
    assert results["generated"]["n"] == 3 and results["nfe"] == 20 and results["seconds_sampling"] > 0
    assert results["real"] is None and "novel" not in results["generated"]
    assert "no prepared data" in (tmp_path / "qm9-unconditional.md").read_text()
    assert "GeoBFN" in capsys.readouterr().out


def targets(out: Path, weights: Path, *properties: str, seed: int = 0, resume: bool = True) -> dict[str, Any]:
    options = {"n": 2, "seed": seed, "weights": weights, "properties": properties, "budget": Budget(2, 2, 2)}
    return execute("qm9-targets", qm9_targets, out, options, resume=resume)["results"]


def test_targets_compare_at_equal_nfe_and_go_on_where_they_stopped(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = targets(tmp_path, weights, "gap")
    rows = first["properties"]["gap"]["rows"]
    assert list(rows) == ["unguided", "best_of_k", "molflow"]
    assert rows["unguided"]["nfe"] == 2
    # An untrained network makes no whole molecule, so nothing is descended from: 2 draws and 1 evaluation.
    assert rows["molflow"]["nfe"] <= 2 * (2 + 3 * 2)
    assert rows["molflow"]["nfe"] <= rows["best_of_k"]["nfe"] < rows["molflow"]["nfe"] + 2
    assert all(row["mae"] >= 0 and 0 <= row["valid"] <= 1 for row in rows.values())
    assert "missing" in first["networks"]
    with pytest.raises(FileExistsError, match="overwrite"):
        targets(tmp_path, weights, "mu", resume=False)

    part = tmp_path / "qm9-targets.parts" / "gap.json"
    before = part.read_bytes()
    second = targets(tmp_path, weights, "gap", "mu")
    assert part.read_bytes() == before and list(second["properties"]) == ["gap", "mu"]
    # Now all is there: nothing is measured, and what others have measured comes along.
    monkeypatch.setattr(qm9_targets, "measure", None)
    assert targets(tmp_path, weights, "mu") == second

    with pytest.raises(FileExistsError, match="other settings"):
        targets(tmp_path, weights, "gap", seed=1)
    assert part.read_bytes() == before


def test_targets_table_is_in_the_fields_units(weights: Path, tmp_path: Path) -> None:
    gap = targets(tmp_path, weights, "gap")["properties"]["gap"]["rows"]["unguided"]["mae"]
    table = qm9_targets.tables(json.loads((tmp_path / "qm9-targets.json").read_text())["results"])[0]
    assert table.columns[1] == "gap, meV"
    assert float(table.rows[0][1]) == pytest.approx(1000 * gap, rel=1e-2)
    assert ["D-Flow, as quoted", "344"] in [list(row) for row in table.rows]


def test_the_quoted_floor_is_the_one_that_is_trained_for() -> None:
    floor = published.TARGETS[published.FLOOR]
    assert {name: floor[name] / factor for name, factor in published.FIELD_FACTOR.items()} == pytest.approx(RESOLUTION)


@pytest.fixture(scope="module")
def store() -> MoleculeStore:
    """61 real molecules without properties."""
    molecules, _ = read_sdf(Path(__file__).parents[1] / "molecules" / "qm9_sample.sdf")
    batch = collate(molecules)
    pairs = torch.triu(batch.bonds).nonzero()

    def ptr(counts: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])

    return MoleculeStore(
        positions=batch.positions[batch.mask].float(),
        numbers=batch.numbers[batch.mask].byte(),
        charges=batch.charges[batch.mask].to(torch.int8),
        atom_ptr=ptr(batch.sizes),
        bond_index=pairs[:, 1:].byte().contiguous(),
        bond_order=batch.bonds[tuple(pairs.T)].byte(),
        bond_ptr=ptr(torch.bincount(pairs[:, 0], minlength=len(batch))),
        properties=torch.zeros(len(batch), len(PROPERTIES)),
        index=torch.arange(len(batch), dtype=torch.int32),
        bonded=torch.ones(len(batch), dtype=torch.bool),
        names=PROPERTIES,
        units=tuple(UNITS.values()),
        source="test",
    )


def test_smiles_are_kept_and_found_again(
    store: MoleculeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "set.safetensors"
    store.save(path)
    members = np.arange(20)
    found = data.smiles_of(store, path, members)
    assert found == {molecule.smiles for molecule in unbatch(store.batch(torch.arange(20)))}
    monkeypatch.setattr(data, "unbatch", None)
    assert data.smiles_of(store, path, members) == found
    with pytest.raises(TypeError):
        data.smiles_of(store, path, members[:10])


def test_plain_is_what_json_can_hold() -> None:
    value = {"budget": Budget(1, 2, 3), "pair": (1.0, float("nan")), 4: [float("inf")]}
    assert plain(value) == {"budget": {"draws": 1, "evals": 2, "steps": 3}, "pair": [1.0, None], "4": [None]}
