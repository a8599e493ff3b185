"""Suites, held-out measurements and their yardsticks.

The room bears the name of the function `ownlm.evaluate(MODEL, SUITE)`, and importing any part of it puts this module in
the function's place. So the module can be called, and means the function.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Evaluate(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """See `ownlm.api.evaluate`."""
        from importlib import import_module

        return import_module("ownlm.api").evaluate(*arguments, **named)


sys.modules[__name__].__class__ = _Evaluate
