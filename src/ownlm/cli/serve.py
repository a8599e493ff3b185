"""`ownlm serve`: the API and the Studio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ownlm.cli.common import Precision, Quantize, existing_file, verb, workspace
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ownlm.engine.request import LanguageModel
    from ownlm.serve.context import ServeContext
    from ownlm.serve.models import Opener
    from ownlm.store.workspace import Workspace


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
    precision: Precision = "auto",
    quantize: Quantize = None,
    background: Annotated[bool, typer.Option("--background", hidden=True)] = False,
) -> None:
    """Serve models: an OpenAI-compatible API at /v1, and the Studio's pages at /."""
    key = read_key(api_key_file) if api_key_file is not None else None
    from ownlm.serve.run import serve

    attach = attach_studio if studio else None
    serve(
        list(models or []), workspace(), host, port, screen, attach=attach, api_key=key, background=background,
        opener=opener(precision, quantize),
    )  # fmt: skip


def opener(precision: str, quantize: str | None) -> Opener:
    """Opens models as asked, and a base only once for itself and all of its adapters."""
    made: list[Opener] = []

    def open_one(name: str, workspace: Workspace) -> LanguageModel:
        from ownlm.engine.open import ModelOpener, Weights  # brings torch: not before a model is needed

        if not made:
            made.append(ModelOpener(Weights(precision, quantize)))
        return made[0](name, workspace)

    return open_one


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
