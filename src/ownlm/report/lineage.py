"""Where an artifact came from: the tree of its inputs, down to the documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ownlm.runtime.errors import OwnLMError
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace


@dataclass(frozen=True)
class Node:
    """One artifact in the tree. `artifact` is None when it was removed or cannot be read."""

    id: str
    role: str = ""
    artifact: Artifact | None = None
    made_from: tuple[Node, ...] = field(default=())

    @property
    def title(self) -> str:
        """As people see it: `model first-model-0123456789ab`."""
        return f"{self.artifact.kind} {self.artifact.label}" if self.artifact else f"{self.id} (no longer here)"

    def walk(self) -> Iterator[Node]:
        """This node and all below it, inputs after what was made of them; shared inputs come again."""
        yield self
        for node in self.made_from:
            yield from node.walk()

    def to_json(self) -> dict[str, Any]:
        """`{"kind", "name", "id", "made_from": {role: the same}}`; a removed one has only its id and `removed`."""
        if self.artifact is None:
            return {"id": self.id, "removed": True}
        made_from = {node.role: node.to_json() for node in self.made_from}
        return {"kind": self.artifact.kind, "name": self.artifact.name, "id": self.id, "made_from": made_from}


def lineage(artifact: Artifact, workspace: Workspace) -> Node:
    """The tree of what `artifact` was made from, as far as it is still there."""
    return _node(artifact.id, "", artifact, workspace, frozenset())


def _node(identifier: str, role: str, artifact: Artifact | None, workspace: Workspace, above: frozenset[str]) -> Node:
    # Ids are hashes of the inputs' ids, so a circle can only come from a forged manifest.
    if artifact is None or identifier in above:
        return Node(identifier, role)
    below = above | {identifier}
    inputs = [
        _node(input_id, input_role, _find(input_id, workspace), workspace, below)
        for input_role, input_id in artifact.inputs.items()
    ]
    return Node(identifier, role, artifact, tuple(inputs))


def _find(identifier: str, workspace: Workspace) -> Artifact | None:
    try:
        return workspace.by_id(identifier)
    except OwnLMError:
        return None


def render_text(node: Node) -> str:
    """The tree for a terminal; what was drawn before is named again, but not drawn again."""
    return "\n".join(_lines(node, set()))


def _lines(node: Node, seen: set[str]) -> list[str]:
    if node.id in seen and node.made_from:
        return [f"{node.title} (see above)"]
    seen.add(node.id)
    drawn = [node.title]
    for index, child in enumerate(node.made_from):
        last = index == len(node.made_from) - 1
        below = _lines(child, seen)
        drawn.append(f"{'└─' if last else '├─'} {child.role}: {below[0]}")
        drawn.extend(f"{'   ' if last else '│  '}{line}" for line in below[1:])
    return drawn
