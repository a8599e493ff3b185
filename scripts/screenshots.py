"""Takes the README's pictures of the Studio, from a workspace that a real run has left (or is making).

    python scripts/screenshots.py [--workspace DIR] [--out docs/images] [--pages watch,unmask,chat,your-turn]

Each page is taken as a visitor sees it, light (NAME.png) and dark (NAME-dark.png), and on a phone (NAME-phone.png).
It needs a Chrome, Chromium or Edge and the `test` extra (playwright); nothing is trained and nothing is judged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from ownlm.runtime.browser import find_browser
from ownlm.serve.background import start_server_process
from ownlm.store.workspace import Workspace

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
LOOKS = (
    ("", {"width": 1440, "height": 900}, "light"),
    ("-dark", {"width": 1440, "height": 900}, "dark"),
    ("-phone", {"width": 390, "height": 844}, "light"),
)
PATIENCE = 180_000
"""Milliseconds for an answer: the server works beside others, with one thread."""


def watch(page: Page) -> None:
    """The curve drawn, and the samples that are there."""
    page.locator(".curve canvas").wait_for()
    page.wait_for_timeout(1500)


def unmask(page: Page) -> None:
    """All three columns filled."""
    page.get_by_role("button", name="Ask all three").click()
    page.wait_for_function(
        "[...document.querySelectorAll('.pane .facts')].every(e => / s |no such/.test(e.innerText))",
        timeout=PATIENCE,
    )


def chat(page: Page) -> None:
    """The answer to the first starter, and a strange question with its note."""
    if page.locator(".chip").count():
        page.locator(".chip").first.click()
        _answered(page, 1)
    page.get_by_label("Your message").fill("Wer hat im Jahr 1815 die Schlacht von Waterloo gewonnen, und warum?")
    page.keyboard.press("Enter")
    _answered(page, 2)
    page.mouse.move(0, 0)
    page.wait_for_timeout(700)


def your_turn(page: Page) -> None:
    """A pair that waits for its choice."""
    page.wait_for_function(
        "document.querySelector('.asked p, .asked pre') && !document.querySelector('.vote[disabled]')", timeout=PATIENCE
    )


STEPS: dict[str, Callable[[Page], None]] = {"watch": watch, "unmask": unmask, "chat": chat, "your-turn": your_turn}


def _answered(page: Page, count: int) -> None:
    page.wait_for_function(
        "n => [...document.querySelectorAll('.turn.model .facts')].filter(e => / s /.test(e.innerText)).length >= n",
        arg=count,
        timeout=PATIENCE,
    )


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="$OWNLM_HOME or ./workspace without it")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--pages", default=",".join(STEPS), help="which, separated by commas")
    options = parser.parse_args()
    program = find_browser()
    if program is None:
        print("There is no Chrome, Chromium or Edge here.", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with start_server_process(Workspace(options.workspace)) as server, sync_playwright() as playwright:
        server.wait_ready(60)
        browser = playwright.chromium.launch(executable_path=str(program), args=ARGUMENTS)
        for ending, viewport, theme in LOOKS:
            context = browser.new_context(base_url=server.url, viewport=viewport, color_scheme=theme)  # type: ignore[arg-type]
            page = context.new_page()
            for name in options.pages.split(","):
                page.goto(f"/{name}")
                page.wait_for_function("window.socket?.connected")
                STEPS[name](page)
                page.screenshot(path=options.out / f"{name}{ending}.png")
                print(options.out / f"{name}{ending}.png")
            context.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
