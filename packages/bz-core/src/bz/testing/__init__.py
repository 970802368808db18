"""For people who write plugins: tiny runs, a plugin that records, a counter of reads, a contract test.

    from bz.testing import PluginConformance

    class TestMyPlugin(PluginConformance):
        def make_plugin(self) -> MyPlugin:
            return MyPlugin()

The pytest fixtures are in `bz.testing.fixtures`; `pytest_plugins = ["bz.testing.fixtures"]` in a
`conftest.py` brings them in.
"""

from __future__ import annotations

from bz.testing.conformance import PluginConformance
from bz.testing.reads import DeviceReads
from bz.testing.recording import RecordingPlugin
from bz.testing.specs import tiny_spec, train

__all__ = ["DeviceReads", "PluginConformance", "RecordingPlugin", "tiny_spec", "train"]
