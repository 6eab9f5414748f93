from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molflow.flow.source import Shell
from molflow.molecules.batch import pair_mask
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.elements import QM9, Vocabulary
from molflow.molecules.state import MoleculeSpace, centre, decode, encode

SIZES = [4, 2, 3]
MASK = torch.arange(4) < torch.tensor(SIZES)[:, None]


def draw(space: MoleculeSpace, seed: int = 0):
    return {k: v.double() for k, v in space.noise(torch.Generator().manual_seed(seed)).items()}


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 10**6))
@settings(max_examples=40)
def test_pack_and_unpack_undo_each_other_on_the_space(sizes: list[int], extra: int, seed: int) -> None:
    space = MoleculeSpace(torch.arange(max(sizes) + extra) < torch.tensor(sizes)[:, None], QM9)
    state = draw(space, seed)
    flat = space.pack(state)
    back = space.unpack(flat)
    assert flat.shape == (len(sizes), max(columns.stop for columns, _ in space.groups().values()))
    for key in state:
        torch.testing.assert_close(back[key], state[key], rtol=0, atol=1e-6)
    torch.testing.assert_close(space.pack(back), flat, rtol=0, atol=1e-6)


def test_packing_is_an_isometry_that_counts_a_bond_once() -> None:
    space = MoleculeSpace(MASK, QM9)
    a, b = draw(space, 0), draw(space, 1)
    flat = (space.pack(a) * space.pack(b)).sum(1)
    plain = sum((a[key] * b[key]).flatten(1).sum(1) for key in ("positions", "types", "charges"))
    bonds = (a["bonds"] * b["bonds"]).flatten(1).sum(1) / 2
    torch.testing.assert_close(flat, plain + bonds)


def test_noise_is_centred_symmetric_and_nothing_on_the_padding() -> None:
    space = MoleculeSpace(MASK, QM9)
    state = space.noise(torch.Generator().manual_seed(0))
    assert state["positions"].sum(1).abs().max() < 1e-5
    assert torch.equal(state["bonds"], state["bonds"].transpose(1, 2))
    assert state["bonds"].diagonal(dim1=1, dim2=2).abs().max() == 0
    for key in ("positions", "types", "charges"):
        assert state[key][~MASK].abs().max() == 0 and state[key][MASK].abs().min() > 0
    pairs = pair_mask(MASK)
    assert state["bonds"][~pairs].abs().max() == 0 and state["bonds"][pairs].abs().min() > 0


def test_noise_is_reproducible_and_follows_the_generator() -> None:
    space = MoleculeSpace(MASK, QM9)
    generator = torch.Generator().manual_seed(7)
    first, second = space.noise(generator), space.noise(generator)
    again = space.noise(torch.Generator().manual_seed(7))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["types"], second["types"])


def test_covariance_of_noise_is_the_projector_onto_the_space() -> None:
    """20,000 draws of a molecule of 3 atoms in 4 rows. An entry's error is about sqrt(2/20000) = 0.01."""
    mask = torch.tensor([[True, True, True, False]])
    count = 20_000
    flat = MoleculeSpace(mask.expand(count, -1), QM9).noise(torch.Generator().manual_seed(0))
    flat = MoleculeSpace(mask.expand(count, -1), QM9).pack(flat).double()
    one = MoleculeSpace(mask, QM9)
    basis = torch.eye(flat.shape[1], dtype=torch.float64)
    many = MoleculeSpace(mask.expand(len(basis), -1), QM9)
    projector = many.pack(many.unpack(basis))
    torch.testing.assert_close(projector @ projector, projector, rtol=0, atol=1e-12)
    torch.testing.assert_close(projector.T, projector, rtol=0, atol=1e-12)
    covariance = flat.T @ flat / count
    assert (covariance - projector).abs().max() < 0.06
    assert flat.mean(0).abs().max() < 0.04
    # by hand: positions of two real atoms, of one and of padding, along x
    assert projector[0, 0] == pytest.approx(2 / 3) and projector[0, 3] == pytest.approx(-1 / 3)
    assert projector[0, 1] == 0 and projector[9, 9] == 0
    for columns, freedom in one.groups().values():
        assert projector[columns, columns].trace().item() == pytest.approx(freedom.item())


def test_degrees_of_freedom_by_hand_and_as_the_rank_of_the_projection() -> None:
    space = MoleculeSpace(MASK, Vocabulary((1, 6), (-1, 0, 1), (0, 1)))
    groups = space.groups()
    assert groups["positions"][1].tolist() == [9, 3, 6]
    assert groups["types"][1].tolist() == [8, 4, 6]
    assert groups["charges"][1].tolist() == [12, 6, 9]
    assert groups["bonds"][1].tolist() == [12, 2, 6]
    stops = [columns for columns, _ in groups.values()]
    assert stops[0].start == 0 and all(a.stop == b.start for a, b in pairwise(stops))
    width = stops[-1].stop
    for b in range(3):
        many = space.select(torch.full((width,), b))
        projector = many.pack(many.unpack(torch.eye(width, dtype=torch.float64)))
        for columns, freedom in groups.values():
            rank = torch.linalg.matrix_rank(projector[columns, columns], tol=1e-9).item()
            assert rank == freedom[b].item()


def test_pack_drops_what_is_not_in_the_space() -> None:
    """As ``flow.state.Space`` promises: entries that are not free are 0, whatever stands there."""
    space = MoleculeSpace(MASK, QM9)
    clean = draw(space)
    dirty = {key: value.clone() for key, value in clean.items()}
    for key in ("positions", "types", "charges"):
        dirty[key][~MASK] = 7.0
    dirty["bonds"][~pair_mask(MASK)] = 7.0
    torch.testing.assert_close(space.pack(dirty), space.pack(clean), rtol=0, atol=1e-6)


def test_select_takes_rows_in_order_with_repeats() -> None:
    space, index = MoleculeSpace(MASK, QM9), torch.tensor([2, 0, 2])
    picked = space.select(index)
    assert picked.batch == 3 and torch.equal(picked.mask, MASK[index])
    flat = torch.randn(3, space.pack(space.noise()).shape[1], generator=torch.Generator().manual_seed(0))
    whole, rows = space.unpack(flat), picked.unpack(flat[index])
    assert all(torch.equal(rows[key], whole[key][index]) for key in whole)


def test_the_shell_of_typical_noise_has_the_radius_of_its_freedom() -> None:
    """Mean square norms of many draws are the degrees of freedom, for each group and size."""
    count = 4000
    space = MoleculeSpace(MASK.repeat_interleave(count, 0), QM9)
    flat = space.pack(space.noise(torch.Generator().manual_seed(1)))
    for columns, freedom in space.groups().values():
        mean = flat[:, columns].square().sum(1).view(3, count).mean(1)
        torch.testing.assert_close(mean / freedom.view(3, count)[:, 0], torch.ones(3), rtol=0, atol=0.06)
    small = MoleculeSpace(MASK, QM9)
    on = Shell.typical(small).retract(small.pack(draw(small)))
    again = small.unpack(on)
    torch.testing.assert_close(small.pack(again), on, rtol=0, atol=1e-6)


def test_encode_and_decode_lose_nothing_of_real_molecules(qm9: list[Molecule]) -> None:
    batch = collate(qm9)
    assert (batch.charges != 0).any() and (batch.bonds == 3).any()
    state = encode(batch, QM9)
    back = decode(state, batch.mask, QM9)
    for name in ("numbers", "charges", "bonds"):
        assert torch.equal(getattr(back, name), getattr(batch, name)), name
    torch.testing.assert_close(back.positions, centre(batch.positions, batch.mask))
    for key, real in {"types": batch.mask, "charges": batch.mask, "bonds": pair_mask(batch.mask)}.items():
        assert torch.equal(state[key].sum(-1), real.float()) and ((state[key] == 0) | (state[key] == 1)).all()
    shift = batch.positions - back.positions  # only moved, not turned
    first = shift[:, :1].expand_as(shift)
    torch.testing.assert_close(shift[batch.mask], first[batch.mask], rtol=0, atol=1e-5)
    space = MoleculeSpace(batch.mask, QM9)
    there_and_back = space.unpack(space.pack(state))
    assert all(torch.allclose(there_and_back[key], state[key], atol=1e-5) for key in state)


def test_decode_takes_the_largest_score_and_ignores_the_padding(qm9: list[Molecule]) -> None:
    batch = collate(qm9[:6])
    state = encode(batch, QM9)
    torch.manual_seed(0)
    noisy = {key: value + 0.45 * torch.rand_like(value) for key, value in state.items()}
    noisy["bonds"] = (noisy["bonds"] + noisy["bonds"].transpose(1, 2)) / 2
    back = decode(noisy, batch.mask, QM9)
    for name in ("numbers", "charges", "bonds"):
        assert torch.equal(getattr(back, name), getattr(batch, name)), name
    assert back.positions[~batch.mask].abs().max() == 0


@pytest.mark.parametrize(
    ("vocabulary", "what"),
    [(Vocabulary((1, 6, 7), (-1, 0, 1)), "element"), (Vocabulary((1, 6, 7, 8, 9), (0,)), "charge"),
     (Vocabulary((1, 6, 7, 8, 9), (-1, 0, 1), (0, 1, 2)), "bond order")],
)
def test_what_the_vocabulary_lacks_is_refused(qm9: list[Molecule], vocabulary: Vocabulary, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        encode(collate(qm9), vocabulary)


def test_centre_is_idempotent_and_leaves_padding_at_zero() -> None:
    x = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 5
    once = centre(x, MASK)
    assert once[~MASK].abs().max() == 0 and once.sum(1).abs().max() < 1e-12
    torch.testing.assert_close(centre(once, MASK), once, rtol=0, atol=1e-12)
    torch.testing.assert_close(once[0] - once[0, 0], x[0] - x[0, 0], rtol=0, atol=1e-12)


def test_networks_states_and_prepared_data_need_neither_rdkit_nor_ase() -> None:
    code = ("import sys, molflow.nn.velocity, molflow.nn.property, molflow.molecules.state, "
            "molflow.data.store; "
            "print(sorted({'rdkit', 'ase'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numbered_noise_is_the_same_in_any_company_and_standard_in_its_space() -> None:
    numbers = torch.arange(400)
    sizes = 2 + numbers % 7
    mask = torch.arange(9) < sizes[:, None]
    together = MoleculeSpace(mask, QM9).numbered_noise(numbers)
    for row in (0, 5, 399):
        n = int(sizes[row])
        alone = MoleculeSpace(torch.ones(1, n, dtype=torch.bool), QM9).numbered_noise(numbers[row : row + 1])
        for key, value in alone.items():
            assert torch.equal(together[key][(row, *[slice(n)] * (value.dim() - 2))], value[0]), key
            assert together[key][row].count_nonzero() == value.count_nonzero(), "nothing on the padding"
    space = MoleculeSpace(mask, QM9)
    flat = space.pack(together)
    for columns, freedom in space.groups().values():
        total = freedom.sum()
        assert flat[:, columns].square().sum() / total == pytest.approx(1, abs=5 * (2 / total.item()) ** 0.5)
