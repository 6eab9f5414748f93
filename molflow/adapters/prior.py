"""Our own small priors, as `molflow train prior` writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from molflow.adapters.adapter import Adapter, plain
from molflow.data.speech import de_emphasise, emphasise
from molflow.nn.unet import UNet, UNetConfig
from molflow.nn.weights import SHIPPED, Card, WeightsError, built, fill, from_card, read_card

MOST_SAMPLES = 2**20
"""Along each axis of what a prior has been trained on."""


@dataclass(frozen=True)
class Prior:
    """A trained prior: its flow, its network's settings and its card."""

    adapter: Adapter
    network: UNetConfig
    card: Card


def load(name: str | Path, dims: int, size: tuple[int, ...] | None, device: str) -> Prior:
    """A shipped prior, or the one in a file of weights, for signals of ``dims`` axes of that size.

    Raises:
        WeightsError: there is no such prior, or it is of other signals.
        ValueError: a size that the network's levels do not divide.
    """
    shipped = isinstance(name, str) and not name.endswith(".safetensors")
    path = SHIPPED / f"{name}.safetensors" if shipped else Path(name)
    card = read_card(path, "signal")
    with from_card(path):
        config, settings = UNetConfig(**card.network), card.training["settings"]
        learnt, amount, scale = int(settings["size"]), float(settings["emphasis"]), float(settings["scale"])
        if not (0 < learnt <= MOST_SAMPLES and 0 <= amount < 1 and 0 < scale < math.inf):
            raise ValueError("size, emphasis or scale cannot be")
        network = built(lambda: UNet(config), path)
    if config.dims != dims:
        raise WeightsError(f"{path} is a prior of {'pictures' if config.dims == 2 else 'sound'}")
    size = size or (learnt,) * dims
    if any(n % config.divisor for n in size):
        raise ValueError(f"sizes must be multiples of {config.divisor}, got {size}")
    fill(network, path)
    network = network.eval().requires_grad_(False).to(device)
    if dims == 2:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adapter = Adapter(plain(network), (config.channels, *size), device=torch.device(device),
                      decode=lambda x: de_emphasise(x / scale, amount) if amount else x / scale,
                      encode=lambda x: scale * (emphasise(x, amount) if amount else x))
    return Prior(adapter, config, card)
