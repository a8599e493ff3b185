"""The Watch page in a real browser: a run is steered, and laid beside earlier ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from playwright.sync_api import Page, expect

from ownlm.store.workspace import Build
from ownlm.train.control import FileControl, Finish, More
from ownlm.train.turns import Change, write_changes
from studio_browser import Site, open_page
from studio_types import curve, write_lines

ROWS = curve(500, 8, 1.3, bits=True)


@dataclass
class Live:
    """A pre-training that goes on, played by the test."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "run-state"

    def write(self, rows: list[dict[str, Any]]) -> None:
        write_lines(self.folder / "metrics.jsonl", rows)


@pytest.fixture
def live(site: Site) -> Iterator[Live]:
    found = Live(site.workspace.root / ".building" / "model-next-base-abc")
    found.state.mkdir(parents=True, exist_ok=True)
    build = {"kind": "model", "name": "next-base", "id": "abc", "inputs": {}, "settings": {"stage": "base", "seed": 5},
             "pid": os.getpid(), "started": "2001-01-01T00:00:00+00:00"}  # fmt: skip
    (found.state / "build.json").write_text(json.dumps(build), "utf-8")
    found.write(ROWS[:200])
    with FileLock(site.workspace.root / ".locks" / "abc.lock", timeout=0):
        yield found
    for path in sorted(found.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def card(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name)


def test_finish_now_is_explained_asked_twice_and_told(page: Page, live: Live) -> None:
    control = FileControl(live.state)
    open_page(page, "/watch")
    steering = card(page, "Steering")
    expect(steering).to_contain_text("a complete model comes out in about 12 s, a tenth of the time spent")
    expect(steering).to_contain_text("280 planned steps are left out")
    steering.get_by_role("button", name="Finish now").click()
    steering.get_by_role("button", name="No, train on").click()
    assert control.asked() == []
    steering.get_by_role("button", name="Finish now").click()
    steering.get_by_role("button", name="Yes, finish").click()
    expect(steering.get_by_role("status").first).to_contain_text("Asked to finish; the run takes it up")
    expect(steering.get_by_role("button", name="Finish now")).to_be_disabled()
    assert control.asked() == [Finish()]
    write_changes(live.state, [Change(200)])
    expect(steering.get_by_role("status").first).to_contain_text("Told to finish at step 200.")
    live.write([*ROWS[:200], *(row | {"steps": 220, "remaining": 9.0} for row in ROWS[200:205])])
    expect(steering.get_by_role("status").first).to_contain_text("Finishing since step 200: complete at step 220")
    expect(page.get_by_text("Step 205 of 220")).to_be_visible()


def test_five_minutes_more(page: Page, live: Live) -> None:
    control = FileControl(live.state)
    open_page(page, "/watch")
    steering = card(page, "Steering")
    expect(steering).to_contain_text("about 500 more steps")
    for _ in range(2):
        steering.get_by_role("button", name="+5 minutes").click()
    expect(steering.get_by_text("Asked to go on for 5.0 min longer")).to_have_count(2)
    assert control.asked() == [More(300.0), More(300.0)]
    write_changes(live.state, [Change(200, 500), Change(200, 500)])
    expect(steering.get_by_text("Made longer at step 200: 500 steps more.")).to_have_count(2)
    expect(steering.get_by_role("button", name="Finish now")).to_be_enabled()


def test_a_run_that_does_not_listen_is_not_steered(page: Page, live: Live) -> None:
    open_page(page, "/watch")
    expect(page.get_by_text("Step 200 of 500")).to_be_visible()
    expect(card(page, "Steering")).to_be_hidden()


def test_a_run_that_ends_meanwhile_takes_its_buttons_along(page: Page, live: Live) -> None:
    FileControl(live.state)
    open_page(page, "/watch")
    expect(card(page, "Steering")).to_be_visible()
    (live.state / "control").rmdir()
    card(page, "Steering").get_by_role("button", name="+5 minutes").evaluate("e => e.click()")
    expect(card(page, "Steering")).to_be_hidden()
    assert not (live.state / "control").exists()


def earlier(site: Site, name: str, seed: int, heldout: float) -> str:
    def build(target: Build) -> dict[str, Any]:
        write_lines(target.folder / "metrics.jsonl", curve(300, 8, heldout, bits=True))
        return {"steps": 300, "tokens": 4_915_200, "seconds": 180.0, "heldout_bits_per_byte": heldout}

    return site.workspace.make("model", name, build, settings={"stage": "base", "seed": seed})[0].id


def test_earlier_runs_are_laid_beside_the_present_one(page: Page, site: Site, live: Live) -> None:
    earlier(site, "good-base", 1, 1.25)
    twin = earlier(site, "good-base", 2, 1.75)
    build = json.loads((live.state / "build.json").read_text())
    (live.state / "build.json").write_text(json.dumps(build | {"started": "2999-01-01T00:00:00+00:00"}), "utf-8")
    open_page(page, "/watch")
    compared = card(page, "Comparison")
    picks = compared.get_by_role("group", name="Earlier runs").get_by_role("button")
    expect(picks).to_have_count(3)
    expect(compared.locator("canvas")).to_be_hidden()
    picks.filter(has_text="good-base, 20").filter(has_text="1.750").click()
    picks.filter(has_text="1.250").click()
    expect(compared.locator("canvas")).to_be_visible()
    head = compared.locator("thead th")
    expect(head).to_have_count(4)
    expect(head.nth(1)).to_have_text("next-base")
    expect(head.nth(2)).to_have_text(f"good-base {twin[:6]}")
    row = compared.get_by_role("row").filter(has_text="Held-out bits per byte")
    expect(row.get_by_role("cell")).to_have_text(["–", "1.750", "1.250"])
    expect(row.locator(".best")).to_have_text("1.250")
    expect(compared.get_by_role("row").filter(has_text=re.compile("^Seed"))).to_have_class("differs")
    width = compared.locator("canvas").evaluate("e => e.clientWidth")
    assert width > 600, "the chart fills its card, though it was made while hidden"
    by_steps = compared.locator(".overlay").screenshot()
    compared.get_by_role("button", name="by seconds").click()
    expect(compared.locator("[aria-label*='by seconds']")).to_be_visible()
    page.wait_for_timeout(200)
    assert compared.locator(".overlay").screenshot() != by_steps
    live.write(ROWS[:260])
    made = compared.get_by_role("row").filter(has_text="Steps made").get_by_role("cell")
    expect(made.first).to_have_text("260 of 500 planned")
    picks.filter(has_text="1.250").click()
    picks.filter(has_text="1.750").click()
    expect(compared.locator("canvas")).to_be_hidden()


def test_on_a_phone_the_table_scrolls_inside_its_card(page: Page, site: Site, live: Live) -> None:
    FileControl(live.state)
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, "/watch")
    card(page, "Comparison").get_by_role("group", name="Earlier runs").get_by_role("button").first.click()
    expect(card(page, "Comparison").locator("table")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
