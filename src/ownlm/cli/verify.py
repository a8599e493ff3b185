"""`ownlm verify`: whether an artifact is still what was written."""

from __future__ import annotations

from ownlm.cli.common import IdArgument, size_text, verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(screen: Screen, identifier: IdArgument) -> None:
    """Read every file of an artifact and compare size and SHA-256 with what was written."""
    artifact = workspace().resolve(identifier)
    artifact.verify()
    size = sum(file.size for file in artifact.files.values())
    screen.say(f"{artifact.kind} {artifact.label} is whole: {len(artifact.files)} files, {size_text(size)}.")
    screen.next(f"ownlm show {artifact.id}", "all about it")
    screen.result({"id": artifact.id, "whole": True, "files": len(artifact.files), "bytes": size})
