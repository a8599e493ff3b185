"""How the processes that torchrun starts, and starts again after a failure, find each other."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the main one may be making a corpus meanwhile."""
_PAUSE = 0.02


def join(backend: str) -> None:
    """Starts the process group of this attempt from torchrun's environment.

    torchrun keeps one store for all attempts, with the addresses of processes that are dead by now, and its count of
    restarts differs between machines; so each attempt gets a name of its own.
    """
    with _stops_at_once():
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        attempt = agree(PrefixStore("ownlm", store), rank, size)
        store = PrefixStore(attempt, store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


def agree(store: Any, rank: int, size: int) -> str:
    """The name of this attempt: the first rank makes one up, and tells it to those who live now.

    Each of the others leaves a name of its own making; what dead ones left is answered in vain.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"here/{rank}", own)
        attempt: str = store.get(f"attempt of/{own}").decode()
        store.set(f"{attempt} knows/{own}", "")
        return attempt
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            if not store.check([f"here/{other}"]):
                continue
            name = store.get(f"here/{other}").decode()
            store.set(f"attempt of/{name}", own)
            if store.check([f"{own} knows/{name}"]):
                missing.remove(other)
        time.sleep(_PAUSE)
    return own


@contextmanager
def _stops_at_once() -> Iterator[None]:
    """SIGTERM ends the process: there is nothing to save yet, and torchrun waits to start the next attempt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
