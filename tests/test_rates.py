from __future__ import annotations

from typing import Any

import pytest
from rest_framework.throttling import SimpleRateThrottle

from ticket_priority.rates import Rate

WRITTEN = ["1/s", "5/sec", "600/hour", "1000/day", "120/min", "7/h", "0010/d"]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_rate_is_read_as_rest_framework_reads_it(text: str) -> None:
    throttle = SimpleRateThrottle.__new__(SimpleRateThrottle)
    rate = Rate.parse(text)
    assert (rate.number, rate.seconds) == throttle.parse_rate(text)


@pytest.mark.parametrize(
    "value",
    ["often", "", "5", "5/", "/day", "0/day", "-1/day", "5/week", "5 /day", "5/day\n", "1.5/s"]
    + ["٣/day", "9" * 10 + "/day", None, 5, True, ["5/day"]],
)
def test_what_is_no_rate_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no rate such as 600/hour"):
        Rate.parse(value)
