"""Small real inputs, made by the project's own writers."""

from __future__ import annotations

import gzip
import io
import pickle
import shutil
import wave
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import cv2
import msgpack
import numpy as np
import soundfile
import torch
from rdkit import Chem

from molflow.data import safe_pickle
from molflow.data.prior import BINS, Prior
from molflow.data.signals import SignalStore
from molflow.data.store import MoleculeStore
from molflow.designer import DesignRun
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.elements import QM9
from molflow.molecules.io import read_sdf, write_sdf, write_traj, write_xyz
from molflow.nn.property import PROPERTIES, PropertyConfig, PropertyNetwork
from molflow.nn.velocity import VelocityConfig, VelocityNetwork
from molflow.nn.weights import Card, save_weights
from molflow.report.folder import save
from molflow.search import Atlas
from molflow.targets import check_targets

REAL = Path(__file__).parents[1] / "molecules" / "qm9_sample.sdf"


def written(write: Callable[[Path], object], name: str = "file") -> bytes:
    """What a function writes to the path that it is given."""
    folder = Path(mkdtemp())
    try:
        write(folder / name)
        return (folder / name).read_bytes()
    finally:
        shutil.rmtree(folder)


@cache
def molecules() -> list[Molecule]:
    """Methane, ammonia, water, and with that a triple bond, a zwitterion and a ring."""
    return [m for m in read_sdf(REAL)[0] if len(m.numbers) < 13][:8]


@cache
def weights() -> dict[str, Path]:
    """Files of the smallest networks that there are, untrained, in a folder that stays."""
    folder = Path(mkdtemp())
    torch.manual_seed(0)
    flow = VelocityConfig(layers=1, scalars=8, vectors=4, pairs=4, messages=4, heads=2, radial=4)
    reader = PropertyConfig(layers=1, scalars=8, density=4, vectors=4, tensors=4)
    prior = Prior((5, 8), (1, 2), dict.fromkeys(PROPERTIES, (-9.0, 9.0)), dict.fromkeys(PROPERTIES, [[1] * BINS] * 2))
    paths = {name: folder / f"{name}.safetensors" for name in ("generator", "guide")}
    save_weights(paths["generator"], VelocityNetwork(QM9, flow),
                 Card("generator", asdict(flow), prior=prior.to_json(), training={"settings": {"data": "qm9"}}))
    save_weights(paths["guide"], PropertyNetwork(5, reader),
                 Card("property", asdict(reader), metrics={"gap": 0.1, "expected": {"gap": [0.1, 0.2]}}))
    return paths


@cache
def run() -> Path:
    """The folder of a run of three molecules, in a folder that stays."""
    folder, made = Path(mkdtemp()), []
    for i, molecule in enumerate(molecules()[:3]):
        said = {"guide_gap": 5.0 + i, "evaluator_gap": 5.5, "target_gap": 5.0, "valid": 1, "nfe": 10,
                "xtb_gap [eV]": 4.0, "xtb_verdict": "agrees"}
        made.append(replace(molecule, properties=said))
    frames = [replace(made[0], properties={"molecule": 1, "t": t}) for t in (0.0, 1.0)]
    return save(DesignRun(made, check_targets({"gap": 5.0}), np.ones((2, 3)), {
        "targets": {"gap": 5.0}, "n": 3, "seed": 0, "atoms": None, "formula": None, "fragment": None, "lead": None,
        "similarity": None, "model": "qm9", "device": "cpu", "budget": {"lookups": 2}, "seconds": 1.0,
        "weights": {"guide": weights()["guide"]}}, ["a warning"], frames), folder / "run", False)


def sdf() -> list[bytes]:
    some, said = molecules(), {"gap": 5.0, "note": "in words"}
    told = [replace(molecule, properties={"name": f"m{i}", **said}) for i, molecule in enumerate(some)]
    return [written(lambda path: write_sdf(path, told[:2])), written(lambda path: write_sdf(path, told[3:])),
            written(lambda path: write_sdf(path, told[2:4], v3000=True)),
            Chem.MolToMolBlock(Chem.MolFromSmiles("c1ccccc1[N+](=O)[O-]")).encode()]


def xyz() -> list[bytes]:
    return [written(lambda path: write_xyz(path, molecules()[:2])), b"2\n\nO 0 0 0\nH 0 0 1\n",
            (run() / "trajectory.xyz").read_bytes()]


def traj() -> list[bytes]:
    return [written(lambda path: write_traj(path, molecules()[:2]))]


def cards() -> list[bytes]:
    return [path.with_suffix(".json").read_bytes() for path in weights().values()]


def safetensors() -> list[bytes]:
    return [weights()["guide"].read_bytes()]


def stores() -> list[bytes]:
    return [written(MoleculeStore.of(collate(molecules()[:2]), torch.arange(2), "words").save)]


def signals() -> list[bytes]:
    pictures = SignalStore([torch.zeros(1, 1, 4, 4, dtype=torch.uint8)], [torch.zeros(1, 1, 5, 4, dtype=torch.uint8)],
                           "words")
    return [written(pictures.save),
            written(SignalStore([torch.zeros(1, 1, 9, dtype=torch.int16)], [], "words").save)]


def atlases() -> list[bytes]:
    atlas = Atlas(np.arange(3), np.array([5, 4, 3]), PROPERTIES, np.zeros((3, 6), np.float32),
                  np.zeros(3, np.float32), ("C", "N", "O"), "0" * 64, "words")
    return [written(atlas.save)]


def pictures() -> list[bytes]:
    grey = (np.arange(48, dtype=np.uint8) * 5).reshape(6, 8)
    colour = np.stack([grey, grey[::-1], grey.T.reshape(6, 8)], -1)
    kinds = [(".png", grey), (".png", colour), (".png", colour.astype(np.uint16) * 257), (".jpg", grey),
             (".jpg", colour), (".tif", grey), (".tif", colour.astype(np.uint16) * 257)]
    return [cv2.imencode(suffix, pixels)[1].tobytes() for suffix, pixels in kinds]


def sounds() -> list[bytes]:
    made = []
    for form, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "MS_ADPCM"), ("FLAC", "PCM_16")):
        file = io.BytesIO()
        samples = np.sin(np.arange(64) / 3).astype(np.float32) / 2
        soundfile.write(file, np.stack([samples, samples[::-1]], 1) if subtype == "FLOAT" else samples, 8000,
                        format=form, subtype=subtype)
        made.append(file.getvalue())
    return made


@cache
def pickled_molecules() -> set[bytes]:
    """What stands for RDKit molecules in `pickles`."""
    return {safe_pickle.load(io.BytesIO(file))["conformers"][0]["rd_mol"].data for file in pickles()[:3]}


def pickles() -> list[bytes]:
    mol = Chem.AddHs(Chem.MolFromSmiles("CO"))
    record = {"conformers": [{"totalenergy": np.float64(-1.0), "rd_mol": mol}], "smiles": "CO"}
    lists = [("CO", [mol, mol]), ("O", [])]
    return [pickle.dumps(thing, protocol) for thing in (record, lists) for protocol in (2, 3, 4)]


def packed() -> list[bytes]:
    molecule = molecules()[0]
    rows = np.column_stack([molecule.numbers, molecule.positions]).tolist()
    return [msgpack.packb({"C": {"conformers": [{"totalenergy": -1.0, "xyz": rows}]}})]


def digits() -> list[bytes]:
    head = np.array([2051, 2, 3, 4], ">i4").tobytes()
    return [gzip.compress(head + bytes(24), 1), gzip.compress(b"", 1)]


def speech() -> list[bytes]:
    sound, archive = io.BytesIO(), io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(range(32)))
    with zipfile.ZipFile(archive, "w") as files:
        for name in ("0_a_0.wav", "0_a_7.wav"):
            files.writestr(name, sound.getvalue())
    return [archive.getvalue()]


SPEC = b"""name: a
targets: [{gap: 5}, {gap: 4..5eV, mu: <1}]
molecules: 3
seed: 7
batch: 2
atoms: 9
budget: {lookups: 2}
xtb: {relax: false}
dft: {best: 3}
database: x.db
workers: 1
slurm: {queue: normal, job_extra_directives: [--hint=nomultithread]}
"""

TOML = b"""weight_bonds = 2.5
data = "qm9"

[run]
part = "half_a"
molecules = 1000
rate = 1e-3
compile = false

[network]
layers = 3
"""
