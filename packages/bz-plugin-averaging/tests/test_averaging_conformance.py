"""The contract of every plugin."""

from __future__ import annotations

from pathlib import Path

import torch
from averaging_runs import same

from bz.testing import PluginConformance, tiny_spec, train
from bz.training.state import to_plain
from bz_plugin_averaging import AveragingPlugin


class _StateOfTensors(PluginConformance):
    """The contract, for a state with tensors in it, which `==` does not compare."""

    def make_plugin(self) -> AveragingPlugin:
        return AveragingPlugin()

    def test_state_goes_through_a_checkpoint(self, tmp_path: Path) -> None:
        plugin, other = self.make_plugin(), self.make_plugin()
        train(tiny_spec(), plugin, run_dir=tmp_path)
        torch.save(to_plain(plugin.state_dict()), tmp_path / "state.pth")
        other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
        states = plugin.state_dict(), other.state_dict()
        assert same(*(state.pop("evaluation_weights") for state in states))
        assert states[0] == states[1]


class TestAveragingPlugin(_StateOfTensors):
    pass


class TestAveragingPluginOfMeans(_StateOfTensors):
    def make_plugin(self) -> AveragingPlugin:
        return AveragingPlugin("swa", start="2 steps", every="2 steps", buffers=True, output="folder/mean.pth")
