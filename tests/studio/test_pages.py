"""The Studio in a real browser, over models that need no training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
from filelock import FileLock
from playwright.sync_api import Browser, Page, expect

from ownlm.store.feedback import open_feedback
from studio_browser import Site, ask, closed, open_page, start, stop
from studio_types import STARTERS, curve, samples, write_lines

PAGES = ("/", "/watch", "/unmask", "/chat", "/your-turn")


# ---- every page


def test_pages_have_a_name_a_place_and_no_width_too_many(page: Page) -> None:
    unnamed = (
        "[...document.querySelectorAll('button, a, input, select, textarea')].filter(e => e.checkVisibility() && "
        "!(e.innerText.trim() || e.ariaLabel || e.closest('label'))).map(e => e.outerHTML)"
    )
    page.set_viewport_size({"width": 390, "height": 844})
    for path in PAGES:
        open_page(page, path)
        expect(page.locator("h1")).to_have_count(1)
        expect(page.locator("nav a[aria-current=page]")).to_have_count(0 if path == "/" else 1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.evaluate(unnamed) == [], path


def test_the_theme_is_switched_and_remembered(page: Page) -> None:
    open_page(page, "/")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("Switch between light and dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.goto("/chat")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_home_lists_the_models_and_reports(page: Page) -> None:
    open_page(page, "/")
    page.get_by_role("link", name=re.compile("^first-model, 20")).click()
    expect(page.get_by_role("heading", name="The report")).to_be_visible()
    page.go_back()
    page.wait_for_function("window.socket?.connected")
    expect(page.get_by_role("row").filter(has_text="first-model").first).to_contain_text("1.268")
    page.get_by_role("navigation").get_by_role("link", name="Chat").click()
    expect(page).to_have_url(re.compile("/chat$"))


def test_an_unknown_endpoint_is_told_in_json(site: Site) -> None:
    answer = httpx.get(f"{site.url}/v1/nothing", trust_env=False)
    assert answer.status_code == 404
    assert "/v1/nothing" in answer.json()["error"]["message"]
    assert httpx.get(f"{site.url}/report/first-model-base", trust_env=False).status_code == 404


# ---- watch


def test_watch_follows_a_run(page: Page, site: Site) -> None:
    folder = site.workspace.root / ".building" / "model-next-base-abc"
    (folder / "run-state").mkdir(parents=True)
    build = {"kind": "model", "name": "next-base", "id": "abc", "inputs": {}, "settings": {"stage": "base"}}
    (folder / "run-state" / "build.json").write_text(json.dumps({**build, "pid": os.getpid()}), "utf-8")
    stages = [{"name": "Corpus", "state": "done", "sentence": "Read 2,113 files.", "seconds": 4},
              {"name": "Pre-training", "state": "running", "sentence": "", "seconds": None}]  # fmt: skip
    progress = {"recipe": "r", "pid": os.getpid(), "stage": "Pre-training", "stages": stages, "minutes": 8}
    (site.workspace.root / "progress.json").write_text(json.dumps(progress), "utf-8")
    rows = curve(200, 8, 1.3, bits=True)
    lock = FileLock(site.workspace.root / ".locks" / "abc.lock", timeout=0)  # so that the build is one under way
    lock.acquire()
    try:
        write_lines(folder / "metrics.jsonl", rows[:40])
        write_lines(folder / "samples.jsonl", samples(10))
        open_page(page, "/watch")
        expect(page.get_by_role("heading", level=1)).to_have_text("Pre-training")
        expect(page.get_by_text("Step 40 of 200")).to_be_visible()
        expect(page.get_by_text("Read 2,113 files.")).to_be_visible()
        expect(page.locator(".curve canvas")).to_be_visible()
        expect(page.locator(".growth > div")).to_have_count(3)
        expect(page.locator(".sample.newest").first).to_contain_text("step 10")
        before = page.locator(".curve").screenshot()
        write_lines(folder / "samples.jsonl", samples(100))
        write_lines(folder / "metrics.jsonl", rows[:150])
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 151, "ste')
        expect(page.get_by_text("Step 150 of 200")).to_be_visible()
        expect(page.locator(".sample.newest").first).to_contain_text("step 100")
        page.wait_for_timeout(200)
        assert page.locator(".curve").screenshot() != before, "the curve has grown"
        page.get_by_role("button", name="log steps").click()
        expect(page.get_by_role("button", name="log steps")).to_have_attribute("aria-pressed", "true")
    finally:
        lock.release()
        (folder / "run-state" / "build.json").unlink()
        (site.workspace.root / "progress.json").unlink()
    expect(page.get_by_text("Finished")).to_be_visible()
    expect(page.get_by_text("It came to 1.254")).to_be_visible()
    page.get_by_role("button", name="Fine-tuning").click()
    expect(page.get_by_text("nats per token")).to_be_visible()


# ---- unmask


def test_unmask_fills_three_columns(page: Page) -> None:
    open_page(page, "/unmask")
    expect(page.get_by_label("Prompt").get_by_role("textbox")).to_have_value(STARTERS[0])
    page.get_by_label("Prompt").get_by_role("textbox").press("Enter")
    for stage, text in (("base", "Return the lines"), ("instructed", "lines.append"), ("aligned", "Here it is")):
        expect(page.locator(f".pane.{stage} .answer")).to_contain_text(text)
        expect(page.locator(f".pane.{stage}")).to_contain_text("ended by itself")
    expect(page.locator(".pane.base")).to_contain_text("bare text")


# ---- chat


def test_chat_streams_and_keeps_a_thumb(page: Page, site: Site) -> None:
    open_page(page, "/chat")
    page.get_by_text("How it chooses words").click()
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Write a Python function").click()
    expect(page.locator(".turn.model pre code")).to_contain_text("def read_lines(path):")
    expect(page.locator(".turn.model .k").first).to_have_text("def")
    expect(page.locator(".turn.model")).to_contain_text("seed 11")
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator(".turn.model")).to_contain_text("seed 12")
    expect(page.locator(".turn.model")).to_have_count(1)
    page.get_by_role("button", name="Bad answer").click()
    store = open_feedback(site.workspace)
    until = time.monotonic() + 5
    while len(store.thumbs()) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    up, down = store.thumbs()
    assert (up.verdict, down.verdict) == ("up", "down")
    assert up.prompt[0]["content"][0]["text"] == STARTERS[0]
    assert up.answers[0]["sampling"]["temperature"] == 0.3
    assert up.answers[0]["sampling"]["seed"] == 11
    assert up.answers[0]["model_id"] == site.workspace.resolve("first-model").id
    assert "def read_lines" in up.answers[0]["text"]


def test_stop_keeps_what_was_written_and_the_next_question_is_answered(page: Page) -> None:
    open_page(page, "/chat")
    ask(page, "slow please")
    expect(page.locator(".turn.model .answer")).to_contain_text("word word word")
    page.keyboard.press("Escape")
    expect(page.locator(".turn.model")).to_contain_text("Stopped after")
    written = page.locator(".turn.model .answer").inner_text()
    page.wait_for_timeout(200)
    assert page.locator(".turn.model .answer").inner_text() == written
    ask(page, "and again")
    expect(page.locator(".turn.model").nth(1)).to_contain_text("Here it is")


def test_a_closed_page_stops_its_model(page: Page, site: Site) -> None:
    open_page(page, "/chat")
    page.get_by_text("How it chooses words").click()
    page.get_by_label("Longest answer").fill("512")
    ask(page, "slow, endless")
    expect(page.locator(".turn.model .answer")).to_contain_text("word")
    open_page(page, "/unmask")  # the server's log is looked through at the end
    until = time.monotonic() + 15  # a page that is gone may come back for five seconds; the answer takes 25
    while "slow, endless" not in closed(site) and time.monotonic() < until:
        time.sleep(0.05)
    assert "slow, endless" in closed(site)
    page.get_by_role("button", name="Ask all three").click()
    expect(page.locator(".pane.aligned")).to_contain_text("ended by itself", timeout=15_000)


def test_what_a_model_says_is_never_html(page: Page) -> None:
    open_page(page, "/chat")
    ask(page, "<i>hostile</i>")
    expect(page.locator(".turn.model .answer")).to_contain_text("<img src=x onerror=")
    expect(page.locator(".turn.user")).to_contain_text("<i>hostile</i>")
    open_page(page, "/unmask")
    page.get_by_label("Prompt").get_by_role("textbox").fill("hostile")
    page.get_by_role("button", name="Ask all three").click()
    expect(page.locator(".pane.aligned .answer")).to_contain_text("<script>")
    assert page.evaluate("window.hacked") is None
    assert page.locator(".answer img, .answer script, .answer b, .answer i").count() == 0


def test_a_strange_prompt_gets_a_note(page: Page) -> None:
    open_page(page, "/chat")
    ask(page, "zz " * 20)
    expect(page.get_by_text("This is unlike anything the model was trained on")).to_be_visible()
    expect(page.locator(".turn.model")).to_contain_text("ended by itself")
    ask(page, "a prompt that is long enough to be judged and quite usual")
    expect(page.locator(".turn.model").nth(1)).to_contain_text("Here it is")
    expect(page.get_by_text("This is unlike anything")).to_have_count(1)


# ---- your turn


def test_your_turn_by_keyboard_alone(page: Page, site: Site) -> None:
    open_page(page, "/your-turn")
    shown = []
    for count, key in enumerate(["a", "b", "t", "x", "s", "ArrowLeft", "a", "b", "b", "a", "b"]):
        # Every answer of the fake model differs: the next pair is there once the left one has changed.
        page.wait_for_function(
            """before => {
                const left = document.querySelector('.vote .answer')?.innerText.trim();
                return left && left !== before && !document.querySelector('.vote[disabled]');
            }""",
            arg=shown[-1].strip() if shown else "",
        )
        shown.append(page.locator(".vote .answer").first.inner_text())
        done = page.locator(".dots i.done").count()
        assert done == count - (count > 4)
        page.keyboard.press(key)
        page.wait_for_function(
            "n => document.querySelectorAll('.dots i.done').length == n || n > 9", arg=done + (key != "s")
        )
    expect(page.get_by_text("10 choices, 8 of them between two answers")).to_be_visible()
    pairs = open_feedback(site.workspace).pairs()
    assert len(pairs) == 11
    assert [pair.verdict for pair in pairs[2:5]] == ["tie", "both_bad", "skip"]
    for pair, left, key in zip(pairs, shown, "ab__s", strict=False):
        assert pair.order_shown in ("ab", "ba")
        left_answer = pair.answers[0 if pair.order_shown == "ab" else 1]["text"]
        assert left.split()[-1] == left_answer.split()[-1]
        if key in "ab":
            assert pair.verdict == (pair.order_shown[0] if key == "a" else pair.order_shown[1])
        assert pair.seconds_taken is not None
    expect(page.get_by_role("button", name="Train on your choices")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Too few to tell")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Difference +2.0 points, 95 % interval -4.0 to +8.0, on 200 prompts.")).to_be_visible()
    page.get_by_role("button", name="Vote blind").focus()
    page.keyboard.press("Enter")
    for _ in range(5):
        page.wait_for_function(
            "!document.querySelector('.vote[disabled]') && document.querySelector('.vote').checkVisibility()"
        )
        page.keyboard.press("a")
        page.wait_for_function(
            "document.querySelector('.vote[disabled]') || !document.querySelector('.vote').checkVisibility()"
        )
    expect(page.get_by_text("of 5 pairs that you decided")).to_be_visible()
    votes = open_feedback(site.workspace).pairs()[11:]
    assert len({answer["model_id"] for vote in votes for answer in vote.answers}) == 2


# ---- an empty house


def test_the_first_run_state_is_honest(browser: Browser, tmp_path: Path) -> None:
    process, site = start(tmp_path / "empty")
    try:
        page = browser.new_page(base_url=site.url)
        for path, text in (("/", "ownlm demo"), ("/watch", "No model is being trained"),
                           ("/chat", "no model to talk to"),
                           ("/unmask", "no stages to show"), ("/your-turn", "nothing to judge yet")):  # fmt: skip
            open_page(page, path)
            expect(page.get_by_text(text).first).to_be_visible()
        page.close()
    finally:
        stop(process)
    assert not site.workspace.root.exists() or not list(site.workspace.root.glob("model*"))


def test_the_pages_load_no_torch() -> None:
    code = "import sys, ownlm.studio.app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
