"""The main job in a real browser, against a real server process."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from playwright.sync_api import Page, sync_playwright

from tests.queues.test_django_q import Host
from tests.support.services import require_chromium

pytestmark = [pytest.mark.browser, pytest.mark.sqlite]

PASSWORD = "browser-test"
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, toy_run: Any) -> Iterator[str]:
    """Serve the demo host with the toy model in sync mode; return its address."""
    folder = tmp_path_factory.mktemp("site")
    host = Host(folder, "orm", mode="sync")
    # On a busy machine an answer may take longer, and here nobody gives it later.
    host.environment["HELPDESK_DEADLINE_MS"] = "60000"
    host.prepare(toy_run.artifact_dir)
    host.shell(
        "from django.contrib.auth.models import User\n"
        f"User.objects.create_superuser('lead', 'lead@desk.example', {PASSWORD!r})"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", f"127.0.0.1:{port}", "--noreload"],
            env=host.environment,
            cwd=project.BASE_DIR,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(address, timeout=5):
                break
            time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    executable = require_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def log_in(page: Page, site: str, path: str) -> None:
    page.goto(f"{site}/login/?next={path}")
    page.fill("input[name=username]", "lead")
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(f"{site}{path}")


def test_a_ticket_opened_in_the_browser_has_a_priority_that_can_be_overruled(
    page: Page, site: str
) -> None:
    page.goto(site)
    page.fill("input[name=subject]", "outage breach")
    page.fill("textarea[name=description]", "fire down lost outage")
    page.fill("input[name=requester]", "mia@shop.example")
    page.click("main form button[type=submit]")
    page.wait_for_url(f"{site}/thanks/**")

    log_in(page, site, "/tickets/")
    row = page.get_by_role("row").filter(has_text="outage breach")
    assert row.locator(".tp-badge").inner_text().strip() == "High"
    page.click("text=outage breach")
    assert "toy" in page.inner_text("main")

    page.check("input[name=priority][value='0']")
    page.fill("[name=reason]", "A drill, announced last week.")
    page.locator("form:has(input[name=priority]) button[type=submit]").click()
    page.wait_for_load_state()
    main = page.inner_text("main")
    assert "A drill, announced last week." in main
    assert "lead" in main
    assert page.locator(".tp-badge--low").count() >= 1


def test_the_pages_fit_a_phone(page: Page, site: str) -> None:
    log_in(page, site, "/tickets/")
    page.set_viewport_size({"width": 375, "height": 800})
    for path in ("/", "/tickets/"):
        page.goto(f"{site}{path}")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 375, path


def test_changing_the_priority_in_the_admin_records_an_override(page: Page, site: str) -> None:
    log_in(page, site, "/tickets/")
    page.goto(f"{site}/admin/helpdesk/ticket/add/")
    page.fill("input[name=subject]", "typo font")
    page.fill("textarea[name=description]", "colour wish newsletter typo")
    page.click("input[name=_continue]")
    page.wait_for_url("**/change/**")
    assert page.locator("select[name=priority]").input_value() == "0"
    page.select_option("select[name=priority]", "1")
    page.click("input[name=_continue]")
    page.wait_for_load_state()
    page.goto(f"{site}/admin/ticket_priority/override/")
    row = page.inner_text("#result_list")
    assert "Low" in row
    assert "Medium" in row
