"""`ownlm serve`: the API and the Studio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ownlm.cli.common import existing_file, verb, workspace
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ownlm.serve.context import ServeContext


@verb
def command(
    screen: Screen,
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL ...]", help="Which; all without one.")] = None,
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    studio: Annotated[bool, typer.Option("--studio/--no-studio", help="With the pages, or the API alone.")] = True,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the key to ask for; needed for a public --host. Or OWNLM_API_KEY.")
    ] = None,
    background: Annotated[bool, typer.Option("--background", hidden=True)] = False,
) -> None:
    """Serve models: an OpenAI-compatible API at /v1, and the Studio's pages at /."""
    key = read_key(api_key_file) if api_key_file is not None else None
    from ownlm.serve.run import serve

    attach = attach_studio if studio else None
    serve(
        list(models or []), workspace(), host, port, screen, attach=attach, api_key=key, background=background
    )  # fmt: skip


def attach_studio(app: FastAPI, context: ServeContext) -> None:
    """The Studio's pages; they are imported only when they are wanted."""
    from ownlm.studio.app import attach

    attach(app, context)


def read_key(path: Path) -> str:
    """The key in a file, without the newline at its end.

    Raises:
        OwnLMError: there is no such file, or it is empty.
    """
    key = existing_file(path, "the API key").read_text("utf-8").strip()
    if not key:
        raise OwnLMError(f"{path} is empty: an API key was expected in it.")
    return key
