"""`ownlm pretrain`: a base model, from documents, from another model, or from a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ownlm.cli.common import verb, workspace
from ownlm.runtime.progress import Screen

_EXISTING = "From a model that exists"
_MACHINE = "The run"
_UNSAID: tuple[object, ...] = (None, 0.0, ())


@verb
def command(
    screen: Screen,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A folder of documents; a corpus is made of it.", show_default=False),
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="A corpus's name or id; the newest without DIR.")] = None,
    minutes: Annotated[float | None, typer.Option(help="The budget; 8 by default.", show_default=False)] = None,
    plan: Annotated[str | None, typer.Option(help="A plan's id, which `ownlm plan` made.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    steps: Annotated[int | None, typer.Option(help="So many training steps instead of the plan's.")] = None,
    fim: Annotated[
        float, typer.Option(help="The share of the documents in which the model learns to fill a gap: 0.5 is usual.")
    ] = 0.0,
    megabytes: Annotated[float | None, typer.Option(help="How much of DIR is read; what suits the minutes.")] = None,
    seed: Annotated[int, typer.Option(help="Makes the run repeatable.")] = 0,
    chosen: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another way to train: schedule, warmup, decay, learning_rate, weight_decay, neuron_beta (NorMuon), "
            "cautious, momentum_warmup, batch_halvings, first_context, documents_apart, z_loss, float8. "
            "May be repeated.",
        ),
    ] = None,
    init: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Continue this model.", rich_help_panel=_EXISTING)
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="10%[:CORPUS]",
            help="With --init: the share of old documents among the new ones, and the corpus that they are taken from "
            "(the model's own without a name).",
            rich_help_panel=_EXISTING,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Learn from what this model says next, in its vocabulary.", rich_help_panel=_EXISTING
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps; the fastest otherwise.", rich_help_panel=_MACHINE)
    ] = None,
    tensor_parallel: Annotated[
        int, typer.Option(help="Under torchrun: divide each matrix among so many processes.", rich_help_panel=_MACHINE)
    ] = 1,
    track: Annotated[
        str,
        typer.Option(help="Metrics also to tensorboard, wandb, mlflow (a comma between).", rich_help_panel=_MACHINE),
    ] = "",
) -> None:
    """Train a base model: what is built is reused, what was cut off goes on where it stopped.

    With several processes: torchrun --nproc-per-node 8 -m ownlm pretrain ...
    """
    from ownlm.recipe.pretraining import Request, pretrain

    trackers = tuple(each.strip() for each in track.split(",") if each.strip())
    request = Request(
        folder=folder, corpus=corpus, minutes=minutes, plan=plan, init=init, replay=replay, teacher=teacher, fim=fim,
        name=name, steps=steps, track=trackers, tensor_parallel=tensor_parallel, device=device, megabytes=megabytes,
        seed=seed, chosen=tuple(chosen or ()),
    )  # fmt: skip
    place = workspace()
    model = pretrain(request, place, screen, typed(vars(request)))
    if model is None:  # another process of this run tells of it
        return
    called = next((alias for alias, i in place.aliases().items() if i == model.id), model.name)
    screen.next(f'ownlm complete {called} "..."', f"or continue it: `ownlm pretrain DIR --init {called} --replay 10%`")
    screen.result({"kind": model.kind, "name": model.name, "id": model.id, "metrics": model.metrics})


def typed(given: Mapping[str, object]) -> list[str]:
    """What one types after `ownlm` to go on with a run of these settings."""
    words = ["pretrain"] if given["folder"] is None else ["pretrain", str(given["folder"])]
    for name, value in given.items():
        if name == "chosen" and isinstance(value, tuple):
            words += [word for each in value for word in ("--set", each)]
            continue
        usual = {"tensor_parallel": 1, "seed": 0}.get(name)
        if name == "folder" or value in _UNSAID or value == usual:
            continue
        text = ",".join(value) if isinstance(value, tuple) else f"{value:.15g}" if isinstance(value, float) else value
        words += [f"--{name.replace('_', '-')}", str(text)]
    return words
