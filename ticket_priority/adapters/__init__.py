"""One module for each host that needs more than settings. Each names a `TicketSource` subclass."""

from __future__ import annotations
