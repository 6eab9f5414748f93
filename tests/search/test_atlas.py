"""The map of the source space: what it finds, keeps and refuses."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from molflow.data.store import MoleculeStore
from molflow.models import Generator, Predictor
from molflow.molecules.convert import Molecule, collate
from molflow.nn.property import PROPERTIES, RESOLUTION
from molflow.nn.weights import WeightsError
from molflow.search import Atlas, Problem
from molflow.search.atlas import GOOD_ENOUGH

K = 400
RNG = np.random.default_rng(0)
MAP = Atlas(np.arange(K), RNG.integers(5, 9, K), PROPERTIES, RNG.normal(0, 1, (K, 6)).astype(np.float32),
            RNG.uniform(1, 5, K).astype(np.float32), tuple(f"C{'C' * i}" for i in range(K)), "none", "made up")
EXACT = torch.zeros(K, 6)
GAP, MU = PROPERTIES.index("gap"), PROPERTIES.index("mu")


def wanted(values: list[list[float]], sizes: list[int], names: tuple[str, ...] = ("gap",), **rest) -> Problem:
    return Problem(names, torch.tensor(values), torch.tensor(values), np.array(sizes), **rest)


def miss(places: np.ndarray, values: list[float]) -> np.ndarray:
    return np.linalg.norm((MAP.readings[places][..., [GAP, MU]] - values) / [RESOLUTION["gap"], RESOLUTION["mu"]],
                          axis=-1)


def test_the_nearest_of_the_right_size_are_found_and_none_twice():
    both = ("gap", "mu")
    places = MAP.nearest(wanted([[0.3, -0.2]] * 3, [6, 6, 7], both), 4, 0, EXACT)
    assert places.shape == (3, 4) and len(set(places.ravel())) == 12
    assert (MAP.sizes[places[:2]] == 6).all() and (MAP.sizes[places[2]] == 7).all()
    nearest = np.sort(miss(np.flatnonzero(MAP.sizes == 6), [0.3, -0.2]))[:8]
    assert (np.sort(miss(places[:2].ravel(), [0.3, -0.2])) <= nearest + GOOD_ENOUGH).all()
    any_size = MAP.nearest(wanted([[0.3, -0.2]], [99], both, any_size=True), 1, 0, EXACT)
    assert miss(any_size[0], [0.3, -0.2]) <= miss(np.arange(K), [0.3, -0.2]).min() + GOOD_ENOUGH


def test_what_the_guide_does_not_understand_comes_later() -> None:
    """Expected errors of 1 and 100 resolutions: the nearest of the former are found, however near the latter are."""
    scale = torch.tensor([RESOLUTION[name] for name in PROPERTIES])
    strange = torch.arange(K) % 3 > 0
    errors = torch.where(strange[:, None], 100 * scale, scale)
    places = MAP.nearest(wanted([[0.1]], [6]), 5, 0, errors)[0]
    assert (places % 3 == 0).all()
    fits = np.flatnonzero((MAP.sizes == 6) & (np.arange(K) % 3 == 0))
    away = np.abs(MAP.readings[:, GAP] - 0.1) / RESOLUTION["gap"]
    expected = np.hypot(away, 1)
    assert (np.sort(expected[places]) <= np.sort(expected[fits])[:5] + GOOD_ENOUGH).all()


def test_a_seed_chooses_among_what_is_near_enough():
    ranges = Problem(("gap",), torch.tensor([[-0.5]]), torch.tensor([[0.5]]), np.array([6]))
    found = {int(MAP.nearest(ranges, 1, seed, EXACT)[0, 0]) for seed in range(20)}
    assert len(found) > 5 and (np.abs(MAP.readings[list(found), GAP]) <= 0.52).all()
    assert (MAP.nearest(ranges, 3, 1, EXACT) == MAP.nearest(ranges, 3, 1, EXACT)).all()


def test_only_admitted_places_are_looked_at_until_there_are_none():
    places = MAP.nearest(wanted([[0.0]] * 2, [6, 6], any_size=True), 2, 0, EXACT,
                         lambda smiles: len(smiles) in (4, 6, 9))
    assert sorted(places.ravel()) == [-1, 3, 5, 8]
    some = MAP.nearest(wanted([[0.3, -0.2]] * 3, [6, 6, 7], ("gap", "mu")), 4, 0, EXACT,
                       lambda smiles: len(smiles) % 2 == 0)
    assert (some.ravel() % 2 == 1).all()
    even = np.flatnonzero((MAP.sizes == 6) & (np.arange(K) % 2 == 1))
    nearest = np.sort(miss(even, [0.3, -0.2]))[:8]
    assert (np.sort(miss(some[:2].ravel(), [0.3, -0.2])) <= nearest + GOOD_ENOUGH).all()


def test_shares_have_no_place_in_common_and_together_find_the_nearest():
    both = ("gap", "mu")
    shares = [MAP.share(number, 3) for number in range(3)]
    found = [share.numbers[share.nearest(wanted([[0.3, -0.2]] * 2, [6, 6], both, any_size=True), 8, 0,
                                           EXACT[: len(share)])] for share in shares]
    assert sorted(np.concatenate([share.numbers for share in shares])) == list(range(K))
    assert len({*np.ravel(found)}) == 48
    nearest = np.argsort(miss(np.arange(K), [0.3, -0.2]))[:16]
    assert {*nearest} <= {*np.ravel(found)}
    assert MAP.share(K, K + 1).nearest(wanted([[0.3]], [6]), 2, 0, EXACT[:0]).tolist() == [[-1, -1]]


def test_written_and_read_it_is_the_same(tmp_path):
    MAP.save(tmp_path / "a.safetensors")
    back = Atlas.load(tmp_path / "a.safetensors")
    assert (back.numbers == MAP.numbers).all() and (back.sizes == MAP.sizes).all() and back.smiles == MAP.smiles
    np.testing.assert_allclose(back.readings, MAP.readings, rtol=1e-3)
    np.testing.assert_allclose(back.doubts, MAP.doubts, rtol=1e-3)
    assert (back.generator, back.source) == ("none", "made up") and not list(tmp_path.glob("*.part"))


def test_of_equal_molecules_the_first_is_mapped_and_broken_ones_are_not(tiny_weights, qm9: list[Molecule]):
    broken = dataclasses.replace(qm9[4], bonds=np.zeros_like(qm9[4].bonds))
    batch = collate([qm9[3], broken, qm9[7], qm9[3]])
    guide = Predictor.load(tiny_weights["guide"], "cpu")
    made = Atlas.of(MoleculeStore.of(batch, torch.tensor([30, 31, 32, 33]), "a test"),
                    Generator.load(tiny_weights["generator"], "cpu"), guide)
    assert list(made.numbers) == [30, 32] and made.smiles == (qm9[3].smiles, qm9[7].smiles)
    assert list(made.sizes) == [len(qm9[3].numbers), len(qm9[7].numbers)]
    np.testing.assert_allclose(made.readings, guide.predict(collate([qm9[3], qm9[7]])), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="none of the molecules is valid"):
        Atlas.of(MoleculeStore.of(collate([broken]), torch.tensor([1]), "a test"),
                 Generator.load(tiny_weights["generator"], "cpu"), guide)


def test_an_atlas_is_found_beside_its_weights_and_refused_beside_others(tiny_weights, tmp_path: Path, qm9):
    for suffix in (".safetensors", ".json"):
        shutil.copy(tiny_weights["generator"].with_suffix(suffix), tmp_path / f"mine{suffix}")
    generator = Generator.load(tmp_path / "mine.safetensors", "cpu")
    assert Atlas.beside(generator) is None
    store = MoleculeStore.of(collate(qm9[:5]), torch.arange(5), "a test")
    Atlas.of(store, generator, Predictor.load(tiny_weights["guide"], "cpu")).save(tmp_path / "mine.atlas.safetensors")
    assert len(Atlas.beside(generator) or ()) == 5
    MAP.save(tmp_path / "mine.atlas.safetensors")
    with pytest.raises(WeightsError, match="maps other weights"):
        Atlas.beside(generator)
    for damage in (b"", b"nonsense", (tmp_path / "mine.safetensors").read_bytes()):
        (tmp_path / "mine.atlas.safetensors").write_bytes(damage)
        with pytest.raises(WeightsError, match=r"mine\.atlas\.safetensors"):
            Atlas.beside(generator)


@pytest.mark.parametrize("change", [
    {"numbers": np.arange(2)}, {"sizes": np.zeros(3, int)}, {"readings": np.zeros((3, 5), np.float32)},
    {"doubts": np.zeros((3, 1), np.float32)}, {"smiles": ("C", "N")}, {"numbers": np.array([0, 1, -1])},
])
def test_parts_that_do_not_belong_together_are_damage(tmp_path: Path, change: dict) -> None:
    atlas = Atlas(np.arange(3), np.array([5, 4, 3]), PROPERTIES, np.zeros((3, 6), np.float32), np.zeros(3, np.float32),
                  ("C", "N", "O"), "0" * 64, "words")
    atlas.save(tmp_path / "a.safetensors")
    assert len(Atlas.load(tmp_path / "a.safetensors")) == 3
    dataclasses.replace(atlas, **change).save(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="damaged"):
        Atlas.load(tmp_path / "a.safetensors")
