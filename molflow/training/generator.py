"""Training the flow: endpoint prediction on the Gaussian path with optimal-transport pairing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molflow.data.store import MoleculeStore
from molflow.flow.path import interpolate
from molflow.flow.state import State
from molflow.molecules.batch import MoleculeBatch, pair_mask
from molflow.molecules.state import MoleculeSpace, centre
from molflow.nn.velocity import VelocityNetwork
from molflow.training.batches import Buckets
from molflow.training.config import GeneratorConfig
from molflow.training.pairing import pair
from molflow.training.task import Batch

PADDING = -1
"""Where there is no atom or pair: a class that is none, hence one-hot all zero, and no share in a cross-entropy."""


@dataclass
class GeneratorTask:
    """The velocity network and what it learns from: molecules of ``config.run.part`` that have bonds.

    Raises:
        ValueError: one of them has an element, charge or bond order that the data set should not have.
    """

    config: GeneratorConfig
    store: MoleculeStore

    def __post_init__(self) -> None:
        torch.manual_seed(self.config.run.seed)
        self.vocabulary = self.store.vocabulary(self.config.data)
        self.classes = {"types": self.vocabulary.elements, "charges": self.vocabulary.charges,
                        "bonds": self.vocabulary.bonds}
        self.network = VelocityNetwork(self.vocabulary, self.config.network)
        split, run = self.store.parts(), self.config.run
        self.buckets = self._buckets(split[run.part], run.seed, run.batch_size)
        few = min(run.batch_size, max(1, len(split["valid"])))  # of a small data set
        self.held_out = self._buckets(split["valid"], 0, few)  # the same molecules whatever the seed of the run

    def _buckets(self, rows: object, seed: int, size: int) -> Buckets:
        members = torch.as_tensor(rows)
        members = members[self.store.bonded[members]]
        run = self.config.run
        return Buckets(members, self.store.sizes[members], size, seed, run.batches == "pairs")

    def batch(self, step: int) -> Batch:
        return self._batch(self.buckets[step], [self.config.run.seed, step])

    def _batch(self, members: Tensor, seed: list[int]) -> Batch:
        """What only the processor can do, and small enough to be sent: paired positions, classes as int8."""
        molecules = self.store.batch(members)
        number = hash(tuple(seed)) % 2**63
        generator = torch.Generator().manual_seed(number)
        noise = centre(torch.randn(molecules.positions.shape, generator=generator), molecules.mask)
        noise = pair(noise, centre(molecules.positions, molecules.mask), molecules.sizes)
        # density 1.5 sqrt(t): a little more of the late times, where bond lengths are settled
        t = torch.rand(len(molecules), generator=generator) ** (2 / 3)
        return self._ends_of(molecules, {"positions": noise}, t, generator)

    def _ends_of(self, molecules: MoleculeBatch, noise: State, t: Tensor, generator: torch.Generator) -> Batch:
        mask = molecules.mask
        return {
            "t": t,
            # batches of equal pairs differ in how many molecules they have, and each molecule is to count the same
            "share": len(molecules) / self.buckets.batch_size,
            "alone": bool(torch.rand((), generator=generator) >= self.config.self_condition),
            "seed": generator.initial_seed(),
            "mask": mask,
            "positions": centre(molecules.positions, mask),
            **{f"noise_{key}": value for key, value in noise.items()},
            "types": _classes(molecules.numbers, self.classes["types"], mask),
            "charges": _classes(molecules.charges, self.classes["charges"], mask),
            "bonds": _classes(molecules.bonds, self.classes["bonds"], pair_mask(mask)),
        }

    def ends(self, batch: Batch) -> tuple[State, State]:
        """Noise x(0) and data x(1) of a batch, on its device; noise that it lacks is drawn here, by its seed."""
        mask = batch["mask"]
        generator = torch.Generator(mask.device).manual_seed(batch["seed"])
        noise = MoleculeSpace(mask, self.vocabulary).noise(generator)
        noise = {key: batch.get(f"noise_{key}", drawn) for key, drawn in noise.items()}
        data = {"positions": batch["positions"],
                **{key: _one_hot(batch[key], len(allowed)) for key, allowed in self.classes.items()}}
        return noise, data

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Velocity error of the positions, cross-entropy of the classes at the endpoint."""
        t, mask = batch["t"], batch["mask"]
        noise, data = self.ends(batch)
        state = interpolate(noise, data, t)
        # zeros rather than None: a compiled network is then one graph, not two
        previous: State = {key: torch.zeros_like(value) for key, value in state.items()}
        if not batch["alone"]:
            with torch.no_grad():
                previous = network(t, state, mask, previous).endpoint(t, state, mask)
        said = network(t, state, mask, previous)
        error = (said.velocity - (data["positions"] - noise["positions"])) * mask[..., None]
        parts = {
            "positions": error.square().sum() / (3 * mask.sum()),
            **{key: _cross_entropy(getattr(said, key), batch[key]) for key in self.classes},
        }
        c = self.config
        loss = (parts["positions"] + c.weight_types * parts["types"] + c.weight_charges * parts["charges"]
                + c.weight_bonds * parts["bonds"])
        return batch["share"] * loss, parts

    @torch.no_grad()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The loss and its parts on 20 fixed batches of the validation split, always self-conditioned."""
        network.eval()
        total: dict[str, float] = {}
        for step in range(20):
            batch = self._batch(self.held_out[step], [1, step])
            batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
            batch |= {"alone": False, "share": 1.0}
            loss, parts = self.loss(network, batch)
            for key, value in {"loss": loss, **parts}.items():
                total[key] = total.get(key, 0.0) + value.item() / 20
        return total


def _classes(values: Tensor, allowed: tuple[int, ...], mask: Tensor) -> Tensor:
    """The place of every value among those allowed, which ascend, as int8."""
    known = torch.tensor(allowed)
    place = torch.searchsorted(known, values).clamp_max(len(allowed) - 1)
    if (strange := values[mask & (known[place] != values)]).numel():
        raise ValueError(f"{int(strange[0])} is not one of {allowed}")
    return torch.where(mask, place, PADDING).to(torch.int8)


def _one_hot(classes: Tensor, count: int) -> Tensor:
    return (classes[..., None] == torch.arange(count, device=classes.device)).float()


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, -2), classes.flatten().long(), ignore_index=PADDING)
