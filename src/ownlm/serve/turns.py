"""One request at a time for each model; the others wait in line."""

from __future__ import annotations

import asyncio

from ownlm.runtime.errors import OwnLMError


class ServerBusy(OwnLMError):
    """Too many requests wait already; trying again later may help."""

    http_status = 503
    code = "server_busy"
    retry_after = 5
    """Seconds."""


class Turns:
    """First come, first served; at most `limit` wait."""

    def __init__(self, limit: int) -> None:
        self.limit, self.waiting = limit, 0
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Waits for the turn; whoever has it gives it back with `give_back`.

        Raises:
            ServerBusy: `limit` requests wait already.
        """
        if self.waiting >= self.limit:
            raise ServerBusy(f"{self.limit} requests wait for this model already: try again later.")
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1

    def give_back(self) -> None:
        """Lets the next one in; must be called in the event loop."""
        self._lock.release()
