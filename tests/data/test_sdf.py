"""SDF files to a data set: what is kept, what is left out, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from molflow.data.sdf import named, part_of, prepare
from molflow.data.store import DataError, MoleculeStore
from molflow.molecules.convert import Molecule, unbatch
from molflow.molecules.elements import DRUGLIKE, GEOM_DRUGS, QM9
from molflow.molecules.io import write_sdf


def write(folder: Path, molecules: list[Molecule], name: str = "a.sdf") -> Path:
    folder.mkdir(exist_ok=True)
    write_sdf(folder / name, molecules)
    return folder


def said(molecules: list[Molecule], **fields: list[float | str]) -> list[Molecule]:
    return [replace(molecule, properties={"name": f"m{i}", **{key: values[i] for key, values in fields.items()
                                                             if values[i] != ""}})
            for i, molecule in enumerate(molecules)]


def test_molecules_come_back_with_their_bonds_and_numbers(qm9: list[Molecule], tmp_path: Path) -> None:
    fields = {"gap [Ha]": [0.1 * i for i in range(6)], "some": [1.0, "", "", 4.0, "n/a", "nan"], "note": ["x"] * 6}
    source = write(tmp_path / "in", said(qm9[:4], **fields), "b.sdf")
    write(source, said(qm9[4:6], **{key: values[4:] for key, values in fields.items()}), "c.SDF")
    told: list[str] = []
    store, left_out = prepare(tmp_path / "out.safetensors", source=source, tell=told.append)
    assert left_out == 0 and told == []
    assert store.names == ("gap", "some") and store.units == ("Ha", "")  # text is no property, nor is "valid"
    nan = np.nan
    np.testing.assert_allclose(store.properties, np.array([[0, .1, .2, .3, .4, .5], [1, nan, nan, 4, nan, nan]]).T)
    read = MoleculeStore.load(tmp_path / "out.safetensors")
    for before, after in zip(qm9[:6], unbatch(read.batch(torch.arange(6))), strict=True):
        np.testing.assert_allclose(after.positions, before.positions, atol=1e-4)
        for key in ("numbers", "charges", "bonds"):
            np.testing.assert_array_equal(getattr(after, key), getattr(before, key))


def test_what_is_broken_is_left_out_and_named(qm9: list[Molecule], tmp_path: Path) -> None:
    radical = replace(qm9[0], bonds=qm9[0].bonds * 0)
    selenium = replace(qm9[2], numbers=np.where(qm9[2].numbers == 8, 34, qm9[2].numbers))
    source = write(tmp_path / "in", said([qm9[0], radical, selenium, qm9[1]]))
    (source / "b.sdf").write_text("nothing of the kind")
    (source / "c.sdf").write_text("")
    (source / "readme.txt").write_text("not looked at")
    told: list[str] = []
    store, left_out = prepare(tmp_path / "out.safetensors", source=source, tell=told.append)
    assert len(store) == 2 and left_out == len(told) == 5
    assert told[0].startswith("left out a.sdf, record 2 (m1): Open valence")
    assert told[1].startswith("left out a.sdf, record 3 (m2): Se is in no vocabulary: there are H, B, C,")
    assert told[3] == "left out b.sdf: is not an SDF file: it has no 'M  END' line"
    assert told[4] == "left out c.sdf: is empty"


def test_nothing_usable_is_one_sentence_and_no_file(qm9: list[Molecule], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    (tmp_path / "empty").mkdir()
    only = write(tmp_path / "in", [replace(qm9[0], bonds=qm9[0].bonds * 0)])
    for source, words in ((tmp_path / "empty", "no file in .sdf"), (tmp_path / "none", "no file in .sdf"),
                          (only, "no molecule of .* can be used: Open valence")):
        with pytest.raises(DataError, match=words) as caught:
            prepare(out, source=source, tell=lambda _: None)
        assert "\n" not in str(caught.value)
    assert not out.exists()


def test_conformers_share_a_number_and_a_part_and_more_molecules_move_none(qm9: list[Molecule], tmp_path: Path) -> None:
    moved = [replace(molecule, positions=molecule.positions + 0.01) for molecule in qm9[:5]]
    store, _ = prepare(tmp_path / "a.st", source=write(tmp_path / "a", [*qm9[:30], *moved]), tell=print)
    assert store.index.tolist() == [*range(30), *range(5)]
    parts = store.parts()
    assert sorted(np.concatenate([parts[name] for name in ("train", "valid", "test")])) == list(range(35))
    assert sorted([*parts["half_a"], *parts["half_b"]]) == sorted(parts["train"])
    assert (store.split[30:] == store.split[:5]).all()
    larger, _ = prepare(tmp_path / "b.st", source=write(tmp_path / "b", qm9), tell=print)
    assert (larger.split[:30] == store.split[:30]).all()


def test_parts_are_of_about_the_size_they_should_be() -> None:
    shares = np.bincount([part_of(number) for number in range(10_000)]) / 10_000
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)


def test_names_and_units() -> None:
    assert named(["gap [eV]", "log S", "E [a] [b]", "mu", "mu [D]", "[x]"]) == [
        ("gap", "eV"), ("log S", ""), ("E [a]", "b"), ("mu", ""), ("mu [D]", "D"), ("[x]", "")]


@pytest.mark.parametrize(("numbers", "charge", "vocabulary"), [
    ((6, 9), 0, QM9), ((6, 17), 0, DRUGLIKE), ((6, 8), -2, GEOM_DRUGS), ((14, 1), 0, GEOM_DRUGS)])
def test_the_vocabulary_is_the_smallest_that_has_all(numbers, charge, vocabulary, tmp_path: Path) -> None:
    molecule = Molecule(np.zeros((2, 3)), np.array(numbers), np.array([charge, 0]), np.array([[0, 1], [1, 0]]))
    from molflow.data.records import Record, pack
    store = pack([Record.of(molecule)], np.zeros((1, 0)), np.zeros(1), names=(), units=(), source="")
    assert store.vocabulary("mine") == vocabulary
    assert store.vocabulary("moses3d") == DRUGLIKE  # our own sets have theirs, whatever is in a part of them
