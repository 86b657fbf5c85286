"""A process of a host that runs what it is told: a line of JSON in, a line of JSON out.

Run: python -m tests.support.console, with DJANGO_SETTINGS_MODULE set. Django starts once, as in a
web process, instead of once for each question of a test.
"""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import redirect_stdout
from io import StringIO


def main() -> None:
    import django
    from django.db import close_old_connections

    django.setup()
    for line in sys.stdin:
        printed, error = StringIO(), ""
        with redirect_stdout(printed):
            try:
                exec(json.loads(line), {})  # noqa: S102
            except Exception:
                error = traceback.format_exc()
        close_old_connections()
        print(json.dumps([printed.getvalue().strip(), error]), flush=True)


if __name__ == "__main__":
    main()
