"""Files that are there whole or not at all, and what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from molflow.writing import check_writable, scratch, written_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from molflow.writing import written_whole
with written_whole(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.txt", "a[1]*.tar.gz", ".hidden", "plain"])
def test_a_file_appears_when_it_is_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / "made" / name
    with written_whole(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent and temporary.name.endswith(path.suffix)
    assert path.read_text() == "new" and names(path.parent) == [name]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["a.txt", "a[1]*.tar.gz"])
def test_what_killed_processes_leave_is_one_file_and_goes_with_the_next_that_is_written(tmp_path: Path,
                                                                                      name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", KILLED, path]).returncode == -signal.SIGKILL
        assert path.read_text() == "old" and len(names(tmp_path)) == 2
    with written_whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and names(tmp_path) == [name]


def test_what_others_are_writing_stays(tmp_path: Path) -> None:
    """Living processes, other files, and names that only look alike."""
    living = [tmp_path / f".a.{os.getppid()}.part.txt", tmp_path / ".a.me.part.txt", tmp_path / ".b.4194305.part.txt",
              tmp_path / ".a.4194305.part.csv"]
    for path in living:
        path.write_text("half")
    (tmp_path / ".a.4194305.part.txt").write_text("half")  # no process has so large a number
    with written_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == sorted(["a.txt", *(path.name for path in living)])


def test_a_folder_of_scratch_goes_too(tmp_path: Path) -> None:
    left = tmp_path / ".run.4194305.part"
    (left / "new").mkdir(parents=True)
    assert scratch(tmp_path / "run").name == f".run.{os.getpid()}.part" and not left.exists()


def test_an_error_is_about_the_file_that_was_wanted(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught, written_whole(path) as temporary:
        temporary.write_text("a file does not replace a folder")
    assert caught.value.filename == str(path)
    with pytest.raises(OSError) as full, written_whole(tmp_path / "b"), open("/dev/full", "wb", buffering=0) as device:
        device.write(b"more than there is room for")
    assert full.value.filename == str(tmp_path / "b") and names(tmp_path) == ["folder"]


def test_where_nothing_can_be_put_is_told(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep" / "a.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is not a folder that can be written to"):
        check_writable(tmp_path / "file" / "a.txt")
    assert names(tmp_path) == ["file"]
