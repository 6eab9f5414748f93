"""Training guides and evaluators: all properties at once, each error in units of what is worth telling apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molflow.data.store import MoleculeStore
from molflow.molecules.state import centre, encode
from molflow.nn.property import READ, RESOLUTION, SPREAD, UNITS, PropertyNetwork, read_of
from molflow.training.batches import Buckets
from molflow.training.config import PropertyTraining
from molflow.training.task import Batch


@dataclass
class PropertyTask:
    """The property network and what it learns from: molecules of ``config.run.part``."""

    config: PropertyTraining
    store: MoleculeStore

    def __post_init__(self) -> None:
        run = self.config.run
        torch.manual_seed(run.seed)
        split = self.store.parts()
        members = torch.as_tensor(split[run.part])
        self.properties = tuple(self.config.properties) or read_of(self.config.data, self.store.names)
        self.targets = self.store.columns(self.properties)
        self.units, self.resolution = scales_of(self.config.data, self.store, members, self.properties)
        self.vocabulary = self.store.vocabulary(self.config.data)
        self.network = PropertyNetwork(len(self.vocabulary.elements), self.config.network, self.properties)
        self.network.set_composition(self._counts(members), self.targets[members])
        self.buckets = Buckets(members, self.store.sizes[members], run.batch_size, run.seed)
        self.held_out = torch.as_tensor(split["valid"])[:2000]

    def _counts(self, members: Tensor) -> Tensor:
        molecule = torch.repeat_interleave(torch.arange(len(self.store)), self.store.sizes)
        counts = torch.stack([torch.bincount(molecule[self.store.numbers == element], minlength=len(self.store))
                              for element in self.vocabulary.elements], 1)
        return counts[members].float()

    def batch(self, step: int) -> Batch:
        return self._batch(self.buckets[step])

    def _batch(self, members: Tensor) -> Batch:
        molecules = self.store.batch(members)
        return {"positions": centre(molecules.positions, molecules.mask), "mask": molecules.mask,
                "types": encode(molecules, self.vocabulary)["types"], "targets": self.targets[members]}

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean absolute error of each property over its resolution, averaged over all of them.

        The error of a property is that of the molecules whose value is known, and 0 where the batch has none.
        """
        missed, known = misses(network(batch["positions"], batch["types"], batch["mask"]).float(), batch["targets"])
        mean = missed.sum(0) / known.sum(0).clamp(min=1)
        # numbers one by one: a tensor made of a list would be copied to the GPU, and waited for
        each = [miss / self.resolution[name] for miss, name in zip(mean, self.properties, strict=True)]
        return torch.stack(each).mean(), {}

    @torch.no_grad()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean absolute error of each property on those of 2,000 molecules of the validation split that have it."""
        return mean_errors(network.eval(), self, self.held_out, device)


def scales_of(data: str, store: MoleculeStore, members: Tensor, names: tuple[str, ...]
              ) -> tuple[dict[str, str], dict[str, float]]:
    """Units and resolutions of some properties of a data set: those of `molflow.nn.property`, or for one of the user's
    own, what the file says and the share `SPREAD` of the standard deviation over the given rows (n,).

    Raises:
        ValueError: a property has the same value everywhere, or gap, HOMO and LUMO are in different units.
    """
    if data in READ:
        return {name: UNITS[name] for name in names}, {name: RESOLUTION[name] for name in names}
    units = {name: store.units[store.names.index(name)] for name in names}
    if {"gap", "homo", "lumo"} <= units.keys() and len({units[name] for name in ("gap", "homo", "lumo")}) > 1:
        raise ValueError("gap, homo and lumo must be in one unit to be read together: name some as properties only")
    resolution = {}
    for name, column in zip(names, store.columns(names)[members].double().unbind(1), strict=True):
        spread = column[column.isfinite()].std().item() if column.isfinite().sum() > 1 else 0.0
        if not spread:
            raise ValueError(f"{name} is known of fewer than two molecules to learn from, or the same of all")
        resolution[name] = SPREAD * spread
    return units, resolution


def misses(said: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute errors (B, properties), 0 where the target is NaN, and where it is not."""
    known = targets.isfinite()  # NaN times 0 is NaN, so that it must not come near what was said
    return (said - targets.nan_to_num()).abs() * known, known


@torch.no_grad()
def mean_errors(network: nn.Module, task: PropertyTask, members: Tensor, device: torch.device) -> dict[str, float]:
    """Mean absolute error of each property over those of the given molecules that have it; without one, no error."""
    total, count = torch.zeros(2, len(task.properties), dtype=torch.float64)
    for part in members[task.store.sizes[members].argsort()].split(100):
        batch = {key: value.to(device) for key, value in task._batch(part).items()}
        said = network(batch["positions"], batch["types"], batch["mask"])
        missed, known = misses(said, batch["targets"])
        total += missed.sum(0).double().cpu()
        count += known.sum(0).cpu()
    return {name: (total[i] / count[i]).item() for i, name in enumerate(task.properties) if count[i]}
