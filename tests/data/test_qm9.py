from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from molflow.data import qm9 as reader
from molflow.data.qm9 import NUMBER, PROPERTIES, assign_bonds, flaws, prepare, read_record
from molflow.data.store import DataError, MoleculeStore
from molflow.molecules.convert import Molecule, to_rdkit

WATER = "[[0.,0.,0.119],[0.,0.763,-0.477],[1.*^-6,-0.763,-4.77*^-1]]"
BENT = np.array([[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])


def order_matrix(n: int, bonds: np.ndarray) -> np.ndarray:
    matrix = np.zeros((n, n), dtype=np.int64)
    for i, j, order in bonds:
        matrix[i, j] = matrix[j, i] = order
    return matrix


# --- one row ---------------------------------------------------------------------------------------------------


def test_numbers_in_mathematicas_style() -> None:
    record = read_record("O", "['O','H','H']", WATER)
    assert record.numbers.tolist() == [8, 1, 1]
    assert record.positions.tolist() == [[0, 0, 0.119], [0, 0.763, -0.477], [1e-6, -0.763, -0.477]]
    assert record.flaw is None and record.charges.tolist() == [0, 0, 0]
    assert sorted(map(tuple, record.bonds.tolist())) == [(0, 1, 1), (0, 2, 1)]


def mathematica(x: float) -> str:
    """As Mathematica writes it: 0., 1.5, 1.*^-6."""
    mantissa, exponent = f"{x:.12e}".split("e")
    short = mantissa.rstrip("0") if "." in mantissa else mantissa + "."
    return short if int(exponent) == 0 else f"{short}*^{int(exponent)}"


@given(st.lists(st.tuples(*[st.floats(-1e9, 1e9, allow_subnormal=False)] * 3), min_size=1, max_size=6))
@settings(max_examples=40)
def test_any_coordinates_are_read_back(rows: list[tuple[float, float, float]]) -> None:
    text = "[" + ",".join("[" + ",".join(map(mathematica, row)) + "]" for row in rows) + "]"
    elements = "[" + ",".join(["'C'"] * len(rows)) + "]"
    record = read_record("C", elements, text)
    np.testing.assert_allclose(record.positions, np.array(rows), rtol=1e-11, atol=0)


@given(st.text(alphabet="0123456789.,*^-+e []naifx\n", max_size=40) | st.text(max_size=20))
@settings(max_examples=60)
def test_garbage_for_coordinates_is_refused_or_is_three_finite_numbers(text: str) -> None:
    try:
        record = read_record("C", "['C']", text)
    except ValueError:
        return
    assert record.positions.shape == (1, 3) and np.isfinite(record.positions).all()
    # whatever was accepted really is three numbers, nothing dropped and nothing made up
    words = [w for w in re.split(r"[,\[\]]", text.replace("*^", "e")) if w.strip()]
    assert [float(w) for w in words] == record.positions.ravel().tolist()


@pytest.mark.parametrize("text", [
    "[[1.,2.]]", "[[1.,2.,3.,4.]]", "[[1.,2.,x]]", "[[1.,2.,3.x]]", "", "[]", "[[1.,2.,nan]]", "[[1.,2.,inf]]",
    "[[1.,2.,3.", "[[1. 2. 3.]]", "[[1.,,3.]]", "[[1.,2.,3.*^]]",
])  # fmt: skip
def test_coordinates_that_are_not_three_numbers_an_atom_are_refused(text: str) -> None:
    if text == "[[1.,2.,3.":  # a lost bracket loses no number
        assert read_record("C", "['C']", text).positions.tolist() == [[1, 2, 3]]
        return
    with pytest.raises(ValueError):
        read_record("C", "['C']", text)


@pytest.mark.parametrize("elements", ["['Xx']", "[]", "", "['C','Q']", "[6]"])
def test_unknown_elements_are_refused(elements: str) -> None:
    with pytest.raises(ValueError):
        read_record("C", elements, "[[0.,0.,0.]]")


def test_real_rows_are_read_as_a_plain_parser_reads_them(table: dict[str, pd.DataFrame]) -> None:
    rows = pd.concat(table.values())
    exotic = rows.XYZ_Ang.str.contains(r"\d\.[,\]]")  # "0."; this release of the package has no "1.*^-6" any more
    assert exotic.any(), "none of these rows has a Mathematica number"
    for row in pd.concat([rows[exotic], rows[~exotic].iloc[::3]]).itertuples():
        record = read_record(row.SMILES, row.Elements, row.XYZ_Ang)
        expected = ast.literal_eval(row.XYZ_Ang.replace("*^", "e"))
        assert record.positions.tolist() == [[float(x) for x in xyz] for xyz in expected]
        assert record.numbers.tolist() == [NUMBER[symbol] for symbol in ast.literal_eval(row.Elements)]
        assert len(record.numbers) == row.N_atoms


def test_bonds_of_real_rows_give_back_their_smiles(table: dict[str, pd.DataFrame]) -> None:
    checked = 0
    for row in pd.concat(table.values()).itertuples():
        record = read_record(row.SMILES, row.Elements, row.XYZ_Ang)
        if record.flaw:
            continue
        mol = to_rdkit(record.positions, record.numbers, record.charges,
                       order_matrix(len(record.numbers), record.bonds))
        Chem.SanitizeMol(mol)
        got = Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False)
        assert got == Chem.MolToSmiles(Chem.MolFromSmiles(row.SMILES), isomericSmiles=False)
        checked += 1
    assert checked >= 85  # of 90; QM9's first molecules are odd ones


# --- bonds -----------------------------------------------------------------------------------------------------


def test_bonds_and_charges_agree_with_rdkit_on_molecules_of_every_kind(qm9: list[Molecule]) -> None:
    charged = 0
    for molecule in qm9:
        smiles = str(molecule.properties["smiles"])
        charges, bonds = assign_bonds(smiles, molecule.numbers, molecule.positions)
        n = len(molecule.numbers)
        assert len({frozenset(pair) for pair in bonds[:, :2].tolist()}) == len(bonds), "a bond twice"
        mol = to_rdkit(molecule.positions, molecule.numbers, charges, order_matrix(n, bonds))
        Chem.SanitizeMol(mol)
        want = Chem.MolFromSmiles(smiles)
        assert Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False) == Chem.MolToSmiles(
            want, isomericSmiles=False
        )
        assert sum(charges) == Chem.GetFormalCharge(want) == 0
        assert all(atom.GetNumRadicalElectrons() == 0 for atom in mol.GetAtoms())
        hydrogens = molecule.numbers == 1
        assert (order_matrix(n, bonds)[hydrogens].sum(1) == 1).all()
        charged += bool((charges != 0).any())
    assert charged == 10  # the sample's zwitterions


def test_a_zwitterion_has_its_charges_on_the_right_atoms() -> None:
    """Nitromethane as QM9 writes it; the second oxygen is the charged one."""
    numbers = np.array([6, 7, 8, 8, 1, 1, 1])
    positions = np.array([[0, 0, 0], [1.49, 0, 0], [2.1, 1.06, 0], [2.1, -1.06, 0],
                          [-0.36, 1.03, 0], [-0.36, -0.51, 0.89], [-0.36, -0.51, -0.89]])
    charges, bonds = assign_bonds("C[N+](=O)[O-]", numbers, positions)
    assert charges.tolist() == [0, 1, 0, -1, 0, 0, 0]
    assert order_matrix(7, bonds)[1].tolist() == [1, 0, 2, 1, 0, 0, 0]


def test_each_hydrogen_is_on_its_nearest_heavy_atom_wherever_it_stands_in_the_list() -> None:
    numbers, positions = np.array([1, 8, 1]), BENT[[1, 0, 2]]
    _, bonds = assign_bonds("O", numbers, positions)
    assert order_matrix(3, bonds).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("smiles", "positions", "why"),
    [("N", BENT, "elements"), ("OO", BENT, "elements"), ("[OH-]", BENT, "hydrogen"), ("O(", BENT, "SMILES"),
     ("O", 3 * BENT, "too long")],
)
def test_what_does_not_agree_is_refused_and_the_record_kept_without_bonds(
    smiles: str, positions: np.ndarray, why: str
) -> None:
    numbers = np.array([8, 1, 1])
    with pytest.raises(ValueError, match=why):
        assign_bonds(smiles, numbers, positions)
    record = read_record(smiles, "['O','H','H']", str(positions.tolist()))
    assert record.flaw is not None and why in record.flaw
    assert record.bonds.shape == (0, 3) and record.charges.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(record.positions, positions)


def test_a_molecule_of_hydrogen_alone_is_flagged() -> None:
    record = read_record("[H][H]", "['H','H']", "[[0.,0.,0.],[0.,0.,0.74]]")
    assert record.flaw is not None and len(record.bonds) == 0


# --- the whole reader ------------------------------------------------------------------------------------------


@pytest.fixture
def source(table: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder of 3 x 8 molecules; how many are expected is data, and changed to go with it."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, frame in table.items():
        frame.iloc[:8][::-1].to_csv(folder / name, index=False)
    monkeypatch.setattr(reader, "EXPECTED", 24)
    return folder


def test_prepare_reads_every_molecule_in_qm9s_own_order(
    source: Path, table: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    store = prepare(tmp_path / "out" / "qm9.safetensors", source=source, workers=1)
    rows = pd.concat([frame.iloc[:8] for frame in table.values()]).sort_values("Index")
    assert store.index.tolist() == rows.Index.tolist() and len(store) == 24
    assert store.sizes.tolist() == rows.N_atoms.tolist()
    assert store.names == tuple(PROPERTIES) and len(store.units) == len(store.names)
    back = MoleculeStore.load(tmp_path / "out" / "qm9.safetensors")
    assert back.positions.equal(store.positions) and back.bond_index.equal(store.bond_index)
    gap, homo, lumo, mu, alpha, cv = store.columns(("gap", "homo", "lumo", "mu", "alpha", "cv")).unbind(1)
    np.testing.assert_allclose(homo, rows.HOMO_au * 27.2114, rtol=1e-6)
    np.testing.assert_allclose(gap, rows.HOMO_LUMO_gap_au * 27.2114, rtol=1e-6)
    np.testing.assert_allclose(gap, lumo - homo, atol=6e-3)  # rounded to 1e-4 Hartree in the source
    np.testing.assert_allclose(mu, rows.Dipole_debye, rtol=1e-6)
    np.testing.assert_allclose(alpha, rows.Polarizability_bohr3, rtol=1e-6)
    np.testing.assert_allclose(cv, rows.Heatcapacity_Cv_cal_mol_K, rtol=1e-6)
    assert store.units[store.names.index("homo")] == "eV" and "qm9pack" in store.source
    methane = store.batch(store.index.new_tensor([0]).long())
    assert methane.numbers.tolist() == [[6, 1, 1, 1, 1]]
    assert methane.bonds[0, 0].tolist() == [0, 1, 1, 1, 1]
    # first molecule of QM9, dsgdb9nsd_000001: gap 0.5048 Hartree, alpha 13.21 Bohr^3, Cv 6.469
    assert (gap[0].item(), alpha[0].item(), cv[0].item()) == pytest.approx((13.7363, 13.21, 6.469), rel=1e-5)


def test_workers_and_limit_change_nothing_else(source: Path, tmp_path: Path) -> None:
    whole = prepare(tmp_path / "a", source=source, workers=1)
    shared = prepare(tmp_path / "b", source=source, workers=2)
    some = prepare(tmp_path / "c", source=source, workers=1, limit=5)
    for key, value in vars(whole).items():
        same = getattr(shared, key)
        assert value.equal(same) if isinstance(value, torch.Tensor) else value == same, key
    assert some.index.equal(whole.index[:5])
    assert some.positions.equal(whole.positions[: len(some.positions)])


def test_an_inconsistent_smiles_is_flagged_and_its_molecule_kept(source: Path, tmp_path: Path) -> None:
    path = source / "qm9_part1.csv"
    frame = pd.read_csv(path)
    frame.loc[frame.Index == 1, "SMILES"] = "N"
    frame.to_csv(path, index=False)
    store = prepare(tmp_path / "out", source=source, workers=1)
    assert len(store) == 24 and 1 in flaws(store)
    batch = store.batch(store.index.new_tensor([0]).long())
    assert batch.numbers.tolist() == [[6, 1, 1, 1, 1]] and batch.bonds.sum() == 0
    assert not store.bonded[0] and store.bonded.sum() == 24 - len(flaws(store))


def cut(text: str) -> str:
    return text[: len(text) // 2]


def cut_in_quotes(text: str) -> str:
    return text[: text.rindex("'C'") + 2]


def no_column(text: str) -> str:
    return text.replace("XYZ_Ang", "XYZ", 1)


def one_row_less(text: str) -> str:
    return "\n".join(text.splitlines()[:-1]) + "\n"


def garbage(text: str) -> str:
    return text.replace("[[", "[[zzz,", 1)


def half_garbage(text: str) -> str:
    return re.sub(r"(\d)\]\]", r"\1q]]", text, count=1)


def unknown_element(text: str) -> str:
    return text.replace("'H'", "'Kr'", 1)


def empty(_: str) -> str:
    return ""


def binary(_: str) -> str:
    return "\x00\x01\x02" * 50


def word_for_a_property(text: str) -> str:
    frame = pd.read_csv(pd.io.common.StringIO(text)).astype({"Dipole_debye": object})
    frame.loc[0, "Dipole_debye"] = "zwei"
    return frame.to_csv(index=False)


def word_for_an_index(text: str) -> str:
    frame = pd.read_csv(pd.io.common.StringIO(text)).astype({"Index": object})
    frame.loc[0, "Index"] = "erstes"
    return frame.to_csv(index=False)


def hole(text: str) -> str:
    frame = pd.read_csv(pd.io.common.StringIO(text))
    frame.loc[0, "HOMO_au"] = np.nan
    return frame.to_csv(index=False)


def a_row_twice(text: str) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[:-1], lines[1]]) + "\n"


@pytest.mark.parametrize("harm", [cut, cut_in_quotes, no_column, one_row_less, garbage, half_garbage,
                                  unknown_element, empty, binary, word_for_a_property,
                                  word_for_an_index, hole, a_row_twice])  # fmt: skip
@pytest.mark.parametrize("part", ["qm9_part1.csv", "qm9_part3.csv"])
def test_a_damaged_source_is_named_in_one_line_and_nothing_is_written(
    source: Path, tmp_path: Path, harm, part: str
) -> None:
    path = source / part
    path.write_text(harm(path.read_text()))
    out = tmp_path / "out" / "qm9.safetensors"
    with pytest.raises(DataError) as caught:
        prepare(out, source=source, workers=1)
    assert str(caught.value).strip() and "\n" not in str(caught.value)
    assert "qm9pack" in str(caught.value)  # what to do about it
    assert not out.exists() and (not out.parent.exists() or list(out.parent.iterdir()) == [])


def test_bytes_that_are_no_text_are_damage(source: Path, tmp_path: Path) -> None:
    (source / "qm9_part2.csv").write_bytes(b"\xff\xfe\x80\x81" * 100)
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "out", source=source, workers=1)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv"])
def test_a_missing_part_is_named(source: Path, tmp_path: Path, part: str) -> None:
    (source / part).unlink()
    with pytest.raises(DataError, match=part) as caught:
        prepare(tmp_path / "out", source=source, workers=1)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_damage_is_reported_from_worker_processes_too(source: Path, tmp_path: Path) -> None:
    path = source / "qm9_part1.csv"
    path.write_text(garbage(path.read_text()))
    with pytest.raises(DataError):
        prepare(tmp_path / "out", source=source, workers=2)
    assert not (tmp_path / "out").exists()


def test_no_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reader.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install"):
        prepare(tmp_path / "out", workers=1)
