"""One file a data set: every molecule of it, ragged arrays laid end to end, in safetensors.

The file needs neither RDKit nor ASE to be read, so that a bare training machine can use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.elements import Vocabulary, vocabulary_of
from molflow.wording import in_a_line
from molflow.writing import written_whole

FORMAT = "molflow-molecules-1"
PARTS = ("train", "valid", "test")
MOST_BONDED = 255
"""Atoms of a molecule in a `MoleculeStore`: the ends of its bonds are bytes."""


class DataError(ValueError):
    """A data file or its source is missing, damaged or of another kind."""


@dataclass(frozen=True)
class MoleculeStore:
    """All molecules of a data set, in memory.

    Attributes:
        positions: (atoms, 3) float32, Å.
        numbers: (atoms,) uint8 atomic numbers.
        charges: (atoms,) int8 formal charges.
        atom_ptr: (molecules + 1,) int64; atoms of molecule m are ``atom_ptr[m]:atom_ptr[m + 1]``.
        bond_index: (bonds, 2) uint8, atom numbers within their molecule.
        bond_order: (bonds,) uint8 kekulised orders 1..3.
        bond_ptr: (molecules + 1,) int64.
        properties: (molecules, len(names)) float32, NaN where one is not known.
        index: (molecules,) int32, the molecule's number in its source.
        bonded: (molecules,) bool; False where no consistent bond assignment exists.
        names, units: of the property columns.
        source: free text, where the data came from.
        split: (molecules,) uint8, the molecule's part as a place in `PARTS`; None for QM9, whose split is the field's.
    """

    positions: Tensor
    numbers: Tensor
    charges: Tensor
    atom_ptr: Tensor
    bond_index: Tensor
    bond_order: Tensor
    bond_ptr: Tensor
    properties: Tensor
    index: Tensor
    bonded: Tensor
    names: tuple[str, ...]
    units: tuple[str, ...]
    source: str
    split: Tensor | None = None
    unit: ClassVar[str] = "molecules"

    def __len__(self) -> int:
        return len(self.index)

    @property
    def sizes(self) -> Tensor:
        """(molecules,) number of atoms."""
        return self.atom_ptr.diff()

    def parts(self) -> dict[str, np.ndarray]:
        """Rows of ``train``, ``valid`` and ``test``, and of the two halves of train, ``half_a`` (evaluators) and
        ``half_b`` (generator and guide). All conformers of a molecule are in one part."""
        if self.split is None:
            return qm9_split()
        rows = {name: np.flatnonzero(self.split.numpy() == place) for place, name in enumerate(PARTS)}
        # by the molecule's number alone, so that more molecules of the same source move none to the other half;
        # multiplying by this prime mixes the bits (Knuth, The Art of Computer Programming 3, sec. 6.4)
        upper = self.index.numpy()[rows["train"]].astype(np.uint64) * 2_654_435_761 % 2**32 >= 2**31
        return rows | {"half_a": rows["train"][upper], "half_b": rows["train"][~upper]}

    def vocabulary(self, data: str) -> Vocabulary:
        """What a model of these molecules must be able to say, ``data`` being the set's name. Raises ValueError."""
        return vocabulary_of(data, self.numbers.unique().tolist(), self.charges.unique().tolist())

    def columns(self, names: tuple[str, ...]) -> Tensor:
        """(molecules, len(names)) the properties of these names. Raises DataError without one of them."""
        if missing := [name for name in names if name not in self.names]:
            raise DataError(f"the data have no {missing[0]}, only {', '.join(self.names)}: they are another set's")
        return self.properties[:, [self.names.index(name) for name in names]]

    def batch(self, members: Tensor) -> MoleculeBatch:
        """Pad the given molecules, (n,) int64, to one dense batch."""
        atoms, atom_row, atom_col = _ragged(self.atom_ptr, members)
        bonds, bond_row, _ = _ragged(self.bond_ptr, members)
        shape = (len(members), int(self.sizes[members].max()))
        positions = torch.zeros(*shape, 3)
        numbers = torch.zeros(shape, dtype=torch.int64)
        charges = torch.zeros(shape, dtype=torch.int64)
        orders = torch.zeros(*shape, shape[1], dtype=torch.int64)
        positions[atom_row, atom_col] = self.positions[atoms]
        numbers[atom_row, atom_col] = self.numbers[atoms].long()
        charges[atom_row, atom_col] = self.charges[atoms].long()
        i, j = self.bond_index[bonds].long().unbind(1)
        order = self.bond_order[bonds].long()
        orders[bond_row, i, j] = order
        orders[bond_row, j, i] = order
        return MoleculeBatch(positions, numbers, charges, orders)

    @classmethod
    def of(cls, molecules: MoleculeBatch, index: Tensor, source: str) -> MoleculeStore:
        """A store of molecules without properties; ``index`` (B,) are their numbers in the source."""
        mask = molecules.mask
        row, first, second = molecules.bonds.triu(1).nonzero().unbind(1)

        def ptr(counts: Tensor) -> Tensor:
            return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])

        return cls(
            positions=molecules.positions[mask].float(), numbers=molecules.numbers[mask].to(torch.uint8),
            charges=molecules.charges[mask].to(torch.int8), atom_ptr=ptr(molecules.sizes),
            bond_index=torch.stack([first, second], 1).to(torch.uint8),
            bond_order=molecules.bonds[row, first, second].to(torch.uint8),
            bond_ptr=ptr(torch.bincount(row, minlength=len(molecules))),
            properties=torch.zeros(len(molecules), 0), index=index.to(torch.int32),
            bonded=torch.ones(len(molecules), dtype=torch.bool), names=(), units=(), source=source,
        )

    @staticmethod
    def cat(stores: Sequence[MoleculeStore]) -> MoleculeStore:
        """All molecules in one. Raises ValueError where there are none, or not the same is known of them."""
        if len({(store.names, store.units, store.split is None) for store in stores}) != 1:
            raise ValueError("can only join data files of the same properties, and at least one")
        tensors = {}
        for key in (key for key, value in vars(stores[0]).items() if isinstance(value, Tensor)):
            parts = [getattr(store, key) for store in stores]
            if key.endswith("_ptr"):
                starts = np.cumsum([0, *(int(part[-1]) for part in parts)])
                tensors[key] = torch.cat([parts[0][:1], *(part[1:] + int(start) for part, start in
                                                         zip(parts, starts, strict=False))])
            else:
                tensors[key] = torch.cat(parts)
        first = stores[0]
        return MoleculeStore(**tensors, names=first.names, units=first.units,
                             source="; ".join(dict.fromkeys(store.source for store in stores)))

    def save(self, path: Path) -> None:
        """Raises OSError; what was there before stays."""
        tensors = {key: value.contiguous() for key, value in vars(self).items() if isinstance(value, Tensor)}
        header = {"format": FORMAT, "names": json.dumps(self.names), "units": json.dumps(self.units),
                  "source": self.source}
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path) -> MoleculeStore:
        """Raises DataError where the file is missing, damaged or of another format."""
        if not path.is_file():
            raise DataError(f"no prepared data at {path}: run `molflow data prepare` first")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise DataError(f"{path} is not a molflow data file: prepare it again")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            store = cls(**tensors, names=tuple(json.loads(header["names"])),
                        units=tuple(json.loads(header["units"])), source=header["source"])
            store.check()
            return store
        except DataError:
            raise
        except (SafetensorError, TypeError, KeyError, OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path} is damaged ({in_a_line(error)}): prepare it again") from None

    def check(self) -> None:
        """Raise ValueError where the arrays do not belong together, so that no other file than ours is read."""
        molecules, atoms, bonds = len(self.index), len(self.numbers), len(self.bond_order)
        floats, bytes_, long = torch.float32, torch.uint8, torch.int64
        kinds = {"positions": (floats, (atoms, 3)), "numbers": (bytes_, (atoms,)), "charges": (torch.int8, (atoms,)),
                 "atom_ptr": (long, (molecules + 1,)), "bond_index": (bytes_, (bonds, 2)),
                 "bond_order": (bytes_, (bonds,)), "bond_ptr": (long, (molecules + 1,)),
                 "properties": (floats, (molecules, len(self.names))), "index": (torch.int32, (molecules,)),
                 "bonded": (torch.bool, (molecules,)), "split": (bytes_, (molecules,))}
        for name, kind in kinds.items():
            if (tensor := getattr(self, name)) is not None and (tensor.dtype, tuple(tensor.shape)) != kind:
                raise ValueError(f"{name} is of another kind or size than the rest")
        if not all(isinstance(name, str) for name in (*self.names, *self.units)) or len(self.names) != len(self.units):
            raise ValueError("names and units are not words")
        for ptr, count in ((self.atom_ptr, atoms), (self.bond_ptr, bonds)):
            if ptr[0] != 0 or ptr[-1] != count or (ptr.diff() < 0).any():
                raise ValueError("the molecules do not lie end to end")
        if (self.numbers < 1).any() or (self.numbers > 118).any() or (self.bond_order < 1).any() or (
                self.bond_order > 3).any():
            raise ValueError("an element or a bond that there is not")
        first, second = self.bond_index.long().unbind(1)
        if (first == second).any() or (torch.maximum(first, second) >= self.sizes.repeat_interleave(
                self.bond_ptr.diff())).any():
            raise ValueError("a bond to an atom that is not there")


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all. Raises OSError.

    Not by ``save_file``, whose files only their owner may read, and which leaves one of another name whenever it is
    killed.
    """
    with written_whole(path) as temporary:
        temporary.write_bytes(save(tensors, header))


def _ragged(ptr: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flat positions, row and column of every entry of the given segments."""
    counts = ptr[members + 1] - ptr[members]
    row = torch.repeat_interleave(torch.arange(len(members)), counts)
    column = torch.arange(len(row)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return ptr[members][row] + column, row, column


def data_folder() -> Path:
    """Where prepared data lies: ``$MOLFLOW_DATA``, else ``~/.cache/molflow``."""
    return Path(os.environ.get("MOLFLOW_DATA") or Path.home() / ".cache" / "molflow")


def prepared(data: str) -> Path:
    """The file of a data set: one in `data_folder` by its name, or the path itself, which ends in .safetensors."""
    return Path(data) if data.endswith(".safetensors") else data_folder() / f"{data}.safetensors"


def qm9_split(total: int = 130_831) -> dict[str, np.ndarray]:
    """The field's split of QM9 in file order (EDM, arXiv 2203.17003) and the two halves of its training part.

    Returns positions in file order: ``train`` 100,000, ``valid`` 17,748, ``test`` 13,083, and the
    halves of train, ``half_a`` (evaluators) and ``half_b`` (generator and guide), 50,000 each.
    """
    order = np.random.RandomState(0).permutation(total)
    train, valid, test = np.split(order, [100_000, 117_748])
    halves = np.random.RandomState(42).permutation(100_000)
    in_file_order = np.sort(train)
    return {"train": train, "valid": valid, "test": test,
            "half_a": in_file_order[halves[:50_000]], "half_b": in_file_order[halves[50_000:]]}
