"""`ownlm show`: all about one artifact, and the anatomy of a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ownlm.cli.common import size_text, time_text, verb, workspace
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen

if TYPE_CHECKING:
    from ownlm.model.anatomy import Anatomy
    from ownlm.store.artifact import Artifact

LONG = 1000
"""Tokens of a text that memory is told for."""
TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "I32": "packed integers"}


@verb
def command(
    screen: Screen,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An artifact's id, name or alias, a model folder, or hf:org/name.")
    ],
    length: Annotated[
        int, typer.Option(help="Of a model: count the work for one token at the end of a text of so many.")
    ] = LONG,
) -> None:
    """Show an artifact: what it was made from and what was measured; of a model also what it is made of."""
    from ownlm.engine.looking import is_model, look
    from ownlm.runtime.errors import ArtifactNotFound

    artifact = None
    if not name.startswith("hf:"):
        try:
            artifact = workspace().resolve(name)
        except ArtifactNotFound:
            if not is_model(name):
                raise
    if artifact is not None:
        _artifact(screen, artifact, length)
        return
    anatomy = look(name, length)
    _anatomy(screen, name, anatomy)
    screen.next(f"ownlm chat {name}", "talk with it")
    screen.result({"model": name, "anatomy": anatomy.to_json()})


def _artifact(screen: Screen, artifact: Artifact, length: int) -> None:
    screen.say(f"{artifact.kind} {artifact.label}, made {artifact.created} in {time_text(artifact.seconds)}")
    screen.detail(str(artifact.path))
    more: dict[str, Any] = {}
    if artifact.kind == "model":
        from ownlm.engine.looking import look

        try:
            anatomy = look(str(artifact.path), length)
        except OwnLMError as error:
            screen.warn(str(error))
        else:
            screen.stage("What it is made of")
            _anatomy(screen, artifact.label, anatomy)
            more = {"anatomy": anatomy.to_json()}
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
    screen.result({**artifact.to_json(), "path": str(artifact.path), **more})


def _anatomy(screen: Screen, name: str, anatomy: Anatomy) -> None:
    config = anatomy.config
    screen.say(
        f"{name}: {_count(anatomy.parameters)} parameters in {config.layers} layers of width {config.width:,} "
        f"({anatomy.family}), for texts of up to {config.context:,} tokens"
    )
    rows = [
        [part.name, _count(part.parameters), _count(part.flops), size_text(part.bytes), part.sentence]
        for part in anatomy.parts
    ]
    rows.append(["all", _count(anatomy.parameters), _count(anatomy.flops), size_text(anatomy.bytes), ""])
    titles = ["part", "parameters", "FLOPs", "memory", "what it does"]
    for column in (1, 2, 3):
        texts = _flush_right([titles[column], *(row[column] for row in rows)])
        for line, text in zip([titles, *rows], texts, strict=True):
            line[column] = text
    screen.table(titles, rows)
    lines = [
        f"Parameters are what training sets, stored as {_kinds(anatomy)}.",
        f"FLOPs are multiplications and additions, here for token {anatomy.length:,} of a text.",
    ]
    if anatomy.at_work < anatomy.parameters:
        lines.append(f"{_count(anatomy.at_work)} parameters work on a token; all must be in memory.")
    lengths = sorted({min(LONG, config.context), config.context})
    memory = [f"{size_text(anatomy.cache_bytes(tokens))} at {tokens:,} tokens" for tokens in lengths]
    lines += ["Attention keeps keys and values of the text in memory, in 16 bits a number:", f"{', '.join(memory)}."]
    screen.detail("\n".join(lines))


def _kinds(anatomy: Anatomy) -> str:
    """ "bfloat16", or the shares of several types of numbers."""
    total = sum(anatomy.stored.values())
    shares = {
        TYPES.get(kind, kind): f"{100 * size / total:.1f} %"
        for kind, size in sorted(anatomy.stored.items(), key=lambda each: -each[1])
    }
    return next(iter(shares)) if len(shares) == 1 else ", ".join(f"{kind} ({share})" for kind, share in shares.items())


def _flush_right(texts: list[str]) -> list[str]:
    width = max(map(len, texts))
    return [text.rjust(width) for text in texts]


def _count(number: int) -> str:
    """1,234 as it is, larger ones as "1.23 M", "4.56 B"."""
    if number < 10_000:
        return f"{number:,}"
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} k"


def _short(value: object, limit: int = 300) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 1] + "…"
