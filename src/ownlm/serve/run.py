"""`ownlm serve`: takes the port, tells the addresses, serves until it is asked to stop."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import uvicorn
from fastapi import FastAPI

from ownlm.runtime.errors import OwnLMError, PortInUse
from ownlm.runtime.progress import Screen
from ownlm.runtime.signals import catch_interrupts
from ownlm.serve.app import create_app
from ownlm.serve.context import ServeContext
from ownlm.serve.models import ModelSet, Opener
from ownlm.serve.settings import ServeSettings
from ownlm.store.workspace import Workspace

Attach = Callable[[FastAPI, ServeContext], None]
"""Adds pages to the app. The Studio lies above this room, so the command hands it in."""
GRACE = 5
"""Seconds that running answers get when the server stops."""


def serve(
    model_names: Sequence[str],
    workspace: Workspace,
    host: str,
    port: int,
    screen: Screen,
    *,
    attach: Attach | None = None,
    api_key: str | None = None,
    background: bool = False,
    opener: Opener | None = None,
) -> None:
    """Serves until Ctrl-C or SIGTERM; with `background` at low priority, until standard input ends.

    Port 0 takes any free one. With no name every alias of a model is served, those made later too; with no model at
    all the pages work, and the API says that there is none. `api_key` defaults to `$OWNLM_API_KEY`.

    Raises:
        PortInUse: the port is taken; the message suggests a free one.
        ModelNotFound: a name stands for nothing.
        OwnLMError: the host cannot be listened on, or is a public one and there is no key.
        Interrupted: the server was asked to stop, and has.
    """
    settings = ServeSettings(host=host, port=port, api_key=api_key or os.environ.get("OWNLM_API_KEY") or None)
    models = ModelSet(model_names, workspace, opener)
    models.check_all()
    with listen(host, port) as listener:
        settings = replace(settings, port=int(listener.getsockname()[1]))
        app = create_app(models, workspace, settings)
        if attach is not None:
            attach(app, app.state.context)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE
            )
        )
        if background:
            step_back()
            threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
        tell(screen, settings, models, studio=attach is not None)
        with catch_interrupts() as interruption:
            server.run(sockets=[listener])
    if interruption.requested:
        raise interruption.error("The server has stopped.")


def tell(screen: Screen, settings: ServeSettings, models: ModelSet, studio: bool) -> None:
    """Where everything is; the JSON document comes now, because the server ends only when it is stopped."""
    names = models.names()
    listed = ", ".join(names) if names else "no model yet (one that is made later is served at once)"
    screen.say(f"Serving {listed}.")
    if studio:
        screen.say(f"Studio: {settings.url}/{' (open it with ?key=YOUR_KEY once)' if settings.api_key else ''}")
    screen.say(f"API:    {settings.url}/v1 (OpenAI-compatible{', with your key' if settings.api_key else ''})")
    screen.detail("Ctrl-C stops it.")
    screen.next(f"curl {settings.url}/v1/models", "or open the Studio in a browser" if studio else "")
    screen.result({"url": settings.url, "api": f"{settings.url}/v1", "models": names, "studio": studio})


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that nobody can take the port between this check and the server's start.

    Raises:
        PortInUse: it is taken.
        OwnLMError: it may not be used, or the host is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise OwnLMError(f"--port {port}: ports go from 1 to 65535 (0 takes any free one).")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise OwnLMError(f"--host {host} is no address of this machine ({error.strerror or error}).") from error
    try:
        if sys.platform == "win32":  # there SO_REUSEADDR would share the port with whoever has it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _not_bound(host, port, error) from error
    return listener


def free_port(host: str = "127.0.0.1", near: int = 0) -> int:
    """A port that is free now: one of the 50 after `near`, else any."""
    for port in [*range(near + 1, near + 51), 0] if near else [0]:
        try:
            with listen(host, port) as probe:
                return int(probe.getsockname()[1])
        except OwnLMError:
            continue
    raise OwnLMError(f"There is no free port on {host}.")


def step_back() -> None:
    """Leaves the processor to whoever needs it more. On Windows the parent sets the priority class."""
    if hasattr(os, "nice"):
        os.nice(10)


def _not_bound(host: str, port: int, error: OSError) -> OwnLMError:
    import errno

    if error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)):
        other = free_port(host, port)
        return PortInUse(f"Port {port} is in use by another program. Try a free one: `ownlm serve --port {other}`.")
    if isinstance(error, PermissionError):
        return OwnLMError(f"Port {port} may not be used by this account: take one above 1023, such as --port 8000.")
    return OwnLMError(f"{host}:{port} cannot be listened on ({error.strerror or error}).")


def _stop_at_end_of_input(server: uvicorn.Server) -> None:
    """The starter holds the other end of the pipe: when it closes it, or dies, there is nothing left to serve for."""
    while sys.stdin.buffer.read(4096):
        pass
    server.should_exit = True
