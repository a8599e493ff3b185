"""From tokens to text as they come: whole characters only, and nothing that a stop string may still swallow."""

from __future__ import annotations

import codecs


class TextAssembler:
    """Turns one answer's token bytes into text pieces.

    Bytes are held back until they complete a UTF-8 character, text until no stop string can begin in it. `stopped`
    becomes true when a stop string was met; it and what follows it are not given out.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
        self._held = ""
        self.stopped = False

    def add(self, data: bytes) -> str:
        """The text that is certain after these bytes."""
        return self._release(self._held + self._decoder.decode(data), final=False)

    def finish(self) -> str:
        """What is left at the end of the answer."""
        return self._release(self._held + self._decoder.decode(b"", final=True), final=True)

    def _release(self, text: str, final: bool) -> str:
        if self.stopped:
            return ""
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if final else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` with which `stop` begins."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
