"""Giving freed memory back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def give_back() -> bool:
    """Returns the pages that this process has freed to the system, where the C library can (glibc); whether it could.

    glibc keeps freed blocks of up to 32 MB for itself: after many large tensors came and went, up to their whole size.
    """
    trim = _malloc_trim()
    if trim is None:
        return False
    trim(0)
    return True


@cache
def _malloc_trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
