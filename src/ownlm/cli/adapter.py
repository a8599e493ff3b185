"""`ownlm adapter`: small trained updates beside a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ownlm.cli.common import size_text, verb, workspace
from ownlm.cli.main import new_app
from ownlm.runtime.errors import ArtifactNotFound
from ownlm.runtime.progress import Screen

app = new_app(help="Work with adapters (LoRA, rsLoRA, DoRA).", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Work with adapters (LoRA, rsLoRA, DoRA)."""


@app.command("merge")
@verb
def merge(
    screen: Screen,
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="An adapter's name or id, or a folder of PEFT's.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the merged model.")],
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model to merge into; else the one the adapter was made for."),
    ] = None,
) -> None:
    """Merge an adapter into its base: a model folder that needs no adapter any longer."""
    from ownlm.engine.adapted import adapter_of, base_of
    from ownlm.model.adapters.merge import merge_folder
    from ownlm.model.folder import weight_files

    place = workspace()
    found = adapter_of(adapter, place)
    if found is None:
        raise ArtifactNotFound(
            f"'{adapter}' is no adapter: neither one of this workspace (`ownlm ls adapter`) nor a folder with an "
            "adapter_config.json."
        )
    folder, artifact = found
    model = base_of(folder, artifact, place, base)
    size = sum(path.stat().st_size for path in weight_files(model))
    screen.say(f"Merging {folder} into {model}: {size_text(size)} to read and to write.")
    done = merge_folder(folder, model, out)
    screen.say(f"{out} is a whole model: {done.changed} of its {done.tensors} tensors have the adapter in them.")
    screen.next(f"ownlm chat {out}", "talk with it; `ownlm import` makes it a model of the workspace")
    screen.result({
        "adapter": str(folder), "base": str(model), "out": str(out), "tensors": done.tensors, "changed": done.changed,
        "bytes": done.bytes,
    })  # fmt: skip
