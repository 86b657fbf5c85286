"""Which services are there, and what to say where they are not."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Final, NoReturn

import pytest

IN_CI: Final = os.environ.get("CI", "").lower() in ("1", "true")
PORTS: Final = {"postgresql": 5432, "mariadb": 3306, "redis": 6379}
CHROMIUM: Final = shutil.which("chromium") or "/usr/bin/chromium"


def is_listening(service: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", PORTS[service]), timeout=1):
            return True
    except OSError:
        return False


def require(service: str) -> None:
    """Skip the calling test where the service is absent; fail it in CI."""
    if not is_listening(service):
        _absent(f"{service} does not listen on 127.0.0.1:{PORTS[service]}; start it to run this")


def require_chromium() -> str:
    """Return the path of Chromium; skip the calling test where it is absent, fail it in CI."""
    if not os.path.exists(CHROMIUM):
        _absent("Chromium is not installed; apt-get install chromium to run this")
    return CHROMIUM


def run_on_server(database: str, statement: str) -> None:
    """Run a statement on PostgreSQL or MariaDB as its administrator, outside any database."""
    if database == "postgresql":
        import psycopg

        with psycopg.connect("host=127.0.0.1 user=postgres", autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]
        return
    import pymysql

    with pymysql.connect(host="127.0.0.1", user="root") as connection, connection.cursor() as rows:
        rows.execute(statement)


def _absent(reason: str) -> NoReturn:
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)
