"""Files in, files out: the formats, and the command as one calls it, with a prior that stands still."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch

from molflow.data import digits, speech
from molflow.data.store import DataError
from molflow.inverse import pictures, sounds
from molflow.inverse.files import Shown, Wanted, restore_file
from molflow.inverse.hearing import Listening
from molflow.inverse.pictures import FileError, Picture
from molflow.inverse.posterior import Averaging
from molflow.inverse.sounds import Sound
from molflow.nn.unet import UNet, UNetConfig
from molflow.nn.weights import Card, save_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Priors whose velocity is 0 (an untrained network's), a picture, a mask, recordings."""
    folder = tmp_path_factory.mktemp("files")
    for name, config, size in (("colour", UNetConfig(channels=3, width=16, blocks=1), 16),
                               ("sound", UNetConfig(dims=1, width=16, blocks=1, patch=4), 256)):
        network = UNet(config)
        torch.nn.init.zeros_(network.leave.bias)
        settings = {"size": size, "emphasis": 0.0, "scale": 1.0}
        save_weights(folder / f"{name}.safetensors", network, Card("signal", vars(config), {"settings": settings}))
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "photo.png"), rng.integers(0, 256, (20, 24, 3), np.uint8))
    mask = np.zeros((20, 24), np.uint8)
    mask[5:9, 6:12] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    cv2.imwrite(str(folder / "other.png"), mask[:-1])
    cv2.imwritemulti(str(folder / "pages.tiff"), [mask, mask])
    t = np.arange(2400) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(folder / "tone.wav", np.stack([tone, 0.5 * tone], 1), 8000)
    soundfile.write(folder / "loud.flac", np.clip(2 * tone, -0.8, 0.8), 8000)
    soundfile.write(folder / "cd.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(13230) / 44100), 44100)
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan] * 500), 8000, subtype="FLOAT")
    (folder / "text.png").write_text("no picture")
    return folder


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_comes_back_as_it_was(tmp_path: Path, name: str, bits: int, channels: int) -> None:
    shape = (5, 7, 3) if channels == 3 else (5, 7)
    raw = np.random.default_rng(0).integers(0, 2**bits, shape, np.uint8 if bits == 8 else np.uint16)
    cv2.imwrite(str(tmp_path / name), raw)
    picture = pictures.read(tmp_path / name)
    assert picture.pixels.shape == (channels, 5, 7) and picture.bits == bits
    assert picture.pixels.min() >= -1 and picture.pixels.max() <= 1
    pictures.write(tmp_path / f"again-{name}", picture)
    assert np.array_equal(cv2.imread(str(tmp_path / f"again-{name}"), cv2.IMREAD_UNCHANGED), raw)


def test_a_recording_comes_back_as_it_was_and_its_rate_changes(folder: Path, tmp_path: Path) -> None:
    for name in ("tone.wav", "loud.flac"):
        sound = sounds.read(folder / name)
        sounds.write(tmp_path / name, sound)
        assert torch.equal(sounds.read(tmp_path / name).samples, sound.samples)
    original = sounds.read(folder / "cd.wav")
    lower = original.at(8000)
    assert lower.rate == 8000 and lower.samples.shape == (1, 2400)
    exact = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(2400) / 8000)
    torch.testing.assert_close(lower.samples[0, 50:-50], exact[50:-50], atol=5e-3, rtol=0)


def test_only_the_hole_changes(folder: Path, tmp_path: Path) -> None:
    said = restore_file(folder / "photo.png", tmp_path / "out.png",
                        Wanted("inpaint", folder / "mask.png", prior=folder / "colour.safetensors"),
                        Shown(tmp_path / "both.png", tmp_path / "way.gif"))
    before, after = (cv2.imread(str(path)) for path in (folder / "photo.png", tmp_path / "out.png"))
    changed = (before != after).any(2)
    assert changed[5:9, 6:12].all() and changed.sum() == 24
    assert said.startswith("24 x 20 pixels, 8 bit") and cv2.imread(str(tmp_path / "both.png")).std() > 10
    assert frames(tmp_path / "way.gif") == 2 + Averaging.steps  # as it was, and at each of the times


def test_the_files_that_show_it_have_the_right_names(folder: Path, tmp_path: Path) -> None:
    for shown, name in ((Shown(tmp_path / "a.jpg"), "a.jpg must be named .png"),
                        (Shown(film=tmp_path / "a.mp4"), "a.mp4 must be named .gif")):
        with pytest.raises(FileError, match=name):
            restore_file(folder / "photo.png", tmp_path / "out.png", Wanted("denoise", noise=0.1), shown)
    assert not list(tmp_path.iterdir())


def frames(film: Path) -> int:
    """How many, each of which shows something."""
    from PIL import Image, ImageSequence

    shown = [np.asarray(frame.convert("L"), float) for frame in ImageSequence.Iterator(Image.open(film))]
    assert min(frame.std() for frame in shown) > 10
    return len(shown)


def test_larger_pictures(folder: Path, tmp_path: Path) -> None:
    restore_file(folder / "photo.png", tmp_path / "out.tiff",
                 Wanted("superresolve", factor=2, prior=folder / "colour.safetensors"))
    assert cv2.imread(str(tmp_path / "out.tiff")).shape == (40, 48, 3)


def test_only_the_gap_changes_in_every_channel(folder: Path, tmp_path: Path) -> None:
    said = restore_file(folder / "tone.wav", tmp_path / "out.wav",
                        Wanted("inpaint", gaps="0.10-0.12", prior=folder / "sound.safetensors"),
                        Shown(tmp_path / "both.png", tmp_path / "way.gif"))
    before, after = (sounds.read(path).samples for path in (folder / "tone.wav", tmp_path / "out.wav"))
    assert "2 channels one by one" in said and (tmp_path / "both.png").stat().st_size > 10_000
    assert frames(tmp_path / "way.gif") == 1 + Listening.steps
    changed = (before != after).any(0).nonzero()
    assert changed.min() >= 800 and changed.max() < 960 and len(changed) > 150


def test_declipping_keeps_what_was_not_clipped_and_exceeds_what_was(folder: Path, tmp_path: Path) -> None:
    restore_file(folder / "loud.flac", tmp_path / "out.wav",
                 Wanted("declip", prior=folder / "sound.safetensors", method="dflow", evals=30))
    before, after = (sounds.read(path).samples for path in (folder / "loud.flac", tmp_path / "out.wav"))
    clipped = before.abs() >= 0.799
    torch.testing.assert_close(after[~clipped], before[~clipped], atol=1e-4, rtol=0)
    assert (after[clipped] * before[clipped].sign() > 0.75).all() and after.abs().max() > 0.81


def test_other_rates_are_resampled_and_said(folder: Path, tmp_path: Path) -> None:
    wanted = Wanted("inpaint", gaps="0.10-0.11", prior=folder / "sound.safetensors")
    said = restore_file(folder / "cd.wav", tmp_path / "out.wav", wanted)
    before, after = (sounds.read(path) for path in (folder / "cd.wav", tmp_path / "out.wav"))
    assert "resampled from 44100 to 8000 Hz" in said and after.rate == 44100
    changed = (before.samples != after.samples)[0].nonzero()
    assert changed.min() >= 4410 and changed.max() < 4851
    said = restore_file(folder / "tone.wav", tmp_path / "wide.wav",
                        Wanted("extend", prior=folder / "sound.safetensors"))
    assert "from 8000 to 4000 Hz" in said and sounds.read(tmp_path / "wide.wav").samples.shape == (2, 2400)


@pytest.mark.parametrize(("file", "options", "words"), [
    ("photo.png", {"task": "inpaint"}, "--mask is missing"),
    ("photo.png", {"task": "inpaint", "mask": "other.png"}, "is 24 x 19 pixels, the picture 24 x 20"),
    ("photo.png", {"task": "inpaint", "mask": "none.png"}, "none.png does not exist"),
    ("photo.png", {"task": "extend"}, "unknown task 'extend' for a picture: known are inpaint, superresolve"),
    ("photo.png", {"task": "deblur"}, "give either --blur"),
    ("photo.png", {"task": "deblur", "motion": "fast"}, "LENGTH,DEGREES"),
    ("photo.png", {"task": "superresolve", "factor": 3}, "--factor must be 2 or 4"),
    ("photo.png", {"task": "denoise"}, "Give --noise"),
    ("photo.png", {"task": "denoise", "noise": -1.0}, "must not be below 0"),
    ("photo.png", {"task": "denoise", "noise": 0.1, "method": "magic"}, "unknown method 'magic': known are mean"),
    ("photo.png", {"task": "denoise", "noise": 0.1, "evals": 3}, "--evals belongs to --method dflow"),
    ("photo.png", {"task": "denoise", "noise": 0.1, "method": "dflow", "evals": 0}, "--evals must not be below 1"),
    ("photo.png", {"task": "denoise", "noise": 0.1, "prior": "sound.safetensors"}, "is a prior of sound"),
    ("text.png", {"task": "denoise", "noise": 0.1}, "cannot be read as a picture"),
    ("pages.tiff", {"task": "denoise", "noise": 0.1}, "animated or has several pages"),
    ("mask.txt", {"task": "denoise", "noise": 0.1}, "is none of .png"),
    ("nan.wav", {"task": "denoise", "noise": 0.1}, "samples that are no numbers"),
    ("tone.wav", {"task": "inpaint"}, "--gaps is missing"),
    ("tone.wav", {"task": "inpaint", "gaps": "0.2-9"}, "not within the recording's 0.300 s"),
    ("tone.wav", {"task": "inpaint", "gaps": "middle"}, "'middle' is no gap"),
    ("tone.wav", {"task": "hdr"}, "unknown task 'hdr' for a recording: known are inpaint, extend"),
    ("none.wav", {"task": "declip"}, "none.wav does not exist"),
])
def test_bad_input_is_refused_in_a_sentence(folder: Path, tmp_path: Path, file: str, options: dict, words: str) -> None:
    prior = "sound" if file.endswith(".wav") else "colour"
    given = {"prior": f"{prior}.safetensors", **options}
    given |= {key: folder / given[key] for key in ("mask", "prior") if key in given}
    out = tmp_path / ("out.wav" if file.endswith(".wav") else "out.png")
    with pytest.raises(ValueError, match=words) as error:
        restore_file(folder / file, out, Wanted(**given))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_gaps_are_where_they_are_said_to_be() -> None:
    sound = Sound(torch.ones(1, 100), 100, "PCM_16")
    known = sounds.parse_gaps("0.10-0.15, 0.5-0.52", sound)
    assert (~known[0, 0]).nonzero().flatten().tolist() == [*range(10, 15), 50, 51]
    with pytest.raises(FileError, match="nothing"):
        sounds.parse_gaps("0-1", sound)


def test_a_mask_that_says_nothing_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((4, 4), np.uint8))
    with pytest.raises(FileError, match="all dark"):
        pictures.read_mask(tmp_path / "mask.png", Picture(torch.zeros(3, 4, 4), 8))


def test_the_command(folder: Path, tmp_path: Path) -> None:
    def run(*more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "molflow.cli", "restore", folder / "photo.png", "--out",
                               tmp_path / "out.png", "--prior", folder / "colour.safetensors", "--method", "dflow",
                               "--evals", "2", *map(str, more)], cwd=ROOT, capture_output=True, text=True, timeout=600,
                              env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})

    refused = run("--task", "inpaint")
    assert refused.returncode == 2 and "--mask is missing" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr and not list(tmp_path.iterdir())
    done = run("--task", "inpaint", "--mask", folder / "mask.png")
    assert done.returncode == 0 and done.stdout == f"24 x 20 pixels, 8 bit, written to {tmp_path / 'out.png'}\n"
    again = run("--task", "inpaint", "--mask", folder / "mask.png")
    assert again.returncode == 2 and "give --overwrite" in again.stderr


# ---- what strangers put in files -------------------------------------------------------------------------------------


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**13 + 1, 2**13), (2**31 - 1, 1), (0, 5)])
def test_a_picture_is_not_read_because_it_says_it_is_large(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(png(*size, b""))
    with pytest.raises(FileError, match=r"a\.png cannot be read as a picture") as error:
        pictures.read(tmp_path / "a.png")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".ppm", ".hdr", ".gif", ".jpg"])
def test_a_picture_is_what_its_name_says(tmp_path: Path, suffix: str) -> None:
    """OpenCV would read a dozen formats, each by another library."""
    pixels = np.zeros((4, 4, 3), np.float32 if suffix == ".hdr" else np.uint8)
    done, content = cv2.imencode(suffix, pixels)
    assert done
    (tmp_path / "a.png").write_bytes(content.tobytes())
    with pytest.raises(FileError, match="it is not what its name says"):
        pictures.read(tmp_path / "a.png")


def test_a_chunk_longer_than_its_file_is_refused_before_room_is_made_for_it(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "photo.png").read_bytes()
    place = whole.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(whole[:place] + b"\x7f" + whole[place + 1 :])
    with pytest.raises(FileError, match="breaks off"):
        pictures.read(tmp_path / "a.png")


def test_a_recording_is_not_read_because_it_says_it_is_long(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.sin(np.arange(1000)) / 2, 8000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4  # 2^36 - 1 samples
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(FileError, match="68719476735 x 1 samples"):
        sounds.read(tmp_path / "a.flac")


@pytest.mark.parametrize("rate", [1, 3999, 2**31 - 1])
def test_rates_that_would_fill_the_memory_are_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(1000)) / 2, rate)
    with pytest.raises(FileError, match=f"{rate} a second: at most"):
        sounds.read(tmp_path / "a.wav")


def test_sound_is_wav_or_flac_whatever_it_is_called(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(1000)) / 2, 8000, format="AIFF")
    with pytest.raises(FileError, match="neither WAV nor FLAC"):
        sounds.read(tmp_path / "a.wav")


def test_more_channels_than_a_format_holds_are_refused_when_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a\.flac cannot be written"):
        sounds.write(tmp_path / "a.flac", Sound(torch.zeros(9, 100), 8000, "PCM_16"))
    assert list(tmp_path.iterdir()) == []


IDX = "t10k-images-idx3-ubyte.gz"


@pytest.mark.parametrize(("read", "name", "content", "words"), [
    (digits.read, IDX, 65 * gzip.compress(bytes(2**20)), "more than 67108864 bytes"),
    (digits.read, IDX, gzip.compress(b"x")[:12] + b"\xff" * 20, "cannot be read"),
    (digits.read, IDX, gzip.compress(struct.pack(">4i", 2051, -1, -1, 0)), "is not a file of idx"),
    (digits.read, IDX, gzip.compress(struct.pack(">4i", 2051, 2**30, 4, 4)), "is not a file of"),
    (speech.read, "fsdd.zip", zipped({"0_a_7.wav": bytes(98765)}).replace(
        struct.pack("<I", 98765), struct.pack("<I", 2**28 + 1)), "more than the"),
    (speech.read, "fsdd.zip", zipped({"0_a_7.wav": b"RIFF"}), "cannot be read"),
    (speech.read, "fsdd.zip", zipped({"../../0_a_7.txt": b""}), "holds no recordings"),
])
def test_archives_are_read_as_far_as_they_may_be(tmp_path: Path, read: Callable[[Path], object], name: str,
                                                  content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
