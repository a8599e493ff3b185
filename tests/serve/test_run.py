"""The command from outside: ports, addresses, signals, processes; and no torch where none is needed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from ownlm.runtime.errors import ModelNotFound, OwnLMError, PortInUse
from ownlm.runtime.processes import is_running
from ownlm.runtime.progress import Screen
from ownlm.serve.background import ServerProcess, start_server_process, watch_server
from ownlm.serve.run import free_port, listen, serve
from ownlm.store.workspace import Workspace


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def test_a_port_in_use_is_told_with_a_free_one(taken: int, workspace: Workspace) -> None:
    with pytest.raises(PortInUse, match=rf"Port {taken} is in use .* `ownlm serve --port \d+`") as caught:
        serve([], workspace, "127.0.0.1", taken, Screen())
    free = int(str(caught.value).rsplit(" ", 1)[1].strip("`."))
    assert free != taken
    listen("127.0.0.1", free).close()
    with pytest.raises(PortInUse):
        start_server_process(workspace, taken)


def test_the_shell_sees_a_port_in_use(taken: int) -> None:
    command = [sys.executable, "-m", "ownlm", "serve", "--no-studio", "--port", str(taken)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_addresses_that_cannot_be(workspace: Workspace) -> None:
    with pytest.raises(OwnLMError, match="ports go from 1 to 65535"):
        listen("127.0.0.1", 70000)
    with pytest.raises(OwnLMError, match="no address of this machine"):
        listen("no such host.invalid", 8000)
    with pytest.raises(OwnLMError, match="--api-key-file"):
        serve([], workspace, "0.0.0.0", 0, Screen())
    with pytest.raises(ModelNotFound, match="'parrot' is not known"):
        serve(["parrot"], workspace, "127.0.0.1", 0, Screen())


def test_free_ports(taken: int) -> None:
    assert free_port(near=taken - 1) != taken


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_without_a_model_it_serves_and_stops_when_asked(sign: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "ownlm", "serve", "--no-studio", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = json.loads(process.stdout.readline())
        answer = httpx.get(f"{told['api']}/models", trust_env=False, timeout=10)
        assert answer.json() == {"object": "list", "data": []}
        process.send_signal(sign)
        assert process.wait(15) == code
        assert "The server has stopped" in process.stderr.read()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False, timeout=2).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def no_studio(monkeypatch: pytest.MonkeyPatch) -> None:
    """The background server starts without pages here: they have tests of their own."""
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        at = command.index("serve") + 1
        return real([*command[:at], "--no-studio", *command[at:]], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("ownlm.serve.background.subprocess.Popen", popen)


@pytest.mark.usefixtures("no_studio")
def test_a_server_beside_other_work(workspace: Workspace) -> None:
    with start_server_process(workspace) as server:
        server.wait_ready()
        assert answers(server.url)
        if hasattr(os, "getpriority"):
            own = os.getpriority(os.PRIO_PROCESS, 0)
            assert os.getpriority(os.PRIO_PROCESS, server.pid) >= min(19, own + 10)
    assert not server.is_running()
    assert not answers(server.url)


@pytest.mark.usefixtures("no_studio")
def test_a_server_beside_other_work_asks_for_no_key(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNLM_API_KEY", "a-key-of-some-length-0123456789")
    with start_server_process(workspace) as server:
        server.wait_ready()
        assert httpx.get(f"{server.url}/v1/models", trust_env=False, timeout=10).status_code == 200


def test_the_server_speaks_utf8(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.setattr("ownlm.serve.background.subprocess.Popen", lambda _, **options: given.append(options["env"]))
    start_server_process(workspace)
    assert given[0]["PYTHONUTF8"] == "1"


STARTER = """
import subprocess, sys, time
from ownlm.serve import background
real = subprocess.Popen
background.subprocess.Popen = lambda c, **o: real([*c[:4], "--no-studio", *c[4:]], **o)
from ownlm.store.workspace import Workspace
server = background.start_server_process(Workspace())
server.wait_ready()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_when_its_starter_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        server = int(starter.stdout.readline())
        assert is_running(server)
        starter.kill()
    until = time.monotonic() + 15
    while is_running(server) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(server)


def test_a_server_that_cannot_start_is_told(workspace: Workspace) -> None:
    server = start_server_process(workspace, models=["parrot"])
    with pytest.raises(OwnLMError, match=r"ended. Error: .*'parrot' is not known"):
        server.wait_ready()
    server.stop()


@pytest.mark.usefixtures("no_studio")
def test_the_browser_opens_when_the_page_is_ready(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("ownlm.serve.background.webbrowser.open", opened.append)
    with watch_server(workspace, None, True, Screen()) as server:
        assert isinstance(server, ServerProcess)
        assert server.url in capsys.readouterr().out
        until = time.monotonic() + 20
        while not opened and time.monotonic() < until:
            time.sleep(0.05)
        assert opened
        assert opened[0].startswith(server.url)


def test_making_the_app_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from ownlm.serve.app import create_app\n"
        "from ownlm.serve.run import serve\n"
        "from ownlm.serve.models import ModelSet\n"
        "from ownlm.store.workspace import Workspace\n"
        "create_app(ModelSet([], Workspace()), Workspace())\n"
        "heavy = {'torch', 'nicegui', 'transformers', 'pyarrow', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
