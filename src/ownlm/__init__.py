"""OwnLM: from your documents to an aligned, measured, explained language model that you serve yourself.

    import ownlm

    ownlm.run("recipe.yaml", minutes=8)
    model = ownlm.load("first-model")
    print(model.complete("def fibonacci(n):"))
    print(model.chat("What does pathlib.Path.glob do?"))

Importing this package loads no torch; the first call that needs it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ownlm.api import Model, evaluate, export_model, import_model, load, run

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "evaluate", "export_model", "import_model", "load", "run"]


def __getattr__(name: str) -> Any:
    """Imports `ownlm.api` when one of its names is first used (PEP 562)."""
    if name in __all__:
        from ownlm import api

        return getattr(api, name)
    raise AttributeError(f"module 'ownlm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
