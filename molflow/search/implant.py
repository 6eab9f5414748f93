"""Source points whose molecules will contain a fragment.

A straightened flow decides nearly all at its start: what it expects of x(1) at t = 0 mostly comes out, and is soft, so
that it has a useful gradient, which the molecule itself, nearly a step function of its source, has not. So noise is
moved as in D-Flow (Ben-Hamu et al. 2024, arXiv 2402.14017), but through one evaluation of the network. Writing the
fragment into the estimate of x(1) instead (inpainting) does not make the other atoms fit it: they follow their places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from molflow.flow.source import Shell
from molflow.flow.state import State
from molflow.models import Generator
from molflow.molecules.convert import collate
from molflow.molecules.elements import Vocabulary
from molflow.molecules.fragment import Fragment
from molflow.molecules.state import encode
from molflow.nn.velocity import MoleculeField
from molflow.search.problem import Progress

STEPS, RATE = 12, 0.1
"""Of Adam, by which a source point is moved: half as many leave the fragment half made, twice as many bring little."""

NFE = 3 * STEPS
"""Evaluations of the velocity field for a source point; a backward pass counts as two."""

WIDTH = 64
"""Beginnings of a fragment that are followed while it is looked for, atom by atom."""

FLOOR = 1e-4
"""Of a probability: one atom that is wholly wrong is not to outweigh all others."""


@dataclass(frozen=True)
class Pattern:
    """A fragment as a flow would express it.

    Attributes:
        core: of the fragment's k atoms, as `molflow.molecules.state.encode` lays them out, without a batch dimension.
        bodies: (k,) int64, as `Fragment.bodies`.
    """

    core: State
    bodies: Tensor

    @classmethod
    def of(cls, fragment: Fragment, vocabulary: Vocabulary, device: torch.device) -> Pattern:
        """Raises ValueError for an element or a charge that the vocabulary lacks."""
        core = encode(collate([fragment.core]), vocabulary)
        return cls({key: value[0].to(device) for key, value in core.items()},
                   torch.from_numpy(fragment.bodies).to(device))

    def misfit(self, endpoint: State, atoms: Tensor) -> Tensor:
        """(B,) -log p of the fragment's classes at the given atoms (B, k) of soft molecules, plus squared errors in Å²
        of its distances; bonds and distances within a body."""
        row = torch.arange(len(atoms), device=atoms.device)[:, None]
        first, second = (self.bodies[:, None] == self.bodies).triu(1).nonzero().T
        said = [(_log(endpoint[key])[row, atoms] * self.core[key]).sum((1, 2)) for key in ("types", "charges")]
        bonds = _log(endpoint["bonds"][row, atoms[:, first], atoms[:, second]]) * self.core["bonds"][first, second]
        place, own = endpoint["positions"][row, atoms], self.core["positions"]
        # the exact norm has no gradient at zero
        apart = ((place[:, first] - place[:, second]).square().sum(-1) + 1e-6).sqrt()
        wrong = apart - (own[first] - own[second]).norm(dim=-1)
        return wrong.square().sum(1) - bonds.sum((1, 2)) - sum(said)

    @torch.no_grad()
    def find(self, endpoint: State, mask: Tensor) -> Tensor:
        """The atoms (B, k) of soft molecules, mask (B, N), at which the fragment has nearly the least misfit: a beam
        search."""
        b, n = mask.shape
        alone = sum(torch.einsum("kc,bnc->bkn", self.core[key], _log(endpoint[key])) for key in ("types", "charges"))
        alone = torch.where(mask[:, None], alone, -1e6)
        bonds, apart = _log(endpoint["bonds"]), torch.cdist(endpoint["positions"], endpoint["positions"])
        own = torch.cdist(self.core["positions"], self.core["positions"])
        row = torch.arange(b, device=mask.device)[:, None]
        atoms, score = torch.zeros(b, 1, 0, dtype=torch.int64, device=mask.device), alone.new_zeros(b, 1)
        done: list[int] = []
        for new in self._order():
            each = score[..., None] + alone[:, None, new]
            for column, old in enumerate(done):
                if self.bodies[old] == self.bodies[new]:
                    at = row, atoms[..., column]
                    each = each + bonds[at] @ self.core["bonds"][old, new] - (apart[at] - own[old, new]).square()
            each = each.scatter(2, atoms, -1e9)  # no atom twice
            score, place = each.flatten(1).topk(min(WIDTH, each[0].numel()), 1)
            before = atoms.gather(1, (place // n)[..., None].expand(-1, -1, len(done)))
            atoms, done = torch.cat([before, (place % n)[..., None]], 2), [*done, new]
        return atoms[:, 0][:, torch.tensor(done, device=mask.device).argsort()]

    def _order(self) -> list[int]:
        """The atoms so that each has a bond to one before it, where there is one: what can be told early, is."""
        bonded = (self.core["bonds"][..., 1:].sum(-1) > 0).tolist()
        order: list[int] = []
        while len(order) < len(bonded):
            rest = [atom for atom in range(len(bonded)) if atom not in order]
            order.append(max(rest, key=lambda atom: any(bonded[atom][old] for old in order)))
        return order


def implant(sources: list[State], generator: Generator, fragment: Fragment, *, chunk: int, tell: Progress
            ) -> tuple[list[State], Tensor]:
    """The source points {key: (1, n, ...)}, each moved on its shell until the flow expects the fragment of it, and the
    atoms (K, k) where; `chunk` of them at once, those of like size together. On the CPU."""
    pattern = Pattern.of(fragment, generator.vocabulary, generator.device)
    sizes = np.array([len(source["positions"][0]) for source in sources])
    moved = list(sources)
    places = torch.zeros(len(sources), len(fragment), dtype=torch.int64)
    for number, part in enumerate(parts := np.array_split(np.argsort(sizes, kind="stable"), -(-len(sizes) // chunk))):
        tell("implanting", number / len(parts))
        space = generator.space(sizes[part])
        start = {key: value.to(generator.device)
                 for key, value in space.together([sources[place] for place in part]).items()}
        shell, field = Shell.through(space, start), MoleculeField(generator.network, space.mask)
        now = torch.zeros(len(part), device=generator.device)
        point = shell.retract(space.pack(start)).requires_grad_()
        adam = torch.optim.Adam([point], lr=RATE)
        for _ in range(STEPS):
            _, expected = field(now, _on_shell(point, shell), None)
            atoms = pattern.find({key: value.detach() for key, value in expected.items()}, space.mask)
            point.grad, = torch.autograd.grad(pattern.misfit(expected, atoms).sum(), point)
            adam.step()
        places[torch.from_numpy(part)] = atoms.cpu()
        found = {key: value.cpu() for key, value in _on_shell(point.detach(), shell).items()}
        for place, source in zip(part.tolist(), space.alone(found), strict=True):
            moved[place] = source
    tell("implanting", 1.0)
    return moved, places


def _on_shell(point: Tensor, shell: Shell) -> State:
    """The source point (B, D) stands for: Adam's steps leave the space, in which positions are centred, too."""
    return shell.space.unpack(shell.retract(shell.space.pack(shell.space.unpack(point))))


def _log(p: Tensor) -> Tensor:
    return p.clamp_min(FLOOR).log()
