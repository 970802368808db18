"""Stops a training run that no longer improves, diverges or has reached its goal."""

from bz_plugin_early_stopping.plugin import EarlyStoppingPlugin

__all__ = ["EarlyStoppingPlugin"]
