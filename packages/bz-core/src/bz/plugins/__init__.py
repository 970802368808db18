"""What plugin authors import: `Plugin`, `hookimpl`, and the classes of installed plugins by name.

`from bz.plugins import LoggingPlugin` imports the package that registers a class of that name
under the entry-point group `bz.plugins`, and nothing else.
"""

from __future__ import annotations

from typing import Any

from bz.hookspecs import hookimpl
from bz.plugins.base import Plugin

__all__ = ["Plugin", "hookimpl"]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    from bz.plugins.discovery import KNOWN_PLUGINS, discover_plugins

    for plugin in discover_plugins():
        if plugin.attribute == name:
            return plugin.load()
    for known in KNOWN_PLUGINS:
        if known.class_name == name:
            message = f"{name} is in the package {known.package}, which is not installed: pip install {known.package}"
            raise ImportError(message, name=f"{__name__}.{name}")
    message = f"module {__name__!r} has no attribute {name!r}, and no installed plugin provides it"
    raise AttributeError(message)
