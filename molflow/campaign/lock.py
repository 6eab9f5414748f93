"""One process at a time works on a campaign: locks that the operating system or PostgreSQL takes back from the dead."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from molflow.extras import needed


class Busy(RuntimeError):
    """Another process works on this campaign."""


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Hold a file next to ``path``, in a folder that is made if need be.

    The file is not removed: who waits for it would hold one that others cannot see. Nor is it ASE's own lock, which
    is a file that is there or not: it would outlive a process that was killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Busy(f"{path} is being worked on by {file.read().strip() or 'another process'}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


POSTGRESQL = 0x6D6F6C666C6F77
"""Number of the advisory lock, the letters of molflow; PostgreSQL keeps them apart by database."""


@contextmanager
def of_postgresql(url: str, shown: str) -> Iterator[None]:
    """Hold an advisory lock of a connection of its own, which PostgreSQL drops a minute after a machine has died."""
    with needed():
        import psycopg2
    connection = psycopg2.connect(url, options="-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 "
                                               "-c tcp_keepalives_count=3")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (POSTGRESQL,))
            if not cursor.fetchone()[0]:
                raise Busy(f"{shown} is being worked on by another process")
        yield
    finally:
        connection.close()
