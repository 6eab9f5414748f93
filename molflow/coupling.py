"""What a generator makes of its source points: the couplings that a flow is straightened with.

Rectified flow (Liu et al. 2023, arXiv 2209.03003, sec. 2.2): a flow that learns again from its own pairs of source
point and endpoint has straighter paths, which fewer steps can follow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from molflow.data.store import MoleculeStore
from molflow.models import Generator
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import collate, unbatch
from molflow.molecules.forcefield import settled
from molflow.molecules.stability import is_whole
from molflow.molecules.state import decode

CHUNK = 96
STEPS = 40
"""Of the solver: the endpoints are to be better than those of the steps that one hopes to get by with."""


@torch.no_grad()
def couple(generator: Generator, first: int, n: int, *, steps: int = STEPS, power: float = 1.0, settle: bool = False,
           progress: Callable[[str, float], None] | None = None) -> MoleculeStore:
    """The whole molecules among those that source points ``first`` to ``first + n - 1`` become.

    A number says all of a source point: its size, drawn from the generator's prior, and its noise
    (`MoleculeSpace.numbered_noise`). The store's ``index`` holds the numbers, so that it is a set of pairs. Broken
    molecules are left out: the straightened flow is not to learn them.

    Args:
        settle: whether MMFF94s puts bonds and angles right (`molflow.molecules.forcefield`), so that the straightened
            flow does not learn what the generator does wrong; molecules that it has no parameters for are left out.

    Raises:
        ValueError: none of them is whole, or ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"need at least one source point, got {n}")
    numbers = np.arange(first, first + n)
    sizes = np.concatenate([generator.prior.draw_sizes(1, np.random.default_rng(number)) for number in numbers])
    parts = np.array_split(np.argsort(sizes, kind="stable"), max(1, n // CHUNK))
    made: list[MoleculeBatch] = []
    kept: list[Tensor] = []
    for done, place in enumerate(np.random.default_rng(0).permutation(len(parts))):  # every share takes as long
        part = parts[place]
        index = torch.from_numpy(numbers[part])
        space = generator.space(sizes[part])
        flow = generator.flow(space, steps=steps, power=power)
        batch = decode(flow(space.numbered_noise(index), torch.arange(len(part), device=generator.device)),
                       space.mask, generator.vocabulary).to("cpu")
        whole = is_whole(batch)
        batch, index = batch[whole], index[whole]
        if settle:
            better = [settled(molecule) for molecule in unbatch(batch)]
            batch = collate([one for one in better if one is not None])
            index = index[[row for row, one in enumerate(better) if one is not None]]
        made.append(batch)
        kept.append(index)
        if progress:
            progress("couple", (done + 1) / len(parts))
    found = torch.cat(kept)
    if not len(found):
        raise ValueError(f"none of the {n} molecules is whole")
    return MoleculeStore.of(MoleculeBatch.cat(made), found,
                            f"source points {first} to {first + n - 1} of {generator.path.name}, {steps} steps"
                            + ", settled by MMFF94s" * settle)
