"""Hosts, origins, keys and sizes."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from ownlm.runtime.errors import OwnLMError
from ownlm.serve.app import create_app
from ownlm.serve.models import ModelSet
from ownlm.serve.security import COOKIE
from ownlm.serve.settings import ServeSettings, is_loopback
from ownlm.store.workspace import Workspace
from server_types import Clock

KEY = "a-key-of-some-length-0123456789"
ASK = {"model": "clock", "prompt": "a"}


def app_with(workspace: Workspace, settings: ServeSettings) -> FastAPI:
    app = create_app(ModelSet(["clock"], workspace, lambda name, _: Clock()), workspace, settings)

    @app.websocket("/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text("hello")
        await connection.close()

    return app


@pytest.fixture
def open_client(workspace: Workspace) -> Iterator[TestClient]:
    """A server for this machine alone, without a key."""
    with TestClient(app_with(workspace, ServeSettings()), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture
def keyed_client(workspace: Workspace) -> Iterator[TestClient]:
    """A public server with a key."""
    settings = ServeSettings(host="0.0.0.0", api_key=KEY)
    with TestClient(app_with(workspace, settings), base_url="http://models.example:8000") as client:
        yield client


def test_a_public_host_needs_a_key() -> None:
    with pytest.raises(OwnLMError, match="--api-key-file"):
        ServeSettings(host="0.0.0.0")
    with pytest.raises(OwnLMError, match="shorter than 16"):
        ServeSettings(api_key="abc")
    assert KEY not in repr(ServeSettings(host="0.0.0.0", api_key=KEY))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "x.localhost", "::1", "[::1]"])
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "192.168.0.1", "localhost.evil.example", "127.0.0.1.nip.io", "::"])
def test_other_names(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.nip.io:8000", "", "[", "localhost@evil"]
)
def test_a_foreign_host_header_is_refused(open_client: TestClient, host: str) -> None:
    answer = open_client.get("/v1/models", headers={"host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host"


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_own_host_headers_are_taken(open_client: TestClient, host: str) -> None:
    answer = open_client.post("/v1/completions", json=ASK, headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "http://[", "file://"])
def test_pages_of_others_cannot_post(open_client: TestClient, origin: str) -> None:
    answer = open_client.post("/v1/completions", json=ASK, headers={"origin": origin})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin"


def test_pages_of_others_cannot_open_websockets(open_client: TestClient) -> None:
    address = "ws://127.0.0.1:8000/socket"
    with open_client.websocket_connect(address, headers={"origin": "http://127.0.0.1:8000"}) as socket:
        assert socket.receive_text() == "hello"
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        with pytest.raises(WebSocketDisconnect), open_client.websocket_connect(address, headers=headers):
            pass


# ---- keys


def test_a_key_is_asked_for_everywhere_but_at_health(keyed_client: TestClient) -> None:
    for path in ("/v1/models", "/metrics", "/", "/openapi.json"):
        answer = keyed_client.get(path)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["type"] == "authentication_error"
    assert keyed_client.get("/health").status_code == 200
    with pytest.raises(WebSocketDisconnect), keyed_client.websocket_connect("/socket"):
        pass


def test_health_names_no_model_to_strangers(keyed_client: TestClient, open_client: TestClient) -> None:
    assert keyed_client.get("/health").json() == {"status": "ok"}
    assert keyed_client.get("/health", headers={"authorization": "Bearer wrong"}).json() == {"status": "ok"}
    told = {"status": "ok", "models": {"clock": False}}
    assert keyed_client.get("/health", headers={"authorization": f"Bearer {KEY}"}).json() == told
    assert open_client.get("/health").json() == told


@pytest.mark.parametrize("header", ["Bearer wrong", f"Basic {KEY}", KEY, "Bearer ", f"Bearer {KEY}x", "Bearer é"])
def test_wrong_keys(keyed_client: TestClient, header: str) -> None:
    headers = {"authorization": header.encode("utf-8")}
    assert keyed_client.get("/v1/models", headers=headers).status_code == 401


def test_the_key_opens(keyed_client: TestClient) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    assert keyed_client.get("/v1/models", headers=headers).status_code == 200
    with keyed_client.websocket_connect("/socket", headers=headers) as socket:
        assert socket.receive_text() == "hello"


def test_a_browser_gives_the_key_once(keyed_client: TestClient) -> None:
    assert keyed_client.get("/health?key=wrong").status_code == 200
    assert keyed_client.get("/metrics?key=wrong").status_code == 401
    answer = keyed_client.get(f"/metrics?key={KEY}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/metrics")
    assert KEY not in answer.headers["set-cookie"]
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert keyed_client.cookies[COOKIE]
    assert keyed_client.get("/metrics").status_code == 200
    answer = TestClient(keyed_client.app, base_url="http://x").get(f"//evil.example?key={KEY}", follow_redirects=False)
    assert not answer.headers.get("location", "/x").startswith("//")


# ---- sizes


def test_large_bodies_are_refused(http: httpx.Client, url: str) -> None:
    answer = http.post("/v1/completions", json={"model": "clock", "prompt": "a" * (1 << 20)})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    answer = http.post("/v1/completions", content=(b"x" * 65536 for _ in range(20)))
    assert answer.status_code == 413, "in chunks, without a length"
    body = b'{"model": "clock", "prompt": "a"}'
    headers = {"content-type": "application/json"}
    assert http.post("/v1/completions", content=iter([body[:5], body[5:]]), headers=headers).status_code == 200
    raw = http_client(url)
    raw.request("POST", "/v1/completions", headers={"Content-Length": "-5"})
    assert raw.getresponse().status in (400, 413)


def http_client(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
