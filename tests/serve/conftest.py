"""A running server over two clocks, and clients for it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ownlm.runtime.errors import ModelNotFound
from ownlm.serve.app import create_app
from ownlm.serve.models import ModelSet
from ownlm.store.workspace import Workspace
from server_types import Clock, serving


@pytest.fixture
def clock() -> Clock:
    """The model named "clock"."""
    return Clock()


@pytest.fixture
def app(clock: Clock, workspace: Workspace) -> FastAPI:
    """An app of the models clock and other."""
    models = {"clock": clock, "other": Clock("other")}

    def opener(name: str, _: Workspace) -> Clock:
        if name not in models:
            raise ModelNotFound(f"{name} is not there.")
        return models[name]

    return create_app(ModelSet(["clock", "other"], workspace, opener), workspace)


@pytest.fixture
def direct(app: FastAPI) -> Iterator[TestClient]:
    """The app without a server around it, for what needs none: quicker."""
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as found:
        yield found


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """The address of a real server."""
    with serving(app) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    """The real client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none needed", max_retries=0) as found:
        yield found


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A bare client."""
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as found:
        yield found
