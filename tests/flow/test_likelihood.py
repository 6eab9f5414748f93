"""Log-densities against closed forms, torchdiffeq and automatic differentiation, then on real molecules."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from e3nn import o3
from torch import Tensor
from torch.distributions import MultivariateNormal
from torchdiffeq import odeint

from molflow.flow.likelihood import dequantised_bound, log_density
from molflow.flow.path import endpoint_to_velocity, interpolate
from molflow.flow.solvers import VelocityField, memoryless, time_grid
from molflow.flow.state import EuclideanSpace, State, per_sample, select
from molflow.models import Generator
from molflow.molecules.batch import MoleculeBatch
from molflow.molecules.convert import Molecule, collate
from molflow.molecules.elements import QM9
from molflow.molecules.state import MoleculeSpace, encode
from molflow.nn.velocity import PureField
from molflow.nn.weights import SHIPPED

CLASSES = ("types", "charges", "bonds")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def backward(steps: int, t: float = 1.0, power: float = 1.0) -> Tensor:
    return t * time_grid(steps, power=power).flip(0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


# ---- known densities -------------------------------------------------------------------------------------------------


@pytest.fixture
def affine() -> tuple[VelocityField, MultivariateNormal]:
    """u = A x + b on two modalities, which mixes them, and the Gaussian that it makes of a Gaussian by time 1."""
    a, b = 0.5 * normal(5, 5, seed=1), normal(5, seed=2)

    def u(t: Tensor, x: State) -> State:
        v = torch.cat([x["p"], x["q"].flatten(1)], 1) @ a.T + b
        return {"p": v[:, :3], "q": v[:, 3:].view(-1, 2, 1)}

    whole = torch.zeros(6, 6, dtype=torch.float64)
    whole[:5, :5], whole[:5, 5] = a, b
    flow = torch.linalg.matrix_exp(whole)
    return memoryless(u), MultivariateNormal(flow[:5, 5], flow[:5, :5] @ flow[:5, :5].T)


def two(batch: int) -> tuple[EuclideanSpace, State]:
    space = EuclideanSpace({"p": (3,), "q": (2, 1)}, None, batch, dtype=torch.float64)
    return space, {key: 2 * value for key, value in space.noise(rng(3)).items()}


@pytest.mark.parametrize(("method", "steps", "error"), [("rk4", 64, 1e-6), ("heun", 256, 1e-3)])
def test_an_affine_flow_makes_a_gaussian(affine, method, steps, error) -> None:
    field, truth = affine
    space, x = two(7)
    said = log_density(field, x, space, grid=backward(steps), method=method, probes=None)
    assert said.dtype == torch.float64 and not said.requires_grad
    torch.testing.assert_close(said, truth.log_prob(space.pack(x)), rtol=0, atol=error)


@pytest.mark.parametrize("probes", [1, 3])
def test_hutchinson_is_right_on_average(affine, probes) -> None:
    """The same point 4,000 times: the mean is within four standard errors, and more probes err less."""
    field, truth = affine
    _, x = two(1)
    space = EuclideanSpace({"p": (3,), "q": (2, 1)}, None, 4000, dtype=torch.float64)
    many = {key: value.expand(4000, *value.shape[1:]) for key, value in x.items()}
    said = log_density(field, many, space, grid=backward(16), method="rk4", probes=probes, generator=rng(4))
    error = said.std() / len(said) ** 0.5
    assert error > 0
    assert (said.mean() - truth.log_prob(space.pack(many))[0]).abs() < 4 * error + 1e-4
    again = log_density(field, many, space, grid=backward(16), method="rk4", probes=probes, generator=rng(4))
    assert torch.equal(said, again)
    one = log_density(field, many, space, grid=backward(16), method="rk4", probes=1, generator=rng(5))
    assert said.var().item() == pytest.approx(one.var().item() / probes, rel=0.15)


def test_hutchinson_does_not_err_on_a_diagonal_jacobian() -> None:
    space, x = two(3)
    field = memoryless(lambda t, x: {"p": x["p"].sin(), "q": -2 * x["q"]})
    exact, guessed = (log_density(field, x, space, grid=backward(8), probes=p, generator=rng()) for p in (None, 1))
    torch.testing.assert_close(guessed, exact, rtol=0, atol=1e-12)


def test_masked_entries_count_for_nothing() -> None:
    mask = torch.tensor([[True, False, True], [True, True, True]])
    space = EuclideanSpace({"x": (3,)}, {"x": mask}, 2, dtype=torch.float64)
    x = {"x": torch.tensor([[0.5, math.nan, -1.0], [0.5, 2.0, -1.0]], dtype=torch.float64)}
    for probes in (None, 1):
        said = log_density(memoryless(lambda t, x: {"x": 0.3 * x["x"]}), x, space, grid=backward(64), probes=probes)
        for row in range(2):
            kept = x["x"][row][mask[row]]
            truth = torch.distributions.Normal(0.0, math.exp(0.3)).log_prob(kept).sum()
            assert said[row].item() == pytest.approx(truth.item(), abs=1e-4)


def test_torchdiffeq_agrees_on_a_flow_without_closed_form() -> None:
    w, v = normal(8, 3, seed=6), normal(3, 8, seed=7)

    def u(t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ w.T + 2 * t) @ v.T

    def augmented(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        slope = torch.func.jacrev(lambda x: u(t, x))
        return u(t, state[0]), torch.stack([slope(x).trace() for x in state[0]])

    x = normal(4, 3, seed=8)
    times = torch.tensor([0.9, 0.0], dtype=torch.float64)
    ends, integrals = odeint(augmented, (x, torch.zeros(4, dtype=torch.float64)), times, rtol=1e-7, atol=1e-7)
    truth = torch.distributions.Normal(0.0, 1.0).log_prob(ends[-1]).sum(1) + integrals[-1]
    said = log_density(memoryless(lambda t, x: {"x": u(t[0], x["x"])}), {"x": x},
                       EuclideanSpace({"x": (3,)}, None, 4, dtype=torch.float64), grid=backward(100, 0.9),
                       method="rk4", probes=None)
    torch.testing.assert_close(said, truth, rtol=0, atol=1e-5)


def test_centred_positions_have_a_density_in_the_centred_subspace() -> None:
    """Atoms coupled by a random symmetric matrix; the truth is a Gaussian in any orthonormal basis of the subspace."""
    sizes = torch.tensor([4, 2])
    space = MoleculeSpace(torch.arange(4) < sizes[:, None], QM9)
    s = normal(4, 4, seed=9)
    coupling = 0.2 * (s + s.T)

    def u(t: Tensor, x: State) -> State:  # what leaves the subspace is not seen
        moved = torch.einsum("ij,bjc->bic", coupling, x["positions"]) + 5.0
        return {key: moved if key == "positions" else torch.zeros_like(value) for key, value in x.items()}

    x = {key: 1.5 * value.double() for key, value in space.noise(rng(1)).items()}
    said = log_density(memoryless(u), x, space, grid=backward(12), method="rk4", probes=None)
    index = torch.arange(2).repeat_interleave(200)
    guessed = log_density(memoryless(u), select(x, index), space.select(index), grid=backward(12), method="rk4",
                          generator=rng(2)).view(2, 200)
    error = guessed.std(1) / 200**0.5
    for row, n in enumerate(sizes.tolist()):
        random = normal(n, n, seed=10)
        random[:, 0] = 1.0
        basis = torch.linalg.qr(random).Q[:, 1:].T  # (n - 1, n), orthonormal, sums to zero
        assert basis.sum(1).abs().max() < 1e-12
        growth = torch.linalg.matrix_exp(basis @ coupling[:n, :n] @ basis.T)
        gaussian = MultivariateNormal(torch.zeros(n - 1).double(), growth @ growth.T)
        truth = gaussian.log_prob((basis @ x["positions"][row, :n]).T).sum()
        flat = space.pack(x)[row]
        still = [flat[columns] for key, (columns, _) in space.groups().items() if key != "positions"]
        freedom = sum(int(f[row]) for key, (_, f) in space.groups().items() if key != "positions")
        truth = truth - 0.5 * torch.cat(still).square().sum() - 0.5 * freedom * math.log(2 * math.pi)
        assert said[row].item() == pytest.approx(truth.item(), abs=1e-4)
        assert abs(guessed[row].mean() - truth) < 4 * error[row] + 1e-4


# ---- the bound for classes and continuous data -----------------------------------------------------------------------


def test_the_bound_of_classes_is_their_probability() -> None:
    """The exact flow of three classes with known probabilities: q is the posterior, so that every draw is exact."""
    share = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)

    def u(t: Tensor, x: State) -> State:
        weight = (share.log() + per_sample(t / (1 - t).square(), x["class"]) * x["class"]).softmax(-1)
        return endpoint_to_velocity({"class": weight}, x, t)

    space = EuclideanSpace({"class": (3,)}, None, 12, dtype=torch.float64)
    data = {"class": torch.eye(3, dtype=torch.float64).repeat_interleave(4, 0)}
    said = dequantised_bound(memoryless(u), data, space.noise(rng(2)), space, discrete=("class",),
                             grid=backward(200, 0.9), method="rk4", probes=None)
    torch.testing.assert_close(said, share.log().repeat_interleave(4), rtol=0, atol=2e-3)


def test_the_bound_of_gaussian_data_is_the_closed_form_and_below_the_truth() -> None:
    """Data N(m, s^2): the bound's mean is E_q log N(z; t m, s_t^2) + d log t; the truth is that of z / t, blurred."""
    m, s, t, draws = 0.7, 1.6, 0.9, 4000

    def u(time: Tensor, x: State) -> State:
        spread = (1 - time).square() + (time * s).square()
        rate = (time * s**2 - (1 - time)) / spread
        return {"x": m + per_sample(rate, x["x"]) * (x["x"] - per_sample(time, x["x"]) * m)}

    space = EuclideanSpace({"x": (2,)}, None, draws, dtype=torch.float64)
    x = torch.tensor([1.5, -2.0], dtype=torch.float64)
    said = dequantised_bound(memoryless(u), {"x": x.expand(draws, 2)}, space.noise(rng(3)), space, discrete=(),
                             grid=backward(32, t), method="rk4", probes=None)
    spread = (1 - t) ** 2 + (t * s) ** 2
    bound = -0.5 * ((t * (x - m)).square() + (1 - t) ** 2).sum() / spread - math.log(2 * math.pi * spread / t**2)
    assert abs(said.mean() - bound) < 4 * said.std() / draws**0.5
    truth = torch.distributions.Normal(m, math.sqrt(spread + (1 - t) ** 2) / t).log_prob(x).sum()
    assert bound < truth < bound + 0.1


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "word"), [
    ({"probes": 0}, "probes"), ({"grid": time_grid(4)}, "decrease"), ({"grid": backward(4) + 0.1}, "decrease"),
    ({"grid": torch.tensor(0.0)}, "decrease"), ({"grid": torch.tensor([0.5, 0.7, 0.0])}, "monotone"),
])
def test_bad_input_is_refused(changed, word) -> None:
    space, x = two(2)
    with pytest.raises(ValueError, match=word):
        log_density(memoryless(lambda t, x: x), x, space, **{"grid": backward(4), **changed})


def test_one_hot_data_have_no_density_at_the_end() -> None:
    space, x = two(2)
    with pytest.raises(ValueError, match="t = 1"):
        dequantised_bound(memoryless(lambda t, x: x), x, x, space, discrete=("q",), grid=backward(4))


def test_the_field_never_sees_a_memory() -> None:
    space, x = two(2)

    def field(t: Tensor, x: State, memory: State | None) -> tuple[State, State | None]:
        assert memory is None
        return x, x

    log_density(field, x, space, grid=backward(4), method="rk4")


# ---- molecules -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untrained(tiny_weights: dict[str, Path]) -> Generator:
    return Generator.load(tiny_weights["generator"], "cpu")


@pytest.fixture(scope="module")
def precise(tiny_weights: dict[str, Path]) -> Generator:
    """The same weights in float64."""
    generator = Generator.load(tiny_weights["generator"], "cpu")
    return replace(generator, network=generator.network.double())


def double(state: State) -> State:
    return {key: value.double() for key, value in state.items()}


def test_exact_trace_is_the_trace_of_the_jacobian(precise: Generator, qm9: list[Molecule]) -> None:
    """One Euler step from t to 0 is log N(x - t u) - t div u, from which div u follows."""
    batch, t = collate(sorted(qm9, key=lambda m: len(m.numbers))[:2]), 0.6
    space, field = MoleculeSpace(batch.mask, QM9), PureField(precise.network, batch.mask)
    x = interpolate(double(space.noise(rng(1))), double(encode(batch, QM9)), torch.tensor(t).double())

    def packed(w: Tensor) -> Tensor:
        return space.pack(field(torch.full((len(batch),), t, dtype=w.dtype), space.unpack(w), None)[0])

    flat = space.pack(x)
    jacobian = torch.autograd.functional.jacobian(packed, flat)  # (B, D, B, D)
    trace = torch.stack([jacobian[b, :, b].trace() for b in range(len(batch))])
    freedom = sum(f for _, f in space.groups().values())
    start = flat - t * packed(flat)
    wanted = -0.5 * start.square().sum(1) - 0.5 * freedom * math.log(2 * math.pi) - t * trace
    said = log_density(field, x, space, grid=torch.tensor([t, 0.0], dtype=torch.float64), method="euler", probes=None)
    assert trace.abs().min() > 10
    torch.testing.assert_close(said, wanted, rtol=0, atol=1e-8)


def bound(generator: Generator, batch: MoleculeBatch, noise: State) -> Tensor:
    space, field = MoleculeSpace(batch.mask, QM9), PureField(generator.network, batch.mask)
    return dequantised_bound(field, double(encode(batch, QM9)), noise, space, discrete=CLASSES,
                             grid=backward(1, 0.95), probes=None)


def test_turning_shifting_and_renumbering_a_molecule_changes_nothing(precise: Generator, qm9: list[Molecule]) -> None:
    batch = collate(sorted(qm9, key=lambda m: len(m.numbers))[1:3])
    batch = replace(batch, positions=batch.positions.double())
    noise = double(MoleculeSpace(batch.mask, QM9).noise(rng(2)))
    said = bound(precise, batch, noise)
    torch.manual_seed(3)
    for sign in (1, -1):
        q = sign * o3.rand_matrix(dtype=torch.float64)
        moved = replace(batch, positions=(batch.positions @ q.T + normal(3)) * batch.mask[..., None])
        turned = {**noise, "positions": noise["positions"] @ q.T}
        torch.testing.assert_close(bound(precise, moved, turned), said, rtol=0, atol=1e-6)
    order = torch.rand(batch.mask.shape, generator=rng(4)).argsort(1)
    row = torch.arange(len(batch))[:, None]
    pairs = row[..., None], order[:, :, None], order[:, None]
    renumbered = MoleculeBatch(batch.positions[row, order], batch.numbers[row, order], batch.charges[row, order],
                               batch.bonds[pairs])
    reordered = {key: value[pairs] if key == "bonds" else value[row, order] for key, value in noise.items()}
    torch.testing.assert_close(bound(precise, renumbered, reordered), said, rtol=0, atol=1e-6)


def test_exact_trace_and_probes_agree_on_average(untrained: Generator, qm9: list[Molecule]) -> None:
    """Draws of one molecule, as many in a batch: 8 with the exact trace, 64 with a probe, four standard errors."""
    small = min(qm9, key=lambda m: len(m.numbers))
    exact, guessed = (untrained.log_likelihood(collate([small] * draws), steps=2, probes=probes)
                      for probes, draws in ((None, 8), (1, 64)))
    assert guessed.dtype == torch.float64 and guessed.isfinite().all() and guessed.std() > 0
    error = (exact.var() / 8 + guessed.var() / 64).sqrt()
    assert (exact.mean() - guessed.mean()).abs() < 4 * error


def test_a_seed_repeats_the_draw_and_padding_is_not_seen(untrained: Generator, qm9: list[Molecule]) -> None:
    batch = collate(qm9[:5])
    first = untrained.log_likelihood(batch, steps=2, seed=1, chunk=2)
    wider = MoleculeBatch.cat([batch, collate([max(qm9, key=lambda m: len(m.numbers))])])[:5]
    assert wider.numbers.shape[1] > batch.numbers.shape[1]
    assert torch.equal(untrained.log_likelihood(wider, steps=2, seed=1, chunk=2), first)
    assert (untrained.log_likelihood(batch, steps=2, seed=2, chunk=2) != first).all()


def test_a_distorted_molecule_is_less_likely_than_the_real_one(qm9: list[Molecule]) -> None:
    """Atoms of 16 real molecules moved by 0.3 Å in each direction, the same noise and probes for both."""
    generator = Generator.load(SHIPPED / "generator.safetensors", "cpu")
    batch = collate(qm9[10:58:3])
    jitter = 0.3 * torch.randn(batch.positions.shape, generator=rng(5))
    distorted = replace(batch, positions=batch.positions + jitter * batch.mask[..., None])
    real, worse = (generator.log_likelihood(b, steps=2) for b in (batch, distorted))
    assert len(batch) == 16 and real.isfinite().all()
    assert (worse < real).sum() >= 14
