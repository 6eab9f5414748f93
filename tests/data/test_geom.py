"""Small files written in exactly the forms in which GEOM-Drugs is to be had, read by the real command."""

from __future__ import annotations

import io
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import psutil
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdDistGeom

from molflow.data.matching import lay_on
from molflow.data.records import Unsound
from molflow.data.store import MoleculeStore
from molflow.molecules.convert import from_rdkit, unbatch

SOUND = {
    "CC(=O)Nc1ccc(O)cc1": 7,
    "C[n+]1ccccc1C([O-])=O": 2,
    "OB(O)c1ccsc1": 3,
    "C[Si](C)(C)C#CCBr": 6,
    "O=S(=O)(N)c1ccc(I)cc1": 1,
}
"""SMILES with how many conformers; aromatic, charged, with boron and silicon."""


def conformers(smiles: str, count: int) -> list[Chem.Mol]:
    """Each a molecule of one conformer, lowest first."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert list(rdDistGeom.EmbedMultipleConfs(mol, count, randomSeed=7)) == list(range(count))
    return [Chem.Mol(mol, confId=i) for i in range(count)]


@pytest.fixture(scope="module")
def molecules() -> dict[str, list[Chem.Mol]]:
    """The sound ones, a salt, and one of which a conformer has come apart."""
    found = {smiles: conformers(smiles, count) for smiles, count in SOUND.items()}
    found["CC(=O)[O-].C[NH3+]"] = conformers("CC(=O)[O-].C[NH3+]", 2)
    broken = conformers("CCCO", 3)
    broken[1].GetConformer().SetAtomPosition(3, [9.0, 9.0, 9.0])
    found["CCCO"] = broken
    return found


def rdkit_folder(folder: Path, molecules: dict[str, list[Chem.Mol]]) -> None:
    """As of 2020: protocol 3, the conformers in no order, energies beside them."""
    (folder / "drugs").mkdir(parents=True)
    for number, (smiles, mols) in enumerate(molecules.items()):
        entries = [{"geom_id": i, "set": 1, "degeneracy": 1, "totalenergy": -50.0 + i, "relativeenergy": float(i),
                    "boltzmannweight": np.float64(0.1), "conformerweights": [0.1], "rd_mol": mol}
                   for i, mol in enumerate(mols)]
        record = {"conformers": entries[::-1], "totalconfs": len(mols), "uniqueconfs": len(mols), "charge": 0,
                  "lowestenergy": -50.0, "temperature": 298.15, "smiles": smiles, "datasets": ["drugs"]}
        (folder / "drugs" / f"{number:03}.pickle").write_bytes(pickle.dumps(record, protocol=3))


def crude(folder: Path, molecules: dict[str, list[Chem.Mol]]) -> None:
    """Maps of some molecules each, one after the other; atoms in an order that is not the SMILES'."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    items = []
    for smiles, mols in molecules.items():
        order = rng.permutation(mols[0].GetNumAtoms())
        numbers = np.array([atom.GetAtomicNum() for atom in mols[0].GetAtoms()])
        xyz = [np.column_stack([numbers, mol.GetConformer().GetPositions()])[order].tolist() for mol in mols]
        entries = [{"geomid": i, "set": 1, "degeneracy": 1, "totalenergy": -50.0 + i, "relativeenergy": float(i),
                    "boltzmannweight": 0.1, "xyz": rows, "conformerweights": [0.1]} for i, rows in enumerate(xyz)]
        items.append((smiles, {"totalconfs": len(mols), "charge": 0, "conformers": entries[::-1]}))
    with (folder / "drugs_crude.msgpack").open("wb") as file:
        for some in (items[:4], items[4:]):
            file.write(msgpack.packb(dict(some)))


def midi(folder: Path, molecules: dict[str, list[Chem.Mol]]) -> None:
    folder.mkdir(parents=True)
    items = list(molecules.items())
    for name, some in (("train", items[:4]), ("val", items[4:5]), ("test", items[5:])):
        (folder / f"{name}_data.pickle").write_bytes(pickle.dumps(some, protocol=4))


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "molflow.cli", "data", "prepare", "geom", *map(str, words)],
                          capture_output=True, text=True, timeout=900, env=os.environ | environment)


@pytest.mark.parametrize("write", [rdkit_folder, crude, midi], ids=lambda form: form.__name__)
def test_every_form_gives_the_same_molecules(
    write: Callable[[Path, dict[str, list[Chem.Mol]]], None], molecules: dict[str, list[Chem.Mol]], tmp_path: Path
) -> None:
    write(tmp_path / "source", molecules)
    done = run("--source", tmp_path / "source", "--out", tmp_path / "set.safetensors", "--workers", "1")
    assert done.returncode == 0, done.stderr
    left_out = re.findall(r"left out: (\d+) molecules, (.*)", done.stdout)
    assert sum(int(count) for count, _ in left_out) == 2
    if write is not crude:  # where a salt's pieces touch, and a hydrogen that has come off is not told from them
        assert {why for _, why in left_out} == {"several pieces", "a bond is broken in the geometry"}

    store = MoleculeStore.load(tmp_path / "set.safetensors")
    found = unbatch(store.batch(torch.arange(len(store))))
    assert store.index.bincount().tolist() == [min(count, 5) for count in SOUND.values()]
    for number, (smiles, count) in enumerate(SOUND.items()):
        flat = Chem.MolFromSmiles(smiles)
        ours = [molecule for molecule, index in zip(found, store.index.tolist(), strict=True) if index == number]
        lowest = [from_rdkit(mol) for mol in molecules[smiles][: min(count, 5)]]
        for molecule, wanted in zip(ours, lowest, strict=True):
            assert molecule.is_valid and molecule.smiles == Chem.MolToSmiles(flat, isomericSmiles=False)
            # the same conformer, atom for atom, in whatever order: each atom with all its bonds where it was
            place = np.linalg.norm(wanted.positions[:, None] - molecule.positions, axis=-1).argmin(1)
            np.testing.assert_allclose(molecule.positions[place], wanted.positions, atol=1e-5)
            np.testing.assert_array_equal(molecule.numbers[place], wanted.numbers)
            np.testing.assert_array_equal(molecule.bonds[np.ix_(place, place)] > 0, wanted.bonds > 0)
    weight = store.columns(("mw",))[:, 0]
    assert weight[0].item() == pytest.approx(151.16, abs=0.01)  # paracetamol's
    split = {int(i): int(s) for i, s in zip(store.index, store.split, strict=True)}
    if write is midi:
        assert split == {0: 0, 1: 0, 2: 0, 3: 0, 4: 1}


def test_a_stopped_run_goes_on_and_other_settings_do_not_mix(
    molecules: dict[str, list[Chem.Mol]], tmp_path: Path
) -> None:
    rdkit_folder(tmp_path / "source", molecules)
    words = ("--source", tmp_path / "source", "--out", tmp_path / "set.safetensors", "--workers", "1", "--overwrite")
    assert run(*words).returncode == 0
    first = (tmp_path / "set.safetensors").read_bytes()
    part = tmp_path / "set.parts" / "00000.safetensors"
    before = part.stat().st_mtime_ns
    (tmp_path / "set.safetensors").unlink()
    assert run(*words).returncode == 0
    assert (tmp_path / "set.safetensors").read_bytes() == first and part.stat().st_mtime_ns == before
    other = run(*words, "--conformers", "30")
    assert other.returncode == 2 and "other settings" in other.stderr and "Traceback" not in other.stderr


@pytest.mark.parametrize("early", [False, True], ids=["once a part is done", "while its processes start"])
def test_an_interrupted_run_says_no_more_than_that(
    early: bool, molecules: dict[str, list[Chem.Mol]], tmp_path: Path
) -> None:
    """All its processes are interrupted, as by Ctrl-C in a terminal; what they had done stays."""
    paracetamol = dict([next(iter(molecules.items()))])
    rdkit_folder(tmp_path / "source", paracetamol)
    for number in range(1, 300):
        os.link(tmp_path / "source" / "drugs" / "000.pickle", tmp_path / "source" / "drugs" / f"{number:03}.pickle")
    script = tmp_path / "script.py"
    script.write_text("from molflow import cli\nfrom molflow.data import geom\ngeom.PART = 3\n"
                      "if __name__ == '__main__':\n    cli.main()\n")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore interrupts
    running = subprocess.Popen(
        [sys.executable, script, "data", "prepare", "geom", "--source", tmp_path / "source", "--out",
         tmp_path / "set.safetensors", "--workers", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True)
    signal.signal(signal.SIGINT, before)

    def far_enough() -> bool:
        if not early:
            return (tmp_path / "set.parts" / "00000.safetensors").exists()
        commands = [" ".join(child.cmdline()) for child in psutil.Process(running.pid).children()]
        return sum("spawn_main" in command for command in commands) == 2  # they import for a second or more

    while not far_enough():
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in err
    assert not (tmp_path / "set.safetensors").exists()
    assert all(MoleculeStore.load(part) for part in (tmp_path / "set.parts").glob("*.safetensors"))


def test_a_hostile_file_is_named_and_refused(molecules: dict[str, list[Chem.Mol]], tmp_path: Path) -> None:
    class Nasty:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'victim'}",)

    rdkit_folder(tmp_path / "one", molecules)
    (tmp_path / "one" / "drugs" / "001.pickle").write_bytes(pickle.dumps({"conformers": [Nasty()]}))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "train_data.pickle").write_bytes(pickle.dumps([("C", [Nasty()])]))
    for source, name in (("one", "001.pickle"), ("two", "train_data.pickle")):
        done = run("--source", tmp_path / source, "--out", tmp_path / f"{source}.safetensors", "--workers", "1")
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert name in done.stderr and "posix.system, which GEOM does not need" in done.stderr
    assert not (tmp_path / "victim").exists() and not (tmp_path / "one.safetensors").exists()


CRASHING = bytes.fromhex(
    "80035d7100285802000000434f71015d7102286372646b69742e4368656d2e72646368656d0a4d6f6c0a7103436befbeadde0000000010000000"
    "0400000000000000060000000500000080010600200000000408002000000002010028000000000101002800000000010100280000000001010"
    "02800000000010b00010000020000030000040001050042000000940000000000000400001671048571055271067d7107857108626806658671"
    "0158010000004f710a5d710b86710c652e")
"""A list of a molecule with a bond to an atom that it does not have, found by fuzzing: RDKit 2026.09 ends with a
segmentation fault."""


def test_a_molecule_that_ends_its_process_is_told_of_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "train_data.pickle").write_bytes(CRASHING)
    done = run("--source", tmp_path, "--out", tmp_path / "a.safetensors", "--workers", "1")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("molflow: ")
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(("files", "words"), [
    ({}, "no known form"), ({"train_data.pickle": b"", "drugs_crude.msgpack": b""}, "several forms"),
    ({"drugs_crude.msgpack": b"\x81\xa1C\xc0"}, "damaged"), ({"train_data.pickle": b"\x80\x04}."}, "not a list"),
    ({"drugs_crude.msgpack": b"\x81\xa1C\x81\xaaconformers\xdd\xff\xff\xff\xff"}, "damaged"),
    ({"drugs_crude.msgpack": msgpack.packb({"C": {"conformers": [{"totalenergy": [1.0], "xyz": []}]}})}, "damaged"),
    ({"drugs_crude.msgpack": msgpack.packb({"C": {"conformers": [
        {"totalenergy": 1.0, "xyz": [[6.0, 0.0, 0.0, 0.0]] * 2001}]}})}, "more than 2000 atoms"),
    *(({"drugs_crude.msgpack": msgpack.packb({"C": {"conformers": [{"totalenergy": -1.0, "xyz": rows}]}})},
       "is not a list") for rows in ([6.0, 0.0], [[6.0, 0.0, 0.0]], [[600.0, 0.0, 0.0, 0.0]])),
])  # fmt: skip
def test_what_cannot_be_read_is_said_in_a_line(files: dict[str, bytes], words: str, tmp_path: Path) -> None:
    from molflow.data import geom
    from molflow.data.store import DataError

    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        list(geom.recognise(tmp_path, 5)[1])


@pytest.mark.parametrize("smiles", ["C1=CC=CC=CC=C1", "[O-][N+](=O)c1ccccc1", "CC(C)(C)C(F)(F)F", "OC=O", "[O-]C=O"])
def test_bonds_are_laid_where_the_distances_are(smiles: str) -> None:
    """Cyclooctatetraene has two ways to alternate, of which one fits."""
    (mol,) = conformers(smiles, 1)
    AllChem.MMFFOptimizeMolecule(mol)
    wanted = from_rdkit(mol)
    order = np.random.default_rng(1).permutation(len(wanted.numbers))
    found = lay_on(smiles, np.column_stack([wanted.numbers, wanted.positions])[order])
    lengths = [np.linalg.norm(m.positions[:, None] - m.positions, axis=-1)[m.bonds == 2].sum() for m in (found, wanted)]
    assert found.smiles == wanted.smiles and lengths[0] <= lengths[1] + 1e-9
    if smiles.startswith("C1"):
        np.testing.assert_array_equal(found.bonds, wanted.bonds[np.ix_(order, order)])


@pytest.mark.parametrize("other", ["CC(=O)N", "CCCO", "C=CO", "OC", "not SMILES"])
def test_bonds_of_another_molecule_are_not_laid(other: str) -> None:
    (mol,) = conformers("CCO", 1)
    ethanol = from_rdkit(mol)
    with pytest.raises(Unsound):
        lay_on(other, np.column_stack([ethanol.numbers, ethanol.positions]))


def test_a_pickle_of_rdkit_is_what_we_take_it_for() -> None:
    """RDKit's way of pickling has not changed under us."""
    from molflow.data.safe_pickle import load

    (mol,) = conformers("CCO", 1)
    read = load(io.BytesIO(pickle.dumps(mol)))
    assert from_rdkit(Chem.Mol(read.data)).smiles == "CCO"


def test_a_molecule_that_a_store_cannot_count_is_left_out() -> None:
    """Its atoms are numbered in a byte: the bonds of the 257th would have become the first's."""
    from molflow.data.geom import checked

    mol = Chem.AddHs(Chem.MolFromSmiles("C" * 90))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=7, useRandomCoords=True) == 0
    chain = from_rdkit(mol)
    assert len(chain.numbers) == 272
    with pytest.raises(Unsound, match="more than 255 atoms"):
        checked([chain])
