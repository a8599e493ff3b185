"""Adapters: small trained updates beside a frozen model, read and written as PEFT does."""

from ownlm.model.adapters.adapter import Adapter, Adapters, fresh_adapter
from ownlm.model.adapters.config import AdapterConfig, read_adapter_config
from ownlm.model.adapters.files import is_adapter_folder, read_adapter, save_adapter

__all__ = [
    "Adapter",
    "AdapterConfig",
    "Adapters",
    "fresh_adapter",
    "is_adapter_folder",
    "read_adapter",
    "read_adapter_config",
    "save_adapter",
]
