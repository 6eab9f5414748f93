"""Trained models as one uses them: a generator that makes molecules, a predictor that reads their properties."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molflow.allocator import keep_freed
from molflow.data.prior import Prior
from molflow.flow.likelihood import dequantised_bound
from molflow.flow.solvers import VelocityField, integrate, time_grid
from molflow.flow.source import Flow
from molflow.flow.state import State
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.elements import Vocabulary
from molflow.molecules.labels import LEVELS
from molflow.molecules.state import MoleculeSpace, centre, decode, encode
from molflow.nn.anchored import Anchor, AnchoredField
from molflow.nn.ensemble import Ensemble
from molflow.nn.property import PROPERTIES, RESOLUTION, UNITS, PropertyConfig, PropertyNetwork
from molflow.nn.velocity import MoleculeField, PureField, VelocityConfig, VelocityNetwork
from molflow.nn.weights import MODELS, SHIPPED, Card, WeightsError, built, fill, from_card, read_card, shipped

STEPS = 20
"""Adams-Bashforth steps of a flow, and its NFE; `qm9-steps` among the benchmarks compares solvers and grids."""

LIKELIHOOD_STEPS = 32
"""Runge-Kutta steps of a log-likelihood; each evaluates the network eight times."""

LIKELIHOOD_POWER = 1.5
"""Its steps get shorter towards the data, t proportional to 1 - (1 - s)^power."""

LIKELIHOOD_TIME = 0.97
"""Where the flow is stopped for a log-likelihood: positions are known to (1 - t) / t = 0.03 Å there, and noise would
have to reach 23 standard deviations to turn a class into another."""


PAIRS = 128 * 64**2
"""Of atoms, at most in what is sampled at once."""

MOST_MEMBERS = 64
"""Networks of an ensemble."""

EXPECTED = "expected"
"""Under this name a card says what errors to expect of readings: for each property a and b of a + b doubt."""


class DeviceError(ValueError):
    """A device was asked for that is not there."""


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one. Raises DeviceError for one that is asked for and missing.

    A process that picks the processor keeps its freed memory (`molflow.allocator`).
    """
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is available here: use --device cpu")
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    keep_freed()
    return torch.device("cpu")


@dataclass(frozen=True)
class Generator:
    """A trained flow with the sizes it has seen."""

    network: VelocityNetwork
    prior: Prior
    card: Card
    path: Path
    device: torch.device
    vocabulary: Vocabulary

    @classmethod
    def load(cls, path: Path | None = None, device: str = "auto") -> Generator:
        """The shipped generator, or the one at ``path``. Raises WeightsError, DeviceError."""
        where = pick_device(device)
        path = path or SHIPPED / "generator.safetensors"
        card = read_card(path, "generator")
        with from_card(path):
            vocabulary, config = card.words(), VelocityConfig(**card.network)
            prior = Prior.from_json(card.prior or {})
            network = built(lambda: VelocityNetwork(vocabulary, config), path)
        fill(network, path)
        return cls(network.eval().requires_grad_(False).to(where), prior, card, path, where, vocabulary)

    def space(self, sizes: np.ndarray | Tensor) -> MoleculeSpace:
        """Where the source points of molecules of these sizes (B,) live."""
        counts = torch.as_tensor(sizes, device=self.device)
        return MoleculeSpace(torch.arange(int(counts.max()), device=self.device) < counts[:, None], self.vocabulary)

    def flow(self, space: MoleculeSpace, *, steps: int = STEPS, power: float = 1.0, gradients: bool = False,
             anchor: Anchor | None = None) -> Flow:
        """x(0) -> x(1) for rows of ``space``; with ``gradients``, in memory that does not grow with the steps.

        ``power`` as `molflow.flow.solvers.time_grid` has it: below 1, steps are shorter in the beginning, where
        elements and bonds are decided. ``anchor`` holds atoms of each row in a fragment's place.

        Always float32: bfloat16 moves atoms by tenths of an Å after 20 steps, so that a source found with it
        would not be one without, and on a CPU it gains nothing here.
        """
        grid = time_grid(steps, power=power)

        def run(x0: State, index: Tensor) -> State:
            field = MoleculeField(self.network, space.mask[index])
            if anchor is None:
                return integrate(field, x0, grid=grid, method="adams", checkpoint=gradients).state
            held = AnchoredField(field, anchor.select(index))
            return held.settled(integrate(held, x0, grid=grid, method="adams", checkpoint=gradients).state)

        return run

    @torch.no_grad()
    def sample(self, sizes: np.ndarray, *, seed: int = 0, steps: int = STEPS, chunk: int = 128) -> MoleculeBatch:
        """One molecule of each size, (n,) atom counts. The draw of a molecule depends on seed, sizes and chunk."""
        rng = torch.Generator().manual_seed(seed)
        order = np.argsort(sizes, kind="stable")
        made: list[MoleculeBatch] = []
        parts = np.array_split(order, max(1, -(-len(order) // chunk)))
        # large molecules fewer at a time: what a flow keeps in memory goes with the pairs
        parts = [some for part in parts
                 for some in np.array_split(part, max(1, -(-len(part) * int(sizes[part].max()) ** 2 // PAIRS)))]
        for part in parts:
            space = self.space(sizes[part])
            state = self.flow(space, steps=steps)(space.noise(rng), torch.arange(len(part), device=self.device))
            made.append(decode(state, space.mask, self.vocabulary).to("cpu"))
        return MoleculeBatch.cat(made)[torch.from_numpy(np.argsort(order, kind="stable"))]

    @torch.no_grad()
    def trajectory(self, source: State, *, steps: int = STEPS, power: float = 1.0,
                   anchor: Anchor | None = None) -> MoleculeBatch:
        """From noise to a molecule: x(t) decoded at the steps + 1 times of the solver, as a batch of frames.

        Args:
            source: of one molecule, without padding, {key: (1, n, ...)}.
        """
        space = self.space(torch.tensor([source["positions"].shape[1]]))
        field: VelocityField = MoleculeField(self.network, space.mask)
        if anchor is not None:
            field = AnchoredField(MoleculeField(self.network, space.mask), anchor)
        solution = integrate(field, source, grid=time_grid(steps, power=power), method="adams", trajectory=True)
        path = solution.trajectory or []
        return MoleculeBatch.cat([decode(state, space.mask, self.vocabulary) for state in path]).to("cpu")

    def log_likelihood(self, batch: MoleculeBatch, *, steps: int = LIKELIHOOD_STEPS, probes: int | None = 1,
                       seed: int = 0, chunk: int = 32) -> Tensor:
        """log p(positions, elements, charges, bonds | number of atoms) of each molecule under the flow: (B,) float64
        nats, on the CPU.

        One draw of a lower bound, whose mean over seeds is the bound; see `molflow.flow.likelihood.dequantised_bound`.
        The atoms are labelled: no factor for the N! orders, all of which the flow makes equally often. Positions enter
        with their density in Å^-(3n - 3), in orthonormal coordinates of the centred ones, orientations included, after
        a blur of 0.03 Å (LIKELIHOOD_TIME); elements, charges and bonds with their probability.

        This is the flow as a pure ODE (`PureField`). `sample` hands each estimate of x(1) on to the next step instead
        of making it anew, and takes STEPS Adams steps: its molecules come from a near but not the same distribution.

        Args:
            steps: of the solver.
            probes: of the trace of each evaluation; None for the exact trace, at a cost of hundreds of probes.
            seed: of the noise and the probes; the draw of a molecule depends on the rest of its batch and on chunk too.
            chunk: molecules that go through the network at once.

        Raises:
            ValueError: steps or probes below 1, or a molecule with what the vocabulary lacks.
        """
        rng = torch.Generator().manual_seed(seed)
        grid = LIKELIHOOD_TIME * time_grid(steps, power=LIKELIHOOD_POWER).flip(0)
        found = torch.empty(len(batch), dtype=torch.float64)
        for part in batch.sizes.argsort(stable=True).split(chunk):
            some = batch[part].trimmed().to(self.device)
            some = replace(some, positions=some.positions.float())
            space = MoleculeSpace(some.mask, self.vocabulary)
            found[part] = dequantised_bound(
                PureField(self.network, some.mask), encode(some, self.vocabulary), space.noise(rng), space,
                discrete=("types", "charges", "bonds"), grid=grid, method="rk4", probes=probes, generator=rng,
            ).cpu()
        return found


@dataclass(frozen=True)
class Predictor:
    """A guide or an evaluator: a trained property network, or several as one."""

    network: Ensemble
    card: Card
    path: Path
    device: torch.device
    vocabulary: Vocabulary

    @classmethod
    def load(cls, path: Path | str = "evaluator", device: str = "auto") -> Predictor:
        """A shipped one by name, ``guide`` or ``moses3d/evaluator``, or the one at ``path``. Raises WeightsError."""
        where = pick_device(device)
        model, _, role = str(path).rpartition("/")
        named = role in ("guide", "evaluator") and model in ("", *MODELS)
        path = shipped(model or "qm9", role) if named else Path(path)
        card = read_card(path, "property")
        settings = dict(card.network)
        with from_card(path):
            vocabulary, properties = card.words(), tuple(card.properties or PROPERTIES)
            count = int(settings.pop("members", 1))
            if not 1 <= count <= MOST_MEMBERS:
                raise ValueError(f"members must be 1 to {MOST_MEMBERS}, not {count}")
            config = PropertyConfig(**settings)
            network = built(lambda: Ensemble([PropertyNetwork(len(vocabulary.elements), config, properties)
                                              for _ in range(count)], None, card.resolution or RESOLUTION), path)
            _check_metrics(card, properties)
        fill(network if "members" in card.network else network.members[0], path)
        return cls(network.eval().requires_grad_(False).to(where), card, path, where, vocabulary)

    @property
    def properties(self) -> tuple[str, ...]:
        """What it reads, the columns of its answers."""
        return self.network.properties

    @property
    def learnt(self) -> tuple[str, ...]:
        """What its networks read: the first of its properties."""
        return self.network.learnt

    @property
    def units(self) -> dict[str, str]:
        """Of what it has learnt."""
        known = self.card.units or UNITS
        return {name: known.get(name, "") for name in self.learnt}

    @property
    def level(self) -> str:
        """The quantum chemistry that it has learnt, or the name of the data."""
        return LEVELS.get(self.card.data, self.card.data)

    def check_for(self, generator: Generator) -> None:
        """Raise WeightsError where a generator's molecules have elements that it does not know."""
        if self.vocabulary.elements != generator.vocabulary.elements:
            raise WeightsError(f"{self.path} knows other elements than {generator.path}")

    def __call__(self, endpoint: State, mask: Tensor) -> Tensor:
        """Properties (B, P) of soft molecules, differentiable; columns as ``network.properties``."""
        return self.network.mean(self.each(endpoint, mask))

    def each(self, endpoint: State, mask: Tensor) -> Tensor:
        """What every network of it says, (M, B, P)."""
        return self.network(endpoint["positions"], endpoint["types"], mask)

    def predict(self, batch: MoleculeBatch, chunk: int = 200) -> Tensor:
        """Properties (B, P) of decoded molecules, on the CPU. Raises ValueError for an element it does not know."""
        return self.read(batch, chunk)[0]

    @torch.no_grad()
    def read(self, batch: MoleculeBatch, chunk: int = 200) -> tuple[Tensor, Tensor]:
        """As `predict`, and the networks' doubt (B,) of each molecule, see `Ensemble.doubt`."""
        said = torch.empty(len(self.network.members), len(batch), len(self.network.properties))
        for part in batch.sizes.argsort().split(chunk):
            some = batch[part].trimmed().to(self.device)
            types = encode(some, self.vocabulary)["types"].float()
            said[:, part] = self.network(centre(some.positions.float(), some.mask), types, some.mask).cpu()
        return self.network.mean(said), self.network.doubt(said)

    def expected_errors(self, doubts: Tensor) -> Tensor:
        """The errors (B, P) to expect where the networks' doubts are (B,), as measured on molecules that they had not
        seen; 0 where that was not measured."""
        known = self.card.metrics.get(EXPECTED, {})
        a, b = torch.tensor([known.get(name, (0.0, 0.0)) for name in self.network.properties]).to(doubts).T
        return a + b * doubts[..., None]


def _check_metrics(card: Card, properties: tuple[str, ...]) -> None:
    """Raise TypeError, ValueError or RuntimeError where the errors that a card speaks of are no numbers."""
    known = card.metrics.get(EXPECTED, {})
    errors = torch.tensor([[card.metrics.get(name, 0.0), *known.get(name, (0.0, 0.0))] for name in properties])
    if errors.shape != (len(properties), 3) or not (errors >= 0).all():
        raise ValueError("an error is not a number of at least 0")
