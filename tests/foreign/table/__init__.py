"""The table of the foreign hosts. See the README beside this package."""

from __future__ import annotations

from tests.foreign.oddity import names_are_unique
from tests.foreign.table.columns import COLUMNS
from tests.foreign.table.keys import KEYS
from tests.foreign.table.shapes import SHAPES

ODDITIES = names_are_unique((*KEYS, *COLUMNS, *SHAPES))
