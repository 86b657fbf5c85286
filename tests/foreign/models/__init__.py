"""The ticket models. Those with a PriorityField are sources only while a journey attaches them."""

from __future__ import annotations

from tests.foreign.models.base import Basis as Basis
from tests.foreign.models.base import Plain as Plain
from tests.foreign.models.columns import *  # noqa: F403
from tests.foreign.models.keys import *  # noqa: F403
from tests.foreign.models.shapes import *  # noqa: F403
from ticket_priority.sources import registry

REGISTERED = {
    source.model: source for source in registry.all_sources() if source.label.startswith("foreign.")
}
"""What registered itself."""

for _model in REGISTERED:
    registry.unregister(_model)
