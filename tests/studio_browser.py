"""A Studio that is served in a process of its own, and what a test does with its pages in a browser."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from playwright.sync_api import Page

from ownlm.serve.run import free_port
from ownlm.store.feedback import open_feedback
from ownlm.store.workspace import Workspace
from studio_types import CLOSED

SERVER = Path(__file__).parent / "studio_types.py"


@dataclass
class Site:
    """A running server, its workspace and what it wrote to stderr."""

    url: str
    workspace: Workspace
    log: Path


@dataclass
class Watched:
    """What a page should not do."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


def start(root: Path) -> tuple[subprocess.Popen[bytes], Site]:
    port = free_port()
    log = root.parent / f"{root.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(port), str(root)], stdin=subprocess.PIPE, stdout=output, stderr=output
        )
    site = Site(f"http://127.0.0.1:{port}", Workspace(root), log)
    until = time.monotonic() + 30
    with httpx.Client(trust_env=False) as client:
        while True:
            try:
                client.get(f"{site.url}/health")
                return process, site
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(15)


def open_page(page: Page, path: str) -> None:
    """Opens a page and waits until it answers to clicks."""
    page.goto(path)
    page.wait_for_function("window.socket?.connected")


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def closed(site: Site) -> list[str]:
    """The prompts whose answers the server closed before their end."""
    path = site.workspace.root / CLOSED
    return path.read_text("utf-8").splitlines() if path.is_file() else []


@contextmanager
def refusing_feedback(site: Site) -> Iterator[None]:
    """The database of feedback takes nothing inside."""
    open_feedback(site.workspace).count()
    with closing(sqlite3.connect(site.workspace.root / "feedback.db", isolation_level=None)) as database:
        database.execute("CREATE TRIGGER refuse BEFORE INSERT ON feedback BEGIN SELECT RAISE(ABORT, 'no'); END")
        try:
            yield
        finally:
            database.execute("DROP TRIGGER refuse")
