"""The benchmarks of the networks, with untrained ones: what is counted, kept and taken up again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import data, likelihood, published, qm9_targets, qm9_unconditional
from benchmarks.record import execute, plain
from molflow.data.store import MoleculeStore
from molflow.models import Generator
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import collate, unbatch
from molflow.molecules.io import read_sdf
from molflow.nn.property import PROPERTIES, RESOLUTION, UNITS
from molflow.search import Budget
from molflow.search.problem import STEPS


@pytest.fixture(autouse=True)
def no_prepared_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOLFLOW_DATA", str(tmp_path / "nothing"))


def test_unconditional_says_what_is_missing(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = execute("qm9-unconditional", qm9_unconditional, tmp_path, {"n": 3, "seed": 1, "weights": weights})
    results = record["results"]
    assert results["generated"]["n"] == 3 and results["nfe"] == 20 and results["seconds"]["sampling"] > 0
    assert results["real"] is None and "novel" not in results["generated"]
    assert results["distances"] is None and results["posebusters"]["generated"]["molecules"] == 3
    page = (tmp_path / "qm9-unconditional.md").read_text()
    assert "no prepared data" in page and "(qm9-unconditional.molecules.png)" in page
    assert (tmp_path / "qm9-unconditional.molecules.png").read_bytes().startswith(b"\x89PNG")
    assert "GeoBFN" in capsys.readouterr().out


def test_unconditional_stands_beside_real_molecules(
    store: MoleculeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped generator, against 61 real molecules split in two."""
    path = tmp_path / "data" / "set.safetensors"
    store.save(path)
    split = {"half_b": np.arange(30), "train": np.arange(30), "test": np.arange(30, 61)}
    for name, value in (("load_qm9", store), ("qm9_path", path), ("qm9_split", split)):
        monkeypatch.setattr(qm9_unconditional, name, lambda value=value: value)
    options = {"n": 10, "seed": 0, "checked": 2, "relaxed": 2}
    results = execute("qm9-unconditional", qm9_unconditional, tmp_path, options)["results"]

    generated, real = results["generated"], results["real"]
    assert generated["n"] == real["n"] == 10 and 0 < generated["valid"] <= 1
    assert real["valid"] == real["neutral"] == real["molecule_stability_bonds"] == 1
    errors = results["standard_errors"]
    assert errors["real"]["valid"] == 0
    assert errors["generated"]["valid"] == pytest.approx((generated["valid"] * (1 - generated["valid"]) / 10) ** 0.5)
    valid = round(10 * generated["valid"])
    assert results["distances"]["molecules"] == {"generated": valid, "training": valid, "test": 10}
    assert all(results["distances"][side]["properties"]["gap"] > 0 for side in ("generated", "training"))
    for judge in ("posebusters", "strain"):
        assert results[judge]["generated"]["molecules"] == results[judge]["real"]["molecules"] == 2
    assert results["strain"]["real"]["keeps_bonds"] == 1
    assert results["seconds_per_10000"] == pytest.approx(1000 * results["seconds"]["sampling"])
    page = (tmp_path / "qm9-unconditional.md").read_text()
    shown = {row[0]: row[1:] for table in qm9_unconditional.tables(results) for row in table.rows}
    assert shown["neutral"][1] == "100.0 ± 0" and shown["NFE"][0] == "20"
    gap = [results["distances"][side]["properties"]["gap"] for side in ("generated", "training")]
    assert shown["gap"][0] == "eV" and [float(cell) for cell in shown["gap"][1:]] == pytest.approx(
        [*gap, gap[0] / gap[1]], rel=0.05)
    elements = results["distances"]["generated"]["elements"]
    assert float(shown["elements"][1]) == pytest.approx(100 * elements, rel=0.01)
    for picture in ("distributions", "molecules"):
        assert f"(qm9-unconditional.{picture}.png)" in page
        assert (tmp_path / f"qm9-unconditional.{picture}.png").read_bytes().startswith(b"\x89PNG")


def targets(out: Path, weights: Path, *properties: str, seed: int = 0, resume: bool = True) -> dict[str, Any]:
    options = {"n": 2, "seed": seed, "weights": weights, "properties": properties,
               "budget": Budget(1, 1, 1, 1, 1, 1, 2)}
    return execute("qm9-targets", qm9_targets, out, options, resume=resume)["results"]


def test_targets_are_answered_by_all_and_go_on_where_they_stopped(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = targets(tmp_path, weights, "gap")
    rows = first["properties"]["gap"]["rows"]
    assert set(rows) == {"unguided", "best_of_k", "molflow"}
    assert rows["unguided"]["nfe"] == STEPS and rows["best_of_k"]["nfe"] == qm9_targets.MOST
    assert rows["molflow"]["nfe_most"] <= Budget(1, 1, 1, 1, 1, 1, 2).nfe(1)
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
    assert {name: floor[name] / factor for name, factor in published.FIELD_FACTOR.items()} == pytest.approx(
        {name: RESOLUTION[name] for name in PROPERTIES})


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
    with ThreadPoolExecutor(1) as pool:
        found = data.smiles_of(store, path, members, pool)
    assert found == {molecule.smiles for molecule in unbatch(store.batch(torch.arange(20)))}
    monkeypatch.setattr(data, "unbatch", None)
    assert data.smiles_of(store, path, members, pool) == found
    with pytest.raises(TypeError):
        data.smiles_of(store, path, members[:10], pool)


def test_plain_is_what_json_can_hold() -> None:
    value = {"budget": Budget(1, 2, 3, 4, 5, 6, 7), "pair": (1.0, float("nan")), 4: [float("inf")]}
    assert plain(value) == {"budget": {"lookups": 1, "draws": 2, "generations": 3, "children": 4, "gradients": 5,
                                       "trials": 6, "steps": 7}, "pair": [1.0, None], "4": [None]}


def test_likelihood_of_generated_and_of_real_molecules(
    weights: Path, store: MoleculeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained flow, first without data; two molecules a group and too few steps to be right."""
    monkeypatch.setattr(likelihood, "LIKELIHOOD_STEPS", 2)
    options = {"n": 2, "weights": weights}
    alone = execute("qm9-likelihood", likelihood, tmp_path / "alone", options)["results"]
    assert list(alone["groups"]) == ["generated"] and alone["distorted_below_real"] is None
    assert "no prepared data" in (tmp_path / "alone" / "qm9-likelihood.md").read_text()

    split = {"half_b": np.arange(30), "test": np.arange(30, 61)}
    monkeypatch.setattr(likelihood, "load_qm9", lambda: store)
    monkeypatch.setattr(likelihood, "qm9_split", lambda: split)
    groups = execute("qm9-likelihood", likelihood, tmp_path / "beside", options)["results"]["groups"]
    assert set(groups) == {"test", "training", "distorted", "generated"}
    assert all(figures["n"] == 2 and figures["draw_error"] > 0 for figures in groups.values())
    assert "± " in (tmp_path / "beside" / "qm9-likelihood.md").read_text()


def test_bits_are_counted_by_degrees_of_freedom(weights: Path) -> None:
    """Ammonia and water by hand: 3(n - 1) of positions, 5n of elements, 3n of charges, 4 of each pair; two draws."""
    generator = Generator.load(weights / "generator.safetensors", "cpu")
    water = MoleculeBatch(torch.zeros(2, 4, 3), torch.tensor([[7, 1, 1, 1], [8, 1, 1, 0]]),
                          torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4, 4, dtype=torch.int64))
    freedom = likelihood._freedom(generator, water)
    assert freedom.tolist() == [9 + 20 + 12 + 24, 6 + 15 + 9 + 12]
    drawn = -np.log(2) * torch.tensor([[60.0, 40.0], [70.0, 44.0]], dtype=torch.float64)
    figures = likelihood._figures(drawn, freedom)
    assert figures["bits"] == pytest.approx(1.0) and figures["bits_error"] == pytest.approx(0.0, abs=1e-12)
    assert figures["log_p"] == pytest.approx(-np.log(2) * 53.5)
    assert figures["log_p_error"] == pytest.approx(np.log(2) * 11.5)
    assert figures["draw_error"] == pytest.approx(np.log(2) * ((50 + 8) / 2) ** 0.5)
