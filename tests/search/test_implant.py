"""Fragments found in soft molecules, and source points moved until the flow makes them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from benchmarks.conditions import embedded
from molflow.conditions import Conditions
from molflow.models import Generator
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import Molecule, collate, unbatch
from molflow.molecules.elements import QM9
from molflow.molecules.fragment import Fragment
from molflow.molecules.stability import is_whole
from molflow.molecules.state import MoleculeSpace, decode, encode
from molflow.nn.anchored import Anchor
from molflow.search import POWER
from molflow.search.implant import FLOOR, Pattern, implant

CPU = torch.device("cpu")


def pattern(*smiles: str) -> tuple[Fragment, Pattern]:
    fragment = Fragment.of(*map(embedded, smiles))
    return fragment, Pattern.of(fragment, QM9, CPU)


def test_a_real_molecule_has_its_own_atoms_without_misfit_and_each_wrong_class_costs(qm9: list[Molecule]):
    batch = collate([m for m in qm9 if (m.numbers > 1).sum() > 5][:12])
    state = encode(batch, QM9)
    for row, molecule in enumerate(unbatch(batch)):
        fragment = Fragment.of(molecule)
        mine = Pattern.of(fragment, QM9, CPU)
        one = {key: value[row:row + 1] for key, value in state.items()}
        found = mine.find(one, batch.mask[row:row + 1])
        assert (batch.numbers[row, found[0]].numpy() == fragment.core.numbers).all()
        assert float(mine.misfit(one, found)[0]) == pytest.approx(0, abs=1e-3)
        assert found.unique().numel() == len(fragment)
        atom = int(found[0, 0])
        one["types"] = one["types"].clone()
        one["types"][0, atom] = one["types"][0, atom].roll(1)
        assert float(mine.misfit(one, found)[0]) == pytest.approx(-np.log(FLOOR), abs=1e-3)


@pytest.mark.parametrize("smiles", [("NC=O",), ("C#N", "CF")])
def test_the_best_place_in_a_soft_molecule_is_that_of_an_exhaustive_search(smiles: tuple[str, ...]):
    _, wanted = pattern(*smiles)
    sizes = torch.tensor([7, 6, 7])
    mask = torch.arange(7) < sizes[:, None]
    soft = MoleculeSpace(mask, QM9).noise(torch.Generator().manual_seed(0))
    soft = {key: value if key == "positions" else value.softmax(-1) for key, value in soft.items()}
    found = wanted.find(soft, mask)
    for row, size in enumerate(sizes.tolist()):
        ways = torch.tensor(list(permutations(range(size), len(wanted.bodies))))
        every = {key: value[row:row + 1].expand(len(ways), *value.shape[1:]) for key, value in soft.items()}
        best = wanted.misfit(every, ways).min()
        one = {key: value[row:row + 1] for key, value in soft.items()}
        assert float(wanted.misfit(one, found[row:row + 1])) == pytest.approx(float(best), rel=1e-3)


def test_implanted_source_points_stay_on_their_shell_and_make_the_fragment_where_noise_does_not():
    generator = Generator.load(None, "cpu")
    fragment, _ = pattern("C1CC1", "CC=O")
    assert fragment.bodies.tolist() == [0, 0, 0, 1, 1, 1]
    space = generator.space(torch.full((12,), 17))
    noise = space.noise(torch.Generator().manual_seed(1))
    moved, atoms = implant(space.alone(noise), generator, fragment, chunk=6, tell=lambda what, share: None)
    source = space.together(moved)
    for columns, _ in space.groups().values():
        before, after = (space.pack(state)[:, columns].norm(dim=1) for state in (noise, source))
        torch.testing.assert_close(after, before)
    anchor = Anchor(atoms, torch.from_numpy(fragment.core.positions).float(), torch.from_numpy(fragment.bodies))
    conditions = Conditions([], fragment)

    def makes(start: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            end = generator.flow(space, steps=10, power=POWER, anchor=anchor)(start, torch.arange(12))
        made: MoleculeBatch = decode(end, space.mask, generator.vocabulary)
        return is_whole(made) & conditions(made)

    assert int(makes(source).sum()) >= 2 + int(makes(noise).sum())
