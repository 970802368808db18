"""What goes wrong in the user's code or in a plugin, and what of the run is kept."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest

import bz.training.account
from bz.plugins import Plugin
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import find_checkpoint
from faults.runs import make_spec, train_on

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from bz import TrainingContext


def failing_step(at_call: int) -> Any:
    """Return a training step that raises the at_call-th time."""
    calls = itertools.count(1)

    def training_step(context: TrainingContext, batch: Any) -> torch.Tensor:
        if next(calls) == at_call:
            raise ZeroDivisionError("the user's own")
        inputs, targets = batch
        assert context.loss_fn is not None
        return context.loss_fn(context.model(inputs), targets)

    return training_step


@pytest.mark.parametrize("at_call", [5, 6, 8])
def test_run_that_failed_in_a_step_goes_on_from_its_last_checkpoint_bit_equal(at_call: int, tmp_path: Path) -> None:
    spec = make_spec()
    spec.training_step = failing_step(at_call)
    run_dir = tmp_path / "run"
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        train(spec, epochs=2, run_dir=run_dir, checkpoint_interval="3 steps")
    assert find_checkpoint(run_dir).state["bz"]["global_step"] == (at_call - 1) // 3 * 3
    assert train_on(run_dir) == train_on(tmp_path / "whole")


def test_plugin_that_takes_a_large_share_of_a_long_run_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bz.training.account, "LONG_RUN_SECONDS", 0.05)  # what counts as a long run

    def dawdle(hook: str, _context: TrainingContext) -> None:
        if hook == "end_epoch":
            next(number for number in itertools.count() if number == 2_000_000)

    train(tiny_spec(), RecordingPlugin(dawdle), RecordingPlugin(), epochs=2)
    (message,) = caplog.messages
    assert re.fullmatch(
        r"plugin 'recording' took \d+ % of the run, most of it in end_epoch; "
        "try settings that let it do less, or less often, or leave it out",
        message,
    )


class Versioned(Plugin):
    """A plugin whose second version understands no state of the first."""

    name = "versioned"

    def __init__(self, version: int) -> None:
        self.version = version
        self.loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        if self.version == 0:
            raise RuntimeError("nothing to give")
        return {"version": self.version}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["version"] != self.version:
            raise KeyError("another version")
        self.loaded = state


def test_plugin_that_cannot_take_its_state_starts_afresh_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny_spec(), Versioned(1), epochs=1, run_dir=tmp_path)
    result = train(tiny_spec(), newer := Versioned(2), epochs=2, run_dir=tmp_path, resume=tmp_path)
    assert (result.status, result.epochs, newer.loaded) == ("completed", 2, None)
    assert [message.endswith("; it starts afresh") for message in caplog.messages] == [True]
    train(tiny_spec(), newest := Versioned(2), epochs=3, run_dir=tmp_path, resume=tmp_path)
    assert newest.loaded == {"version": 2}


def test_plugin_that_cannot_give_its_state_is_left_out_of_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(tiny_spec(), Versioned(0), RecordingPlugin(), epochs=1, run_dir=tmp_path)
    assert (result.status, result.missing_files) == ("completed", ())
    assert [message.partition("; ")[2] for message in caplog.messages] == ["checkpoints are written without it"]
    assert list(find_checkpoint(tmp_path).state["bz"]["plugins"]) == ["recording"]
