"""`ownlm serve`: the API and the Studio."""

from __future__ import annotations

from typing import Annotated

import typer

from ownlm.cli.common import verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL ...]", help="Which; all without one.")] = None,
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
) -> None:
    """Serve models: an OpenAI-compatible API at /v1, and the Studio's pages at /."""
    from ownlm.serve.run import serve

    serve(list(models or []), workspace(), host, port, screen)
