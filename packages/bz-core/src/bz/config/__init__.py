"""Settings: where they are found, how they are read and checked, and what is written about them.

Names are bound when first used, so that a command which only looks for the settings file does not
pay for pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bz.config.editing import set_plugin_enabled
    from bz.config.faults import check_arguments, describe_faults
    from bz.config.files import find_settings_file, read_settings_file
    from bz.config.loading import load_config
    from bz.config.models import Config, PluginSettings, TrainingSettings
    from bz.config.redaction import redact
    from bz.config.schema import settings_schema

__all__ = [
    "Config",
    "PluginSettings",
    "TrainingSettings",
    "check_arguments",
    "describe_faults",
    "find_settings_file",
    "load_config",
    "read_settings_file",
    "redact",
    "set_plugin_enabled",
    "settings_schema",
]

_MODULES = {
    "Config": "models",
    "PluginSettings": "models",
    "TrainingSettings": "models",
    "check_arguments": "faults",
    "describe_faults": "faults",
    "find_settings_file": "files",
    "load_config": "loading",
    "read_settings_file": "files",
    "redact": "redaction",
    "set_plugin_enabled": "editing",
    "settings_schema": "schema",
}


def __getattr__(name: str) -> object:
    """Import the module that `name` lives in, the first time that it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
