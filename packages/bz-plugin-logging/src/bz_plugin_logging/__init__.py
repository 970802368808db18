"""Writes the log of a training run: what began, every epoch, how it ended."""

from bz_plugin_logging.plugin import LoggingPlugin

__all__ = ["LoggingPlugin"]
