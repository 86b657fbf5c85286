"""System checks of how a project is run: its queue, folders, metrics and transactions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connections, router

from ticket_priority import conf
from ticket_priority.exceptions import QueueError
from ticket_priority.queues import get_queue, has_workers
from ticket_priority.sources.registry import all_sources


def check_chosen_queue(**kwargs: Any) -> Iterable[checks.CheckMessage]:
    """Check that the queue can be used, and what it checks itself."""
    try:
        return get_queue().check()
    except QueueError as error:
        return [
            checks.Error(
                str(error),
                hint="Name a class of ticket_priority.queues.base.Queue, or leave BACKEND out.",
                id="ticket_priority.E033",
            )
        ]


def check_deployed_queue(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Check what is wrong with workers in production only."""
    if not has_workers():
        return
    yield from get_queue().check_deployment()
    if settings.DEBUG:
        yield checks.Warning(
            "DEBUG is True: a worker, which answers no request, keeps the last 9,000 queries of "
            "each connection in memory, tickets' texts among them.",
            hint="Set DEBUG to False where workers run.",
            id="ticket_priority.W075",
        )


def check_served_folders(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Check that no folder of models lies in one that a web server serves."""
    for name, folder in _folders():
        for setting, served in _served():
            if folder.is_relative_to(served):
                yield checks.Warning(
                    f"{conf.SETTING}[{name!r}] is {folder}, inside {setting}: a web server may "
                    "hand out what was learnt from tickets.",
                    hint=f"Move it out of {served}.",
                    id="ticket_priority.W076",
                )


def check_writable_folders(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Check that not every user of the machine can write to the folders of models."""
    for name, folder in _folders():
        if _is_writable_by_all(folder):
            yield checks.Warning(
                f"{conf.SETTING}[{name!r}] is {folder}, in which every user of this machine may "
                "write: models can be taken away, and checkpoints put there for a training to "
                "resume from.",
                hint=f"chmod o-w {folder}",
                id="ticket_priority.W077",
            )


def check_metrics(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Check the token of the metrics, and that they can be counted."""
    given = conf.user_group("METRICS")
    token = given.get("TOKEN")
    if token is not None and not (isinstance(token, str) and token):
        yield checks.Error(
            f"{conf.SETTING}['METRICS']['TOKEN'] is no text, or an empty one.",
            hint="Give what the scraper sends as `Authorization: Bearer ...`, or None.",
            id="ticket_priority.E080",
        )
    if not given.get("ENABLED"):
        return
    if find_spec("prometheus_client") is None:
        yield checks.Warning(
            f"{conf.SETTING}['METRICS']['ENABLED'] needs prometheus_client, which is not "
            "installed, so nothing is counted.",
            hint='pip install "django-ticket-priority[prometheus]"',
            id="ticket_priority.W081",
        )
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder and not (Path(folder).is_dir() and os.access(folder, os.W_OK)):
        yield checks.Warning(
            f"PROMETHEUS_MULTIPROC_DIR is {folder}, which is no folder to write in, so nothing is "
            "counted.",
            hint="Make it, empty, before the processes start.",
            id="ticket_priority.W082",
        )


def check_transactions(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Check that commits are noticed, and that no request keeps its locks for ever."""
    for alias in connections:
        if not connections[alias].settings_dict["AUTOCOMMIT"]:
            yield checks.Warning(
                f"The database {alias!r} has 'AUTOCOMMIT' False, so nobody hears of a commit: "
                "workers are told of tickets, and receivers of priorities, before they are there.",
                hint="Leave 'AUTOCOMMIT' out; 'ATOMIC_REQUESTS' makes a request one transaction.",
                id="ticket_priority.W078",
            )
    if conf.get_settings().serving.deadline_ms is not None:
        return
    for source in all_sources():
        alias = router.db_for_write(source.model)
        if source.effective_mode == "sync" and connections[alias].settings_dict["ATOMIC_REQUESTS"]:
            yield checks.Warning(
                f"{source.label}: with 'ATOMIC_REQUESTS' a request keeps its locks while the "
                f"model is asked, and {conf.SETTING}['SERVING']['DEADLINE_MS'] is None: a model "
                "that hangs keeps them for ever.",
                hint="Set DEADLINE_MS (300 where it is left out), or choose the mode async.",
                id="ticket_priority.W079",
            )


def _folders() -> list[tuple[str, Path]]:
    options = conf.get_settings()
    return [
        ("ARTIFACT_ROOT", options.artifact_root.resolve()),
        ("OUTPUT_DIR", options.output_dir.resolve()),
    ]


def _served() -> Iterator[tuple[str, Path]]:
    for setting in ("STATIC_ROOT", "MEDIA_ROOT"):
        if given := getattr(settings, setting, None):
            yield setting, Path(given).resolve()
    for given in getattr(settings, "STATICFILES_DIRS", ()):
        # A folder, or a prefix and a folder.
        folder = given if isinstance(given, str | os.PathLike) else given[1]
        yield "STATICFILES_DIRS", Path(folder).resolve()


def _is_writable_by_all(folder: Path) -> bool:
    try:
        return os.name == "posix" and bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False
