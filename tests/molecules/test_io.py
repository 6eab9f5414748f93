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
from rdkit import Chem

from molflow.molecules.convert import Molecule, collated, unbatch
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


def test_a_lower_bound_is_a_field_that_rdkit_reads(tmp_path: Path, star) -> None:
    """`molflow design --target 'gap>6'` could not save what it had found."""
    write_sdf(tmp_path / "p.sdf", [replace(star("O", 2), properties={"target_gap": ">6", "note": ">6\n>7"})] * 2)
    assert [molecule.properties["target_gap"] for molecule in read_sdf(tmp_path / "p.sdf")[0]] == [">6", ">6"]
    assert [mol.GetProp("note") for mol in Chem.SDMolSupplier(str(tmp_path / "p.sdf"))] == [">6\n>7"] * 2


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


# ---- what strangers put in files -------------------------------------------------------------------------------------


def test_an_sdf_that_would_fill_the_memory_is_skipped(tmp_path: Path) -> None:
    """A bond matrix of 20,000 atoms takes 3 GB, of a file of 700 kB."""
    rows = "".join(f"M  V30 {i} He {i} 0 0 0\n" for i in range(1, 20_001))
    (tmp_path / "m.sdf").write_text("big\n  x                   3D\n\n  0  0  0     0  0            999 V3000\n"
                                    "M  V30 BEGIN CTAB\n"
                                    f"M  V30 COUNTS 20000 0 0 0 0\nM  V30 BEGIN ATOM\n{rows}M  V30 END ATOM\n"
                                    "M  V30 END CTAB\nM  END\n$$$$\n")
    molecules, [skipped] = read_sdf(tmp_path / "m.sdf")
    assert not molecules and "20000 atoms are more than the 2000" in skipped.reason


def test_one_large_molecule_does_not_pad_all_others(star, make) -> None:
    n = 1500
    chain = make(" ".join(["C"] * n), [(i, i + 1, 1) for i in range(n - 1)])
    batches = list(collated([*[star("O", 2)] * 300, chain, *[star("C", 4)] * 300]))
    assert sorted(place for places, _ in batches for place in places) == list(range(601))
    assert sum(batch.bonds.numel() for _, batch in batches) < 3 * n * n
    for places, batch in batches:
        assert [len(molecule.numbers) for molecule in unbatch(batch)] == [
            3 if place < 300 else n if place == 300 else 5 for place in places]


def field(path: Path, star, name: str, value: str) -> str:
    """An SDF of water with a field just as it is given."""
    write_sdf(path, [star("O", 2)])
    text = path.read_text().replace("$$$$\n", f"> <{name}>\n{value}\n\n$$$$\n")
    path.write_text(text)
    return text


def test_fields_of_several_lines_go_through(tmp_path: Path, star) -> None:
    field(tmp_path / "a.sdf", star, "note", "one\n two\nthree")
    [molecule], _ = read_sdf(tmp_path / "a.sdf")
    assert molecule.properties["note"] == "one\n two\nthree"
    write_sdf(tmp_path / "b.sdf", [molecule])
    assert read_sdf(tmp_path / "b.sdf")[0][0].properties["note"] == "one\n two\nthree"


def test_what_only_some_programs_take_for_a_field_is_none(tmp_path: Path, star) -> None:
    """No empty line before it: RDKit reads one field of two lines, others two fields."""
    field(tmp_path / "a.sdf", star, "note", "one\n> <verdict>\nagrees")
    molecules, [skipped] = read_sdf(tmp_path / "a.sdf")
    assert not molecules and "'note' has no empty line after it" in skipped.reason


def test_brackets_in_the_name_of_a_field_cannot_close_it(tmp_path: Path, star) -> None:
    field(tmp_path / "a.sdf", star, "IC50 (<5 nM)> <b", "7")
    [molecule], _ = read_sdf(tmp_path / "a.sdf")
    assert molecule.properties["IC50 (‹5 nM)› ‹b"] == 7.0
    write_sdf(tmp_path / "b.sdf", [molecule])
    assert read_sdf(tmp_path / "b.sdf")[0][0].properties == molecule.properties


def test_names_with_an_underscore_are_no_numbers(tmp_path: Path, star) -> None:
    field(tmp_path / "a.sdf", star, "batch", "2024_001")
    assert read_sdf(tmp_path / "a.sdf")[0][0].properties["batch"] == "2024_001"


@pytest.mark.parametrize("properties", [{"name": "M  END"}, {"name": "a\nb"}, {"name": "$$$$"}, {"a": "x\nM  END"},
                                        {"a": "x\n\n> <b>\ny"}, {"a": "x\n> <b>"}, {"a": "x\n$$$$"}, {"a": "x\ry"}])
def test_no_property_becomes_another_record_or_field(tmp_path: Path, star, properties: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match="cannot be written to an SDF"):
        write_sdf(tmp_path / "a.sdf", [replace(star("O", 2), properties=properties)])


@shared_folder
@given(st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=30) | st.floats(allow_nan=False), max_size=3))
def test_an_sdf_says_what_was_written_or_is_not_written(tmp_path: Path, star, properties: dict) -> None:
    water = replace(star("O", 2), properties=properties)
    try:
        write_sdf(tmp_path / "a.sdf", [water, star("C", 4)])
    except (ValueError, UnicodeEncodeError):
        return
    molecules, skipped = read_sdf(tmp_path / "a.sdf")
    assert not skipped and [m.formula for m in molecules] == ["H2O", "CH4"]
    assert len(molecules[0].properties) <= len(properties | {VALID_FIELD: 1})


def test_an_xyz_is_as_long_as_it_is_and_not_as_it_says(tmp_path: Path) -> None:
    """ASE's reader looks for so many lines, for ever."""
    for text in ("1000000000000\n\nC 0 0 0\n", "-1\n\n",
                 "1\nProperties=species:S:1:pos:R:3:x:R:100000000\nC 0 0 0\n", "9" * 5000):
        (tmp_path / "a.xyz").write_text(text)
        with pytest.raises(ValueError, match="is not a readable XYZ file"):
            read_xyz(tmp_path / "a.xyz")


@pytest.mark.parametrize("name", ["a@1", "a.xyz.gz", "a@:", "-"])
def test_the_name_of_a_file_says_nothing(tmp_path: Path, name: str) -> None:
    """ASE takes what follows an @ for a choice of frames, and unpacks by the suffix."""
    (tmp_path / "a").write_text("1\n\nC 0 0 0\n")
    (tmp_path / name).write_text("1\n\nO 0 0 0\n")
    assert [atoms.get_chemical_formula() for atoms in read_xyz(tmp_path / name)] == ["O"]


def test_no_property_becomes_a_frame_of_an_xyz(tmp_path: Path, star) -> None:
    forged = replace(star("O", 2), properties={"note": "x\n1\n\nC 0 0 0\n", "empty": "", "path": "a\\"})
    write_xyz(tmp_path / "a.xyz", [forged, star("C", 4)])
    first, second = read_xyz(tmp_path / "a.xyz")
    assert (len(first), len(second)) == (3, 5) and first.info == {"note": "x 1 C 0 0 0", "path": "a"}
    for key in ("Lattice", "properties", "pbc", "a=b", "a\nb"):
        with pytest.raises(ValueError, match="cannot be written to an XYZ file"):
            write_xyz(tmp_path / "a.xyz", [replace(star("O", 2), properties={key: "x"})])


def test_a_spreadsheet_calculates_nothing(tmp_path: Path, star) -> None:
    said = {"name": "=HYPERLINK(\"x\")", "@key": "+1+1", "note": "-cmd", "tab": "\t=1", "gap": -5.0, "plain": "a=b"}
    write_csv(tmp_path / "m.csv", [replace(star("O", 2), properties=said)])
    with (tmp_path / "m.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["name"] == "'=HYPERLINK(\"x\")" and row["'@key"] == "'+1+1" and row["note"] == "'-cmd"
    assert row["tab"] == "'\t=1" and row["gap"] == "-5.0" and row["plain"] == "a=b"
