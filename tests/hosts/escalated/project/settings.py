"""escalated-django as its README installs it, and the plugin by its settings block.

HOST_DATABASE names the database: sqlite (default), postgresql or mariadb on 127.0.0.1, whose
drivers (psycopg, PyMySQL) are not in requirements.txt.
"""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from toy_model import ARTIFACT

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "escalated-host"  # noqa: S105
DEBUG = False
USE_TZ = True
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "project.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    # First, so that the tests show that its place among the apps is free.
    "ticket_priority",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "django.contrib.staticfiles",
    "inertia",
    "escalated",
    "rest_framework",
    "django_filters",
    "django_q",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "escalated.middleware.EscalatedCsrfMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "project.middleware.ApiToken",
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
STATIC_URL = "/static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"

_SERVERS: dict[str, dict[str, Any]] = {
    "postgresql": {"ENGINE": "django.db.backends.postgresql", "USER": "postgres", "PORT": "5432"},
    "mariadb": {
        "ENGINE": "django.db.backends.mysql",
        "USER": "root",
        "PORT": "3306",
        "OPTIONS": {"charset": "utf8mb4", "isolation_level": "read committed"},
    },
}
_DATABASE = os.environ.get("HOST_DATABASE", "sqlite")
if _DATABASE == "mariadb":
    import_module("pymysql").install_as_MySQLdb()
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("HOST_SQLITE", ":memory:"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
    if _DATABASE == "sqlite"
    else {"NAME": "escalated_host", "HOST": "127.0.0.1", **_SERVERS[_DATABASE]}
}
Q_CLUSTER = {
    "name": "escalated-host",
    "orm": "default",
    "workers": 1,
    "timeout": 60,
    "retry": 180,
    "max_attempts": 5,
}

ESCALATED = {
    "API_ENABLED": True,
    "API_PREFIX": "api/v1",
    "API_RATE_LIMIT": 10_000,
    "GUEST_RATE_LIMIT": {"ENABLED": False},
    "NOTIFICATION_CHANNELS": ["email"],
}

TICKET_PRIORITY = {
    "SOURCES": {
        "escalated.Ticket": {"adapter": "ticket_priority.adapters.escalated.EscalatedSource"},
    },
    "ARTIFACT_ROOT": ARTIFACT.parent,
    "SERVING": {"DEADLINE_MS": 60_000, "THREADS": 1},
    "OUTPUT_DIR": Path(tempfile.gettempdir()) / "ticket-priority-outputs",
}
