"""`ownlm ls`: the artifacts of this workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from ownlm.cli.common import size_text, time_text, verb, workspace
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="corpus, tokenizer, model, ...")] = None,
) -> None:
    """List what was built: every artifact, or those of one kind."""
    from ownlm.cli.main import unknown
    from ownlm.store.artifact import KINDS

    wanted = kind.removesuffix("s") if kind and kind.removesuffix("s") in KINDS else kind
    if wanted and wanted not in KINDS:
        raise OwnLMError(unknown("kind of artifact", wanted, KINDS))
    place = workspace()
    artifacts, aliases = place.artifacts(wanted), place.aliases()
    rows = []
    for each in artifacts:
        called = ", ".join(name for name, identifier in aliases.items() if identifier == each.id)
        size = size_text(sum(file.size for file in each.files.values()))
        rows.append([each.kind, each.name, each.id, called, size, time_text(each.seconds), when(each.created)])
    screen.table(["kind", "name", "id", "alias", "size", "took", "made"], rows)
    if not artifacts:
        screen.say(f"There is {f'no {wanted}' if wanted else 'nothing'} in {place.root} yet.")
        screen.next("ownlm demo", "builds a first model")
    else:
        screen.next(f"ownlm show {artifacts[-1].id}", "all about the newest")
    screen.result({"artifacts": [
        {"kind": a.kind, "name": a.name, "id": a.id, "path": str(a.path), "created": a.created, "seconds": a.seconds,
         "aliases": [name for name, identifier in aliases.items() if identifier == a.id]}
        for a in artifacts
    ]})  # fmt: skip


def when(created: str) -> str:
    """A time of the manifest, as the clock here shows it: "2026-11-21 07:49"."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(created).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return created
