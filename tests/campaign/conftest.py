from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, as Debian installs it, without the name of a database."""
    psycopg2 = pytest.importorskip("psycopg2")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    programs, folder = found[-1].parent, Path(tempfile.mkdtemp(prefix="molflow-postgresql-", dir="/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"

    def do(program: str, *arguments: str) -> None:
        subprocess.run([*as_user, str(programs / program), "-D", str(folder / "data"), *arguments], check=True,
                       stdout=subprocess.DEVNULL, cwd="/", timeout=300)

    try:
        do("initdb", "--auth=trust", "--username=molflow", "--no-sync")
        do("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        url = f"postgresql://molflow:secret@127.0.0.1:{port}"
        psycopg2.connect(f"{url}/postgres").close()
        yield url
        do("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql(server: str) -> str:
    """URL of an empty database."""
    import psycopg2

    name = f"campaign_{uuid.uuid4().hex}"
    connection = psycopg2.connect(f"{server}/postgres")
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return f"{server}/{name}"


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is, of either kind."""
    return request.getfixturevalue("postgresql") if request.param == "PostgreSQL" else str(tmp_path / "a" / "small.db")
