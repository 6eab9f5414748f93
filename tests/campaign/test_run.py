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
from molflow.campaign import cluster
from molflow.campaign.database import Database
from molflow.campaign.lock import Busy
from molflow.campaign.spec import Spec
from molflow.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "campaign.yaml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
PATIENCE = 3600
"""Seconds; only a campaign that hangs needs them."""

KILLED = {"name": "killed", "targets": [{"gap": 5.0}], "molecules": 5, "batch": 1, "atoms": 9, "workers": 1,
          "budget": {"lookups": 1, "generations": 0, "gradients": 0, "steps": 8}}
"""Enough to be killed in the middle of, twice."""


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
    assert "example: 4 wanted, 4 designed, " in done.stdout and "Traceback" not in done.stderr
    found = rows(str(path.with_name("campaign.db")))
    assert sorted(found) == [f"example/{target}/{number}" for target in (1, 2) for number in (1, 2)]
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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `KILLED` comes to if nobody disturbs it."""
    database = str(tmp_path_factory.mktemp("undisturbed") / "campaign.db")
    assert campaign.run({**KILLED, "database": database}).done
    return content(database)


def test_whatever_is_killed_the_same_molecules_come_out(undisturbed: dict[str, Any], database: str,
                                                        tmp_path: Path) -> None:
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump({**KILLED, "database": database}))
    coordinator = subprocess.Popen(command(path), env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)

    def until(enough: Callable[[campaign.Status], bool]) -> None:
        begun = time.monotonic()
        while not enough(campaign.status(path)):
            assert coordinator.poll() is None and time.monotonic() - begun < PATIENCE
            time.sleep(0.2)

    # the worker, with a part of the molecules designed; it is replaced
    until(lambda status: status.design[0] > 0)
    with pytest.raises(Busy, match="is being worked on"):
        campaign.run(path)
    family = psutil.Process(coordinator.pid).children(recursive=True)
    workers = [process for process in family if "spawn_main" in " ".join(process.cmdline())]
    assert workers
    for process in workers:
        process.kill()

    # everything, as the power would, with a part of them relaxed
    until(lambda status: status.xtb[0] > 0)
    left = psutil.Process(coordinator.pid).children(recursive=True)
    coordinator.kill()
    coordinator.wait()
    assert psutil.wait_procs(left, timeout=PATIENCE)[1] == []
    status, before = campaign.status(path), rows(database)
    assert not status.done and status.design[0] == len(before)

    assert campaign.run(path).done
    assert content(database) == undisturbed
    final = rows(database)
    for key, row in before.items():  # what was there is what is there: nothing was calculated again
        assert final[key].ctime == row.ctime and final[key].unique_id == row.unique_id
        if "xtb_seconds" in row:
            assert final[key].xtb_seconds == row.xtb_seconds


Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """What `molflow campaign` says to a file that it cannot use: the example with changes, or a text, or bytes."""

    def run(*words: str, text: str | bytes | None = None, **changes: Any) -> str:
        path = tmp_path / "spec.yaml"
        spec = {**yaml.safe_load(EXAMPLE.read_text()), **changes}
        path.write_bytes(text.encode() if isinstance(text, str) else text or yaml.safe_dump(spec).encode())
        monkeypatch.setattr(sys, "argv", ["molflow", "campaign", *words, str(path)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfd.readouterr()
        assert caught.value.code == 2 and out == "" and "Traceback" not in err
        sentences = [line for line in err.splitlines() if line.startswith("molflow: ")]
        assert len(sentences) == 1
        return sentences[0]

    return run


@pytest.mark.parametrize(("changes", "words"), [
    ({"text": b"\xff\xfe\x00"}, "spec.yaml: 'utf-8' codec"),
    ({"text": "name: [a"}, "line 1: not YAML"),
    ({"molecule": 3}, "unknown key molecule: did you mean molecules?"),
    ({"molecules": -4}, "molecules must be a whole number of at least 1, not -4"),
    ({"database": "/proc/campaign.db"}, "/proc/"),
    ({"database": "spec.yaml/campaign.db"}, "spec.yaml"),
    ({"database": "postgresql://me:secret@127.0.0.1:9/none"}, "postgresql://127.0.0.1:9/none: "),
    ({"database": "postgresql://me:secret@[/none"}, "postgresql://[/none: "),
    ({"scheduler": "tcp://127.0.0.1:9", "workers": None}, "no scheduler answers at tcp://127.0.0.1:9"),
])
def test_bad_input_is_a_sentence(say: Say, changes: dict[str, Any], words: str,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    if "postgresql" in words:
        pytest.importorskip("psycopg2")
    monkeypatch.setattr(cluster, "CONNECT", 1.0)
    assert words in (said := say(**changes)) and "secret" not in said


def test_a_database_of_another_campaign_is_refused(say: Say, tmp_path: Path) -> None:
    spec = yaml.safe_load(EXAMPLE.read_text())
    with Database.claimed(Spec.read({**spec, "database": str(tmp_path / "campaign.db")})):
        pass
    for words in ([], ["status"]):
        assert "campaign.db holds another campaign, whose seed is 0, not 1" in say(*words, seed=1)


@pytest.mark.parametrize(("module", "database"), [
    ("yaml", "a.db"), ("dask", "a.db"), ("dask.distributed", "a.db"), ("psycopg2", "postgresql://127.0.0.1:9/a"),
])
def test_what_is_not_installed_is_named(say: Say, module: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), "database": database})
    monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'molflow[campaign]'" in say(text=text)


@pytest.mark.parametrize(("words", "code", "said"), [
    (["--help"], 0, "status"), (["no-such-file.yaml"], 2, "no-such-file.yaml: No such file or directory"),
])
def test_help_and_a_file_that_is_not_there(words: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch,
                                           capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["molflow", "campaign", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code and said in "".join(capfd.readouterr())
