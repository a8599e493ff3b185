"""The Studio: pages in the browser, on the same server as the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from nicegui import app as pages_app
from nicegui import ui
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from ownlm.serve.context import ServeContext
from ownlm.studio import theme
from ownlm.studio.pages import chat, home, unmask, watch, your_turn
from ownlm.studio.state import Studio, StudioSettings


def attach(app: FastAPI, context: ServeContext, settings: StudioSettings | None = None) -> None:
    """Adds the pages to the server's app, below its own routes. One Studio a process: NiceGUI's pages are global."""
    studio = Studio(context, settings or StudioSettings())

    @app.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def unknown_endpoint(path: str) -> None:
        # The pages take every path that is left; a program that errs under /v1 should get JSON, not a page.
        raise HTTPException(404)

    @app.get("/report/{identifier}", include_in_schema=False)
    def report(identifier: str) -> FileResponse:
        """A model's report; it may load nothing, as its own policy says."""
        return FileResponse(context.workspace.resolve(identifier, ("report",)).file("index.html"))

    _page("/", "OwnLM", home.build, studio)
    _page("/watch", "Watch · OwnLM", watch.build, studio)
    _page("/unmask", "Unmask · OwnLM", unmask.build, studio)
    _page("/chat", "Chat · OwnLM", chat.build, studio)
    _page("/your-turn", "Your turn · OwnLM", your_turn.build, studio)
    ui.run_with(
        app,
        title="OwnLM",
        favicon=theme.MARK.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1),
        dark=None,
        binding_refresh_interval=None,
        reconnect_timeout=5,
        tailwind=False,
        show_welcome_message=False,
    )
    pages_app.on_shutdown(studio.close)


def _page(path: str, title: str, build: Callable[[Studio, str], Any], studio: Studio) -> None:
    """A page that is built anew for each visitor; `?model=NAME` chooses a model where that makes sense."""

    @ui.page(path, title=title)
    def page(model: str = "") -> None:
        ui.add_head_html(theme.head())
        build(studio, model)
