"""The property network: properties of a molecule from positions and (soft) atom types.

Neighbour densities projected on radial functions and spherical harmonics, A_i = sum_j R(d_ij) Y(r_ij) h_j
(Drautz 2019, Phys. Rev. B 99, 014104; Batatia et al. 2022, MACE), contracted to invariants on the atom. All
nonlinear work is done on atoms, not on pairs, which makes it several times cheaper than filters on edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.nn.models.visnet import CosineCutoff, ExpNormalSmearing

from molflow.molecules.labels import DRUGLIKE, DRUGLIKE_RESOLUTION, XTB, XTB_RESOLUTION
from molflow.nn.sizes import check_sizes

PROPERTIES = ("alpha", "gap", "homo", "lumo", "mu", "cv")
"""Those of QM9."""

UNITS = {"alpha": "Bohr^3", "gap": "eV", "homo": "eV", "lumo": "eV", "mu": "D", "cv": "cal/(mol K)", **DRUGLIKE,
         **XTB}
RESOLUTION = {"alpha": 0.10, "gap": 0.064, "homo": 0.039, "lumo": 0.036, "mu": 0.043, "cv": 0.040,
              **DRUGLIKE_RESOLUTION, **XTB_RESOLUTION}
"""What a good network can tell apart, of QM9's properties the errors of the field's evaluators (EDM, arXiv 2203.17003):
the natural unit in which misses of different properties are compared and added."""

SPREAD = 0.03
"""Share of a property's standard deviation that is its resolution where there is no better word on it: about what
`RESOLUTION` is of QM9's."""

READ: dict[str, tuple[str, ...]] = {"qm9": PROPERTIES, "moses3d": tuple(DRUGLIKE), "geom": tuple(DRUGLIKE)}
"""What is read of the molecules of each data set, labels apart."""

DEBYE_PER_E_ANGSTROM = 4.80320

EXTENSIVE = ("alpha", "cv", "logp", "tpsa", "mw", "solvation")
"""Sums over atoms. Of the others, gap and mu follow from what is below, and the rest is read off the whole molecule."""

WHOLE = ("homo", "lumo", "qed", "sa")


def read_of(data: str, columns: Sequence[str]) -> tuple[str, ...]:
    """What is read of a data set that has these columns: all of them, or of our own sets `READ`, and GFN2-xTB's labels
    if they are among them."""
    if data not in READ:
        return tuple(columns)
    return (*READ[data], *(name for name in XTB if name in columns and name not in READ[data]))


@dataclass(frozen=True)
class PropertyConfig:
    """Sizes of the network; ``radial`` functions for l = 0, 1, 2; ``cutoff`` in Å.

    Raises:
        ValueError: one of them cannot be.
    """

    layers: int = 3
    scalars: int = 128
    density: int = 48
    vectors: int = 48
    tensors: int = 24
    radial_0: int = 12
    radial_1: int = 8
    radial_2: int = 6
    cutoff: float = 6.0

    def __post_init__(self) -> None:
        check_sizes(self)
        if max(self.radial_1, self.radial_2) > self.radial_0:
            raise ValueError(f"radial_1 and radial_2 must be at most radial_0, {self.radial_0}")


class PropertyLayer(nn.Module):
    """Gather neighbour densities of l = 0, 1, 2, form invariants, update scalars and vectors of each atom."""

    def __init__(self, c: PropertyConfig) -> None:
        super().__init__()
        self.c = c
        self.norm = nn.LayerNorm(c.scalars)
        self.source = nn.Linear(c.scalars, c.density, bias=False)
        self.vector_source = nn.Linear(c.vectors, 16, bias=False)
        self.mix_0 = nn.Linear(c.radial_0 * c.density + c.radial_1 * 16, c.scalars)
        self.mix_1 = nn.Linear(c.radial_1 * c.density + c.radial_0 * 16 + c.vectors, 2 * c.vectors, bias=False)
        self.mix_2 = nn.Linear(c.radial_2 * c.density, 2 * c.tensors, bias=False)
        self.update = nn.Sequential(nn.Linear(2 * c.scalars + c.vectors + c.tensors, 2 * c.scalars), nn.SiLU(),
                                    nn.Linear(2 * c.scalars, c.scalars + c.vectors))

    def forward(self, h: Tensor, v: Tensor, y0: Tensor, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """h (B,N,scalars), v (B,N,3,vectors); y_l (B,N,2l+1,radial,N), the functions of every neighbour."""
        c, (b, n, _) = self.c, h.shape
        hn = self.norm(h)
        source = self.source(hn)

        def project(y: Tensor) -> Tensor:  # (B,N,2l+1,radial,N) x (B,N,density) -> (B,N,2l+1,radial*density)
            return (y.flatten(1, 3) @ source).view(b, n, y.shape[2], -1)

        vs = self.vector_source(v)
        # vectors of the neighbours: along the line to them (a scalar), and as they are (a vector)
        along = (y1.transpose(2, 3).reshape(b, -1, 3 * n)
                 @ vs.transpose(1, 2).reshape(b, 3 * n, -1)).view(b, n, -1)
        carried = (y0.flatten(1, 3) @ vs.flatten(2)).view(b, n, -1, 3, vs.shape[-1])
        carried = carried.transpose(2, 3).flatten(3)
        scalars = self.mix_0(torch.cat([project(y0).squeeze(2), along], -1))
        u, w = self.mix_1(torch.cat([project(y1), carried, v], -1)).chunk(2, -1)
        p, q = self.mix_2(project(y2)).chunk(2, -1)
        invariants = torch.cat([hn, scalars, (u * w).sum(2), (p * q).sum(2)], -1)
        dh, gate = self.update(invariants).split([c.scalars, c.vectors], -1)
        return h + dh, v + gate[:, :, None] * w


class PropertyNetwork(nn.Module):
    """E(3)-invariant; smooth in positions and in soft types, so that a half-decided atom has a gradient.

    Args:
        elements: how many there are.
        properties: names of what is read, the columns of the answer.

    The gap of HOMO and LUMO is not a separate output but LUMO - HOMO, and the dipole is the length of a sum of charges
    times positions and atomic dipoles (PaiNN, Schütt et al. 2021), so that the six answers cannot contradict. Whether a
    property that is not known by name grows with the molecule is learnt: it is a sum over atoms and a number read off
    the whole.
    """

    composition: Tensor
    scale: Tensor

    def __init__(self, elements: int, config: PropertyConfig, properties: tuple[str, ...] = PROPERTIES) -> None:
        super().__init__()
        self.properties = properties
        followed = {"mu", "gap"} if {"homo", "lumo"} <= set(properties) else {"mu"}
        unknown = [name for name in properties if name not in (*EXTENSIVE, *WHOLE, *followed)]
        self.sums, self.wholes = ([*(name for name in kind if name in properties), *unknown]
                                  for kind in (EXTENSIVE, WHOLE))
        sums, wholes = len(self.sums), len(self.wholes)
        c = self.config = config
        self.embed = nn.Linear(elements, c.scalars, bias=False)
        self.radial = ExpNormalSmearing(c.cutoff, c.radial_0, trainable=False)
        self.envelope = CosineCutoff(c.cutoff)
        self.layers = nn.ModuleList(PropertyLayer(c) for _ in range(c.layers))
        self.read = nn.Sequential(nn.LayerNorm(c.scalars), nn.Linear(c.scalars, c.scalars), nn.SiLU(),
                                  nn.Linear(c.scalars, sums + 2 + 2 * 8))
        self.orbitals = nn.Sequential(nn.Linear(2 * c.scalars + 16, c.scalars), nn.SiLU(), nn.Linear(c.scalars, wholes))
        self.attend = nn.Linear(c.scalars, 2)
        if "mu" in properties:
            self.dipole = nn.Linear(c.vectors, 1, bias=False)
        # what a linear fit on the composition explains, per element, and the spread of what is left
        self.register_buffer("composition", torch.zeros(elements + 1, sums + wholes))
        self.register_buffer("scale", torch.ones(sums + wholes))

    def forward(self, positions: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """positions (B, N, 3) Å, types (B, N, elements) one-hot or probabilities, mask (B, N) bool
        -> (B, properties) in the order of ``properties``, in their units.
        """
        atoms = mask[..., None].to(positions)
        types = types * atoms
        y0, y1, y2 = self._functions(positions, mask)
        h = self.embed(types)
        v = h.new_zeros(*mask.shape, 3, self.config.vectors)
        for layer in self.layers:
            h, v = layer(h, v, y0, y1, y2)

        with torch.autocast(positions.device.type, enabled=False):
            h, v = h.to(positions), v.to(positions)  # sums over atoms want full precision
            local = self.read(h) * atoms
            extensive, charge, _, heads = local.split([len(self.sums), 1, 1, 16], -1)
            weight = self.attend(h).masked_fill(~mask[..., None], -1e4).softmax(1)
            pooled = torch.cat([(weight[..., :1] * h).sum(1), (weight[..., 1:] * h).sum(1),
                                heads.sum(1) / 16], -1)
            count = torch.cat([types.sum(1), torch.ones_like(types[:, :1, 0])], -1)
            parts = count @ self.composition + self.scale * torch.cat([extensive.sum(1), self.orbitals(pooled)], -1)
            read: dict[str, Tensor] = {}
            for name, part in zip([*self.sums, *self.wholes], parts.unbind(-1), strict=True):
                read[name] = read[name] + part if name in read else part
            if "mu" in self.properties:
                sites = atoms / atoms.sum(1, keepdim=True)
                charge = charge - (charge * sites).sum(1, keepdim=True) * atoms
                moment = DEBYE_PER_E_ANGSTROM * 0.2 * ((charge * positions).sum(1)
                                                       + (self.dipole(v).squeeze(-1) * atoms).sum(1))
                read["mu"] = (moment.square().sum(-1) + 1e-6).sqrt()
            if "gap" in self.properties and "gap" not in read:
                read["gap"] = read["lumo"] - read["homo"]
        return torch.stack([read[name] for name in self.properties], -1)

    def _functions(self, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        pairs = mask[:, :, None] & mask[:, None] & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        difference = positions[:, None] - positions[:, :, None]
        # the norm has no gradient at zero, where the diagonal and the padding lie
        difference = torch.where(pairs[..., None], difference, 1.0)
        distance = difference.square().sum(-1).sqrt()
        radial = self.radial(distance.flatten()[:, None]).view(*distance.shape, -1)
        radial = radial * (self.envelope(distance) * pairs)[..., None]
        harmonics = o3.spherical_harmonics([0, 1, 2], difference, normalize=True, normalization="component")
        def outer(degree: int, count: int) -> Tensor:
            step = c.radial_0 // count  # fewer functions for higher l: every other, every third
            chosen = radial[..., ::step][..., :count]
            y = harmonics[..., degree * degree : (degree + 1) ** 2]
            return (y[..., :, None] * chosen[..., None, :]).permute(0, 1, 3, 4, 2) / 4

        return outer(0, c.radial_0), outer(1, c.radial_1), outer(2, c.radial_2)

    @torch.no_grad()
    def set_composition(self, counts: Tensor, targets: Tensor) -> None:
        """Fit what the composition alone explains: counts (M, elements), targets (M, properties), NaN where there is
        none. Raises ValueError where a property has fewer than two values."""
        everything = torch.cat([counts, torch.ones(len(counts), 1)], 1).double()
        for place, name in enumerate((*self.sums, *self.wholes)):
            target = targets[:, self.properties.index(name)].double()
            known = target.isfinite()
            if known.sum() < 2:
                raise ValueError(f"{name} is known of fewer than two molecules to learn from: label more")
            design, wanted = everything[known], target[known, None]
            if place >= len(self.sums):  # orbital energies do not grow with the molecule: a constant only
                if name in self.sums:  # whose part has it already
                    self.scale[place] = self.scale[self.sums.index(name)]
                    continue
                design = design * (torch.arange(design.shape[1]) == design.shape[1] - 1)
            fit = torch.linalg.lstsq(design, wanted, driver="gelsd").solution
            self.composition[:, place] = fit[:, 0]
            self.scale[place] = (wanted - design @ fit).std()
