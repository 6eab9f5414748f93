"""Training the priors of pictures and of sound: the velocity of the Gaussian path, with optimal-transport pairing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from molflow.data.signals import SignalStore
from molflow.data.speech import emphasise
from molflow.flow.path import conditional_velocity, interpolate
from molflow.nn.unet import UNet
from molflow.training.config import ConfigError, SignalConfig
from molflow.training.task import Batch


@dataclass
class SignalTask:
    """The velocity network and what it learns from: crops of the signals of ``store``.

    Raises:
        ConfigError: the network is of another number of channels or axes than the signals.
    """

    config: SignalConfig
    store: SignalStore

    def __post_init__(self) -> None:
        c, shape = self.config, self.store.train[0].shape
        if (c.network.channels, c.network.dims) != (shape[1], len(shape) - 2):
            raise ConfigError(f"network.channels and network.dims must be {shape[1]} and {len(shape) - 2} for {c.data}")
        torch.manual_seed(c.run.seed)
        self.network = UNet(c.network)
        if c.network.dims == 2:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch(self, step: int) -> Batch:
        return self._batch([self.config.run.seed, step], held_out=False)

    def _batch(self, seed: list[int], *, held_out: bool) -> Batch:
        c, size = self.config, self.config.run.batch_size
        generator = torch.Generator().manual_seed(hash(tuple(seed)) % 2**63)
        data = self.store.crops(size, c.size, generator, held_out=held_out)
        once = (size, *[1] * (data.dim() - 1))
        if c.turned:
            data = _turned(data, generator)
        if c.emphasis:
            data = emphasise(data, c.emphasis)
        decibels = c.gain * (2 * torch.rand(once, generator=generator) - 1)
        data = data * c.scale * 10 ** (decibels / 20)
        noise = torch.randn(data.shape, generator=generator)
        return {"t": torch.rand(size, generator=generator), "data": data, "noise": _paired(noise, data),
                "mask": torch.ones(size, 1, dtype=torch.bool)}

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the velocity."""
        noise, data = {"x": batch["noise"]}, {"x": batch["data"]}
        said = network(batch["t"], interpolate(noise, data, batch["t"])["x"])
        return (said - conditional_velocity(noise, data)["x"]).square().mean(), {}

    @torch.no_grad()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The loss on 8 fixed batches of held-out signals, whatever the seed of the run."""
        network.eval()
        total = 0.0
        for step in range(8):
            batch = {key: x.to(device) for key, x in self._batch([-1, step], held_out=True).items()}
            total += self.loss(network, batch)[0].item() / 8
        return {"loss": total}


def _turned(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, C, S, S), each in one of its eight orientations."""
    for change in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT):
        x = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, change(x), x)
    return x


def _paired(noise: Tensor, data: Tensor) -> Tensor:
    """The same noises (B, ...) in the order that brings them nearest to the data (B, ...), in squared distance in
    total: straighter paths (Pooladian et al. 2023, arXiv 2304.14772; Tong et al. 2023, arXiv 2302.00482)."""
    cost = torch.cdist(data.flatten(1), noise.flatten(1)).square().double().numpy()
    return noise[torch.from_numpy(linear_sum_assignment(cost)[1])]
