"""Decides when a training run writes checkpoints and which of them are kept."""

from bz_plugin_checkpoint.plugin import SmartCheckpointPlugin

__all__ = ["SmartCheckpointPlugin"]
