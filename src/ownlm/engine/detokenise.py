"""From tokens to text as they come: whole characters only, and nothing that a stop string may still swallow."""

from __future__ import annotations

from ownlm.data.tokenizer_protocol import TokenDecoder


class TextAssembler:
    """Turns one answer's tokens into text pieces.

    The decoder holds tokens back until they complete a character; text is held back until no stop string can begin in
    it. `stopped` becomes true when a stop string was met; it and what follows it are not given out.
    """

    def __init__(self, decoder: TokenDecoder, stop: tuple[str, ...] = ()) -> None:
        self._decoder = decoder
        self._stop = stop
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain after this token."""
        return self._release(self._held + self._decoder.add(token), final=False)

    def finish(self) -> str:
        """What is left at the end of the answer."""
        return self._release(self._held + self._decoder.finish(), final=True)

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
