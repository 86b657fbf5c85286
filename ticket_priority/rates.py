"""Rates such as "600/hour", written as Django REST framework writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_RATE: Final = re.compile(r"([0-9]{1,9})/([smhd])[a-z]*")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `number` within `seconds`."""

    number: int
    seconds: int

    @classmethod
    def parse(cls, text: object) -> Self:
        """Parse "number/period"; only the first letter of the period counts.

        Raises ValueError for anything else, and for a number below 1.
        """
        found = _RATE.fullmatch(text) if isinstance(text, str) else None
        if found is None or int(found[1]) < 1:
            raise ValueError(f"{text!r} is no rate such as 600/hour")
        return cls(number=int(found[1]), seconds=_SECONDS[found[2]])
