"""The training of a base model, from scratch or continued: what may be asked of it meanwhile, and what watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from ownlm.data.tokenizer_protocol import AnyTokenizer
from ownlm.model.decoder import Decoder
from ownlm.recipe.context import RunContext
from ownlm.recipe.course import Course
from ownlm.recipe.training import live_bar, sample_hook
from ownlm.runtime.keys import pressed_keys
from ownlm.store.workspace import Build
from ownlm.train.control import HINT, AnyOf, FileControl, KeyControl
from ownlm.train.distributed import gathered, shard
from ownlm.train.float8 import leave_float8, use_float8
from ownlm.train.loop import TrainResult, train
from ownlm.train.objective import Objective
from ownlm.train.spikes import SpikeRule
from ownlm.train.trackers import open_trackers
from ownlm.train.world import World

TRACKING = "tracking"
"""The workspace's folder for TensorBoard, W&B and MLflow."""


@dataclass(frozen=True)
class RunOptions:
    """How a run goes, and never what comes of it: its processes (None: this one), and who follows its metrics."""

    world: World | None = None
    track: tuple[str, ...] = ()

    def on(self, course: Course) -> World:
        """The processes, on the course's device where there is one alone."""
        return World(device=course.device) if self.world is None else self.world


def prepare_threads(course: Course, world: World) -> None:
    """Gives torch this process's part of the course's threads, and flushes denormal numbers to zero."""
    torch.set_num_threads(max(1, course.threads // world.neighbours))
    torch.set_flush_denormal(True)


def train_base(
    context: RunContext,
    target: Build,
    decoder: Decoder,
    objective: Objective,
    course: Course,
    tokenizer: AnyTokenizer,
    options: RunOptions,
    told: Mapping[str, Any],
) -> tuple[Decoder | None, TrainResult]:
    """Trains `decoder` to the end of the course; it may be told to finish or to go on for longer meanwhile.

    Every process calls this; the main one gets the whole trained model, on the processor. `told` are the settings that
    trackers show.

    Raises:
        Interrupted, NumericalError, DiskFull: as `train`.
        OwnLMError: a tracker that cannot be opened, a model that cannot be divided among the processes, or float8 where
            it cannot be.
    """
    from ownlm.train.loop import TrainSettings

    world, screen = options.on(course), context.screen
    if course.chosen.float8:
        use_float8(decoder, world.device, world.tensor_parallel)
    decoder = shard(decoder, world)
    on_processor = world.device.startswith("cpu")
    peak = course.peak_flops / world.neighbours if on_processor else course.peak_flops
    settings = TrainSettings(course.schedule, course.chosen.rates(course.rates), peak_flops=peak, spikes=SpikeRule())
    sample = None
    if world.size == 1 and on_processor:
        sample = sample_hook(context, target.folder, tokenizer)
    with ExitStack() as stack:
        hooks: list[Callable[[dict[str, Any]], None]] = []
        control = AnyOf([])  # all processes ask; what the main one hears holds for all
        if world.main:
            keys = stack.enter_context(pressed_keys())
            if keys.active:
                screen.detail(HINT)
            control = AnyOf([FileControl(target.state), KeyControl(keys.read)], screen.say)
            run, place = f"{target.name}-{target.id}", context.workspace.root / TRACKING
            hooks.append(stack.enter_context(live_bar(context, "Pre-training", course.steps)))
            for tracker in open_trackers(options.track, place, run, told, screen.warn):
                stack.callback(tracker.close)
                hooks.append(tracker)

        def on_metrics(row: dict[str, Any]) -> None:
            for hook in hooks:
                hook(row)

        result = train(
            decoder, objective, settings, target.folder, target.state, context.interruption, sample, on_metrics,
            control=control, world=world, say=screen.say, warn=screen.warn,
        )  # fmt: skip
        if sample is not None:
            sample.last(result.steps, decoder)
    found = gathered(decoder, world)
    if found is not None:
        leave_float8(found)
    return found, result
