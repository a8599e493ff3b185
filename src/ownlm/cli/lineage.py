"""`ownlm lineage`: what an artifact was made from, down to the documents."""

from __future__ import annotations

from ownlm.cli.common import IdArgument, verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(screen: Screen, identifier: IdArgument) -> None:
    """Show the chain from an artifact back to the documents it learned from."""
    from ownlm.report.lineage import lineage, render_text

    place = workspace()
    artifact = place.resolve(identifier)
    tree = lineage(artifact, place)
    screen.say(render_text(tree))
    screen.next(f"ownlm verify {artifact.id}", "checks that its files are what was written")
    screen.result(tree.to_json())
