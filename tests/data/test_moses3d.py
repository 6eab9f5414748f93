from __future__ import annotations

import gzip
import hashlib
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import QED, AllChem, Crippen

from molflow.data import moses3d
from molflow.data.records import Unsound
from molflow.data.shards import Shards, join
from molflow.data.store import DataError, MoleculeStore
from molflow.molecules.convert import unbatch
from molflow.molecules.geometry import keeps_bonds

TRAIN = ["CC(=O)Nc1ccc(O)cc1", "Cc1ccc(Cl)cc1", "CCCS(=O)c1ccccc1", "C1CC1N", "not-SMILES", "FC(F)(F)c1ccncc1"] * 2
TEST = ["CCOC(=O)C", "Brc1ccoc1"]


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Laid out as molsets' is."""
    path = tmp_path / moses3d.WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for name, smiles in (("train", TRAIN), ("test", TEST)):
            text = "\n".join(["SMILES", *smiles])
            archive.writestr(f"moses/dataset/data/{name}.csv.gz", gzip.compress(text.encode()))
    monkeypatch.setattr(moses3d, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(moses3d, "PART", 4)
    return path


def test_molecules_are_made_in_parts_that_stay(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set.safetensors"
    few = moses3d.prepare(out, source=wheel, n=5, workers=1)
    parts = sorted((tmp_path / "set.parts").glob("*.safetensors"))
    assert len(parts) == 2 and len(few) <= 8
    made_at = [part.stat().st_mtime_ns for part in parts]
    store = moses3d.prepare(out, source=wheel, n=14, workers=1)
    assert [part.stat().st_mtime_ns for part in parts] == made_at
    assert "left out: 2 of 14, SMILES not understood" in capsys.readouterr().out
    assert len(store) == 12 and torch.equal(store.positions[: len(few.positions)], few.positions)

    smiles = [*TRAIN, *TEST]
    molecules = unbatch(store.batch(torch.arange(12)))
    for molecule, number, scores in zip(molecules, store.index.tolist(), store.properties, strict=True):
        flat = Chem.MolFromSmiles(smiles[number])
        assert molecule.is_valid and keeps_bonds(molecule) and molecule.smiles == Chem.MolToSmiles(flat)
        assert store.names == ("qed", "logp", "tpsa", "sa", "mw") and 1 <= scores[3] <= 10
        assert scores[:2].tolist() == pytest.approx([QED.qed(flat), Crippen.MolLogP(flat)], rel=1e-5)
        assert scores[4] == pytest.approx(Chem.Descriptors.MolWt(flat), rel=1e-5)
        # a minimum of the force field that the card names
        mol = molecule.to_rdkit()
        Chem.SanitizeMol(mol)
        field = AllChem.MMFFGetMoleculeForceField(mol, AllChem.MMFFGetMoleculeProperties(mol, "MMFF94s"))
        assert np.abs(field.CalcGrad()).max() < 0.1
    rows = store.parts()
    assert set(store.index[rows["test"]].tolist()) == {12, 13}
    assert Counter([*rows["train"], *rows["valid"], *rows["test"]]) == Counter(range(12))
    assert Counter([*rows["half_a"], *rows["half_b"]]) == Counter(rows["train"])


def test_another_file_is_not_taken_for_molsets(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "set.safetensors"
    monkeypatch.setattr(moses3d, "SHA256", "0" * 64)
    with pytest.raises(DataError, match="as PyPI has it"):
        moses3d.prepare(out, source=wheel, n=5, workers=1)
    with pytest.raises(DataError, match="pip download"):
        moses3d.prepare(out, source=tmp_path / "none.whl", n=5, workers=1)
    with pytest.raises(DataError, match="1760737"):
        moses3d.prepare(out, source=wheel, n=2_000_000, workers=1)


def test_what_has_no_conformer_says_why() -> None:
    with pytest.raises(Unsound, match="lacks parameters"):
        moses3d.conformer("[Xe]", 0)


def test_joining_files_is_cat(store: MoleculeStore, tmp_path: Path) -> None:
    rows = torch.arange(len(store)).split(20)
    pieces = [MoleculeStore.of(store.batch(part), part, "pieces") for part in rows]
    for i, piece in enumerate(pieces):
        piece.save(tmp_path / f"{i}.safetensors")
    join([tmp_path / f"{i}.safetensors" for i in range(len(pieces))], tmp_path / "all.safetensors")
    joined, wanted = MoleculeStore.load(tmp_path / "all.safetensors"), MoleculeStore.cat(pieces)
    for key, value in vars(wanted).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(joined, key), value) and getattr(joined, key).dtype == value.dtype, key
    assert joined.source == "pieces"


def test_parts_of_other_settings_are_refused(tmp_path: Path) -> None:
    Shards(tmp_path / "parts", {"conformers": 5})
    with pytest.raises(DataError, match="other settings"):
        Shards(tmp_path / "parts", {"conformers": 30})
