"""What is fuzzed: for each name a function that reads an input, and uses what was read as the program would."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molflow.campaign import plan
from molflow.campaign.spec import Spec
from molflow.conditions import parse_formula
from molflow.data import digits, geom, speech
from molflow.data.safe_pickle import PickledMol
from molflow.data.signals import SignalStore
from molflow.data.store import MoleculeStore
from molflow.inverse import pictures, sounds
from molflow.models import Generator, Predictor
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.elements import GEOM_DRUGS
from molflow.molecules.io import read_sdf, read_traj, read_xyz, write_sdf
from molflow.nn.unet import UNet
from molflow.nn.velocity import VelocityConfig
from molflow.report.page import page
from molflow.report.reading import read_run
from molflow.search import Atlas
from molflow.targets import Goal, check_targets, parse_targets, warnings_for
from molflow.training.config import GeneratorConfig, SignalConfig, load
from tests.fuzzing import seeds
from tests.fuzzing.mutators import Inside, in_gzip, in_json, in_png, in_safetensors, in_zip

CPU = "cpu"
RANGES = dict.fromkeys(("gap", "mu", "alpha"), (0.0, 10.0))


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: takes an input and an empty folder; raises what the reader is documented to raise, and nothing else.
        seeds: makes inputs to begin with.
        words: pieces of the format, to be put in.
        refusals: the documented exceptions.
        longest: bytes of an input.
        inside: changes an input and keeps its format.
    """

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]
    words: Sequence[bytes] = ()
    refusals: tuple[type[Exception], ...] = (ValueError,)
    longest: int = 4096
    inside: Inside | None = None


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


# ---- text ------------------------------------------------------------------------------------------------------------


def targets(data: bytes, folder: Path) -> None:
    goals = check_targets(parse_targets(text(data).split("\x00")))
    warnings_for(goals, {name: RANGES.get(name, (0.0, 1.0)) for name in goals})
    assert check_targets({name: str(goal) for name, goal in goals.items()}) == goals
    assert check_targets(parse_targets([goal.of(name) for name, goal in goals.items()])) == goals
    assert all(isinstance(goal, Goal) for goal in goals.values())


def formula(data: bytes, folder: Path) -> None:
    found = parse_formula(text(data), GEOM_DRUGS.elements)
    assert found and all(count > 0 for count in found.values())


def gaps(data: bytes, folder: Path) -> None:
    sound = sounds.Sound(torch.zeros(1, 100), 100, "PCM_16")
    assert sounds.parse_gaps(text(data), sound).shape == (1, 1, 100)


def spec(data: bytes, folder: Path) -> None:
    read = Spec.read(put(folder, "a.yaml", data))
    assert len(read.digest) == 64 and "\x00" not in read.database
    if read.molecules < 1000:
        plan.undesigned(read, [])


def toml(data: bytes, folder: Path) -> None:
    kind: Any = SignalConfig if len(data) % 2 else GeneratorConfig
    config = load(kind, put(folder, "a.toml", data))
    with torch.device("meta"):
        if kind is SignalConfig and config.network.levels * config.network.blocks < 100:
            UNet(config.network)
    assert isinstance(config.network, VelocityConfig) or config.size % config.network.divisor == 0


# ---- molecules -------------------------------------------------------------------------------------------------------


def sdf(data: bytes, folder: Path) -> None:
    """What was read can be written, and is the same when it is read again."""
    molecules, skipped = read_sdf(put(folder, "a.sdf", data))
    assert all(record.reason and "\n" not in record.reason for record in skipped)
    assert all(molecule.fault or molecule.smiles for molecule in molecules)
    write_sdf(folder / "b.sdf", molecules)
    if not molecules:
        return
    again, lost = read_sdf(folder / "b.sdf")
    assert not lost
    for before, after in zip(molecules, again, strict=True):
        same(before, after)


def same(before: Molecule, after: Molecule) -> None:
    for name in ("numbers", "charges", "bonds"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    np.testing.assert_allclose(after.positions, before.positions, atol=1e-4, rtol=0)
    said = {key: value for key, value in before.properties.items() if key != "valid"}
    for key, value in said.items():
        assert after.properties[key] == value or value != value, key
    assert after.properties.keys() == said.keys() | {"valid"}


def xyz(data: bytes, folder: Path) -> None:
    for atoms in read_xyz(put(folder, "a.xyz", data)):
        assert len(atoms) == len(atoms.positions)


def traj(data: bytes, folder: Path) -> None:
    for atoms in read_traj(put(folder, "a.traj", data)):
        assert len(atoms) == len(atoms.positions)


# ---- weights and prepared data ---------------------------------------------------------------------------------------


def card(data: bytes, folder: Path) -> None:
    """Beside the weights that it belongs to."""
    role = "generator" if b'prior": {' in data else "guide"
    shutil.copy(seeds.weights()[role], folder / "a.safetensors")
    use(role, folder / "a.safetensors", put(folder, "a.json", data))


def weights(data: bytes, folder: Path) -> None:
    shutil.copy(seeds.weights()["guide"].with_suffix(".json"), folder / "a.json")
    use("guide", put(folder, "a.safetensors", data), folder / "a.json")


def use(role: str, path: Path, card: Path) -> None:
    if role == "generator":
        flow = Generator.load(path, CPU)
        size = flow.prior.draw_sizes(
            1, np.random.default_rng(0), {"gap": (4.0, 5.0)} if "gap" in flow.prior.ranges else None
        )
        assert flow.prior.sizes[0] <= size[0] <= flow.prior.sizes[-1]
    else:
        reader = Predictor.load(path, CPU)
        said, doubt = reader.read(collate(seeds.molecules()[:1]))
        reader.expected_errors(doubt)
        assert said.shape == (1, len(reader.properties)) and isinstance(reader.level, str)
        check_targets(
            {
                name: goal.inside(reader.card.metrics.get(name, 0.0))
                for name, goal in check_targets({"gap": "4..5"}).items()
            }
        )


def store(data: bytes, folder: Path) -> None:
    found = MoleculeStore.load(put(folder, "a.safetensors", data))
    if len(found):
        assert len(found.batch(torch.arange(len(found)))) == len(found)
        found.parts()


def signals(data: bytes, folder: Path) -> None:
    found = SignalStore.load(put(folder, "a.safetensors", data))
    assert found.unit and torch.isfinite(found.crops(2, 3, torch.Generator())).all()


def atlas(data: bytes, folder: Path) -> None:
    found = Atlas.load(put(folder, "a.safetensors", data))
    assert len(found) == len(found.smiles) == len(found.readings[:, : len(found.names)])
    assert len(found.share(0, 2)) <= len(found)


# ---- pictures and sound ----------------------------------------------------------------------------------------------

MAGIC = {b"\xff": ".jpg", b"I": ".tif", b"M": ".tif", b"R": ".wav", b"f": ".flac"}


def picture(data: bytes, folder: Path) -> None:
    read = pictures.read(put(folder, "a" + MAGIC.get(data[:1], ".png"), data))
    assert read.pixels.abs().max() <= 1 and read.bits in (8, 16) and len(read.pixels) in (1, 3)
    pictures.write(folder / "b.png", read)
    assert torch.equal(pictures.read(folder / "b.png").pixels, read.pixels)


def mask(data: bytes, folder: Path) -> None:
    page = pictures.Picture(torch.zeros(3, 6, 8), 8)
    known = pictures.read_mask(put(folder, "a" + MAGIC.get(data[:1], ".png"), data), page)
    assert known.any() and not known.all()


def sound(data: bytes, folder: Path) -> None:
    read = sounds.read(put(folder, "a" + MAGIC.get(data[:1], ".wav"), data))
    assert read.samples.isfinite().all() and read.samples.any()
    assert read.at(8000).rate == 8000
    sounds.write(folder / "b.flac", replace(read, samples=read.samples[:8]))


# ---- archives and data sets ------------------------------------------------------------------------------------------


def pickled(data: bytes, folder: Path) -> None:
    """A molecule of GEOM's ``rdkit_folder``."""
    path = put(folder, "a.pickle", data)
    if ours(geom.from_file(path, 2)):
        geom.make([geom.Entry(0, None, file=path)], conformers=2, form="rdkit_folder")


def midi(data: bytes, folder: Path) -> None:
    entries = geom.from_midi({0: put(folder, "train_data.pickle", data)}, 2)
    geom.make((entry for entry in entries if ours(entry.mols)), conformers=2, form="midi")


def ours(mols: Sequence[object]) -> bool:
    """Whether RDKit has written these molecules' bytes. Some others end the process that RDKit reads them in: molflow
    has processes for that, see `tests.data.test_geom`."""
    return {mol.data for mol in mols if isinstance(mol, PickledMol)} <= seeds.pickled_molecules()


def packed(data: bytes, folder: Path) -> None:
    entries = list(geom.from_msgpack(put(folder, "a.msgpack", data), 2))
    geom.make(entries, conformers=2, form="msgpack")


def digit(data: bytes, folder: Path) -> None:
    put(folder, "t10k-images-idx3-ubyte.gz", data)
    assert digits.read(folder).unit == "pictures"


def spoken(data: bytes, folder: Path) -> None:
    put(folder, "fsdd.zip", data)
    assert speech.read(folder).unit == "clips"


# ---- a run's folder --------------------------------------------------------------------------------------------------


def of_run(name: str) -> Callable[[bytes, Path], None]:
    """The page of a run, one file of which comes from a stranger."""

    def read(data: bytes, folder: Path) -> None:
        for file in seeds.run().iterdir():
            if file.name not in (name, "report.html"):
                (folder / file.name).symlink_to(file)
        put(folder, name, data)
        assert "</html>" in page(read_run(folder))

    return read


def file_of_run(name: str) -> Callable[[], list[bytes]]:
    return lambda: [(seeds.run() / name).read_bytes()]


SDF_WORDS = (b"M  END\n", b"$$$$\n", b"M  CHG  1   1  -1\n", b"M  V30 BEGIN ATOM\n", b"M  V30 COUNTS 1 0 0 0 0\n",
             b"M  V30 END CTAB\n", b">  <a>\n", b"M  RAD  1   1   2\n", b"M  ISO  1   1   2\n", b"V3000", b"999", b"\r")
TENSOR_WORDS = b"\"I64\" \"shape\":[ \"data_offsets\":[ \"__metadata__\" F32 BOOL BF16".split()
PICKLE_WORDS = (b"cposix\nsystem\n", b"cbuiltins\neval\n", b"\x8d", b"h\0", b"q\0",
                *(bytes([operation]) for operation in b"\x85\x93\x94Rb(t}su"))
PICTURE_WORDS = b"IHDR IDAT PLTE tRNS acTL \xff\xd8\xff II*\0".split()
TEXT: dict[str, Target] = {
    "targets": Target(targets, lambda: [b"gap=4..5eV\0mu<1", b"alpha=max", b"homo>=-0.2Ha\0cv=30cal/(mol K)"],
                      b".. max min eV meV Ha kcal/mol Bohr^3 gap= mu< 1e9".split()),
    "formula": Target(formula, lambda: [b"C7H10O2", b"H2O"], b"Cl Br 99999".split()),
    "gaps": Target(gaps, lambda: [b"0.50-0.53,0.60-0.64"], b"1e9 nan inf -".split()),
    "spec": Target(spec, lambda: [seeds.SPEC, b"name: b\ntargets:\n- gap: 5\nmolecules: 1\n"],
                   (b"!!int ", b"? ", b"- ", b"|\n", *b"&a *a <<: !!python/object: 0x null ~ xtb: dft: slurm: "
                    b"1e99 2026-01-01 postgresql:// scheduler: \\0".split())),
    "toml": Target(toml, lambda: [seeds.TOML, b"data = 'digits'\nsize = 28\n[network]\npatch = 1\nlevels = 3\n"],
                   (b"[run]\n", b"[network]\n", *b"nan inf 0x [[ 2026-01-01 width= heads= growth= size=".split())),
}
FILES: dict[str, Target] = {
    "sdf": Target(sdf, seeds.sdf, SDF_WORDS),
    "xyz": Target(xyz, seeds.xyz, (b'Lattice="1 0 0 0 1 0 0 0 1" ', b"_JSON ",
                                   *b"Properties= species:S:1: pos:R:3 99999999 pbc=".split())),
    "traj": Target(traj, seeds.traj, (b"- of Ulm", *b'"__ndarray__": "__ase_objtype__":"atoms" constraints.'.split())),
    "card": Target(card, seeds.cards, b'null -1 1e9 [] {} true "members":2 "expected" NaN "elements":['.split(),
                   longest=8192, inside=in_json),
    "weights": Target(weights, seeds.safetensors, TENSOR_WORDS, longest=32768, inside=in_safetensors),
    "store": Target(store, seeds.stores, TENSOR_WORDS, inside=in_safetensors),
    "signals": Target(signals, seeds.signals, TENSOR_WORDS, inside=in_safetensors),
    "atlas": Target(atlas, seeds.atlases, TENSOR_WORDS, inside=in_safetensors),
    "picture": Target(picture, seeds.pictures, PICTURE_WORDS, inside=in_png),
    "mask": Target(mask, seeds.pictures, PICTURE_WORDS, inside=in_png),
    "sound": Target(sound, seeds.sounds, (b"fmt ", *b"RIFF WAVE data fact fLaC \xff\xff\xff\x7f".split())),
    "pickle": Target(pickled, lambda: seeds.pickles()[:3], PICKLE_WORDS),
    "midi": Target(midi, lambda: seeds.pickles()[3:], PICKLE_WORDS),
    "msgpack": Target(packed, seeds.packed, b"\xdd\xff\xff\xff\xff \xdf\xff\xff\xff\xff \xc7 \xa1C \xc0".split()),
    "digits": Target(digit, seeds.digits, (b"\x1f\x8b\x08",), inside=in_gzip),
    "speech": Target(spoken, seeds.speech, (b"fmt ", *b"PK\3\4 PK\1\2 PK\5\6 RIFF data .wav".split()), inside=in_zip),
}
MISSING = ValueError, FileNotFoundError
RUNS: dict[str, Target] = {
    "run.json": Target(of_run("run.json"), file_of_run("run.json"),
                       b'null NaN Infinity 1e999 [] {} -1 true "fragment":"C.C" "lead":"C" "model": \\ud800'.split(),
                       MISSING, inside=in_json),
    "results.csv": Target(of_run("results.csv"), file_of_run("results.csv"),
                          b'nan inf 1e308 -1e308 " smiles dft_verdict ,,,'.split(), MISSING),
    "molecules.sdf": Target(of_run("molecules.sdf"), file_of_run("molecules.sdf"), SDF_WORDS, MISSING),
    "trajectory.xyz": Target(of_run("trajectory.xyz"), file_of_run("trajectory.xyz"),
                             b"molecule= t=nan bonds= inf 99999999 0-1:2".split(), MISSING),
}
TARGETS = TEXT | FILES | RUNS
