"""A map of the source space: what numbered source points become, and how the guide reads them.

Best of K with K in the tens of thousands, paid for once: whoever wants a property looks up which source points come
near it, instead of drawing until one does. A number says all of a source point (`MoleculeSpace.numbered_noise`), so
that a place on the map takes some thirty bytes, and no molecule of a data set is in it: all are the flow's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from molflow.data.store import MoleculeStore, write_tensors
from molflow.models import Generator, Predictor
from molflow.molecules.convert import unbatch
from molflow.nn.weights import WeightsError
from molflow.search.problem import Problem
from molflow.wording import in_a_line

FORMAT = "molflow-atlas-2"

GOOD_ENOUGH = 0.2
"""Of two places that differ by less than this, in units of the resolution, one is as good as the other: another seed
takes another."""


@dataclass(frozen=True)
class Atlas:
    """K source points, each of another molecule.

    Attributes:
        numbers: (K,) int64, as `MoleculeSpace.numbered_noise` counts them.
        sizes: (K,) int64 atoms.
        names: P properties.
        readings: (K, P) float32 of them, by the guide.
        doubts: (K,) float32, how far the guide's networks are apart about each (`molflow.nn.ensemble.doubt`).
        smiles: what each became when the map was drawn; other hardware may round to another molecule here and there.
        generator: SHA-256 of the weights that made it.
        source: free text: which source points, how many steps.
    """

    numbers: np.ndarray
    sizes: np.ndarray
    names: tuple[str, ...]
    readings: np.ndarray
    doubts: np.ndarray
    smiles: tuple[str, ...]
    generator: str
    source: str

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of(cls, couplings: MoleculeStore, generator: Generator, guide: Predictor) -> Atlas:
        """Map what `molflow.coupling.couple` made of a generator. Of equal molecules the first is kept, broken ones are
        not.

        Raises:
            ValueError: no molecule is left.
            WeightsError: the guide does not know the generator's elements.
        """
        guide.check_for(generator)
        first: dict[str, int] = {}
        readings, doubts = [], []
        for members in torch.arange(len(couplings)).split(10_000):
            batch = couplings.batch(members)
            said, doubt = guide.read(batch)
            readings.append(said)
            doubts.append(doubt)
            for member, molecule in zip(members.tolist(), unbatch(batch), strict=True):
                if molecule.is_valid and molecule.smiles:
                    first.setdefault(molecule.smiles, member)
        if not first:
            raise ValueError("none of the molecules is valid: no map can be made of them")
        kept = torch.tensor(list(first.values()))
        return cls(couplings.index[kept].long().numpy(), couplings.sizes[kept].numpy(), guide.properties,
                   torch.cat(readings)[kept].numpy(), torch.cat(doubts)[kept].numpy(), tuple(first),
                   _digest(generator), couplings.source)

    def nearest(self, problem: Problem, count: int, seed: int, errors: Tensor,
                admits: Callable[[str], bool] | None = None) -> np.ndarray:
        """Places of ``count`` source points for each of B problems, (B, count), that are expected to miss
        least, no place twice; -1 where there are no more.

        Args:
            seed: decides between those that are near enough.
            errors: (K, P) to be expected of the readings.
            admits: says of a SMILES whether it will do; all do by default.

        Raises:
            WeightsError: the map was drawn by a guide that reads other properties.
        """
        if self.names != problem.known:
            raise WeightsError(f"the atlas has {', '.join(self.names)}, and the guide reads "
                               f"{', '.join(problem.known)}: make it again with 'molflow data atlas', or remove it")
        rng = np.random.default_rng(seed)
        free = np.ones(len(self), bool)
        lot = GOOD_ENOUGH * rng.random(len(self))
        readings = torch.from_numpy(self.readings)
        found = np.full((len(problem), count), -1)
        for turn in range(count):
            for row in rng.permutation(len(problem)):
                fits = np.flatnonzero(free if problem.any_size else free & (self.sizes == problem.sizes[row]))
                if not len(fits):
                    continue
                miss = problem[np.array([row])].expected_miss(readings[fits][:, None], errors[fits][:, None])[:, 0]
                cost = miss.numpy() + lot[fits]
                for place in fits[[cost.argmin()]] if admits is None else fits[cost.argsort()]:
                    free[place] = False
                    if admits is None or admits(self.smiles[place]):
                        found[row, turn] = place
                        break
        return found

    def share(self, number: int, count: int) -> Atlas:
        """The ``number``-th, from 0, of ``count`` maps that have no place in common.

        Places are in the order in which they were drawn, so a share holds of everything as much as any other, and the
        nearest in all shares together are the nearest on the map.
        """
        mine = slice(number, None, count)
        return replace(self, numbers=self.numbers[mine], sizes=self.sizes[mine], readings=self.readings[mine],
                       doubts=self.doubts[mine], smiles=self.smiles[mine])

    def save(self, path: Path) -> None:
        """Readings keep four digits. Raises OSError; what was there before stays."""
        text = "\n".join(self.smiles).encode()
        tensors = {"numbers": torch.from_numpy(self.numbers).int(),
                   "sizes": torch.from_numpy(self.sizes).to(torch.uint8),
                   "readings": torch.from_numpy(self.readings).half(),
                   "doubts": torch.from_numpy(self.doubts).half(),
                   "smiles": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
        write_tensors(path, tensors, {"format": FORMAT, "source": self.source, "generator": self.generator,
                                      "names": json.dumps(self.names)})

    @classmethod
    def load(cls, path: Path) -> Atlas:
        """Raises WeightsError in one sentence."""
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise WeightsError(f"{path} is not a molflow atlas")
                names = tuple(str(name) for name in json.loads(header["names"]))
                tensors = {key: file.get_tensor(key) for key in ("numbers", "sizes", "readings", "doubts", "smiles")}
            if tensors["smiles"].dtype != torch.uint8:
                raise ValueError("the SMILES are no text")
            smiles = tuple(tensors["smiles"].numpy().tobytes().decode().split("\n"))
            if any(tensors[key].shape != shape for key, shape in (
                    ("numbers", (len(smiles),)), ("sizes", (len(smiles),)), ("doubts", (len(smiles),)),
                    ("readings", (len(smiles), len(names))))):
                raise ValueError("its parts are of different sizes")
            if (tensors["numbers"] < 0).any() or (tensors["sizes"] < 1).any():
                raise ValueError("a number that cannot be")
            return cls(tensors["numbers"].long().numpy(), tensors["sizes"].long().numpy(), names,
                       tensors["readings"].float().numpy(), tensors["doubts"].float().numpy(), smiles,
                       header["generator"], header["source"])
        except WeightsError:
            raise
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise WeightsError(f"{path} is missing or damaged ({in_a_line(error)})") from None

    @classmethod
    def beside(cls, generator: Generator) -> Atlas | None:
        """The one that lies beside a generator's weights, X.atlas.safetensors for X.safetensors; None without.

        Raises:
            WeightsError: it is damaged, or of other weights.
        """
        path = generator.path.with_suffix(".atlas.safetensors")
        if not path.is_file():
            return None
        atlas = cls.load(path)
        if atlas.generator != _digest(generator):
            raise WeightsError(f"{path} maps other weights than {generator.path.name}: make it again with "
                               "'molflow data atlas', or remove it")
        return atlas


def _digest(generator: Generator) -> str:
    return hashlib.sha256(generator.path.read_bytes()).hexdigest()
