"""Files that appear under their name when they are whole, whoever kills the process and however full the disk is."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name in the same folder, which is made if need be, moved to ``path`` on success and removed on failure.

    It ends as ``path`` does, because some libraries read the format off it. Raises OSError, about ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = scratch(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename) == str(temporary)):
            error.filename = str(path)  # of a full disk Python does not say in which file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def scratch(path: Path) -> Path:
    """A name beside ``path`` that is this process's own. What killed processes have left under such names goes."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.part{glob.escape(path.suffix)}"):
        owner = left.name.removeprefix(f".{path.stem}.").partition(".")[0]
        if owner.isdecimal() and not _lives(int(owner)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


def check_writable(path: Path) -> None:
    """Raise NotADirectoryError where ``path`` cannot be put: told before hours of work, not after them."""
    above = next(parent for parent in path.resolve().parents if os.path.lexists(parent))
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise NotADirectoryError(f"{path} cannot be made: {above} is not a folder that can be written to")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
