from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from molflow.molecules.batch import MoleculeBatch, pair_mask


def random_batch(sizes: list[int], width: int) -> MoleculeBatch:
    generator = torch.Generator().manual_seed(sum(sizes))
    atoms = torch.arange(width) < torch.tensor(sizes)[:, None]
    bonds = torch.randint(0, 4, (len(sizes), width, width), generator=generator).triu(1)
    return MoleculeBatch(
        positions=torch.randn(len(sizes), width, 3, generator=generator) * atoms[..., None],
        numbers=torch.randint(1, 10, atoms.shape, generator=generator) * atoms,
        charges=torch.randint(-1, 2, atoms.shape, generator=generator) * atoms,
        bonds=(bonds + bonds.mT) * pair_mask(atoms),
    )


def tensors(batch: MoleculeBatch) -> list[Tensor]:
    return [batch.positions, batch.numbers, batch.charges, batch.bonds]


def same(a: MoleculeBatch, b: MoleculeBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_mask_sizes_and_length() -> None:
    batch = random_batch([3, 0, 5], 5)
    assert len(batch) == 3
    assert batch.sizes.tolist() == [3, 0, 5]
    assert batch.mask.sum(1).tolist() == [3, 0, 5]


@pytest.mark.parametrize(
    "index",
    [slice(1, 3), [2, 0], torch.tensor([2, 0]), torch.tensor([True, False, True, False])],
    ids=["slice", "list", "tensor", "mask"],
)
def test_indexing_picks_the_same_rows_of_every_tensor(index: slice | list[int] | Tensor) -> None:
    batch = random_batch([3, 2, 5, 4], 6)
    for picked, whole in zip(tensors(batch[index]), tensors(batch), strict=True):
        assert torch.equal(picked, whole[index])


def test_an_int_gives_a_batch_of_one_and_iteration_ends() -> None:
    batch = random_batch([3, 2, 5], 5)
    assert same(batch[-1], batch[2:])
    assert len(list(batch)) == 3
    with pytest.raises(IndexError):
        batch[3]


def test_cat_pads_to_the_widest_and_undoes_slicing() -> None:
    batch = random_batch([3, 2, 5], 5)
    assert same(MoleculeBatch.cat([batch[:1], batch[1:]]), batch)
    wider = MoleculeBatch.cat([batch, random_batch([7], 7)])
    assert wider.sizes.tolist() == [3, 2, 5, 7]
    assert torch.equal(wider.bonds[:3, :5, :5], batch.bonds)
    assert not wider.bonds[:3, 5:].any() and not wider.bonds[:3, :, 5:].any()
    with pytest.raises(ValueError, match="empty"):
        MoleculeBatch.cat([])


def test_to_moves_every_tensor() -> None:
    assert all(tensor.is_meta for tensor in tensors(random_batch([3], 3).to("meta")))


@pytest.mark.parametrize("name", ["positions", "numbers", "charges", "bonds"])
def test_wrong_shapes_and_dtypes_are_refused(name: str) -> None:
    good = vars(random_batch([3, 2], 3))
    with pytest.raises(ValueError, match="must be"):
        MoleculeBatch(**{**good, name: good[name][:, :2]})
    with pytest.raises(ValueError, match="must be"):
        MoleculeBatch(**{**good, name: good[name].int()})


def test_pair_mask_leaves_out_padding_and_the_atom_itself() -> None:
    expected = [[False, True, False], [True, False, False], [False, False, False]]
    assert pair_mask(torch.tensor([[True, True, False]]))[0].tolist() == expected


def test_what_training_needs_imports_neither_rdkit_nor_ase() -> None:
    code = (
        "import sys; from molflow.molecules import batch, elements, stability;"
        "sys.exit(any(name.split('.')[0] in ('rdkit', 'ase') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
