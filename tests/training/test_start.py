"""A training begins with the weights it is given, those of a smaller vocabulary too."""

from pathlib import Path

import pytest
import torch
from torch import nn

from molflow.molecules.elements import DRUGLIKE, QM9, Vocabulary
from molflow.molecules.state import MoleculeSpace
from molflow.nn.velocity import VelocityConfig, VelocityNetwork
from molflow.nn.weights import Card, WeightsError, save_weights
from molflow.training.start import begin_with

SMALL = VelocityConfig(layers=2, scalars=16, vectors=8, pairs=8, messages=8, heads=4, radial=4)


def network(vocabulary: Vocabulary, config: VelocityConfig, seed: int) -> VelocityNetwork:
    torch.manual_seed(seed)
    return VelocityNetwork(vocabulary, config)


def saved(made: VelocityNetwork, path: Path) -> Path:
    words = vars(made.vocabulary)
    save_weights(path, made, Card("generator", vars(made.config), vocabulary=words))
    return path


def test_a_network_of_more_elements_begins_by_saying_what_the_other_said(tmp_path: Path) -> None:
    old, new = network(QM9, SMALL, 0), network(DRUGLIKE, SMALL, 1)
    begin_with(new, saved(old, tmp_path / "old.safetensors"))
    old, new = old.double(), new.double()
    mask = torch.arange(9) < torch.tensor([9, 6])[:, None]
    space = MoleculeSpace(mask, DRUGLIKE)
    wide, past = ({key: value.double() for key, value in space.noise(torch.Generator().manual_seed(seed)).items()}
                  for seed in (0, 1))
    elements = [DRUGLIKE.elements.index(number) for number in QM9.elements]
    narrow, old_past = ({**state, "types": state["types"][..., elements]} for state in (wide, past))
    for state in (past, old_past):
        state["types"] = state["types"].abs()  # a sum above zero says that something is known
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    with torch.no_grad():
        before, after = old(t, narrow, mask, old_past), new(t, wide, mask, past)
    for name in ("velocity", "charges", "bonds"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), atol=1e-9, rtol=0)
    torch.testing.assert_close(after.types[..., elements], before.types, atol=1e-9, rtol=0)
    others = [place for place in range(len(DRUGLIKE.elements)) if place not in elements]
    assert not after.types[..., others].any() and before.types.abs().max() > 0.01


def test_the_same_vocabulary_is_taken_as_it_is_and_a_smaller_one_is_a_choice_of_it(tmp_path: Path) -> None:
    old = network(DRUGLIKE, SMALL, 0)
    path = saved(old, tmp_path / "old.safetensors")
    same, fewer = network(DRUGLIKE, SMALL, 1), network(QM9, SMALL, 1)
    begin_with(same, path)
    begin_with(fewer, path)
    for key, value in same.state_dict().items():
        torch.testing.assert_close(value, old.state_dict()[key])
    rows = [DRUGLIKE.elements.index(number) for number in QM9.elements]
    rows += [len(DRUGLIKE.elements) + DRUGLIKE.charges.index(charge) for charge in QM9.charges]
    torch.testing.assert_close(fewer.read_atom[1].bias, old.read_atom[1].bias[rows])  # type: ignore[union-attr]


def test_other_sizes_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = saved(network(QM9, SMALL, 0), tmp_path / "old.safetensors")
    with pytest.raises(WeightsError, match=r"other sizes.*layers=2.*layers=6"):
        begin_with(VelocityNetwork(QM9, VelocityConfig()), path)


def test_any_other_network_is_filled(tmp_path: Path) -> None:
    old, new = nn.Linear(2, 3), nn.Linear(2, 3)
    save_weights(tmp_path / "old.safetensors", old, Card("property", {}))
    begin_with(new, tmp_path / "old.safetensors")
    torch.testing.assert_close(new.weight, old.weight)
