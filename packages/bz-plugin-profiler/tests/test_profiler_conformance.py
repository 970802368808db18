"""The contract of every plugin."""

from __future__ import annotations

from bz.testing import PluginConformance
from bz_plugin_profiler import ProfilerPlugin


class TestProfilerPlugin(PluginConformance):
    def make_plugin(self) -> ProfilerPlugin:
        return ProfilerPlugin()


class TestProfilerPluginWithAllOfIt(PluginConformance):
    def make_plugin(self) -> ProfilerPlugin:
        return ProfilerPlugin(
            steps="1-2, 4",
            record_shapes=True,
            profile_memory=True,
            with_stack=True,
            memory_snapshot="end",
            devices_every="0.1 s",
        )


class TestProfilerPluginWithNothingOn(PluginConformance):
    def make_plugin(self) -> ProfilerPlugin:
        return ProfilerPlugin(steps=None, data_wait=False, devices_every=None)
