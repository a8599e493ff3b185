"""The processes of one command: the main one makes what they need, then all of them train."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ownlm.recipe.base_training import RunOptions
from ownlm.runtime.errors import Interrupted, OwnLMError
from ownlm.train.distributed import launched
from ownlm.train.world import World


@dataclass(frozen=True)
class _Ended:
    """The main process gave up before there was anything to train."""

    exit_code: int


class Team:
    """This process among those that torchrun started; `world` is None where it is alone."""

    def __init__(self, world: World | None) -> None:
        self._world = world
        self._waiting = world is not None

    @property
    def main(self) -> bool:
        """Whether this process prepares, writes and speaks."""
        return self._world is None or self._world.main

    @property
    def size(self) -> int:
        """How many processes there are."""
        return 1 if self._world is None else self._world.size

    @property
    def device(self) -> str | None:
        """The kind of device that all of them are on; None where that is still to be chosen."""
        return None if self._world is None else self._world.device.partition(":")[0]

    def options(self, track: tuple[str, ...]) -> RunOptions:
        """The options of a training in these processes."""
        return RunOptions(self._world, track)

    def start(self, job: Any) -> None:
        """The main process: all that the others need to train with it."""
        if self._world is not None:
            self._world.broadcast(job)
            self._waiting = False

    def wait(self) -> Any:
        """The other processes: the job; None where there is nothing to train.

        Raises:
            SystemExit: the main process has ended, and said why.
        """
        assert self._world is not None
        job = self._world.broadcast(None)
        if isinstance(job, _Ended):
            raise SystemExit(job.exit_code)
        return job

    @contextmanager
    def led(self) -> Iterator[None]:
        """The main process works inside; the others hear of it when it ends without a job for them."""
        ended: _Ended | None = None
        try:
            yield
        except BaseException as error:
            code = error.exit_code if isinstance(error, OwnLMError | Interrupted) else 1
            ended = _Ended(code)
            raise
        finally:
            if self._waiting and self._world is not None:
                self._world.broadcast(ended)


@contextmanager
def launched_team(tensor_parallel: int, device: str | None) -> Iterator[Team]:
    """The processes that torchrun started, or this one alone.

    Raises:
        OwnLMError: they cannot divide matrices by `tensor_parallel`, or there are too few GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and tensor_parallel == 1:
        yield Team(None)
        return
    import torch

    world = launched(tensor_parallel, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        yield Team(world)
    except Interrupted as stop:
        world.close()  # all of them stopped after the same step
        if world.main:
            raise
        raise SystemExit(stop.exit_code) from None  # the main process tells of it
    else:
        world.close()
