"""Priors of pictures and of sound: their data, their network, their task and the real command."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import wave
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from molflow.adapters import audio, image
from molflow.data import digits, speech
from molflow.data.signals import SignalStore
from molflow.data.store import DataError
from molflow.nn.unet import UNet, UNetConfig, _detail
from molflow.training.config import ConfigError, Run, SignalConfig
from molflow.training.signals import SignalTask, _paired, _turned
from molflow.training.trainer import train

ROOT = Path(__file__).parents[2]
TINY = UNetConfig(width=16, blocks=1)
RUN = Run(molecules=8 * 60, batch_size=8, rate=3e-3, warmup=0.1, cooldown=0.3, ema=0.9, precision="float32",
          compile=False)


@pytest.fixture(scope="module")
def bars() -> SignalStore:
    """Pictures of one bright bar, upright or flat, somewhere."""
    rng = np.random.default_rng(0)
    pictures = np.zeros((48, 1, 8, 8), np.uint8)
    for number, picture in enumerate(pictures[:, 0]):
        (picture if number % 2 else picture.T)[rng.integers(8)] = 255
    pixels = torch.from_numpy(pictures)
    return SignalStore([pixels[:40]], [pixels[40:]], "bars")


def task(store: SignalStore, **changes: object) -> SignalTask:
    return SignalTask(replace(SignalConfig(run=RUN, network=TINY, size=8), **changes), store)


def test_crops_are_pieces_of_the_signals_and_short_ones_lie_among_silence() -> None:
    long, short = torch.arange(1, 41, dtype=torch.int16).view(1, 1, 40), torch.full((1, 1, 3), 99, dtype=torch.int16)
    store = SignalStore([long, short], [short], "")
    crops = (store.crops(200, 10, torch.Generator().manual_seed(0)) * 32768).round().to(torch.int16)[:, 0]
    of_short = (crops == 99).any(1)
    assert 0 < of_short.sum() < 100  # 4 times shorter, and no less than one place
    assert ((crops[~of_short].diff(dim=1) == 1).all() and set(crops[~of_short][:, 0].tolist()) == set(range(1, 32)))
    assert ((crops[of_short] == 99).sum(1) == 3).all() and ((crops[of_short] == 0).sum(1) == 7).all()
    starts = (crops[of_short] == 99).int().argmax(1)
    assert set(starts.tolist()) == set(range(8))
    assert (store.crops(5, 10, torch.Generator(), held_out=True) * 32768).round().max() == 99


def test_a_store_comes_back_as_it_was(bars: SignalStore, tmp_path: Path) -> None:
    bars.save(tmp_path / "bars.safetensors")
    again = SignalStore.load(tmp_path / "bars.safetensors")
    assert torch.equal(again.train[0], bars.train[0]) and torch.equal(again.held_out[0], bars.held_out[0])
    assert again.source == "bars" and again.unit == "pictures" and list(tmp_path.iterdir()) == [
        tmp_path / "bars.safetensors"]
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "bars.safetensors").read_bytes()[:100])
    for name, words in (("half", "damaged"), ("none", "run `molflow data prepare none` first")):
        with pytest.raises(DataError, match=words):
            SignalStore.load(tmp_path / f"{name}.safetensors")


def test_digits_are_read_and_split_in_the_files_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.arange(5 * 4, dtype=np.uint8)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4i", 2051, 5, 2, 2) + pixels.tobytes()))
    monkeypatch.setattr(digits, "TRAIN", 4)
    store = digits.read(tmp_path)
    assert torch.equal(torch.cat([*store.train, *store.held_out]).flatten(), torch.from_numpy(pixels))
    assert store.held_out[0].shape == (1, 1, 2, 2)
    path.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match="not a file of idx images"):
        digits.read(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        digits.read(tmp_path / "nowhere")


def test_speech_is_read_made_equally_loud_and_split_by_its_own_rule(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "fsdd.zip", "w") as archive:
        for name, level in (("3_theo_4", 100), ("3_theo_5", 3000), ("3_theo_49", 30)):
            raw = io.BytesIO()
            with wave.open(raw, "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes((level * rng.standard_normal(500)).astype("<i2").tobytes())
            archive.writestr(f"recordings/{name}.wav", raw.getvalue())
    store = speech.read(tmp_path)
    assert [len(part) for part in (store.train, store.held_out)] == [2, 1]
    for recording in store.train + store.held_out:
        assert (recording.float() / 32768).square().mean().sqrt().item() == pytest.approx(speech.LOUDNESS, rel=1e-3)
    (tmp_path / "fsdd.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        speech.read(tmp_path)


@pytest.mark.parametrize(("config", "size"), [
    (UNetConfig(width=16, blocks=1, levels=3, channels=3), (16, 24)),
    (UNetConfig(dims=1, width=16, growth=1.4, blocks=1, patch=4, kernel=5), (64,)),
    (UNetConfig(width=16, blocks=1, levels=2, channels=3, patch=2, detail=True), (16, 24)),
    (UNetConfig(dims=1, width=16, blocks=1, detail=True), (64,)),
])
def test_the_network_takes_any_size_that_it_divides_and_depends_on_time(config: UNetConfig, size: tuple[int, ...]
                                                                        ) -> None:
    torch.manual_seed(0)
    network = UNet(config)
    x = torch.randn(2, config.channels, *size)
    assert network(torch.zeros(2), x).abs().max() == network.leave.bias.abs().max()  # says nothing at first
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    early, late = network(torch.tensor([0.1, 0.9]), x), network(torch.tensor([0.9, 0.9]), x)
    assert early.shape == x.shape and not torch.allclose(early[0], late[0]) and torch.allclose(early[1], late[1])
    with pytest.raises(ValueError, match=f"multiples of {config.divisor}"):
        network(torch.zeros(2), torch.cat([x, x[..., :1]], -1))


@pytest.mark.parametrize("size", [(64, 64), (4096,)])
def test_detail_is_what_the_surroundings_do_not_explain_in_units_of_the_noise(size: tuple[int, ...]) -> None:
    ramp = torch.linspace(0, 1, size[-1]).expand(1, 1, *size)
    inside = (..., *[slice(1, -1)] * len(size))
    assert _detail(torch.tensor([0.5]), ramp)[inside].abs().max() < 1e-5
    noise = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.9, 1.0])
    seen = _detail(t, ramp + (1 - t).view(-1, *[1] * (1 + len(size))) * noise)[inside].flatten(1).std(1)
    alone = (1 - 3.0 ** -len(size)) ** 0.5  # a sample of noise less the mean of 3 or 9 with it
    torch.testing.assert_close(seen, alone * torch.tensor([1 / 1.01**0.5, 0.5**0.5, 0.0]), rtol=0.05, atol=1e-4)


def test_pictures_come_in_all_eight_orientations_equally_often() -> None:
    one = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    turned = _turned(one.expand(800, 1, 2, 2), torch.Generator().manual_seed(0)).flatten(1)
    found, counts = turned.unique(dim=0, return_counts=True)
    turns = {tuple(torch.rot90(x, k).flatten().tolist()) for x in (one, one.mT) for k in range(4)}
    assert {tuple(x.tolist()) for x in found} == turns and counts.min() > 60


def test_batches_are_a_pure_function_of_the_step(bars: SignalStore) -> None:
    first, again = task(bars).batch(5), task(bars).batch(5)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["data"], task(bars).batch(6)["data"])
    assert set(first["data"].unique().tolist()) == {-1.0, 1.0}


def test_pairing_permutes_the_noise_and_shortens_the_way() -> None:
    data, noise = (torch.randn(32, 1, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    paired = _paired(noise, data)
    assert torch.equal(paired.flatten(1).sort(0).values, noise.flatten(1).sort(0).values)
    assert (paired - data).square().sum() < 0.8 * (noise - data).square().sum()


def test_it_learns(bars: SignalStore, tmp_path: Path) -> None:
    """Below the error of the best guess that does not look at x(t), the variance of x_1 - x_0, about 1.4."""
    job = task(bars)
    before = job.validate(job.network, torch.device("cpu"))["loss"]
    after = train(job, tmp_path / "run", accelerator="cpu")["loss"]
    assert after < 0.75 * before


def test_signals_that_the_network_is_not_for_are_refused(bars: SignalStore) -> None:
    with pytest.raises(ConfigError, match="must be 1 and 2 for digits"):
        task(bars, network=UNetConfig(channels=3, width=16))
    with pytest.raises(ConfigError, match="data must be one of"):
        SignalConfig(data="cats")
    with pytest.raises(ConfigError, match="size must be a multiple of 4"):
        SignalConfig(size=30)


SOUND = """
data = "speech"
size = 64
gain = 6.0
emphasis = 0.9
scale = 10.0
[run]
molecules = 16
batch_size = 8
precision = "float32"
compile = false
weights = "float16"
[network]
dims = 1
width = 16
blocks = 1
patch = 4
levels = 2
"""


def test_the_command_trains_and_what_it_writes_is_a_flow(tmp_path: Path) -> None:
    clips = torch.randint(-2000, 2000, (20, 1, 90), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    SignalStore([clips[:18]], [clips[18:]], "noise").save(tmp_path / "clips.safetensors")
    (tmp_path / "sound.toml").write_text(SOUND)
    done = subprocess.run([sys.executable, "-m", "molflow.cli", "train", "prior", "--config", tmp_path / "sound.toml",
                           "--data", tmp_path / "clips.safetensors", "--out", tmp_path / "run", "--accelerator", "cpu"],
                          cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    weights = tmp_path / "run" / "speech.safetensors"
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["kind"] == "signal" and card["training"]["clips_seen"] == 16 and card["training"]["data"] == "noise"
    assert {x.dtype for x in load_file(weights).values()} == {torch.float16}
    adapter = audio.prior(weights, 128)
    made = adapter.sample(2, steps=2)
    assert made.shape == (2, 1, 128) and made.isfinite().all()
    torch.testing.assert_close(adapter.decode(adapter.encode(made)), made, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="a prior of sound"):
        image.prior(weights)
    with pytest.raises(ValueError, match="multiples of 8"):
        audio.prior(weights, 100)
