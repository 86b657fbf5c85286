"""Runs a program that may not leave the machine, and says where it tried to go."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
_WATCH: Final = Path(__file__).resolve().parent / "no_network"
_TRACE: Final = (
    "strace",
    "-f",
    "-qq",
    "--seccomp-bpf",
    "-e",
    "trace=connect,sendto,sendmsg,sendmmsg",
)
_QUIETENING: Final = (
    "ORT_DISABLE_TELEMETRY",
    "WANDB_ERROR_REPORTING",
    "WANDB_MODE",
    "HF_HUB_OFFLINE",
)
_OUTSIDE: Final = re.compile(
    r'inet_addr\("(?!127\.|0\.0\.0\.0)|inet_pton\(AF_INET6, "(?!::1"|::"|::ffff:127\.)'
)


@dataclass(frozen=True, slots=True)
class Run:
    """How a program ended, and where it tried to go: an attempt a line."""

    result: subprocess.CompletedProcess[str]
    attempts: list[str]


def run(
    *arguments: str, record: Path, cwd: Path = ROOT, env: Mapping[str, str] = os.environ
) -> Run:
    """Run Python with these arguments; `record` is a folder for what it tries.

    What Python code tries is refused and recorded, in processes that it starts as well. Where
    strace may be used, what libraries in other languages try is recorded too. The program has no
    variables that would keep libraries from trying.
    """
    tried, traced = record / "tried", record / "traced"
    path = os.pathsep.join(filter(None, (str(_WATCH), env.get("PYTHONPATH", ""))))
    trace = (*_TRACE, "-o", str(traced)) if can_trace() else ()
    own = {name: value for name, value in env.items() if name not in _QUIETENING}
    result = subprocess.run(
        [*trace, sys.executable, *arguments],
        env={**own, "PYTHONPATH": path, "NETWORK_RECORD": str(tried)},
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=240,
        check=False,
    )
    attempts = tried.read_text().splitlines() if tried.exists() else []
    if trace:
        attempts += [line for line in traced.read_text().splitlines() if _OUTSIDE.search(line)]
    return Run(result, attempts)


@cache
def can_trace() -> bool:
    """Say whether strace is there and allowed."""
    try:
        probe: Any = subprocess.run([*_TRACE, "true"], capture_output=True, timeout=10, check=False)
    except OSError:
        return False
    return bool(probe.returncode == 0 and not probe.stderr)
