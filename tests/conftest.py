"""What many tests share: real molecules, and small networks with random weights, saved as real weights are."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from molflow.cli import main
from molflow.data.prior import BINS, Prior
from molflow.molecules.convert import Molecule
from molflow.molecules.elements import QM9
from molflow.molecules.io import read_sdf
from molflow.nn.property import PROPERTIES, PropertyConfig, PropertyNetwork
from molflow.nn.velocity import VelocityConfig, VelocityNetwork
from molflow.nn.weights import Card, save_weights

# Time limits on single examples would only measure how busy the machine is.
settings.register_profile("molflow", deadline=None)
settings.load_profile("molflow")

@pytest.fixture
def molflow(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
            ) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The shell's command, but in this process: what a user would see as a traceback is an exception here."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with monkeypatch.context() as during:
            during.setattr(sys, "argv", ["molflow", *map(str, words)])
            if cwd is not None:
                during.chdir(cwd)
            with pytest.raises(SystemExit) as ended:
                main()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(words, ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium with software WebGL; a test that needs one is skipped where there is none."""
    from benchmarks.report import SOFTWARE_GL  # only here: it comes with the whole of molflow

    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        here = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        here = here or playwright.chromium.executable_path
        if not Path(here).exists():
            pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
        chromium = playwright.chromium.launch(executable_path=here, args=SOFTWARE_GL)
        sync_api.expect.set_options(timeout=60_000)  # software GL on a busy machine takes its time
        yield chromium
        chromium.close()


def packed(molecules: list[Molecule]) -> dict[str, torch.Tensor]:
    """Atoms and bonds as a `MoleculeStore` holds them; number 7 has lost its bonds, as inconsistent ones do."""
    pairs = [np.argwhere(np.triu(m.bonds)) for m in molecules]
    pairs[7] = pairs[7][:0]
    return {
        "positions": torch.from_numpy(np.concatenate([m.positions for m in molecules])).float(),
        "numbers": torch.from_numpy(np.concatenate([m.numbers for m in molecules])).to(torch.uint8),
        "charges": torch.from_numpy(np.concatenate([m.charges for m in molecules])).to(torch.int8),
        "atom_ptr": torch.tensor(np.cumsum([0] + [len(m.numbers) for m in molecules])),
        "bond_index": torch.from_numpy(np.ascontiguousarray(np.concatenate(pairs))).to(torch.uint8),
        "bond_order": torch.from_numpy(np.concatenate(
            [m.bonds[p[:, 0], p[:, 1]] for m, p in zip(molecules, pairs, strict=True)])).to(torch.uint8),
        "bond_ptr": torch.tensor(np.cumsum([0] + [len(p) for p in pairs])),
        "bonded": torch.arange(len(molecules)) != 7,
    }


@pytest.fixture(scope="session")
def qm9() -> list[Molecule]:
    molecules, skipped = read_sdf(Path(__file__).parent / "molecules" / "qm9_sample.sdf")
    assert len(molecules) == 61 and not skipped
    return molecules


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of an untrained generator, guide and evaluator, a hundred times smaller than the shipped ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    flow = VelocityConfig(layers=2, scalars=16, vectors=8, pairs=8, messages=8, heads=2, radial=8)
    reader = PropertyConfig(layers=1, scalars=16, density=8, vectors=8, tensors=4)
    rng = np.random.default_rng(0)
    sizes = (5, 8, 9)
    joint = {name: rng.integers(0, 5, (len(sizes), BINS)).tolist() for name in PROPERTIES}
    prior = Prior(sizes, (10, 20, 30), dict.fromkeys(PROPERTIES, (-10.0, 10.0)), joint)
    paths = {name: folder / f"{name}.safetensors" for name in ("generator", "guide", "evaluator")}
    save_weights(paths["generator"], VelocityNetwork(QM9, flow),
                 Card("generator", dataclasses.asdict(flow), prior=prior.to_json()))
    for name in ("guide", "evaluator"):
        save_weights(paths[name], PropertyNetwork(5, reader), Card("property", dataclasses.asdict(reader)))
    return paths
