"""`ownlm show`: all about one artifact."""

from __future__ import annotations

import json

from ownlm.cli.common import IdArgument, size_text, time_text, verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(screen: Screen, identifier: IdArgument) -> None:
    """Show an artifact: what it was made from, with which settings, and what was measured."""
    artifact = workspace().resolve(identifier)
    screen.say(f"{artifact.kind} {artifact.label}, made {artifact.created} in {time_text(artifact.seconds)}")
    screen.detail(str(artifact.path))
    for title, values in (
        ("Made from", artifact.inputs), ("Settings", artifact.settings), ("Measured", artifact.metrics),
        ("Environment", artifact.environment),
    ):  # fmt: skip
        if values:
            screen.stage(title)
            screen.table(["", ""], [[key, _short(value)] for key, value in values.items()])
    screen.stage("Files")
    screen.table(
        ["file", "size", "SHA-256"], [[n, size_text(f.size), f.sha256[:16]] for n, f in artifact.files.items()]
    )
    screen.next(f"ownlm lineage {artifact.id}", "where it came from")
    screen.result({**artifact.to_json(), "path": str(artifact.path)})


def _short(value: object, limit: int = 300) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 1] + "…"
