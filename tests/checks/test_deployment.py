from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connection

SAFE = {
    "ORM": "default",
    "TIMEOUT": 600,
    "RETRY": 1900,
    "MAX_ATTEMPTS": 3,
    "ACK_FAILURES": False,
    "RECYCLE": 500,
    "MAX_RSS": None,
    "SYNC": False,
}
REDIS = {"ORM": None}


def found(*, deploy: bool = False) -> set[str]:
    messages = run_checks(tags=["ticket_priority"], include_deployment_checks=deploy)
    assert all(message.hint for message in messages)
    return {str(message.id).removeprefix("ticket_priority.") for message in messages}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that configures django-q2, which reads `Q_CLUSTER` once, at its import."""
    from django_q.conf import Conf

    def cluster(**values: Any) -> None:
        for name, value in {**SAFE, **values}.items():
            monkeypatch.setattr(Conf, name, value)

    return cluster


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, set()),
        ({"TIMEOUT": None}, {"W070"}),
        ({"TIMEOUT": None, **REDIS}, {"W070"}),
        ({"RETRY": 600}, {"W071"}),
        ({"RETRY": 60}, {"W071"}),
        ({"RETRY": 601}, set()),
        ({"RETRY": 60, **REDIS}, set()),
        ({"RETRY": 60, "SQS": {"aws_region": "eu-west-1"}, **REDIS}, {"W071"}),
        ({"MAX_ATTEMPTS": 0}, {"W072"}),
        ({"MAX_ATTEMPTS": 0, "ACK_FAILURES": True}, set()),
        ({"MAX_ATTEMPTS": 0, **REDIS}, set()),
        ({"RECYCLE": 0}, {"W073"}),
        ({"RECYCLE": None}, {"W073"}),
        ({"RECYCLE": 0, "MAX_RSS": 1_000_000}, set()),
        ({"SYNC": True}, set()),
    ],
)
def test_the_workers(cluster: Callable[..., None], values: Any, expected: set[str]) -> None:
    cluster(**values)
    assert found() == expected


def test_how_much_longer_a_retry_must_be(cluster: Callable[..., None]) -> None:
    cluster(RETRY=60, TIMEOUT=100, WORKERS=2, QUEUE_LIMIT=4)
    (message,) = run_checks(tags=["ticket_priority"])
    assert "400" in str(message.hint)


def test_what_a_deployment_lacks(cluster: Callable[..., None], settings: Any) -> None:
    cluster(SYNC=True)
    assert found(deploy=True) == {"W074"}
    settings.DEBUG = True
    assert found(deploy=True) == {"W074", "W075"}
    assert found() == set()


def test_without_a_queue_nothing_is_said_of_workers(
    cluster: Callable[..., None], settings: Any
) -> None:
    cluster(TIMEOUT=None, MAX_ATTEMPTS=0, RECYCLE=0, SYNC=True)
    settings.DEBUG = True
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django_q"]
    assert found(deploy=True) == set()


@pytest.mark.parametrize("key", ["ARTIFACT_ROOT", "OUTPUT_DIR"])
class TestFolders:
    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("STATIC_ROOT", "{}"),
            ("MEDIA_ROOT", "{}/"),
            ("STATICFILES_DIRS", ["{}"]),
            ("STATICFILES_DIRS", [("models", "{}")]),
        ],
    )
    def test_one_that_is_served(
        self,
        configure: Callable[..., None],
        settings: Any,
        tmp_path: Path,
        key: str,
        setting: str,
        value: Any,
    ) -> None:
        served = tmp_path / "served"
        configure(**{key: served / "models"})
        setattr(settings, setting, _filled(value, served))
        assert found() == {"W076"}
        configure(**{key: tmp_path / "served-not"})
        assert found() == set()

    def test_one_that_is_served_by_a_link(
        self, configure: Callable[..., None], settings: Any, tmp_path: Path, key: str
    ) -> None:
        (tmp_path / "served").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "served")
        settings.MEDIA_ROOT = tmp_path / "served"
        configure(**{key: tmp_path / "link" / "models"})
        assert found() == {"W076"}

    def test_settings_that_name_no_folder(
        self, configure: Callable[..., None], settings: Any, key: str
    ) -> None:
        settings.STATIC_ROOT, settings.MEDIA_ROOT = None, ""
        configure(**{key: Path.cwd() / "models"})
        assert found() == set()

    def test_one_that_all_may_write(
        self, configure: Callable[..., None], tmp_path: Path, key: str
    ) -> None:
        folder = tmp_path / "open"
        configure(**{key: folder})
        assert found(deploy=True) == set()
        folder.mkdir()
        folder.chmod(0o777)
        assert found(deploy=True) == {"W077"}
        assert found() == set()
        folder.chmod(0o775)
        assert found(deploy=True) == set()


class TestMetrics:
    @pytest.mark.parametrize("token", ["", 5, b"secret"])
    def test_a_token_that_is_none(self, configure: Callable[..., None], token: Any) -> None:
        configure(METRICS={"TOKEN": token})
        assert found() == {"E080"}

    def test_a_missing_package(
        self, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        assert found() == set()
        configure(METRICS={"ENABLED": True, "TOKEN": "open"})
        assert found() == {"W081"}

    def test_a_folder_that_is_not_there(
        self, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "shared"))
        assert found() == set()
        configure(METRICS={"ENABLED": True})
        assert found() == {"W082"}
        (tmp_path / "shared").mkdir()
        assert found() == set()


def _filled(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return value.format(folder)
    return [
        entry.format(folder) if isinstance(entry, str) else (entry[0], entry[1].format(folder))
        for entry in value
    ]


class TestTransactions:
    @pytest.fixture
    def database(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        def database(**values: Any) -> None:
            for name, value in values.items():
                monkeypatch.setitem(connection.settings_dict, name, value)

        return database

    def test_nobody_hears_of_a_commit_by_hand(self, database: Callable[..., None]) -> None:
        assert "W078" not in found()
        database(AUTOCOMMIT=False)
        assert "W078" in found()

    @pytest.mark.parametrize(
        ("atomic", "values", "is_found"),
        [
            (True, {"SERVING": {"DEADLINE_MS": None}}, True),
            (True, {"SERVING": {"DEADLINE_MS": None}, "MODE": "async"}, False),
            (True, {"SERVING": {"DEADLINE_MS": 300}}, False),
            (False, {"SERVING": {"DEADLINE_MS": None}}, False),
        ],
    )
    def test_a_request_that_waits_for_ever_with_its_locks(
        self,
        database: Callable[..., None],
        configure: Callable[..., None],
        atomic: bool,
        values: dict[str, Any],
        is_found: bool,
    ) -> None:
        database(ATOMIC_REQUESTS=atomic)
        configure(**values)
        assert ("W079" in found()) is is_found
