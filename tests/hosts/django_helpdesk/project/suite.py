"""The settings under which django-helpdesk runs its own tests, and the plugin where it is told to.

They follow the host's `quicktest.py`, but for a password hasher that is quick.
"""

from __future__ import annotations

import os

SECRET_KEY = "not-secret"
DEBUG = True
TIME_ZONE = "UTC"
ROOT_URLCONF = os.environ["HOST_SUITE_URLS"]
STATIC_URL = "/static/"
LOGIN_URL = "/login/"
SITE_ID = 1
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}

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
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.contrib.auth.context_processors.auth",
                "django.template.context_processors.debug",
                "django.template.context_processors.i18n",
                "django.template.context_processors.media",
                "django.template.context_processors.static",
                "django.template.context_processors.tz",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.request",
            ],
        },
    },
]

HELPDESK_TEAMS_MODEL = "auth.User"
HELPDESK_TEAMS_MIGRATION_DEPENDENCIES: list[tuple[str, str]] = []


def HELPDESK_KBITEM_TEAM_GETTER(kbitem: object) -> None:
    """This helpdesk has no teams."""


if "HOST_SUITE_PLUGIN" in os.environ:
    from toy_model import ARTIFACT

    INSTALLED_APPS += ["ticket_priority"]
    MIDDLEWARE += ["ticket_priority.middleware.acting_user_middleware"]
    TICKET_PRIORITY = {
        "SOURCES": {
            "helpdesk.Ticket": {
                "adapter": "ticket_priority.adapters.django_helpdesk.DjangoHelpdeskSource"
            }
        },
        "ARTIFACT_ROOT": ARTIFACT.parent,
        "SERVING": {"DEADLINE_MS": 60_000},
    }
