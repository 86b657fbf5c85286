from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import models, transaction

from tests.foreign import models as foreign
from tests.foreign.journey import Journey, not_secret
from tests.foreign.oddity import Oddity
from tests.foreign.table import ODDITIES
from tests.support.classifiers import FaultyClassifier
from ticket_priority.checks.sources import MIDDLEWARE
from ticket_priority.classifiers import active, slots
from ticket_priority.ml.artifacts import store as artifacts
from ticket_priority.ml.artifacts.store import Artifact
from ticket_priority.ml.types import CLASS_NAMES
from ticket_priority.models import ModelVersion
from ticket_priority.sources import registry
from ticket_priority.starter.install import STARTER_DIRECTORY

PROJECT = getattr(django_settings, "FOREIGN_PROJECT", "")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "oddity" not in metafunc.fixturenames:
        return
    step = metafunc.definition.originalname.removeprefix("test_")
    hosts = [oddity for oddity in ODDITIES if oddity.project == PROJECT]
    cells = [_cell(oddity, step) for oddity in hosts if not oddity.leaves_out(step)]
    metafunc.parametrize("oddity", cells)


def _cell(oddity: Oddity, step: str) -> Any:
    databases = list(django_settings.DATABASES) if PROJECT else ["default"]
    marks = [pytest.mark.django_db(transaction=oddity.commits, databases=databases)]
    if why := oddity.why_failing(step):
        marks.append(pytest.mark.xfail(reason=why, strict=True))
    return pytest.param(oddity, id=oddity.name, marks=marks)


@pytest.fixture(scope="session")
def shipped_model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return the starter, in an ARTIFACT_ROOT of its own."""
    root = tmp_path_factory.mktemp("foreign")
    return artifacts.read(Path(shutil.copytree(STARTER_DIRECTORY, root / "starter")))


@pytest.fixture
def source(oddity: Oddity) -> Iterator[Any]:
    """Attach the host and a plain one beside it; have no other ticket source."""
    before = dict(registry._sources)
    registry._sources.clear()
    for model in (foreign.Plain, *oddity.beside):
        attach(model)
    if oddity.registers_itself:
        for model, found in foreign.REGISTERED.items():
            if model is oddity.model or getattr(model, "instance_type", None) is oddity.model:
                attach(model, **{**_options_of(found), **oddity.options})
    else:
        scale = dict(zip(CLASS_NAMES, oddity.values, strict=True))
        attach(oddity.model, **{"to_host": scale, **oddity.options})
    yield registry.get_source(oddity.model)
    registry._sources.clear()
    registry._sources.update(before)


def attach(model: type[models.Model], **options: Any) -> None:
    given = {"visible_to": not_secret, "changeable_by": not_secret, "text_fields": ("body",)}
    given |= options
    registry.register(model, **{name: value for name, value in given.items() if value is not None})


def _options_of(source: Any) -> dict[str, Any]:
    options = {item.name: getattr(source, item.name) for item in fields(source)}
    del options["model"]
    return {name: value for name, value in options.items() if value is not None}


@pytest.fixture
def host_settings(oddity: Oddity, settings: Any) -> None:
    for name, value in oddity.settings.items():
        setattr(settings, name, value)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]


@pytest.fixture
def active_starter(shipped_model: Artifact, host_settings: None) -> ModelVersion:
    version = ModelVersion.objects.create(
        name="starter",
        kind="linear",
        directory="starter",
        digest=shipped_model.digest,
    )
    version.activate()
    return version


@pytest.fixture
def agent(host_settings: None) -> Any:
    """Return a person who sees what `not_secret` says, and may use the admin where there is one."""
    name = get_user_model().USERNAME_FIELD
    flags = {"is_staff": True, "is_superuser": True}
    known = {column.name for column in get_user_model()._meta.get_fields()}
    flags = {flag: value for flag, value in flags.items() if flag in known}
    return get_user_model()._base_manager.create(**{name: "ana@desk.example"}, **flags)


@pytest.fixture
def journey(
    oddity: Oddity,
    source: Any,
    configure: Callable[..., None],
    shipped_model: Artifact,
    active_starter: ModelVersion,
    agent: Any,
) -> Iterator[Journey]:
    """Return a host whose model is loaded and answers what the oddity says."""
    configure(
        ARTIFACT_ROOT=shipped_model.directory.parent,
        MODE="sync",
        SERVING={
            "CLASSIFIERS": {"linear": "tests.support.classifiers.FaultyClassifier"},
            "DEADLINE_MS": 30_000,
        },
    )
    if oddity.prepare is not None:
        oddity.prepare()
    # Nobody is throttled yet.
    cache.clear()
    slots.reset()
    active.get_classifier()
    found = Journey(oddity, source, agent, configure)
    FaultyClassifier.fault = found.answer
    yield found
    FaultyClassifier.fault = None
    slots.reset()
    if not oddity.commits:
        # What a step has left behind need not keep the constraints that the step has looked at.
        transaction.set_rollback(True)
