from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from molflow.training.config import ConfigError, GeneratorConfig, Run
from molflow.training.learner import schedule
from molflow.training.trainer import check_same, train

RUN = Run(molecules=240, batch_size=8, rate=0.02, rate_matrix=0.02, warmup=0.1, cooldown=0.4, ema=0.9,
          precision="float32", compile=False, seed=3)


@dataclass(frozen=True)
class Config:
    run: Run = RUN


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 16)
        self.layers = nn.ModuleList([nn.Linear(16, 16)])
        self.last = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.layers[0](torch.tanh(self.first(x)))))


class Crash(RuntimeError):
    """The machine went away."""


@dataclass
class Task:
    """Learn a function of four numbers; writes down the weights each loss was computed with."""

    config: Config = Config()
    crash_at: int | None = None
    bad_at: int | None = None
    factor: float = math.nan
    network: nn.Module = field(default_factory=Net)
    seen: list[dict[str, Tensor]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def batch(self, step: int) -> dict[str, Any]:
        if step == self.crash_at:
            raise Crash
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        y = (x[:, :1] * 1.5 - x[:, 1:2].tanh())
        weight = self.factor if step == self.bad_at else 1.0
        return {"x": x, "y": y, "weight": weight, "mask": torch.arange(4) < torch.arange(8)[:, None] % 4 + 1}

    def loss(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append({k: v.detach().clone() for k, v in self.network.state_dict().items()})
        loss = (network(batch["x"]) - batch["y"]).square().mean() * batch["weight"]
        self.losses.append(loss.item())
        return loss, {"part": loss / 2}

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        batch = Task.batch(Task(), 10_000)
        with torch.no_grad():
            return {"error": (network(batch["x"]) - batch["y"]).square().mean().item()}


def run(task: Task, out: Path, **how: Any) -> dict[str, float]:
    return train(task, out, accelerator="cpu", **how)


def saved(out: Path) -> dict[str, Any]:
    return torch.load(out / "state.ckpt", weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Bit by bit, except for the seconds spent."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Task, Path, dict[str, float]]:
    """One uninterrupted run of 30 steps."""
    task, out = Task(), tmp_path_factory.mktemp("whole") / "run"
    return task, out, run(task, out)


def test_a_run_goes_to_its_end_and_learns(whole) -> None:
    task, out, figures = whole
    assert len(task.losses) == 30 and saved(out)["step"] == 30
    assert sum(task.losses[-5:]) < 0.5 * sum(task.losses[:5])
    assert figures["error"] < 0.7 * task.validate(Net(), torch.device("cpu"))["error"]
    assert json.loads((out / "config.json").read_text())["run"]["molecules"] == 240
    assert not list(out.glob("*.part"))


def test_what_is_returned_is_the_judgement_of_the_averaged_weights(whole) -> None:
    task, out, figures = whole
    net = Net()
    net.load_state_dict({k.removeprefix("module."): v for k, v in saved(out)["ema"].items() if k != "n_averaged"})
    assert figures == task.validate(net, torch.device("cpu"))
    assert figures != task.validate(task.network, torch.device("cpu"))


def test_the_average_follows_its_formula(whole) -> None:
    """e_1 = w_1, e_k+1 = d e_k + (1 - d) w_k+1 with d = min(decay, (1 + k) / (10 + k)), k averages before."""
    task, out, _ = whole
    weights = [*task.seen[1:], saved(out)["network"]]  # after each of the 30 steps
    assert len(weights) == 30
    for key, value in weights[0].items():
        average = value.double()
        for k, w in enumerate(weights[1:], start=1):
            d = min(0.9, (1 + k) / (10 + k))
            average = d * average + (1 - d) * w[key].double()
        torch.testing.assert_close(saved(out)["ema"][f"module.{key}"].double(), average, rtol=0, atol=1e-6)


def test_stopped_and_resumed_is_bit_identical_to_uninterrupted(whole, tmp_path: Path) -> None:
    _, out, figures = whole
    run(Task(), tmp_path, stop_after=0)  # seconds: one step
    assert saved(tmp_path)["step"] == 1
    for _ in range(2):
        run(Task(), tmp_path, resume=True, stop_after=0)
    assert saved(tmp_path)["step"] == 3
    last = Task()
    assert run(last, tmp_path, resume=True) == figures
    assert len(last.losses) == 27
    assert same(saved(tmp_path), saved(out))


def test_killed_and_resumed_is_bit_identical_too(whole, tmp_path: Path) -> None:
    _, out, figures = whole
    often = Config(replace(RUN, checkpoint_minutes=0.0))
    with pytest.raises(Crash):
        run(Task(often, crash_at=11), tmp_path)
    assert saved(tmp_path)["step"] == 11
    assert run(Task(often), tmp_path, resume=True) == figures
    assert same(saved(tmp_path), saved(out))


def test_resuming_a_finished_run_changes_nothing(whole, tmp_path: Path) -> None:
    _, out, figures = whole
    for name in ("state.ckpt", "config.json"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    task = Task()
    assert run(task, tmp_path, resume=True) == figures
    assert task.losses == [] and same(saved(tmp_path), saved(out))


def test_a_run_is_not_overwritten(whole) -> None:
    _, out, _ = whole
    before = (out / "state.ckpt").read_bytes()
    with pytest.raises(FileExistsError, match="resume"):
        run(Task(), out)
    assert (out / "state.ckpt").read_bytes() == before


def test_nothing_to_resume_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        run(Task(), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e9])
def test_a_bad_batch_counts_as_one_without_gradient(factor: float, tmp_path: Path) -> None:
    bad, still = Task(bad_at=5, factor=factor), Task(bad_at=5, factor=0.0)
    run(bad, tmp_path / "bad")
    run(still, tmp_path / "still")
    assert not abs(bad.losses[5]) < 1e6 and still.losses[5] == 0
    assert same(saved(tmp_path / "bad"), saved(tmp_path / "still"))
    assert all(value.isfinite().all() for value in saved(tmp_path / "bad")["ema"].values())


def test_workers_change_nothing_but_who_makes_the_batches(whole, tmp_path: Path) -> None:
    _, out, figures = whole
    assert run(Task(Config(replace(RUN, workers=2))), tmp_path) == figures
    assert same(saved(tmp_path), saved(out))


def test_metrics_say_how_fast_it_went_what_was_waited_for_and_what_was_padding(tmp_path: Path) -> None:
    run(Task(Config(replace(RUN, molecules=8 * 50))), tmp_path)
    rows = [row for path in tmp_path.glob("**/*.csv") for row in csv.DictReader(path.read_text().splitlines())]
    figures = {key: float(value) for row in rows for key, value in row.items() if value}
    assert figures["molecules"] == 400 and figures["molecules_per_second"] > 0
    assert 0 <= figures["waiting"] <= 1
    assert figures["padding"] == pytest.approx(1 - 2.5 / 4)  # masks of 1, 2, 3 and 4 of four
    assert figures["padding_pairs"] == pytest.approx(1 - (1 + 4 + 9 + 16) / 4 / 16)


def test_metrics_of_the_time_before_are_kept_when_a_run_is_resumed(tmp_path: Path) -> None:
    def steps() -> list[int]:
        return [int(row["step"]) for path in sorted(tmp_path.glob("**/*.csv"))
                for row in csv.DictReader(path.read_text().splitlines())]

    long = Config(replace(RUN, molecules=8 * 60))
    run(Task(long), tmp_path, stop_after=0)
    before = steps()
    assert before == [1]
    run(Task(long), tmp_path, resume=True)
    assert sorted(set(steps())) == [1, 50, 60]


def test_learning_rates_follow_the_schedule(whole) -> None:
    """After the last step, done = 30/31 of the run."""
    _, out, _ = whole
    for state in saved(out)["optimisers"]:
        for group in state["param_groups"]:
            assert group["peak"] == 0.02
            assert group["lr"] == pytest.approx(0.02 * (1 - 30 / 31) / 0.4)


def test_schedule_rises_stays_and_falls_to_zero() -> None:
    run = Run(warmup=0.1, cooldown=0.4)
    assert schedule(0.0, run) == schedule(1.0, run) == 0.0
    assert schedule(0.05, run) == pytest.approx(0.5) and schedule(0.8, run) == pytest.approx(0.5)
    assert [schedule(x, run) for x in (0.1, 0.3, 0.6)] == pytest.approx([1.0, 1.0, 1.0])
    values = [schedule(k / 1000, run) for k in range(1001)]
    assert all(0 <= v <= 1 for v in values)
    assert max(abs(a - b) for a, b in pairwise(values)) < 0.011


@pytest.mark.parametrize("run", [Run(warmup=0.0), Run(cooldown=0.0)], ids=["no warm-up", "no cool-down"])
def test_schedule_without_a_rise_or_a_fall(run: Run) -> None:
    assert schedule(0.5, run) == 1.0
    assert schedule(0.0 if run.warmup == 0 else 1.0, run) == 1.0


def test_a_run_cannot_be_resumed_as_another_one(tmp_path: Path) -> None:
    run(Task(), tmp_path, stop_after=0)
    with pytest.raises(ConfigError, match="other settings"):
        run(Task(Config(replace(RUN, seed=99))), tmp_path, resume=True)


def test_a_run_from_before_there_were_other_data_can_be_resumed(tmp_path: Path) -> None:
    before = json.loads(json.dumps(asdict(GeneratorConfig())))
    del before["data"], before["run"]["batches"]
    check_same(before, asdict(GeneratorConfig()), tmp_path)
    for other in (GeneratorConfig(data="moses3d"), GeneratorConfig(run=replace(Run(), batches="pairs"))):
        with pytest.raises(ConfigError, match="other settings"):
            check_same(before, asdict(other), tmp_path)
