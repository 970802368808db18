"""Shows a training run on the terminal, or as plain lines where there is none."""

from bz_plugin_console.plugin import ConsoleOutPlugin

__all__ = ["ConsoleOutPlugin"]
