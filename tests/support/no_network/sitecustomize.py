"""Imported by each Python process that has this folder on its path, before all else.

Refuses whatever would leave the machine, and writes it down in the file that NETWORK_RECORD names.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_RECORD = os.environ["NETWORK_RECORD"]
_SENDS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
_HERE = {"", "localhost", "0.0.0.0", "::", "::1"}  # noqa: S104


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _SENDS:
        address = arguments[1]
        # A socket of this machine's own has a path, one of the kernel's a number, and one that is
        # connected no address.
        host = address[0] if isinstance(address, tuple) else None
    elif event in _LOOKUPS:
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if not isinstance(host, str) or host in _HERE or host.startswith(("127.", "::ffff:127.")):
        return
    record = os.open(_RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(record, f"{event} {host}\n".encode())
    os.close(record)
    raise OSError(f"{event}: {host} is not on this machine")


sys.addaudithook(_refuse)
