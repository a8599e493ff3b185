"""The web application: the API, health and metrics; the Studio joins it from above."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ownlm.serve import api, errors, feedback_api
from ownlm.serve.context import ServeContext
from ownlm.serve.gateway import Gateway
from ownlm.serve.metrics import Metrics
from ownlm.serve.models import ModelSet
from ownlm.serve.security import Gatekeeper, holds_key
from ownlm.serve.settings import ServeSettings
from ownlm.store.workspace import Workspace


def create_app(models: ModelSet, workspace: Workspace, settings: ServeSettings | None = None) -> FastAPI:
    """The application over these models; `app.state.context` is the `ServeContext`. Loads no torch."""
    settings = settings or ServeSettings()
    context = ServeContext(workspace, models, Gateway(models, settings.max_waiting), settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        context.close()

    # The usual documentation pages would load scripts from elsewhere.
    app = FastAPI(title="OwnLM", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.context = context
    app.add_middleware(Counter, metrics=context.metrics)
    app.add_middleware(Gatekeeper, settings=settings)
    errors.install(app)
    app.include_router(api.router)
    app.include_router(feedback_api.router)

    @app.get("/health")
    def health(request: Request) -> dict[str, object]:
        """Whether the server answers; to those who may use it also which models are in memory."""
        if settings.api_key and not holds_key(request.headers, settings.api_key):
            return {"status": "ok"}
        return {"status": "ok", "models": {name: models.is_open(name) for name in models.names()}}

    @app.get("/metrics")
    def metrics() -> Response:
        """For Prometheus."""
        return Response(context.metrics.text(context.gateway.waiting()), media_type=CONTENT_TYPE_LATEST)

    @app.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def nothing(request: Request) -> None:
        """Without this, the Studio would answer with a page what a program asked for."""
        known = any(route.matches(request.scope)[0] is Match.PARTIAL for route in app.routes)
        raise HTTPException(405 if known else 404)

    return app


class Counter:
    """Counts the API's requests by endpoint and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                self.metrics.requests.labels(getattr(route, "path", "other"), str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive, counting)
