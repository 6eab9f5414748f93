"""Labels of a small data set: the real command in processes of its own, stopped and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from molflow import labelling
from molflow.data.records import Record, pack
from molflow.data.store import DataError, MoleculeStore
from molflow.labelling import Job, label, order, work
from molflow.molecules.convert import Molecule, collate, unbatch
from molflow.molecules.druglike import scores_of
from molflow.molecules.labels import DRUGLIKE, XTB
from molflow.oracles import xtb

ROOT = Path(__file__).parents[1]


def store_of(molecules: list[Molecule], first: int = 0) -> MoleculeStore:
    """With a column of its own, and numbers that are not the rows."""
    n = len(molecules)
    return pack([Record.of(molecule) for molecule in molecules], np.arange(n)[:, None] / 2,
                np.arange(first, first + n)[::-1], names=("rank",), units=("",), source="test", split=np.arange(n) % 3)


@pytest.fixture
def small(qm9: list[Molecule]) -> list[Molecule]:
    """Six molecules, one of them a radical, which there can be no calculation of."""
    some = sorted(qm9, key=lambda molecule: len(molecule.numbers))[:6]
    charged = replace(some[3], charges=np.eye(len(some[3].numbers), dtype=np.int64)[0])
    return [*some[:3], charged, *some[4:]]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "molflow.cli", "data", "label", *map(str, words)]


def environment(data: Path) -> dict[str, str]:
    return os.environ | {"MOLFLOW_DATA": str(data), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(data: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=ROOT, env=environment(data), capture_output=True, text=True,
                          timeout=600)


def test_the_command_adds_the_oracles_own_values(
    small: list[Molecule], tmp_path: Path, molflow: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(small)
    store.save(tmp_path / "moses3d.safetensors")
    done = run(tmp_path, "moses3d", "-n", 6, "--polarisabilities", 3)
    assert done.returncode == 0, done.stderr
    assert "without: 1, open shell" in done.stdout and "5 gap" in done.stdout

    labelled = MoleculeStore.load(tmp_path / "moses3d-xtb.safetensors")
    assert labelled.names == ("rank", *XTB) and labelled.units == ("", *XTB.values())
    for key, value in vars(store).items():
        if isinstance(value, torch.Tensor) and key != "properties":
            assert torch.equal(getattr(labelled, key), value), key
    assert torch.equal(labelled.columns(("rank",)), store.properties) and "GFN2-xTB" in labelled.source
    with_alpha = set(order(store.index)[:3])
    for row, molecule in enumerate(unbatch(store.batch(torch.arange(6)))):
        found = xtb.properties(molecule, alpha=row in with_alpha, solvation=True)
        wanted = [getattr(found, name) for name in XTB]
        assert labelled.properties[row, 1:].tolist() == pytest.approx(wanted, rel=1e-5, nan_ok=True)
        assert np.isfinite(wanted).any() == (row != 3)

    monkeypatch.setenv("MOLFLOW_DATA", str(tmp_path))
    for words, said in ((("moses3d", "-n", 6), "--overwrite"), (("moses3d-xtb", "-n", 6), "column alpha already"),
                        (("moses3d", "-n", 7, "--overwrite"), "cannot label 7 of 6")):
        refused = molflow("data", "label", *words)
        assert refused.returncode == 2 and said in refused.stderr


def test_a_run_that_was_killed_goes_on(qm9: list[Molecule], tmp_path: Path) -> None:
    largest = max(qm9, key=lambda molecule: len(molecule.numbers))
    store = store_of([largest] * (labelling.PART + 60))
    store.save(tmp_path / "moses3d.safetensors")
    out, words = tmp_path / "out.safetensors", ("moses3d", "-n", len(store), "--workers", 1)
    process = subprocess.Popen(command(*words, "--out", out), cwd=ROOT, env=environment(tmp_path),
                               stderr=subprocess.DEVNULL, start_new_session=True)
    first = tmp_path / "out.parts" / "00000.safetensors"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    made = first.stat().st_mtime_ns
    done = run(tmp_path, *words, "--out", out)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == made and f"{len(store)} gap" in done.stdout
    parts = [MoleculeStore.load(part) for part in (tmp_path / "out.parts").glob("*.safetensors")]
    assert Counter(number for part in parts for number in part.index.tolist()) == Counter(range(len(store)))


def test_more_labels_and_more_molecules_keep_what_is_done(
    qm9: list[Molecule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "PART", 2)
    some = sorted(qm9, key=lambda molecule: len(molecule.numbers))[:9]
    store, out = store_of(some), tmp_path / "out.safetensors"
    folder = tmp_path / "out.parts"

    def done() -> dict[int, int]:
        parts = [MoleculeStore.load(part) for part in folder.glob("*.safetensors")]
        return Counter(number for part in parts for number in part.index.tolist())

    count, _ = label(store, out, 3, workers=1)
    assert count["gap"] == 3 and "alpha" not in count and "alpha" not in MoleculeStore.load(out).names
    few = {row: MoleculeStore.load(out).properties[row] for row in order(store.index)[:3]}
    count, _ = label(store, out, 5, polarisabilities=1, workers=1)
    assert count["gap"] == 5 and count["alpha"] == 1
    numbers = store.index[order(store.index)]
    assert done() == {int(number): 2 if place == 0 else 1 for place, number in enumerate(numbers[:5])}
    for row, values in few.items():
        columns = ("rank", *(name for name in XTB if name != "alpha"))
        assert torch.equal(MoleculeStore.load(out).columns(columns)[row], values)
    before = done()
    label(store, out, 5, polarisabilities=1, workers=1)
    assert done() == before

    # the same nine, and six more of other numbers in front of them
    larger = MoleculeStore.cat([store_of(list(qm9[-6:]), first=20), store])
    larger = replace(larger, split=torch.zeros(15, dtype=torch.uint8))
    count, _ = label(larger, out, 5, workers=1)
    assert set(before) <= set(done()) and count["gap"] >= 5
    assert set(larger.index[order(larger.index)[:5]].tolist()) <= set(done())

    others = replace(store, positions=store.positions + 0.1)
    with pytest.raises(DataError, match="other molecules"):
        label(others, out, 5, workers=1)
    with pytest.raises(DataError, match="same number"):
        label(replace(store, index=torch.zeros_like(store.index)), out, 5)


def test_all_parts_of_the_data_have_their_share_of_labels() -> None:
    """Of the halves, too, which are decided by another function of the same numbers."""
    index = torch.arange(20_000, dtype=torch.int32)
    chosen = np.array(order(index)[:4000])
    upper = index.numpy().astype(np.uint64) * 2_654_435_761 % 2**32 >= 2**31
    for some in (upper, index.numpy() % 20 == 0, index.numpy() < 1000):
        share = some[chosen].mean()
        assert abs(share - some.mean()) < 4 * np.sqrt(some.mean() * (1 - some.mean()) / 4000)


def test_of_what_a_generator_made_the_scores_are_added(small: list[Molecule], tmp_path: Path) -> None:
    molecules = [small[0], replace(small[1], bonds=0 * small[1].bonds), small[2]]
    pairs = MoleculeStore.of(collate(molecules), torch.tensor([70_001, 70_005, 70_002]), "source points")
    pairs.save(tmp_path / "pairs.safetensors")
    done = run(tmp_path, tmp_path / "pairs.safetensors", "-n", 3, "--polarisabilities", 3)
    assert done.returncode == 0, done.stderr
    labelled = MoleculeStore.load(tmp_path / "pairs-xtb.safetensors")
    assert labelled.names == (*DRUGLIKE, *XTB) and len(labelled.parts()["train"]) == 3
    assert torch.equal(labelled.index, pairs.index) and torch.equal(labelled.positions, pairs.positions)
    for row in (0, 2):
        assert labelled.properties[row, : len(DRUGLIKE)].tolist() == pytest.approx(
            [scores_of(molecules[row].smiles)[name] for name in DRUGLIKE], rel=1e-5)
    assert labelled.properties[1, : len(DRUGLIKE)].isnan().all() and labelled.columns(("gap",))[0].isfinite()


def test_a_part_counts_what_it_cannot_do(small: list[Molecule]) -> None:
    part, refused = work([Job(7, small[3], True), Job(8, small[0], False)])
    assert refused == {"open shell": 1} and part.index.tolist() == [7, 8]
    assert part.properties[0].isnan().all() and part.properties[1].isnan().sum() == 1
