"""Seeds: every source of chance takes one that is derived from names, never from the clock."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any parts that have a stable `repr` or string, such as `derive_seed(7, "sft", 3)`.

    Two different lists of parts give unrelated seeds, so no stage's chance depends on another's.
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
