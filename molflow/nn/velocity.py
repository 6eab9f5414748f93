"""The velocity network: an E(3)-equivariant denoiser of whole molecules with dense pair features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from molflow.flow.path import endpoint_to_velocity
from molflow.flow.state import State
from molflow.molecules.batch import pair_mask
from molflow.molecules.elements import Vocabulary
from molflow.molecules.state import centre
from molflow.nn.clock import fourier_time
from molflow.nn.sizes import check_sizes


@dataclass(frozen=True)
class VelocityConfig:
    """Widths of the network: scalar (0e) and vector (1o) features of an atom, features of a pair.

    Raises:
        ValueError: one of them cannot be.
    """

    layers: int = 6
    scalars: int = 128
    vectors: int = 32
    pairs: int = 32
    messages: int = 64
    heads: int = 8
    radial: int = 16

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.scalars % self.heads or self.vectors % self.heads:
            raise ValueError(f"scalars and vectors must be multiples of heads, {self.heads}")


@dataclass  # not frozen: Fabric rebuilds what a network returns
class Prediction:
    """What the network says of x(1) at time t.

    ``velocity`` (B, N, 3) is that of the positions, (x(1) - x(0)); logits are of the classes at x(1).
    """

    velocity: Tensor
    types: Tensor
    charges: Tensor
    bonds: Tensor

    def endpoint(self, t: Tensor, state: State, mask: Tensor) -> State:
        """Expected x(1): positions moved to the end of their straight line, class probabilities."""
        atoms = mask[..., None].to(self.types)
        pairs = pair_mask(mask)[..., None].to(self.types)
        return {
            "positions": state["positions"] + (1 - t)[:, None, None] * self.velocity,
            "types": self.types.softmax(-1) * atoms,
            "charges": self.charges.softmax(-1) * atoms,
            "bonds": self.bonds.softmax(-1) * pairs,
        }


def wide(x: Tensor) -> Tensor:
    """At least float32: autocast's bfloat16 is widened, float64 is left alone."""
    return x if x.dtype == torch.float64 else x.float()


def radial_basis(distance: Tensor, count: int) -> Tensor:
    """Bumps in exp(-d / 2 Å), dense where bonds are: (...) Å -> (..., count).

    The exponential spacing is PhysNet's (Unke & Meuwly 2019, eq. 7). The bumps are Lorentzians, not Gaussians:
    as smooth, and a division is several times cheaper than an exponential on every kind of processor.
    """
    centres = torch.linspace(0, 1, count, device=distance.device, dtype=distance.dtype)
    return 1 / (1 + ((torch.exp(-distance / 2)[..., None] - centres) * (count * 1.5)).square())


class VectorLinear(nn.Module):
    """Equivariant linear map between 1o channels, (..., 3, in) -> (..., 3, out): ``e3nn.o3.Linear`` on
    ``in x 1o -> out x 1o`` with the channels last, where a processor's vector units want them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)

    def forward(self, v: Tensor) -> Tensor:
        return nn.functional.linear(v, self.weight)


class VectorNorm(nn.Module):
    """Scale all 1o channels (..., 3, channels) of an atom together to unit mean square; a weight per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, v: Tensor) -> Tensor:
        # The floor keeps gradients finite where all vectors vanish, as they do at the first layer.
        square = wide(v).square().sum((-1, -2), keepdim=True) / v.shape[-1]
        return v * ((square + 1e-2).rsqrt() * self.weight).to(v)


class VelocityLayer(nn.Module):
    """One round of messages between all pairs, then an update of atoms, pairs and positions."""

    def __init__(self, c: VelocityConfig) -> None:
        super().__init__()
        self.c = c
        self.atom_norm, self.vector_norm = nn.LayerNorm(c.scalars), VectorNorm(c.vectors)
        # W [h_i, h_j, e_ij] = W1 h_i + W2 h_j + W3 e_ij: the atoms' share is computed once an atom, not a pair
        self.from_atoms = nn.Linear(c.scalars, 2 * c.messages)
        self.from_pairs = nn.Linear(c.pairs + c.radial, c.messages, bias=False)
        self.message = nn.Linear(c.messages, c.pairs + c.heads + c.vectors)
        self.attention = nn.Linear(c.scalars, 3 * c.scalars)
        self.vector_value = VectorLinear(c.vectors, c.vectors)
        self.gather = nn.Linear(c.scalars + c.messages, c.scalars)
        self.mix_norm = nn.LayerNorm(c.scalars)
        self.vector_mix = VectorLinear(c.vectors, 2 * c.vectors)
        self.mix = nn.Sequential(nn.Linear(c.scalars + c.vectors, 2 * c.scalars), nn.SiLU(),
                                 nn.Linear(2 * c.scalars, c.scalars + c.vectors))
        self.shift = VectorLinear(c.vectors, 1)

    def forward(self, h: Tensor, v: Tensor, e: Tensor, x: Tensor, pairs: Tensor, scale: Tensor, rows: int | None = None
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """h (B,N,scalars), v (B,N,3,vectors), e (B,N,N,pairs), x (B,N,3); ``scale`` (B,1,1) is 1 - t; ``rows`` as
        `VelocityNetwork.rows`."""
        c, (b, n, _) = self.c, h.shape
        hn = self.atom_norm(h)
        own, other = self.from_atoms(hn).chunk(2, -1)
        query, key, value = self.attention(hn).view(b, n, 3, c.heads, -1).permute(2, 0, 3, 1, 4)
        carried = self.vector_value(self.vector_norm(v)).view(b, n, 3, c.heads, -1).permute(0, 3, 1, 2, 4).flatten(-2)
        everyone = other, x, key, value, carried
        if rows is None:
            gathered, brought, pulled, update = self._meet(own, x, query, e, pairs, *everyone)
        else:
            some = (slice(first, first + rows) for first in range(0, n, rows))
            met = [checkpoint(self._meet, own[:, k], x[:, k], query[:, :, k], e[:, k], pairs[:, k], *everyone,
                              use_reentrant=False) for k in some]
            gathered, brought, pulled, update = (torch.cat(each, 1) for each in zip(*met, strict=True))
        h = h + self.gather(gathered)
        v = v + brought + pulled

        u, w = self.vector_mix(self.vector_norm(v)).chunk(2, -1)
        length = (wide(u).square().sum(-2) + 1e-4).sqrt().to(h)
        dh, dv = self.mix(torch.cat([self.mix_norm(h), length], -1)).split([c.scalars, c.vectors], -1)
        h, v = h + dh, v + dv[:, :, None] * w
        x = x + scale * wide(self.shift(v).squeeze(-1))
        return h, v, e + update, x

    def _meet(self, own: Tensor, x: Tensor, query: Tensor, e: Tensor, pairs: Tensor, other: Tensor, there: Tensor,
              key: Tensor, value: Tensor, carried: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What some atoms, the rows of ``e`` (B,rows,N,pairs), hear from all others: scalars, their vectors, directions
        to them, and what becomes of the pairs."""
        c, (b, n, _) = self.c, own.shape
        difference = there[:, None] - x[:, :, None]
        distance = (difference.square().sum(-1) + 1e-4).sqrt()
        # an atom has at most four bonds: a quarter keeps sums over neighbours near 1
        direction = o3.spherical_harmonics("1o", difference / (1 + distance)[..., None], normalize=False)
        direction = direction * (pairs / 4)[..., None]
        features = torch.cat([e, radial_basis(distance, c.radial).to(e)], -1)
        m = nn.functional.silu(own[:, :, None] + other[:, None] + self.from_pairs(features))
        update, bias, gate = self.message(m).split([c.pairs, c.heads, c.vectors], -1)

        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias.permute(0, 3, 1, 2)
        logits = wide(logits).masked_fill(~pairs[:, None], -1e4)
        alpha = (logits.softmax(-1) * pairs[:, None]).to(value)  # an atom alone gathers nothing
        attended = (alpha @ value).transpose(1, 2).reshape(b, n, -1)
        summed = ((pairs / 4).to(m)[:, :, None] @ m).squeeze(2)
        brought = (alpha @ carried).unflatten(-1, (3, -1)).permute(0, 2, 3, 1, 4).flatten(-2)
        return torch.cat([attended, summed], -1), brought, direction.to(gate).transpose(-1, -2) @ gate, update


class VelocityNetwork(nn.Module):
    """Reads x(t) and, where given, its own last estimate of x(1) (self-conditioning, Chen et al. 2022).

    Attributes:
        rows: atoms whose pairs are worked on at once, None for all. Fewer need less memory, in training because they
            are worked on again for the gradient; the result is the same.
    """

    rows: int | None = None

    def __init__(self, vocabulary: Vocabulary, config: VelocityConfig) -> None:
        super().__init__()
        self.vocabulary, self.config = vocabulary, config
        c, types, charges, bonds = config, *(len(v) for v in (vocabulary.elements, vocabulary.charges,
                                                              vocabulary.bonds))
        self.embed_atom = nn.Linear(2 * (types + charges) + 16 + 1, c.scalars)
        self.embed_pair = nn.Linear(2 * (bonds + c.radial) + 1, c.pairs)
        self.embed_vector = VectorLinear(1, c.vectors)
        self.layers = nn.ModuleList(VelocityLayer(c) for _ in range(c.layers))
        self.read_atom = nn.Sequential(nn.LayerNorm(c.scalars), nn.Linear(c.scalars, types + charges))
        self.read_pair = nn.Sequential(nn.LayerNorm(c.pairs), nn.Linear(c.pairs, c.pairs), nn.SiLU(),
                                       nn.Linear(c.pairs, bonds))
        self.classes = [types, charges]

    def forward(self, t: Tensor, state: State, mask: Tensor, previous: State | None = None) -> Prediction:
        """t (B,), state as ``molecules.state.encode`` lays it out, mask (B, N) -> Prediction in float32.

        ``previous`` of all zeros, for a sample or for all, means the same as None: nothing is known yet.
        """
        x, pairs = state["positions"], pair_mask(mask)
        past = previous or {key: torch.zeros_like(value) for key, value in state.items()}
        known = (past["types"].sum((1, 2)) > 0).to(t)
        size = mask.sum(1).to(t) / 16
        clock = torch.cat([fourier_time(t, 14), size[:, None], known[:, None], t[:, None]], -1)
        h = self.embed_atom(torch.cat([state["types"], state["charges"], past["types"], past["charges"],
                                       clock[:, None].expand(*mask.shape, -1)], -1))
        past_distance = torch.cdist(past["positions"], past["positions"], compute_mode="donot_use_mm_for_euclid_dist")
        # the exact Euclidean norm has no gradient at zero, which the diagonal is
        past_distance = torch.where(pairs, past_distance, 1.0)
        distance = torch.where(pairs, torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"), 1.0)
        basis = [radial_basis(d, self.config.radial) for d in (distance, past_distance)]
        e = self.embed_pair(torch.cat([state["bonds"], past["bonds"], *basis,
                                       known[:, None, None, None].expand(*pairs.shape, 1)], -1))
        v = self.embed_vector(((past["positions"] - x) * known[:, None, None])[..., None])
        scale = (1 - t)[:, None, None]
        start, atoms = x, mask[..., None]
        for layer in self.layers:
            h, v, e, x = layer(h, v, e, x, pairs, scale, self.rows)
        types, charges = wide(self.read_atom(h)).split(self.classes, -1)
        bonds = wide(self.read_pair(e + e.transpose(1, 2)))
        shift = centre(x - start, mask) * atoms
        # at t = 1 the straight line has no length left; no solver step starts there
        return Prediction(shift / scale.clamp_min(1e-4), types, charges, bonds)


@dataclass
class MoleculeField:
    """The trained flow as a velocity field of ``molflow.flow``: u = (x̂(1) - x) / (1 - t), memory = x̂(1).

    Args:
        mask: (B, N) bool, the atoms of the molecules being integrated.
    """

    network: VelocityNetwork
    mask: Tensor

    def __call__(self, t: Tensor, x: State, memory: State | None) -> tuple[State, State]:
        endpoint = self.network(t, x, self.mask, memory).endpoint(t, x, self.mask)
        return endpoint_to_velocity(endpoint, x, t), endpoint


@dataclass
class PureField:
    """The same flow as a function of time and state alone, for what needs an ODE: u given x̂(1), after x̂(1) given
    nothing, at the same t and x. Two evaluations of the network, as in training.
    """

    network: VelocityNetwork
    mask: Tensor

    def __call__(self, t: Tensor, x: State, memory: State | None) -> tuple[State, None]:
        field = MoleculeField(self.network, self.mask)
        _, estimate = field(t, x, None)
        return field(t, x, estimate)[0], None
