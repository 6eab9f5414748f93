"""Every reader of strangers' files: damage of all kinds, and what fuzzing has found. `__main__` does the fuzzing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzing.session import fault
from tests.fuzzing.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]
FOUND: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "found.json").read_text())
"""For each target inputs, in hexadecimal, that ended otherwise than they should have until the code was mended, by how
they did."""


@st.composite
def damaged(draw: st.DrawFn, target: Target) -> bytes:
    """A file of the project's own with a few edits: bytes overwritten, cut out, put in or doubled, or the end cut off;
    half of the time so that it stays a file of its format."""

    def edit(data: bytes) -> bytes:
        edited = bytearray(data)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(edited)))
            end = min(len(edited), at + draw(st.integers(1, 60)))
            piece = draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, *target.words]))
            match draw(st.sampled_from(["overwrite", "cut", "insert", "double", "truncate"])):
                case "overwrite":
                    edited[at : at + len(piece)] = piece
                case "cut":
                    del edited[at:end]
                case "insert":
                    edited[at:at] = piece
                case "double":
                    edited[at:at] = edited[at:end]
                case "truncate":
                    del edited[at:]
        return bytes(edited)

    data = draw(st.sampled_from(target.seeds()))
    if target.inside and draw(st.booleans()):
        with contextlib.suppress(Exception):  # not of this format
            return target.inside(data, Random(draw(st.integers(0, 2**32))), edit)
    return edit(data)


@pytest.mark.parametrize("name", TARGETS)
def test_the_projects_own_files_are_read(name: str, tmp_path: Path) -> None:
    target, seeds = TARGETS[name], TARGETS[name].seeds()
    target.read(seeds[0], tmp_path)
    assert [fault(target, data, tmp_path) for data in seeds] == [""] * len(seeds)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_damaged_is_read_or_refused_in_a_line(name: str, tmp_path_factory: pytest.TempPathFactory,
                                                      data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    assert fault(TARGETS[name], data.draw(damaged(TARGETS[name])), folder) == ""


@pytest.mark.parametrize(("name", "how"), [(name, how) for name, all_of in FOUND.items() for how in all_of])
def test_what_fuzzing_has_found_stays_mended(name: str, how: str, tmp_path: Path) -> None:
    assert fault(TARGETS[name], bytes.fromhex(FOUND[name][how]), tmp_path) == ""


def test_every_target_can_be_fuzzed() -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: it has wheels for Linux on x86_64 only")
    done = subprocess.run([sys.executable, "-m", "tests.fuzzing", "all", "--runs", "200"], cwd=ROOT, check=False,
                          capture_output=True, text=True, timeout=1800)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["target"] for result in results] == list(TARGETS), done.stderr[-2000:]
    assert [result["found"] for result in results] == [{}] * len(TARGETS)
    assert all(result["inputs"] >= 200 for result in results)
    assert done.returncode == 0
