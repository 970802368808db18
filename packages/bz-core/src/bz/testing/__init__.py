"""For people who write plugins: a recording plugin, tiny runs, and a contract test for their own plugin.

    from bz.testing import PluginConformance

    class TestMyPlugin(PluginConformance):
        def make_plugin(self) -> MyPlugin:
            return MyPlugin()

The pytest fixtures are in `bz.testing.fixtures`; `pytest_plugins = ["bz.testing.fixtures"]` in a
`conftest.py` brings them in.
"""

from __future__ import annotations

from bz.testing.conformance import PluginConformance
from bz.testing.recording import RecordingPlugin
from bz.testing.specs import tiny_spec, train

__all__ = ["PluginConformance", "RecordingPlugin", "tiny_spec", "train"]
