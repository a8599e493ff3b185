"""Whether another process still runs."""

from __future__ import annotations

import os
import sys


def is_running(pid: int) -> bool:
    """Whether a process with this id exists (it may be somebody else's)."""
    if pid <= 0:
        return False
    if sys.platform == "win32":
        # os.kill(pid, 0) is Ctrl-C there. 0x1000: PROCESS_QUERY_LIMITED_INFORMATION; 259: STILL_ACTIVE.
        import ctypes

        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x1000, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == 259
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
