"""The Studio in a real browser, when something goes wrong or changes under it."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from ownlm.store.feedback import open_feedback
from studio_browser import Site, ask, open_page, refusing_feedback
from studio_types import BROKEN


def test_a_new_conversation_gets_nothing_of_the_old_one(page: Page, site: Site) -> None:
    open_page(page, "/chat")
    for written in (True, False):
        ask(page, "slow and old")
        if written:
            expect(page.locator(".turn.model .answer")).to_contain_text("word word")
        else:
            expect(page.get_by_role("button", name="Stop (Escape)")).to_be_visible()
        page.get_by_role("button", name="Begin a new conversation").click()
        expect(page.locator(".turn")).to_have_count(0)
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        expect(page.get_by_label("Your message")).to_have_value("")
    page.wait_for_timeout(300)
    ask(page, "and now")
    expect(page.locator(".turn.model")).to_contain_text("ended by itself")
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    prompt = open_feedback(site.workspace).thumbs()[-1].prompt
    assert [message["content"][0]["text"] for message in prompt] == ["and now"]


def test_a_thumb_that_cannot_be_kept_is_not_shown(page: Page, site: Site) -> None:
    open_page(page, "/chat")
    ask(page, "judge me")
    expect(page.locator(".turn.model")).to_contain_text("ended by itself")
    with refusing_feedback(site):
        page.get_by_role("button", name="Good answer").click()
        expect(page.locator(".notice.error")).to_be_visible()
        expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".notice.error")).to_be_hidden()


def test_names_are_quoted_and_unknown_ones_told(page: Page, site: Site) -> None:
    site.workspace.point("a+b", site.workspace.resolve("first-model"))
    try:
        for path in ("/chat", "/unmask", "/your-turn"):
            open_page(page, path)
            page.get_by_label("Model", exact=True).select_option("a+b")
            expect(page).to_have_url(re.compile(re.escape(f"{path}?model=a%2Bb")))
            expect(page.get_by_label("Model", exact=True)).to_have_value("a+b")
            expect(page.get_by_text("There is no model")).to_have_count(0)
            open_page(page, f"{path}?model=nobody")
            expect(page.get_by_text("There is no model 'nobody' on this server. This is first-model.")).to_be_visible()
        open_page(page, "/")
        assert page.locator("a[href='/chat?model=a%2Bb']").count() == 1
    finally:
        (site.workspace.root / "aliases" / "a+b.json").unlink()


def test_your_turn_goes_on_after_an_error(page: Page, site: Site) -> None:
    open_page(page, "/your-turn")
    free = "!document.querySelector('.vote[disabled]')"
    page.wait_for_function(free)
    before = len(open_feedback(site.workspace).pairs())
    left = page.locator(".vote .answer").first.inner_text()
    with refusing_feedback(site):
        page.keyboard.press("a")
        expect(page.locator(".notice.error")).to_be_visible()
        page.wait_for_function(free)
        assert page.locator(".vote .answer").first.inner_text() == left
        assert page.locator(".dots i.done").count() == 0
    page.keyboard.press("a")
    expect(page.locator(".dots i.done")).to_have_count(1)
    expect(page.locator(".notice.error")).to_be_hidden()
    assert len(open_feedback(site.workspace).pairs()) == before + 1


def test_your_turn_tries_again_where_no_pair_came(page: Page, site: Site) -> None:
    held = site.workspace.root / BROKEN
    held.touch()
    try:
        open_page(page, "/your-turn")
        expect(page.locator(".notice.error")).to_contain_text("It is broken.")
    finally:
        held.unlink()
    page.get_by_role("button", name="Try again").click()
    page.wait_for_function("!document.querySelector('.vote[disabled]')")
    expect(page.locator(".notice.error")).to_be_hidden()
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
