"""The contract of every plugin."""

from __future__ import annotations

from bz.testing import PluginConformance
from bz_plugin_averaging import AveragingPlugin


class TestAveragingPlugin(PluginConformance):
    def make_plugin(self) -> AveragingPlugin:
        return AveragingPlugin()


class TestAveragingPluginOfMeans(PluginConformance):
    def make_plugin(self) -> AveragingPlugin:
        return AveragingPlugin("swa", start="2 steps", every="2 steps", buffers=True, output="folder/mean.pth")
