"""Networks put together in one file: what it says, promises and refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from molflow.data.store import MoleculeStore
from molflow.joining import best_weights, expected_errors, join
from molflow.models import Predictor
from molflow.molecules.convert import collate
from molflow.nn.property import PROPERTIES, RESOLUTION
from molflow.nn.weights import WeightsError


def molflow(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "molflow.cli", *map(str, words)], capture_output=True, text=True,
                          timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_joined_networks_are_read_as_their_mean(tiny_weights: dict[str, Path], qm9, as_large_as_qm9: Path,
                                                tmp_path: Path) -> None:
    """The shell's command, and what comes of it, against the networks one by one; joined once more, three of them."""
    files, store = [tiny_weights["guide"], tiny_weights["evaluator"]], as_large_as_qm9 / "qm9.safetensors"
    done = molflow("train", "join", *files, "--out", tmp_path / "both.safetensors", "--data", store)
    assert done.returncode == 0, done.stderr
    both, alone = Predictor.load(tmp_path / "both.safetensors", "cpu"), [Predictor.load(f, "cpu") for f in files]
    batch = collate(qm9[:9])
    said, doubts = both.read(batch)
    single = torch.stack([one.predict(batch) for one in alone])
    weights = both.network.weights
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    torch.testing.assert_close(said, weights[0] * single[0] + weights[1] * single[1])
    torch.testing.assert_close(both.predict(batch), said)
    assert (doubts > 0).all() and (both.expected_errors(doubts) > 0).any()
    assert (alone[0].expected_errors(doubts) == 0).all()  # one network knows nothing of its errors
    assert len(both.card.training["members"]) == both.card.network["members"] == 2

    join([both.path, files[0]], MoleculeStore.load(store), tmp_path / "three.safetensors")
    assert len(Predictor.load(tmp_path / "three.safetensors", "cpu").network.members) == 3


def test_the_better_network_weighs_more() -> None:
    """Errors of one network twice those of the other and independent: 4/5 and 1/5, by inverse variance."""
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(5000, 6, generator=rng)
    resolution = [RESOLUTION[name] for name in PROPERTIES]
    scale = torch.tensor(resolution)
    said = torch.stack([truth + width * scale * torch.randn(5000, 6, generator=rng) for width in (2.0, 1.0)])
    assert best_weights(said, truth, resolution) == pytest.approx([0.2, 0.8], abs=0.02)
    assert best_weights(said[[1, 1]], truth, resolution)[0] == pytest.approx(1)


def test_expected_errors_are_found_again() -> None:
    rng = np.random.default_rng(0)
    doubts = torch.from_numpy(rng.uniform(0, 4, 20_000)).float()
    slopes = torch.tensor([0.1, 0.5, 1.0, 0.0, 2.0, 0.3])
    spread = 0.2 + slopes * doubts[:, None]
    error = (spread * torch.from_numpy(rng.exponential(1, (20_000, 6))).float())
    for (a, b), slope in zip(expected_errors(doubts, error, PROPERTIES).values(), slopes.tolist(), strict=True):
        assert abs(a - 0.2) < 0.08 and abs(b - slope) < 0.08


def test_only_networks_of_a_kind_are_joined(tiny_weights: dict[str, Path], store: MoleculeStore,
                                            tmp_path: Path) -> None:
    guide, other, out = tiny_weights["guide"], tmp_path / "other.safetensors", tmp_path / "out.safetensors"
    done = molflow("train", "join", guide, guide, "--out", guide)
    assert done.returncode == 2 and "exists" in done.stderr and done.stderr.count("\n") == 1
    shutil.copy(guide, other)
    card = json.loads(guide.with_suffix(".json").read_text())
    for change, message in (({"training": {"part": "half_a"}}, "other molecules"),
                            ({"network": card["network"] | {"cutoff": 5.0}}, "other sizes")):
        other.with_suffix(".json").write_text(json.dumps(card | change))
        with pytest.raises(WeightsError, match=message):
            join([guide, other], store, out)
    with pytest.raises(WeightsError, match="at least two"):
        join([guide], store, out)
    assert not out.exists()
