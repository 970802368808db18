"""Train PyTorch models; everything besides training is a plugin.

Names are bound when they are first used, so that `import bz` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bz.context import TrainingContext
    from bz.errors import BzError, CheckpointError, ConfigError, PluginError, ScriptError, TrainingError
    from bz.hookspecs import hookimpl
    from bz.plugins.base import Plugin
    from bz.spec import LRSchedule, StepResult, TrainingSpec
    from bz.training.result import TrainingResult
    from bz.training.trainer import Trainer

__all__ = [
    "BzError",
    "CheckpointError",
    "ConfigError",
    "LRSchedule",
    "Plugin",
    "PluginError",
    "ScriptError",
    "StepResult",
    "Trainer",
    "TrainingContext",
    "TrainingError",
    "TrainingResult",
    "TrainingSpec",
    "hookimpl",
]

_MODULES: Final = {
    "BzError": "bz.errors",
    "CheckpointError": "bz.errors",
    "ConfigError": "bz.errors",
    "LRSchedule": "bz.spec",
    "Plugin": "bz.plugins.base",
    "PluginError": "bz.errors",
    "ScriptError": "bz.errors",
    "StepResult": "bz.spec",
    "Trainer": "bz.training.trainer",
    "TrainingContext": "bz.context",
    "TrainingError": "bz.errors",
    "TrainingResult": "bz.training.result",
    "TrainingSpec": "bz.spec",
    "hookimpl": "bz.hookspecs",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from bz.plugins.discovery import core_version

        return core_version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
