"""The contract of every plugin."""

from __future__ import annotations

from bz.testing import PluginConformance
from bz_plugin_checkpoint import SmartCheckpointPlugin


class TestSmartCheckpointPlugin(PluginConformance):
    def make_plugin(self) -> SmartCheckpointPlugin:
        return SmartCheckpointPlugin()


class TestSmartCheckpointPluginInsideEpochs(PluginConformance):
    def make_plugin(self) -> SmartCheckpointPlugin:
        return SmartCheckpointPlugin(every="2 steps", save_best_only=False, milestones="3 steps", keep_best=2)
