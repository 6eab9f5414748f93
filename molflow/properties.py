"""Properties of one's own: any differentiable function of a molecule, read beside what the guide has learnt."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from molflow.molecules.elements import Vocabulary
from molflow.molecules.state import centre
from molflow.nn.ensemble import Ensemble
from molflow.targets import FACTORS, TargetError


@dataclass(frozen=True)
class Property:
    """A property that is calculated instead of learnt, to be given to `molflow.design`.

    .. code-block:: python

        import molflow

        def gyration(positions, types, mask):
            apart = positions.square().sum(-1)  # from the mean of the atoms, which is the origin; 0 for padding
            return (apart.sum(1) / mask.sum(1)).sqrt()

        run = molflow.design({"gyration": 2.0, "gap": "4..6"}, n=8, properties={
            "gyration": molflow.Property(gyration, unit="Å", resolution=0.02)})
        print(run.table[["smiles", "evaluator_gyration", "evaluator_gap"]])

    Attributes:
        function: of a batch of B molecules of at most N atoms, on the device of the run:

            - positions (B, N, 3) float32, Å, the mean of a molecule's atoms at the origin, zeros for padding;
            - types (B, N, K), a one-hot row an atom, zeros for padding. Its columns are the elements that the generator
              knows in the order of their atomic numbers: H, C, N, O, F of the model ``qm9``; H, C, N, O, F, P, S, Cl,
              Br, I of ``moses3d``. Gradients pass through it: they say what another element would change;
            - mask (B, N) bool, the atoms.

            It returns the values (B,), each of its own molecule alone, with a gradient to positions or types. Roots and
            norms have none at zero: keep them away from padding and from the distance of an atom from itself.
            Often called with molecules that are not whole yet; where it is not finite, the molecule will not do.
        unit: in which it answers, and targets are given.
        resolution: what is worth telling apart: the unit in which what it misses is added to what others miss.
    """

    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    unit: str = ""
    resolution: float = 0.01

    def __str__(self) -> str:
        """For the record: which function, in which unit."""
        where = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        return f"{self.function.__module__}.{where}, {self.unit or 'no unit'}, resolution {self.resolution:g}"


class Widened(Ensemble):
    """An ensemble that reads further properties beside its own, of which there is no doubt."""

    def __init__(self, ensemble: Ensemble, further: Mapping[str, Property]) -> None:
        super().__init__(list(ensemble.members), ensemble.weights.tolist(), ensemble.resolution)  # type: ignore[arg-type]
        self.further = dict(further)
        self.properties = (*self.learnt, *further)

    def forward(self, positions: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """As of an ensemble, the further properties, of which all say the same, in the last columns."""
        said = super().forward(positions, types, mask)
        values = [value_of(one, positions, types, mask).to(said) for one in self.further.values()]
        return torch.cat([said, torch.stack(values, -1).expand(len(said), -1, -1)], -1)

    def doubt(self, said: Tensor) -> Tensor:
        """As of an ensemble, about what it has learnt."""
        return super().doubt(said[..., : len(self.learnt)])


def value_of(one: Property, positions: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    """What the function says (B,), given what it is promised."""
    return one.function(centre(positions, mask), types * mask[..., None].to(types), mask)


WATER = [(8, 0.0, 0.0, 0.117), (1, 0.0, 0.757, -0.47), (1, 0.0, -0.757, -0.47)]
METHANOL = [(6, -0.047, 0.664, 0.0), (8, -0.047, -0.758, 0.0), (1, -1.093, 0.97, 0.0), (1, 0.878, -1.046, 0.0),
            (1, 0.438, 1.071, 0.889), (1, 0.438, 1.071, -0.889)]
"""What a function is tried with: atomic numbers and Å."""


def check_properties(properties: Mapping[str, Property], vocabulary: Vocabulary, device: torch.device,
                     taken: Container[str] = ()) -> None:
    """Try the functions on water and methanol. Raises TargetError in one sentence.

    Args:
        vocabulary: the generator's.
        taken: names that others have.
    """
    for name, one in properties.items():
        if not name.isidentifier():
            raise TargetError(f"a property cannot be called {name!r}: letters, digits and underscores only")
        if name in taken or name in FACTORS:
            raise TargetError(f"there is a property {name} already: give yours another name")
        if not (math.isfinite(one.resolution) and one.resolution > 0):
            raise TargetError(f"the resolution of {name} must be a number above 0, got {one.resolution!r}")
        if reason := _fault(one, vocabulary, device):
            raise TargetError(f"the function of {name} {reason}")


def _fault(one: Property, vocabulary: Vocabulary, device: torch.device) -> str:
    """What is wrong with a function; empty if nothing is."""
    positions, types, mask = _tried(vocabulary, device)
    positions.requires_grad_()
    types.requires_grad_()
    try:
        with torch.enable_grad():
            said = value_of(one, positions, types, mask)
        alone = value_of(one, positions[:1, :3], types[:1, :3], mask[:1, :3])
    except Exception as error:  # whatever somebody else's code raises
        return f"fails on water and methanol: {type(error).__name__}: {' '.join(str(error).split())}"
    if not isinstance(said, Tensor) or said.shape != (2,) or not said.is_floating_point():
        got = f"{tuple(said.shape)} {said.dtype}" if isinstance(said, Tensor) else type(said).__name__
        return f"must give a number a molecule, a float tensor (2,) for two of them, not {got}"
    if not said.isfinite().all():
        return "gives no finite numbers for water and methanol"
    if not said.requires_grad:
        return "has no gradient: it must be made of differentiable torch operations on positions or types"
    gradients = torch.autograd.grad(said.sum(), (positions, types), allow_unused=True)
    if not all(gradient is None or gradient.isfinite().all() for gradient in gradients):
        return ("has a gradient that is not finite: a root or norm of zero, perhaps of padding or of an atom's "
                "distance from itself")
    if not torch.allclose(said[:1], alone, rtol=1e-3, atol=1e-5):
        return (f"gives {said[0].item():.4g} for water beside methanol and {alone.item():.4g} for water alone: padding "
                "must not count, nor other molecules")
    return ""


def _tried(vocabulary: Vocabulary, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, types and mask of water, padded, and methanol."""
    rows = torch.zeros(2, len(METHANOL), 4)
    rows[0, : len(WATER)], rows[1] = torch.tensor(WATER), torch.tensor(METHANOL)
    numbers = rows[..., 0].long()
    mask = numbers > 0
    types = (numbers[..., None] == torch.tensor(vocabulary.elements)).float()
    return centre(rows[..., 1:], mask).to(device), types.to(device), mask.to(device)
