from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molflow.molecules.convert import Molecule
from molflow.molecules.io import (
    VALID_FIELD,
    read_sdf,
    read_traj,
    read_xyz,
    write_csv,
    write_sdf,
    write_traj,
    write_xyz,
)

shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_same(a: Molecule, b: Molecule, atol: float) -> None:
    np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=atol)
    for name in ("numbers", "charges", "bonds"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_sdf_round_trip_is_identical(tmp_path: Path, qm9: list[Molecule], qm9_path: Path) -> None:
    write_sdf(tmp_path / "copy.sdf", qm9)
    assert (tmp_path / "copy.sdf").read_bytes() == qm9_path.read_bytes()
    molecules, skipped = read_sdf(tmp_path / "copy.sdf")
    assert not skipped
    for before, after in zip(qm9, molecules, strict=True):
        assert_same(before, after, atol=0)
        assert before.properties == after.properties


def test_broken_molecules_are_written_as_they_are(tmp_path: Path, make, star) -> None:
    broken = [
        star("C", 3),
        star("C", 5),
        star("N", 2, 1),
        star("H", 0),
        make("O H H F H", [(0, 1, 1), (0, 2, 1), (3, 4, 1)]),
        make("C C C C C", [(0, 1, 3), (1, 2, 3), (2, 3, 2), (3, 4, 2), (4, 0, 1)]),
    ]
    write_sdf(tmp_path / "broken.sdf", [*broken, star("O", 2)])
    molecules, skipped = read_sdf(tmp_path / "broken.sdf")
    assert not skipped
    assert [m.properties[VALID_FIELD] for m in molecules] == [0] * 6 + [1]
    for before, after in zip(broken, molecules[:-1], strict=True):
        assert_same(before, after, atol=1e-4)
        assert before.fault == after.fault


@shared_folder
@given(
    st.dictionaries(
        st.text("abcXYZ 019_-é", min_size=1).filter(lambda key: key == key.strip() and key[0] != "_"),
        st.floats(allow_nan=False) | st.text("abc $%é-", min_size=1).map(lambda text: f"x{text}".strip()),
    )
)
def test_properties_survive_an_sdf(tmp_path: Path, star, properties: dict[str, float | str]) -> None:
    write_sdf(tmp_path / "p.sdf", [replace(star("O", 2), properties=properties)])
    [molecule], _ = read_sdf(tmp_path / "p.sdf")
    assert molecule.properties == {**properties, VALID_FIELD: 1.0}


@pytest.mark.parametrize(
    "properties", [{"a": "x\n\n$$$$"}, {"a": "$$$$"}, {"a": "> <b>"}, {"<a>": 1.0}, {"": 1.0}, {"_a": 1.0}]
)
def test_properties_that_would_break_an_sdf_are_refused(
    tmp_path: Path, star, properties: dict[str, float | str]
) -> None:
    path = tmp_path / "kept.sdf"
    path.write_text("what was there before")
    with pytest.raises(ValueError, match="cannot be written"):
        write_sdf(path, [star("O", 2), replace(star("O", 2), properties=properties)])
    assert path.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [path]


def test_broken_records_are_counted_and_named(tmp_path: Path, qm9_path: Path) -> None:
    records = qm9_path.read_text().split("$$$$\n")[:6]
    records[1] = records[1].replace(" N   0", " Qq  0")
    records[3] = records[3].replace("M  END", "M  EDN")
    records[4] = records[4].replace("  3  2  0", "  2  1  0")
    path = tmp_path / "damaged.sdf"
    path.write_text("$$$$\n".join(records) + "$$$$\n")
    molecules, skipped = read_sdf(path)
    assert [m.properties["name"] for m in molecules] == ["qm9_1", "qm9_3", "qm9_6"]
    assert [(s.record, s.name) for s in skipped] == [(2, "qm9_2"), (4, "qm9_4"), (5, "qm9_5")]
    assert skipped[0].reason == "Element 'Qq' not found"
    assert all(s.reason for s in skipped)


def test_a_lost_separator_does_not_swallow_a_molecule(tmp_path: Path, qm9_path: Path) -> None:
    path = tmp_path / "joined.sdf"
    path.write_text(qm9_path.read_text().replace("$$$$\n", "", 1))
    molecules, [skipped] = read_sdf(path)
    assert len(molecules) == 59
    assert (skipped.record, skipped.name) == (1, "qm9_1")
    assert "several molecules" in skipped.reason


def test_implicit_hydrogens_and_flat_drawings_are_skipped(tmp_path: Path, star) -> None:
    write_sdf(tmp_path / "m.sdf", [star("C", 3, -1)])
    text = (tmp_path / "m.sdf").read_text()
    path = tmp_path / "foreign.sdf"
    path.write_text(text.replace("M  CHG  1   1  -1\n", "") + text.replace(" 3D", " 2D"))
    molecules, skipped = read_sdf(path)
    assert not molecules
    assert [s.reason for s in skipped] == ["1 hydrogens are implicit, all must be atoms", "no 3D conformer"]


def test_a_mol_file_with_windows_line_ends_is_read(tmp_path: Path, qm9_path: Path) -> None:
    path = tmp_path / "one.mol"
    path.write_bytes(qm9_path.read_bytes().split(b">  <")[0].replace(b"\n", b"\r\n"))
    [molecule], skipped = read_sdf(path)
    assert molecule.smiles == "C" and not skipped


def test_large_molecules_go_through_v3000(tmp_path: Path, make) -> None:
    n = 1002
    chain = make(" ".join(["C"] * n), [(i, i + 1, 1) for i in range(n - 1)])
    write_sdf(tmp_path / "large.sdf", [chain])
    [molecule], _ = read_sdf(tmp_path / "large.sdf")
    np.testing.assert_array_equal(molecule.bonds, chain.bonds)


def test_v3000_says_the_same(tmp_path: Path, qm9: list[Molecule]) -> None:
    write_sdf(tmp_path / "m.sdf", qm9, v3000=True)
    assert (tmp_path / "m.sdf").read_text().count("M  V30 BEGIN ATOM") == len(qm9)
    molecules, skipped = read_sdf(tmp_path / "m.sdf")
    assert not skipped
    for before, after in zip(qm9, molecules, strict=True):
        assert_same(before, after, atol=1e-4)
        assert before.properties == after.properties


@pytest.mark.parametrize(("write", "read"), [(write_xyz, read_xyz), (write_traj, read_traj)])
def test_frames_round_trip(tmp_path: Path, qm9: list[Molecule], write: Callable, read: Callable) -> None:
    said = {"xtb_gap [eV]": 5.25, "xtb_method": "GFN2-xTB//GFN2-xTB (tblite 0.8.0)"}
    qm9 = [replace(molecule, properties={**molecule.properties, **said}) for molecule in qm9]
    write(tmp_path / "m", qm9)
    for molecule, atoms in zip(qm9, read(tmp_path / "m"), strict=True):
        np.testing.assert_array_equal(atoms.numbers, molecule.numbers)
        np.testing.assert_allclose(atoms.positions, molecule.positions, rtol=0, atol=1e-8)
        np.testing.assert_array_equal(atoms.get_initial_charges(), molecule.charges)
        assert atoms.info == molecule.properties


def test_csv_names_every_molecule(tmp_path: Path, qm9: list[Molecule], star) -> None:
    write_csv(tmp_path / "m.csv", [*qm9, replace(star("C", 5), properties={"xtb_gap [eV]": 1.5, "note": 'a, "b"'})])
    with (tmp_path / "m.csv").open(newline="") as file:
        *rows, broken = csv.DictReader(file)
    for row, molecule in zip(rows, qm9, strict=True):
        assert row["name"] == molecule.properties["name"] and row["smiles"] == molecule.properties["smiles"]
        assert float(row["gap"]) == molecule.properties["gap"]
    assert [row["inchikey"] for row in rows[:3]] == [
        "VNWKTOKETHGBQD-UHFFFAOYSA-N", "QGZKDVFQNNGYKY-UHFFFAOYSA-N", "XLYOFNOQVPJJNP-UHFFFAOYSA-N"]
    assert len({row["inchikey"] for row in rows}) == len(rows)
    assert broken["smiles"] == broken["inchikey"] == "" and broken["xtb_gap [eV]"] == "1.5"
    assert broken["note"] == 'a, "b"'


@pytest.mark.parametrize("read", [read_sdf, read_xyz, read_traj])
def test_wrong_files_get_one_clear_sentence(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError, match="file"):
        read(path)
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="file is empty"):
        read(path)
    path.write_text("Dear all,\nplease find attached.\n")
    with pytest.raises(ValueError, match="file is not a"):
        read(path)


@st.composite
def damage(draw: st.DrawFn, whole: bytes) -> bytes:
    """A few random edits: bytes overwritten, cut out, put in, or the file cut short."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        edit = draw(st.sampled_from(["overwrite", "cut", "insert", "truncate"]))
        end = {"overwrite": at + 1, "cut": at + draw(st.integers(1, 60)), "insert": at}.get(edit, len(data))
        put = draw(st.binary(max_size=8) | st.text("0 1-9$MEND\n", max_size=8).map(str.encode))
        data[at:end] = b"" if edit in ("cut", "truncate") else put
    return bytes(data)


@shared_folder
@given(st.data())
def test_a_damaged_sdf_never_crashes_the_reader(tmp_path: Path, qm9_path: Path, data: st.DataObject) -> None:
    start = b"$$$$\n".join(qm9_path.read_bytes().split(b"$$$$\n")[:4]) + b"$$$$\n"
    path = tmp_path / "damaged.sdf"
    path.write_bytes(data.draw(damage(start)))
    try:
        molecules, skipped = read_sdf(path)
    except ValueError as error:
        assert str(error).startswith(str(path))
    else:
        assert all(molecule.fault or molecule.smiles for molecule in molecules)
        assert all(record.reason for record in skipped)


@pytest.mark.parametrize(("write", "read"), [(write_xyz, read_xyz), (write_traj, read_traj)])
@shared_folder
@given(st.data())
def test_damaged_frames_never_crash_the_reader(
    tmp_path: Path, qm9: list[Molecule], write: Callable, read: Callable, data: st.DataObject
) -> None:
    path = tmp_path / "damaged"
    write(path, qm9[:3])
    path.write_bytes(data.draw(damage(path.read_bytes())))
    try:
        assert all(isinstance(atoms, ase.Atoms) for atoms in read(path))
    except ValueError as error:
        assert str(error).startswith(str(path))
