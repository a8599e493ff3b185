"""`ownlm data`: what a model learns from."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import typer

from ownlm.cli.common import size_text, verb, workspace
from ownlm.cli.main import new_app
from ownlm.runtime.errors import ArtifactNotFound
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

app = new_app(help="Look at the documents that models learn from.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look at the documents that models learn from."""


@app.command("show")
@verb
def show(
    screen: Screen,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A corpus; the newest without one.")] = None,
) -> None:
    """Show a corpus: how much of what, under which licences, what is held out, and what was skipped and why."""
    corpus = newest(workspace(), "corpus", name)
    metrics = corpus.metrics
    screen.say(
        f"corpus {corpus.label}: {metrics.get('documents', 0):,} documents, {size_text(metrics.get('bytes', 0))}; "
        f"held out: {metrics.get('heldout_documents', 0):,} documents, {size_text(metrics.get('heldout_bytes', 0))}, "
        f"from {metrics.get('heldout_groups', 0)} groups."
    )
    for title, column, key in (("Kinds", "kind", "kinds"), ("Licences", "licence", "licences")):
        sizes = sorted((metrics.get(key) or {}).items(), key=lambda item: -item[1])
        if sizes:
            screen.stage(title)
            screen.table([column, "text"], [[label, size_text(count)] for label, count in sizes])
    reasons = skipped(corpus)
    if reasons:
        screen.stage(f"Skipped ({sum(reasons.values()):,} files; skipped.jsonl lists them)")
        screen.table(["reason", "files"], [list(item) for item in reasons.most_common(12)])
    screen.next("ownlm tokenizer show", "how this text is cut into tokens")
    screen.result({"id": corpus.id, "path": str(corpus.path), "metrics": metrics, "skipped": dict(reasons)})


def newest(place: Workspace, kind: str, name: str | None) -> Artifact:
    """The artifact of this kind by name, or the newest.

    Raises:
        ArtifactNotFound: there is none.
    """
    if name is not None:
        return place.resolve(name, (kind,))
    present = place.artifacts(kind)
    if not present:
        raise ArtifactNotFound(f"There is no {kind} in {place.root} yet; `ownlm demo` builds one.")
    return present[-1]


def skipped(corpus: Artifact) -> Counter[str]:
    """Reason -> number of files that were not taken for it."""
    path = corpus.path / "skipped.jsonl"
    if not path.is_file():
        return Counter()
    lines = path.read_text("utf-8").splitlines()
    return Counter(str(json.loads(line)["reason"]) for line in lines if line)
