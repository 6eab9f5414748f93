"""A full disk and a folder that cannot be written: a sentence, and what was there stays as it was."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml

from benchmarks import record
from molflow.data import moses3d
from molflow.data.store import PARTS, MoleculeStore
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.io import write_sdf
from molflow.nn.property import PROPERTIES, UNITS
from molflow.nn.unet import UNet, UNetConfig
from molflow.nn.weights import Card, save_weights

SAMPLE = Path(__file__).parent / "molecules" / "qm9_sample.sdf"
EXAMPLE = Path(__file__).parents[1] / "examples" / "campaign.yaml"
RECIPE = """
[run]
molecules = 16
batch_size = 8
precision = "float32"
compile = false
checkpoint_minutes = 0.0
[network]
layers = 1
scalars = 16
density = 8
vectors = 8
tensors = 4
"""


class Disk:
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """To the last byte; a file that is there keeps its blocks."""
        with (self.folder / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))

    def protect(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)

    def content(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else b""
                for path in self.folder.rglob("*") if path.name != "filler"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"only who may mount can have a full disk: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(params=["No space left", "cannot be"])
def bad(request: pytest.FixtureRequest, disk: Disk) -> tuple[Disk, str]:
    """A disk that is full or can only be read, with one older file, and what is said of it."""
    (disk.folder / "there").write_text("what was there")
    disk.fill() if request.param == "No space left" else disk.protect()
    return disk, request.param


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence on stderr; where work is shown while it is done, lines of progress stand beside it."""
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith(("molflow: ", "benchmarks: "))]
    assert "[Errno" not in sentence
    return sentence


@pytest.fixture
def one(tmp_path: Path, qm9: list[Molecule]) -> Path:
    """A file of one small molecule."""
    path = tmp_path / "one.sdf"
    write_sdf(path, qm9[:1])
    return path


@pytest.fixture
def prepared(tmp_path: Path, qm9: list[Molecule]) -> Path:
    """A small data set with a split of its own."""
    made, split = MoleculeStore.of(collate(qm9), torch.arange(61), "61 molecules"), torch.zeros(61, dtype=torch.uint8)
    split[50:] = PARTS.index("valid")
    values = torch.randn(61, len(PROPERTIES), generator=torch.Generator().manual_seed(0))
    path = tmp_path / "prepared.safetensors"
    units = tuple(UNITS[name] for name in PROPERTIES)
    replace(made, properties=values, names=PROPERTIES, units=units, split=split).save(path)
    return path


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Laid out as molsets' is."""
    path = tmp_path / moses3d.WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train", "test"):
            archive.writestr(f"moses/dataset/data/{name}.csv.gz", gzip.compress(b"SMILES\nCCO\nCCN"))
    monkeypatch.setattr(moses3d, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


@pytest.mark.parametrize("command", ["sample", "predict", "likelihood", "verify", "verify sdf", "design", "digits",
                                     "moses3d", "train", "campaign", "restore"])
def test_one_sentence_and_nothing_half_written(bad: tuple[Disk, str], molflow, tiny_weights: dict[str, Path], one: Path,
                                               tmp_path: Path, request: pytest.FixtureRequest, command: str) -> None:
    disk, words = bad
    weights = [word for name, path in tiny_weights.items() for word in (f"--{name}", path)]
    out = disk.folder / "new" / "out"
    before = disk.content()
    match command:
        case "sample":
            done = molflow("sample", "-n", 2, "--out", out, "--generator", tiny_weights["generator"])
        case "predict":
            done = molflow("predict", one, "--model", tiny_weights["guide"], "--out", disk.folder / "there",
                           "--overwrite")
        case "likelihood":
            done = molflow("likelihood", one, "--steps", 1, "--draws", 1, "--generator", tiny_weights["generator"],
                           "--out", out)
        case "verify":
            done = molflow("verify", one, "--workers", 1, "--out", out)
        case "verify sdf":
            done = molflow("verify", one, "--workers", 1, "--out", out.with_suffix(".sdf"))
        case "design":
            done = molflow("design", "--target", "gap=5", "-n", 1, "--draws", 1, "--generations", 0, "--gradients", 0,
                           "--out", out, *weights)
        case "digits":
            pictures = np.array([2051, 2, 28, 28], ">i4").tobytes() + bytes(2 * 28 * 28)
            (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(pictures))
            done = molflow("data", "prepare", "digits", "--source", tmp_path, "--out", out)
        case "moses3d":
            wheel = request.getfixturevalue("wheel")
            done = molflow("data", "prepare", "moses3d", "-n", 4, "--source", wheel, "--workers", 1, "--out", out)
        case "train":
            (tmp_path / "tiny.toml").write_text(RECIPE)
            done = molflow("train", "property", "--config", tmp_path / "tiny.toml", "--data",
                           request.getfixturevalue("prepared"), "--out", out)
        case "campaign":
            spec = {**yaml.safe_load(EXAMPLE.read_text()), "database": str(out.with_suffix(".db"))}
            (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
            done = molflow("campaign", tmp_path / "spec.yaml")
        case "restore":
            done = molflow("restore", *request.getfixturevalue("picture"), "--out", out.with_suffix(".png"))
    assert words in said(done) or "Read-only file system" in said(done)
    made = {name for name, content in disk.content().items() if content} - before.keys()
    assert not made and disk.content()["there"] == b"what was there"


@pytest.fixture
def picture(tmp_path: Path) -> list[object]:
    """A picture, and a prior that stands still."""
    config = UNetConfig(channels=3, width=16, blocks=1)
    network = UNet(config)
    torch.nn.init.zeros_(network.leave.bias)
    settings = {"size": 16, "emphasis": 0.0, "scale": 1.0}
    save_weights(tmp_path / "still.safetensors", network, Card("signal", vars(config), {"settings": settings}))
    cv2.imwrite(str(tmp_path / "photo.png"), np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    return [tmp_path / "photo.png", "--task", "denoise", "--noise", 0.1, "--prior", tmp_path / "still.safetensors"]


def test_pictures_of_what_was_done_are_whole_too(disk: Disk, molflow, picture: list[object]) -> None:
    disk.fill()
    for option, name in (("--film", "a.gif"), ("--compare", "a.png")):
        done = molflow("restore", *picture, "--out", disk.folder.parent / f"{name}.png", option, disk.folder / name)
        assert name in said(done) and not disk.content()


def test_a_page_is_written_or_the_old_one_stays(disk: Disk, molflow, tiny_weights: dict[str, Path],
                                                tmp_path: Path) -> None:
    weights = [word for name, path in tiny_weights.items() for word in (f"--{name}", path)]
    run = tmp_path / "run"
    assert molflow("design", "--target", "gap=5", "-n", 1, "--draws", 1, "--generations", 0, "--gradients", 0, "--out",
                   run, *weights).returncode == 0
    page = disk.folder / "report.html"
    page.write_text("old")
    disk.fill()
    assert f"{page}: No space left" in said(molflow("report", run, "--out", page, "--overwrite"))
    assert disk.content() == {"report.html": b"old"}


def test_a_training_that_meets_a_full_disk_goes_on_from_its_last_checkpoint(disk: Disk, molflow, prepared: Path,
                                                                            tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.toml", disk.folder / "run"
    recipe.write_text(RECIPE)
    command = ["train", "property", "--config", recipe, "--data", prepared, "--out", out]
    done = molflow(*command, "--minutes", 0)
    assert done.returncode == 0, done.stderr
    before = (out / "state.ckpt").read_bytes()
    disk.fill()
    assert "No space left" in said(molflow(*command, "--resume"))
    assert (out / "state.ckpt").read_bytes() == before
    (disk.folder / "filler").unlink()
    done = molflow(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert torch.load(out / "state.ckpt", weights_only=True)["step"] == 2


def test_weights_and_their_card_are_written_both_or_neither(disk: Disk) -> None:
    small, path = UNetConfig(channels=1, width=16, levels=2, blocks=1), disk.folder / "w.safetensors"
    save_weights(path, UNet(small), Card("signal", vars(small)))
    before = disk.content()
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, UNet(small), Card("signal", {**vars(small), "blocks": 2}))
    assert disk.content() == before and len(before) == 2


def test_what_a_benchmark_has_measured_stays(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    measured: list[str] = []

    def measure(part: str) -> dict[str, str]:
        measured.append(part)
        return {"part": part}

    def run(*, seed: int, parts: record.Parts) -> dict[str, object]:
        found = {"one": parts("one", lambda: measure("one"))}
        if measured == ["one"]:
            disk.fill()
        return {**found, "two": parts("two", lambda: measure("two"))}

    module = SimpleNamespace(run=run, tables=lambda results: [])
    with pytest.raises(OSError, match="No space left"):
        record.execute("b", module, disk.folder, {"seed": 0})
    assert sorted(path.name for path in disk.folder.rglob("*.*")) == ["b.parts", "one.json"]
    (disk.folder / "filler").unlink()
    record.execute("b", module, disk.folder, {"seed": 0}, resume=True)
    assert measured == ["one", "two", "two"] and {"b.json", "b.md"} < disk.content().keys()

    disk.protect()
    with pytest.raises(NotADirectoryError, match="cannot be made"):
        record.execute("b", module, disk.folder, {"seed": 0}, overwrite=True)
    assert len(measured) == 3


def test_what_is_printed_onto_a_full_disk(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "molflow.cli", "evaluate", SAMPLE, "--json"], stdout=full,
                              stderr=subprocess.PIPE, text=True, env={**environment, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 1 and done.stderr == "molflow: failed: standard output: No space left on device\n"
