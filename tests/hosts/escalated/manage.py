"""The host's manage.py."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

# tests/hosts, where the toy model's loader lies.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
