"""The objective of a base model's training, from the artifacts of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ownlm.align.distillation import DistillationObjective
from ownlm.align.teacher import read_draws
from ownlm.data.shards import TokenStream, read_shards
from ownlm.recipe.context import RunContext
from ownlm.recipe.course import Course
from ownlm.store.artifact import Artifact
from ownlm.train.mixture import MixtureObjective, join
from ownlm.train.pretrain import PretrainObjective

if TYPE_CHECKING:
    from ownlm.train.world import World


def base_objective(
    context: RunContext, course: Course, vocabulary: int, world: World, replayed: float = 0.0
) -> PretrainObjective | DistillationObjective:
    """Pre-training on the artifact "tokens"; `replayed` of the windows come from "replay", and "draws" teach.

    Raises:
        CorpusError: too few tokens for one window.
    """
    tokens = context.artifacts["tokens"]
    stream = read_shards(tokens.path, "train", vocabulary)
    if not replayed:
        plain = PretrainObjective(**_fields(context, course, world, stream, _bytes(tokens)))
        if "draws" not in context.artifacts:
            return plain
        draws = read_draws(context.path("draws"), len(stream.ids), vocabulary)
        return DistillationObjective(plain, draws)
    other = context.artifacts["replay"]
    whole = join(stream, read_shards(other.path, "train", vocabulary))
    mean = (1 - replayed) * _bytes(tokens) + replayed * _bytes(other)
    return MixtureObjective(
        **_fields(context, course, world, whole, mean), border=len(stream.ids), replayed=replayed
    )  # fmt: skip


def _fields(context: RunContext, course: Course, world: World, stream: TokenStream, mean: float) -> dict[str, Any]:
    return {
        "ids": stream.ids, "fingerprint": context.artifacts["tokens"].id, "context": course.context,
        "rows": course.rows, "micro_batches": course.micro_batches, "seed": context.recipe.seed,
        "bytes_per_token": mean, "starts": stream.starts, "sha256": stream.sha256, "share": world.share,
        "device": world.device, **course.chosen.objective(course.steps),
    }  # fmt: skip


def _bytes(tokens: Artifact) -> float:
    """Bytes a token."""
    return float(tokens.metrics["bytes_per_token"])
