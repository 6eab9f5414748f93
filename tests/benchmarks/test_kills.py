"""What the benchmarks of stops and of memory would notice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.kills import Case, digests, killed, tables
from benchmarks.soak import slope_of
from benchmarks.whole import not_whole
from molflow.molecules.convert import Molecule
from molflow.molecules.io import write_sdf, write_xyz


@pytest.fixture
def files(tmp_path: Path, qm9: list[Molecule]) -> Path:
    """A whole file of every kind."""
    folder = tmp_path / "files"
    folder.mkdir()
    write_sdf(folder / "a.sdf", qm9[:3])
    write_xyz(folder / "a.xyz", qm9[:3])
    (folder / "a.csv").write_text("name,gap\na,1\nb,2\n")
    (folder / "a.json").write_text(json.dumps({"a": [1, 2]}) + "\n")
    (folder / "a.html").write_text("<html><body>page</body></html>\n")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)).save(folder / "a.png")
    torch.save({"a": torch.zeros(1000)}, folder / "a.ckpt")
    (folder / "a.safetensors").write_bytes((Path(__file__).parents[2] / "molflow" / "weights" /
                                            "digits.safetensors").read_bytes())
    with closing(sqlite3.connect(folder / "a.db")) as database:
        database.execute("CREATE TABLE a (x)")
        database.executemany("INSERT INTO a VALUES (?)", [("row" * 100,)] * 100)
        database.commit()
    return folder


def test_whole_files_are_found_whole_and_halves_are_named(files: Path) -> None:
    assert not_whole(files) == []
    for path in list(files.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        assert not_whole(files) == [path.name]
        path.rename(files / f".{path.stem}.12.part{path.suffix}")  # a name for what is not whole yet
        assert not_whole(files) == []


SCRIPT = """
import os, signal, sys
from pathlib import Path
from molflow.writing import written_whole

folder, how = Path(sys.argv[1]), sys.argv[2]
go_on = (folder / "part.json").exists()
if not go_on or how == "forgets":
    with written_whole(folder / "part.json") as temporary:
        temporary.write_text("[1]")
if how == "careless":
    (folder / "all.json").write_text("[1, ")
if not go_on:
    with written_whole(folder / "all.json") as temporary:
        temporary.write_text("[1, ")
        os.kill(os.getpid(), signal.SIGKILL)
if how != "refuses":
    with written_whole(folder / "all.json") as temporary:
        temporary.write_text(f"[1, {go_on if how == 'differs' else 2}]".lower())
sys.exit("no" if how == "refuses" else 0)
"""


@pytest.mark.parametrize(("how", "row"), [
    ("well", ["1", "0", "0", "0", "1"]), ("careless", ["1", "1", "0", "0", "1"]),
    ("forgets", ["1", "0", "0", "1", "1"]), ("differs", ["0", "0", "1", "0", "1"]),
    ("refuses", ["0", "0", "1", "0", "1"]),
])
def test_a_command_that_minds_a_kill_is_noticed(tmp_path: Path, how: str, row: list[str]) -> None:
    case = Case(lambda folder: ["-c", SCRIPT, str(folder), how], lambda folder: [],
                lambda folder: digests(folder, "all.json"),
                lambda folder: {path.name: path.stat().st_mtime_ns for path in folder.glob("part.json")},
                ("part.json",))
    kill = killed(case, 600, tmp_path)
    assert kill["left"] and kill["lost_seconds"] < 600
    wanted = {"all.json": digest_of(b"[1, 2]")}
    different = [] if kill["content"] == wanted else ["all.json"]
    found = {"seconds": 1.0, "promises": True, "compared": ["all.json"],
             "kills": [{**kill, "different": different}]}
    [table] = tables({"commands": {how: found}, "checkpoint_seconds": 1})
    [said] = table.rows
    assert [said[3], said[4], said[5], said[6], said[7]] == row
    assert said[9] == ("1" if how == "refuses" else "0")
    assert ("killed after" in table.note) == (how not in ("well", "forgets"))


def digest_of(content: bytes) -> str:
    """As the benchmark has it: of the file, and then of what is kept of a run."""
    return hashlib.sha256(repr(hashlib.sha256(content).hexdigest()).encode()).hexdigest()[:16]


def test_a_slope_and_its_error() -> None:
    x = np.linspace(0, 2, 50)
    slope, error = slope_of(x, 3 * x + 7)
    assert slope == pytest.approx(3) and error == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(0)
    found = np.array([slope_of(x, 3 * x + rng.normal(size=50)) for _ in range(400)])
    assert found[:, 0].mean() == pytest.approx(3, abs=0.05)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.1)
