"""What a server may be told: where it listens, who may use it, and how much it takes on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from ownlm.runtime.errors import OwnLMError


@dataclass(frozen=True)
class ServeSettings:
    """`max_body` is in bytes; `max_waiting` counts the requests that may wait for one model; `max_answers` those that
    one request may ask for (prompts times `n`). An `api_key` is asked for everywhere but at `/health`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    max_body: int = 1 << 20
    max_waiting: int = 64
    max_answers: int = 32

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.api_key:
            raise OwnLMError(
                f"Listening on {self.host} would let everyone on the network use the models: give --api-key-file FILE "
                "or set OWNLM_API_KEY, or leave --host away to serve this machine alone."
            )
        if self.api_key is not None and len(self.api_key) < 16:
            raise OwnLMError("The API key is shorter than 16 characters: take a longer, random one.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = self.host
        if host in ("0.0.0.0", "::", ""):
            host = "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether this name or address means this machine alone."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
