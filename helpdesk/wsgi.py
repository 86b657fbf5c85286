"""WSGI entry point of the demo helpdesk."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

import ticket_priority

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "helpdesk.settings")

application = get_wsgi_application()

# Otherwise the model loads during the first save, which then misses its deadline.
ticket_priority.preload()
