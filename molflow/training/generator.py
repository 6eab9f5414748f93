"""Training the flow: endpoint prediction on the Gaussian path with optimal-transport pairing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molflow.data.store import MoleculeStore, qm9_split
from molflow.flow.path import interpolate
from molflow.flow.state import State
from molflow.molecules.batch import pair_mask
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace, encode
from molflow.nn.velocity import VelocityNetwork
from molflow.training.batches import Buckets
from molflow.training.config import GeneratorConfig
from molflow.training.pairing import pair
from molflow.training.trainer import Batch


@dataclass
class GeneratorTask:
    """The velocity network and what it learns from: molecules of ``config.run.part`` that have bonds."""

    config: GeneratorConfig
    store: MoleculeStore

    def __post_init__(self) -> None:
        torch.manual_seed(self.config.run.seed)
        self.network = VelocityNetwork(QM9, self.config.network)
        split, run = qm9_split(), self.config.run
        self.buckets = self._buckets(split[run.part], run.seed)
        self.held_out = self._buckets(split["valid"], 0)  # the same molecules whatever the seed of the run

    def _buckets(self, rows: object, seed: int) -> Buckets:
        members = torch.as_tensor(rows)
        members = members[self.store.bonded[members]]
        return Buckets(members, self.store.sizes[members], self.config.run.batch_size, seed)

    def batch(self, step: int) -> Batch:
        return self._noised(self.buckets[step], [self.config.run.seed, step])

    def _noised(self, members: Tensor, seed: list[int]) -> Batch:
        molecules = self.store.batch(members)
        generator = torch.Generator().manual_seed(hash(tuple(seed)) % 2**63)
        data = encode(molecules, QM9)
        noise = MoleculeSpace(molecules.mask, QM9).noise(generator)
        if self.config.pairing:
            noise = pair(noise, data, molecules.sizes)
        # density 1.5 sqrt(t): a little more of the late times, where bond lengths are settled
        t = torch.rand(len(molecules), generator=generator) ** self.config.time_power
        alone = bool(torch.rand((), generator=generator) >= self.config.self_condition)
        return {"t": t, "noise": noise, "data": data, "mask": molecules.mask, "alone": alone}

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Velocity error of the positions, cross-entropy of the classes at the endpoint."""
        t, mask, data = batch["t"], batch["mask"], batch["data"]
        state = interpolate(batch["noise"], data, t)
        # zeros rather than None: a compiled network is then one graph, not two
        previous: State = {key: torch.zeros_like(value) for key, value in state.items()}
        if not batch["alone"]:
            with torch.no_grad():
                previous = network(t, state, mask, previous).endpoint(t, state, mask)
        said = network(t, state, mask, previous)
        wanted = data["positions"] - batch["noise"]["positions"]
        # ablation: weight 1 / (1 - t)^late_weight, at most 5, of mean 1 over the batch
        late = (1 / (1 - t).clamp_min(1e-3) ** self.config.late_weight).clamp_max(5)
        late = late / late.mean()
        parts = {
            "positions": (said.velocity - wanted).square().sum(-1)[mask].mean() / 3,
            "types": _cross_entropy(said.types, data["types"], mask, late),
            "charges": _cross_entropy(said.charges, data["charges"], mask, late),
            "bonds": _cross_entropy(said.bonds, data["bonds"], pair_mask(mask), late),
        }
        c = self.config
        loss = (parts["positions"] + c.weight_types * parts["types"] + c.weight_charges * parts["charges"]
                + c.weight_bonds * parts["bonds"])
        return loss, parts

    @torch.no_grad()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The loss and its parts on 20 fixed batches of the validation split, positions by thirds of the time."""
        network.eval()
        total: dict[str, float] = {}
        for step in range(20):
            batch = self._noised(self.held_out[step], [1, step])
            batch = {key: _to(value, device) for key, value in batch.items()}
            batch["alone"] = False
            loss, parts = self.loss(network, batch)
            for key, value in {"loss": loss, **parts}.items():
                total[key] = total.get(key, 0.0) + value.item() / 20
        return total


def _cross_entropy(logits: Tensor, target: Tensor, mask: Tensor, late: Tensor) -> Tensor:
    each = nn.functional.cross_entropy(logits[mask], target[mask], reduction="none")
    return (each * late.view(-1, *[1] * (mask.dim() - 1)).expand(mask.shape)[mask]).mean()


def _to(value: object, device: torch.device) -> object:
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
