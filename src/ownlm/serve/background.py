"""A server beside other work: `ownlm serve` as a process of low priority, which ends with its starter."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.serve.run import free_port, listen
from ownlm.store.workspace import Workspace

WATCH_PAGE = "/watch"


@dataclass
class ServerProcess:
    """A running server. It stops at `stop()`, at the end of a `with` block, and when this process dies."""

    url: str
    log: Path
    _process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Returns when the server answers.

        Raises:
            OwnLMError: it ended, or took longer than this.
        """
        until = time.monotonic() + seconds
        with httpx.Client(trust_env=False, timeout=2.0) as client:
            while time.monotonic() < until and self.is_running():
                try:
                    if client.get(f"{self.url}/health").is_success:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.1)
        trouble = "took too long to start" if self.is_running() else "ended"
        last = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:] if self.log.is_file() else []
        raise OwnLMError(f"The server at {self.url} {trouble}. {' '.join(last)}".strip())

    def stop(self, seconds: float = 8.0) -> None:
        """Asks it to end, and makes it end after this long."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        for harder in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                harder()
        self._process.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def watch_server(workspace: Workspace, port: int | None, open_browser: bool, screen: Screen) -> Iterator[ServerProcess]:
    """The Studio beside a training, for as long as the block runs; the browser opens when it is ready.

    Raises:
        PortInUse: the port asked for is taken.
    """
    with start_server_process(workspace, port) as server:
        screen.say(f"Watch it at {server.url}{WATCH_PAGE}")
        if open_browser:
            threading.Thread(target=_open_when_ready, args=(server,), daemon=True).start()
        yield server


def _open_when_ready(server: ServerProcess) -> None:
    try:
        server.wait_ready()
    except OwnLMError:
        return  # the training matters more; the address stands on the screen
    webbrowser.open(server.url + WATCH_PAGE)


def start_server_process(workspace: Workspace, port: int | None = None, models: Sequence[str] = ()) -> ServerProcess:
    """Starts `ownlm serve` on this machine's loopback address and returns at once; `wait_ready` waits for it.

    Without a port a free one is taken, 8000 if it can be. It computes with one thread, and its words go to
    `workspace/server.log`. Ctrl-C in the terminal does not reach it: it goes on until its starter stops it or dies.

    Raises:
        PortInUse: the port asked for is taken.
    """
    number = port or free_port(near=7999)
    listen("127.0.0.1", number).close()
    command = [sys.executable, "-m", "ownlm", "serve", "--background", "--port", str(number), "--", *models]
    workspace.root.mkdir(parents=True, exist_ok=True)
    log = workspace.root / "server.log"
    environment = {**os.environ, "OWNLM_HOME": str(workspace.root), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    environment.pop("OWNLM_API_KEY", None)  # it answers to this machine alone, and its page opens by itself
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment,
            start_new_session=sys.platform != "win32", creationflags=_creation_flags(),
        )  # fmt: skip
    return ServerProcess(f"http://127.0.0.1:{number}", log, process)


def _creation_flags() -> int:
    """On Windows, priority and process group are given at the start; elsewhere the server steps back by itself."""
    if sys.platform == "win32":
        return subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NEW_PROCESS_GROUP
    return 0
