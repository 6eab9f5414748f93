"""What flows: a state is a dictionary of tensors, a space says which of their entries are free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

State = dict[str, Tensor]
"""One tensor a modality, each (B, ...), all with the same B, dtype and device."""


def batch_size(state: State) -> int:
    """Number of samples B. Raises ValueError if the state is empty or its tensors disagree."""
    sizes = {x.shape[0] for x in state.values()}
    if len(sizes) != 1:
        raise ValueError(f"a state needs tensors of one batch size, got {sorted(sizes)}")
    return sizes.pop()


def select(state: State, index: Tensor) -> State:
    """The rows `index` (b,) of every tensor, in that order; repeats are allowed."""
    return {key: x[index] for key, x in state.items()}


def add(x: State, v: State, scale: float) -> State:
    """x + scale * v. Raises KeyError if v lacks a modality of x."""
    return {key: value + scale * v[key] for key, value in x.items()}


def per_sample(t: Tensor, x: Tensor) -> Tensor:
    """Reshape t, (B,) or a scalar, to (B, 1, ..., 1) so that it broadcasts against x (B, ...)."""
    return t.reshape(-1, *[1] * (x.dim() - 1))


class Space(Protocol):
    """The (masked, constrained) Euclidean space in which a batch of B source points lives.

    Packed coordinates are (B, D). On the free degrees of freedom packing is an isometry, so that a standard
    Gaussian state has standard Gaussian coordinates and norms mean the same on either side.
    """

    @property
    def batch(self) -> int:
        """Number of samples B."""
        ...

    def noise(self, generator: torch.Generator | None) -> State:
        """A standard Gaussian draw in the space."""
        ...

    def pack(self, state: State) -> Tensor:
        """Coordinates (B, D) of a state; entries that are not free are 0."""
        ...

    def unpack(self, flat: Tensor) -> State:
        """The state with coordinates `flat` (B, D), projected: unpack(pack(s)) == s for s in the space."""
        ...

    def groups(self) -> dict[str, tuple[slice, Tensor]]:
        """For each modality its columns in the packed vector and its degrees of freedom (B,)."""
        ...

    def select(self, index: Tensor) -> Space:
        """The space of the samples `index` (b,); repeats are allowed."""
        ...


class EuclideanSpace:
    """Plain tensors, of which a mask may switch entries off: images, audio, anything without constraints.

    Args:
        shapes: shape of one sample of each modality, without the batch dimension.
        masks: for some or all modalities, a tensor broadcastable to (B, *shape), true where an entry is free.
        batch: number of samples B.
        dtype: of the noise.
        device: of the noise and the masks.

    Raises:
        KeyError: a mask for a modality that `shapes` does not name.
        RuntimeError: a mask that does not broadcast.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        masks: Mapping[str, Tensor] | None,
        batch: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shapes = dict(shapes)
        self.batch = batch
        self.dtype = dtype
        self.device = torch.device(device)
        self.masks = {
            key: mask.to(self.device, torch.bool).expand(batch, *self.shapes[key])
            for key, mask in (masks or {}).items()
        }

    def noise(self, generator: torch.Generator | None = None) -> State:
        """A standard Gaussian draw, {key: (B, *shape)}, 0 where masked."""
        draw = {
            key: torch.randn((self.batch, *shape), generator=generator, dtype=self.dtype, device=self.device)
            for key, shape in self.shapes.items()
        }
        return self._project(draw)

    def pack(self, state: State) -> Tensor:
        """(B, D), the modalities side by side in the order of `shapes`."""
        projected = self._project(state)
        return torch.cat([x.reshape(self.batch, -1) for x in projected.values()], dim=1)

    def unpack(self, flat: Tensor) -> State:
        """The state with coordinates `flat` (B, D), 0 where masked."""
        blocks = flat.split([math.prod(shape) for shape in self.shapes.values()], dim=1)
        return self._project(
            {
                key: block.reshape(self.batch, *shape)
                for (key, shape), block in zip(self.shapes.items(), blocks, strict=True)
            }
        )

    def groups(self) -> dict[str, tuple[slice, Tensor]]:
        """One group a modality; its degrees of freedom (B,), int64, are the entries that the mask leaves."""
        result: dict[str, tuple[slice, Tensor]] = {}
        start = 0
        for key, shape in self.shapes.items():
            size = math.prod(shape)
            if key in self.masks:
                freedom = self.masks[key].reshape(self.batch, -1).sum(1)
            else:
                freedom = torch.full((self.batch,), size, device=self.device)
            result[key] = (slice(start, start + size), freedom)
            start += size
        return result

    def select(self, index: Tensor) -> EuclideanSpace:
        """The space of the samples `index` (b,)."""
        masks = {key: mask[index] for key, mask in self.masks.items()}
        return EuclideanSpace(self.shapes, masks, len(index), dtype=self.dtype, device=self.device)

    def _project(self, state: State) -> State:
        # `where`, not a product: what stands in a masked entry may be NaN and must not come through.
        return {
            key: torch.where(self.masks[key], state[key], 0.0) if key in self.masks else state[key]
            for key in self.shapes
        }
