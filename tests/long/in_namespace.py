"""Run inside a network namespace of its own: wakes the loopback, proves that there is no way out, runs and serves.

unshare -rn python in_namespace.py RECIPE.yaml HOME
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import httpx

from long.running import SMALL_RUN, run, server

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
OUTSIDE = ("192.0.2.1", 80)
"""An address that no machine has (RFC 5737)."""


def wake_loopback() -> None:
    """A new namespace has a loopback that is down; this is `ip link set lo up`."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack("16sH", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))[:18])[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def main() -> None:
    """Prints what was answered, as the last line."""
    recipe, home = sys.argv[1], Path(sys.argv[2])
    wake_loopback()
    with socket.socket() as probe:
        assert probe.connect_ex(OUTSIDE) == errno.ENETUNREACH, "there is a way out"
    done = run([sys.executable, SMALL_RUN, "run", recipe], home)
    assert done.returncode == 0, done.stderr
    assert "10 built, 0 reused" in done.stdout, done.stdout
    with server([sys.executable, SMALL_RUN, "--", "serve", "small"], home) as url:
        page = httpx.get(url, timeout=30, follow_redirects=True)
        assert page.status_code == 200, page.text[:500]
        answer = httpx.post(
            f"{url}/v1/completions", json={"model": "small", "prompt": "def ", "max_tokens": 8, "seed": 1}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        print("answered:", answer.json()["usage"]["completion_tokens"])


if __name__ == "__main__":
    main()
