"""Settings of the demo helpdesk, all of them changeable by environment variables.

HELPDESK_DEBUG           1 (default) or 0
HELPDESK_SECRET_KEY      required when debugging is off
HELPDESK_ALLOWED_HOSTS   comma-separated; default: this machine
HELPDESK_ORIGINS         comma-separated origins trusted for forms behind a proxy
HELPDESK_HTTPS           1 to send cookies over HTTPS only; default: on when debugging is off
HELPDESK_DATABASE        sqlite (default), postgresql or mariadb
HELPDESK_DATABASE_NAME, _USER, _PASSWORD, _HOST, _PORT
HELPDESK_BROKER          orm (default) or redis, with HELPDESK_REDIS_URL
HELPDESK_MODEL_NAME      the base model to train; default: embedded
HELPDESK_MODE            sync (default), async or suggest
HELPDESK_DEADLINE_MS     milliseconds that a save waits for the model; default: 300
HELPDESK_ARTIFACT_ROOT   where published models are; default: var/models
HELPDESK_OUTPUT_DIR      where training runs write; default: outputs
HELPDESK_TIME_ZONE       UTC by default
HELPDESK_EMAIL_URL       console: (default) or smtp://user:password@host:port
HELPDESK_FROM_EMAIL      the sender of replies
HELPDESK_LOG_LEVEL       INFO by default
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _


def _flag(name: str, default: bool) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if not value:
        return default
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise ImproperlyConfigured(f"{name} must be 1 or 0, not {value!r}")


def _words(name: str, default: str = "") -> list[str]:
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def _milliseconds(name: str, default: int) -> float:
    value = os.environ.get(name, str(default))
    try:
        return float(value)
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} must be a number of milliseconds, not {value!r}"
        ) from None


def _choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    value = os.environ.get(name, default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value


BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

DEBUG = _flag("HELPDESK_DEBUG", True)

DEMO_SECRET_KEY = "demo-only-key-that-everybody-can-read-never-use-it-in-production"  # noqa: S105
SECRET_KEY = os.environ.get("HELPDESK_SECRET_KEY", DEMO_SECRET_KEY if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured("Set HELPDESK_SECRET_KEY, or HELPDESK_DEBUG=1 for a demo")

ALLOWED_HOSTS = _words("HELPDESK_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = _words("HELPDESK_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "django_filters",
    "django_q",
    "ticket_priority",
    "helpdesk",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "helpdesk.urls"
WSGI_APPLICATION = "helpdesk.wsgi.application"
ASGI_APPLICATION = "helpdesk.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "helpdesk.access.agent",
            ],
        },
    },
]


def _database() -> dict[str, Any]:
    kind = _choice("HELPDESK_DATABASE", "sqlite", ("sqlite", "postgresql", "mariadb"))
    if kind == "sqlite":
        VAR_DIR.mkdir(parents=True, exist_ok=True)
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("HELPDESK_DATABASE_NAME", VAR_DIR / "helpdesk.sqlite3"),
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    server = {
        "NAME": os.environ.get("HELPDESK_DATABASE_NAME", "helpdesk"),
        "USER": os.environ.get("HELPDESK_DATABASE_USER", "helpdesk"),
        "PASSWORD": os.environ.get("HELPDESK_DATABASE_PASSWORD", ""),
        "HOST": os.environ.get("HELPDESK_DATABASE_HOST", "127.0.0.1"),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }
    if kind == "postgresql":
        return {
            "ENGINE": "django.db.backends.postgresql",
            "PORT": os.environ.get("HELPDESK_DATABASE_PORT", "5432"),
            **server,
        }
    if find_spec("MySQLdb") is None:
        import_module("pymysql").install_as_MySQLdb()
    return {
        "ENGINE": "django.db.backends.mysql",
        "PORT": os.environ.get("HELPDESK_DATABASE_PORT", "3306"),
        "OPTIONS": {"charset": "utf8mb4", "isolation_level": "read committed"},
        **server,
    }


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "helpdesk:login"
LOGIN_REDIRECT_URL = "helpdesk:queue"
LOGOUT_REDIRECT_URL = "helpdesk:open-ticket"

LANGUAGE_CODE = "en"
LANGUAGES = [
    ("en", _("English")),
    ("de", _("German")),
    ("fr", _("French")),
    ("es", _("Spanish")),
    ("pt", _("Portuguese")),
]
USE_I18N = True
TIME_ZONE = os.environ.get("HELPDESK_TIME_ZONE", "UTC")
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"

HTTPS = _flag("HELPDESK_HTTPS", not DEBUG)
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

_email = urlsplit(os.environ.get("HELPDESK_EMAIL_URL", "console:"))
if _email.scheme == "smtp":
    EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    EMAIL_HOST = _email.hostname or "localhost"
    EMAIL_PORT = _email.port or 25
    EMAIL_HOST_USER = unquote(_email.username or "")
    EMAIL_HOST_PASSWORD = unquote(_email.password or "")
    EMAIL_USE_TLS = EMAIL_PORT == 587
    EMAIL_TIMEOUT = 10
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
DEFAULT_FROM_EMAIL = os.environ.get("HELPDESK_FROM_EMAIL", "helpdesk@helpdesk.example")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    # Django's own handlers would print each line twice.
    "loggers": {"django": {"handlers": [], "propagate": True}},
    "root": {
        "handlers": ["console"],
        "level": os.environ.get("HELPDESK_LOG_LEVEL", "INFO").upper(),
    },
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Helpdesk",
    "DESCRIPTION": "Ticket priorities: predict, list, overrule.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
}

# django-q runs a task twice unless retry > (queue_limit / workers + 2) * timeout.
Q_CLUSTER: dict[str, Any] = {
    "name": "helpdesk",
    "workers": 1,
    "queue_limit": 1,
    "timeout": 600,
    "retry": 1900,
    "max_attempts": 3,
    "catch_up": False,
    "ack_failures": True,
    "poll": 0.5,
    "recycle": 5000,
}
if _choice("HELPDESK_BROKER", "orm", ("orm", "redis")) == "redis":
    Q_CLUSTER["redis"] = os.environ.get("HELPDESK_REDIS_URL", "redis://127.0.0.1:6379/0")
else:
    Q_CLUSTER["orm"] = "default"

TICKET_PRIORITY: dict[str, Any] = {
    "TRAINING": {"MODEL_NAME": os.environ.get("HELPDESK_MODEL_NAME", "embedded")},
    "MODE": _choice("HELPDESK_MODE", "sync", ("sync", "async", "suggest")),
    "SERVING": {"DEADLINE_MS": _milliseconds("HELPDESK_DEADLINE_MS", 300)},
    "ARTIFACT_ROOT": Path(os.environ.get("HELPDESK_ARTIFACT_ROOT", VAR_DIR / "models")),
    "OUTPUT_DIR": Path(os.environ.get("HELPDESK_OUTPUT_DIR", BASE_DIR / "outputs")),
}
