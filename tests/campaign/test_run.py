"""Whole campaigns by the real command, on a real local cluster, killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import psutil
import pytest
import yaml

from molflow import campaign
from molflow.campaign.lock import Busy

EXAMPLE = Path(__file__).parents[2] / "examples" / "campaign.yaml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
PATIENCE = 3600
"""Seconds; only a campaign that hangs needs them."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "molflow.cli", "campaign", *map(str, arguments)]


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE,
                          check=False)


def rows(database: str) -> dict[str, Any]:
    return {row.key: row for row in ase.db.connect(database, use_lock_file=False).select()}


def content(database: str) -> dict[str, Any]:
    """Everything that a campaign must come to whatever happens on the way: all but ids and times."""
    return {key: ({name: value for name, value in row.key_value_pairs.items() if not name.endswith("_seconds")},
                  row.numbers.tolist(), row.positions.tolist(), row.data["generated"].tolist(),
                  np.asarray(row.data["bonds"]).tolist()) for key, row in rows(database).items()}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The example, run from beginning to end without a disturbance."""
    path = tmp_path_factory.mktemp("example") / "campaign.yaml"
    path.write_text(EXAMPLE.read_text())
    return path, shell(path)


def test_the_example_runs_to_its_end(example: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    path, done = example
    assert done.returncode == 0, done.stderr
    assert "example: designed 8 of 8, xTB" in done.stdout and "Traceback" not in done.stderr
    found = rows(str(path.with_name("campaign.db")))
    assert sorted(found) == [f"example/{target}/{number}" for target in (1, 2) for number in range(1, 5)]
    by_dft = [row for row in found.values() if row.stage == "dft"]
    assert len(by_dft) == 2 and {row.target for row in by_dft} == {1, 2}
    for row in by_dft:
        assert row.gap == row.dft_gap and "DF-B3LYP/6-31G(2df,p) (PySCF" in row.dft_method and row.geometry == "xtb"
        assert row.dft_gap == pytest.approx(row.evaluator_gap, abs=3) and row.dft_gap != row.evaluator_gap
    for row in found.values():
        assert row.status in ("agrees", "off target", "strained", "breaks", "failed", "invalid", "duplicate")
        if row.stage == "xtb":
            assert row.gap == row.evaluator_gap and "tblite" in row.xtb_method
    kept = [row.smiles for row in found.values() if row.status not in ("invalid", "duplicate")]
    assert len(kept) == len(set(kept))
    assert found["example/2/1"].target_gap == pytest.approx(6.803, abs=1e-3)


def test_a_finished_campaign_is_left_as_it_is(example: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    path, done = example
    database = path.with_name("campaign.db")
    before = database.read_bytes()
    assert str(campaign.run(path)) == str(campaign.status(path)) == done.stdout.strip()
    assert shell("status", path).stdout == done.stdout
    assert database.read_bytes() == before


def test_whatever_is_killed_the_same_molecules_come_out(
    example: tuple[Path, subprocess.CompletedProcess[str]], database: str, tmp_path: Path
) -> None:
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), "database": database, "workers": 2}))
    killed: list[tuple[Any, dict[str, Any]]] = []

    def until(enough: Callable[[campaign.Status], bool]) -> subprocess.Popen[bytes]:
        coordinator = subprocess.Popen(command(path), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        begun = time.monotonic()
        while not enough(campaign.status(path)):
            assert coordinator.poll() is None and time.monotonic() - begun < PATIENCE
            time.sleep(0.1)
        return coordinator

    def workers(coordinator: subprocess.Popen[bytes]) -> list[psutil.Process]:
        return psutil.Process(coordinator.pid).children(recursive=True)

    # everything, as the power would, with a part of the molecules designed
    coordinator = until(lambda status: status.design[0] > 0)
    with pytest.raises(Busy, match="is being worked on"):
        campaign.run(path)
    left = workers(coordinator)
    coordinator.kill()
    coordinator.wait()
    assert psutil.wait_procs(left, timeout=60)[1] == []
    killed.append((campaign.status(path), rows(database)))

    # the workers, and a while later everything
    coordinator = until(lambda status: status.xtb[0] > 0)
    for worker in workers(coordinator):
        if "spawn_main" in " ".join(worker.cmdline()):
            worker.kill()
    while campaign.status(path).xtb[0] < 3:
        assert coordinator.poll() is None
        time.sleep(0.1)
    coordinator.kill()
    coordinator.wait()
    killed.append((campaign.status(path), rows(database)))

    done = shell(path)
    assert done.returncode == 0, done.stderr
    assert content(database) == content(str(example[0].with_name("campaign.db")))
    final = rows(database)
    for status, before in killed:
        assert not status.done
        for key, row in before.items():  # what was there is what is there: nothing was calculated again
            assert final[key].ctime == row.ctime and final[key].unique_id == row.unique_id
            if "xtb_seconds" in row:
                assert final[key].xtb_seconds == row.xtb_seconds
    assert [status.design[0] for status, _ in killed] == [len(before) for _, before in killed]


@pytest.mark.parametrize(("changes", "words", "status"), [
    ({"molecule": 3}, "unknown key molecule: did you mean molecules?", 2),
    ({"seed": 1}, "holds another campaign, whose seed is 0, not 1", 2),
    ({"database": "/proc/campaign.db"}, "/proc/", 1),
    ({"database": "spec.yaml/campaign.db"}, "spec.yaml", 1),
    ({"scheduler": "tcp://127.0.0.1:9", "workers": None, "database": "b.db"}, "no scheduler answers", 1),
])
def test_bad_input_is_a_sentence(example: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, changes: dict,
                                 words: str, status: int) -> None:
    (tmp_path / "campaign.db").write_bytes(example[0].with_name("campaign.db").read_bytes())
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), **changes}))
    done = shell(path)
    assert done.returncode == status and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize(("module", "database"), [
    ("yaml", "a.db"), ("dask", "a.db"), ("dask.distributed", "a.db"), ("psycopg2", "postgresql://127.0.0.1:9/a"),
])
def test_what_is_not_installed_is_named(module: str, database: str, tmp_path: Path) -> None:
    spec = {**yaml.safe_load(EXAMPLE.read_text()), "database": database}
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(spec))
    code = f"import sys; sys.modules[{module!r}] = None; from molflow.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "campaign", str(tmp_path / "campaign.yaml")],
                          capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE, check=False)
    assert done.returncode == 2 and "pip install 'molflow[campaign]'" in done.stderr and "Traceback" not in done.stderr


def test_help_names_both_commands() -> None:
    done = shell("--help")
    assert done.returncode == 0 and "run" in done.stdout and "status" in done.stdout
    assert shell("no-such-file.yaml").returncode == 2
