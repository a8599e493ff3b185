"""A served Studio, a browser, and a page in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ownlm.store.workspace import Workspace
from studio_browser import Site, Watched, start, stop
from studio_types import make_models, make_report

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server of its own for each file; nothing may go wrong in its log."""
    root = tmp_path_factory.mktemp("studio") / "workspace"
    make_report(Workspace(root), make_models(Workspace(root))["aligned"])
    process, found = start(root)
    yield found
    stop(process)
    told = found.log.read_text()
    assert "Traceback" not in told, told


@pytest.fixture(scope="module")
def browser(browser_path: str) -> Iterator[Browser]:
    """A browser without windows."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A page that fails its test when it calls elsewhere or complains."""
    context = browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(10_000)
    found, watched = context.new_page(), Watched()
    found.on("console", lambda message: watched.errors.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: watched.errors.append(str(error)))
    found.on("request", lambda request: watched.outside.append(request.url))
    yield found
    context.close()
    assert not watched.errors
    outside = [url for url in watched.outside if not url.startswith((site.url, "data:", "blob:"))]
    assert not outside
