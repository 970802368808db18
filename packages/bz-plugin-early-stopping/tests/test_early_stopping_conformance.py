"""The contract of every plugin."""

from __future__ import annotations

from bz.testing import PluginConformance
from bz_plugin_early_stopping import EarlyStoppingPlugin


class TestEarlyStoppingPlugin(PluginConformance):
    def make_plugin(self) -> EarlyStoppingPlugin:
        return EarlyStoppingPlugin()


class TestEarlyStoppingPluginWithEveryBound(PluginConformance):
    def make_plugin(self) -> EarlyStoppingPlugin:
        return EarlyStoppingPlugin(
            "training_loss", min_delta=0.1, min_epochs=1, stopping_threshold=-1.0, divergence_threshold=1e6
        )
