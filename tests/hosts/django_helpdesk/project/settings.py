"""A stranger's project: a running django-helpdesk, and the plugin in three places.

HOST_DATABASE=postgresql or mariadb runs it on a server that listens on 127.0.0.1; the driver
(psycopg, PyMySQL) must be installed.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from toy_model import ARTIFACT

SECRET_KEY = "not-secret"
DEBUG = False
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "project.urls"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "German"), ("fr", "French")]
STATIC_URL = "/static/"
LOGIN_URL = "helpdesk:login"
LOGIN_REDIRECT_URL = "helpdesk:home"
SITE_ID = 1
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.sites",
    "django.contrib.staticfiles",
    "rest_framework",
    "helpdesk",
    "django_q",
    "ticket_priority",
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "ticket_priority.middleware.acting_user_middleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def _database() -> dict[str, Any]:
    kind = os.environ.get("HOST_DATABASE", "sqlite")
    if kind == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": ":memory:",
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        }
    if kind == "postgresql":
        engine = {"ENGINE": "django.db.backends.postgresql", "USER": "postgres"}
    else:
        import_module("pymysql").install_as_MySQLdb()
        engine = {"ENGINE": "django.db.backends.mysql", "USER": "root"}
    return {"NAME": "host_django_helpdesk", "HOST": "127.0.0.1", **engine}


DATABASES = {"default": _database()}

Q_CLUSTER = {
    "name": "helpdesk",
    "orm": "default",
    "timeout": 60,
    "retry": 120,
    "max_attempts": 3,
}

HELPDESK_TEAMS_MODEL = "auth.User"
HELPDESK_TEAMS_MIGRATION_DEPENDENCIES: list[tuple[str, str]] = []


def HELPDESK_KBITEM_TEAM_GETTER(kbitem: object) -> None:
    """This helpdesk has no teams."""


TICKET_PRIORITY = {
    "SOURCES": {
        "helpdesk.Ticket": {
            "adapter": "ticket_priority.adapters.django_helpdesk.DjangoHelpdeskSource"
        }
    },
    "ARTIFACT_ROOT": ARTIFACT.parent,
    "SERVING": {"DEADLINE_MS": 60_000},
}
