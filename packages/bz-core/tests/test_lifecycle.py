"""The order of the hooks, literally, however a run ends."""

from __future__ import annotations

import itertools
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bz import Trainer, TrainingContext
from bz.config import TrainingSettings
from bz.testing import RecordingPlugin, tiny_spec, train

if TYPE_CHECKING:
    from pathlib import Path

TRAINING_LOOP = [
    "start_training_loop",
    "start_training_batch",
    "end_training_batch",
    "start_training_batch",
    "end_training_batch",
    "start_training_batch",
    "end_training_batch",
    "end_training_loop",
]
VALIDATION_LOOP = [
    "start_validation_loop",
    "start_validation_batch",
    "end_validation_batch",
    "start_validation_batch",
    "end_validation_batch",
    "end_validation_loop",
]


def at(hook: str, count: int, action: Any) -> RecordingPlugin:
    """Return a plugin that does something when the hook fires for the count-th time."""
    counter = itertools.count(1)

    def on_event(event: str, context: TrainingContext) -> None:
        if event == hook and next(counter) == count:
            action(context)

    return RecordingPlugin(on_event)


def test_run_with_validation_fires_every_hook_in_order() -> None:
    plugin = RecordingPlugin()
    result = train(tiny_spec(), plugin, epochs=2)
    epoch = ["start_epoch", *TRAINING_LOOP, *VALIDATION_LOOP, "end_epoch"]
    assert plugin.events == ["start_training_session", *epoch, *epoch, "end_training_session"]
    assert result.status == "completed"


def test_run_without_validation_fires_no_validation_hook() -> None:
    plugin = RecordingPlugin()
    train(tiny_spec(validation_loader=None), plugin, epochs=1)
    assert plugin.events == [
        "start_training_session",
        "start_epoch",
        *TRAINING_LOOP,
        "end_epoch",
        "end_training_session",
    ]


def test_ellipsis_in_place_of_a_validation_loader_means_none() -> None:
    plugin = RecordingPlugin()
    train(tiny_spec(validation_loader=...), plugin, epochs=1)
    assert "start_validation_loop" not in plugin.events


def test_checkpoints_are_announced_after_the_epoch(tmp_path: Path) -> None:
    plugin = RecordingPlugin()
    train(tiny_spec(validation_loader=None), plugin, epochs=2, run_dir=tmp_path)
    assert plugin.events[10:14] == ["end_epoch", "save_checkpoint", "start_epoch", "start_training_loop"]
    assert plugin.events[-3:] == ["end_epoch", "save_checkpoint", "end_training_session"]


def test_stop_after_the_epoch_finishes_the_epoch() -> None:
    plugin = at("start_training_batch", 1, lambda context: context.request_stop("enough"))
    result = train(tiny_spec(), plugin, epochs=5)
    assert plugin.events == [
        "start_training_session",
        "start_epoch",
        *TRAINING_LOOP,
        *VALIDATION_LOOP,
        "end_epoch",
        "end_training_session",
    ]
    assert (result.status, result.stop_reason, result.epochs) == ("stopped", "enough", 1)


def test_stop_after_the_batch_ends_the_session_at_once() -> None:
    plugin = at("end_training_batch", 2, lambda context: context.request_stop("now", when="batch"))
    result = train(tiny_spec(), plugin, epochs=5)
    assert plugin.events == [
        "start_training_session",
        "start_epoch",
        *TRAINING_LOOP[:5],
        "end_training_session",
    ]
    assert (result.status, result.global_step, result.epochs) == ("stopped", 2, 0)


def test_batches_that_end_because_of_a_stop_end_no_epoch() -> None:
    class Dying:
        """Loses its workers to the signal that also reaches the trainer."""

        def __iter__(self) -> Any:
            yield torch.ones(2, 4), torch.zeros(2, dtype=torch.long)
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker is killed by signal: Terminated.")

    plugin = RecordingPlugin()
    spec = tiny_spec(training_loader=Dying(), plugins=[plugin])
    result = Trainer().run(spec, TrainingSettings(epochs=3, device="cpu"))
    assert plugin.events[-2:] == ["end_training_batch", "end_training_session"]
    assert (result.status, result.signal, result.epochs) == ("interrupted", signal.SIGTERM, 0)


def test_stop_inside_validation_ends_the_session_at_once() -> None:
    plugin = at("start_validation_batch", 1, lambda context: context.request_stop("now", when="batch"))
    train(tiny_spec(), plugin, epochs=5)
    assert plugin.events[-4:] == [
        "start_validation_loop",
        "start_validation_batch",
        "end_validation_batch",
        "end_training_session",
    ]


def test_error_in_the_step_ends_the_session_once_and_comes_out() -> None:
    def failing_step(context: TrainingContext, batch: Any) -> torch.Tensor:
        if context.global_step == 1:
            raise ValueError("the user's own error")
        inputs, targets = batch
        assert context.loss_fn is not None
        return context.loss_fn(context.model(inputs), targets)

    seen: list[tuple[str, str]] = []
    plugin = at("end_training_session", 1, lambda context: seen.append((context.status, repr(context.error))))
    with pytest.raises(ValueError, match="the user's own error"):
        train(tiny_spec(training_step=failing_step), plugin)
    assert plugin.events == [
        "start_training_session",
        "start_epoch",
        "start_training_loop",
        "start_training_batch",
        "end_training_batch",
        "start_training_batch",
        "end_training_session",
    ]
    assert seen == [("failed", 'ValueError("the user\'s own error")')]


def test_error_in_the_loader_ends_the_session_once_and_comes_out() -> None:
    def batches() -> Any:
        yield torch.ones(2, 4), torch.zeros(2, dtype=torch.long)
        raise OSError("the disk with the data")

    class Loader:
        def __iter__(self) -> Any:
            return batches()

    plugin = RecordingPlugin()
    with pytest.raises(OSError, match="the disk with the data"):
        train(tiny_spec(training_loader=Loader()), plugin)
    assert plugin.events[-2:] == ["end_training_batch", "end_training_session"]


def test_keyboard_interrupt_in_a_hook_passes_and_the_session_ends() -> None:
    def interrupt(_context: TrainingContext) -> None:
        raise KeyboardInterrupt

    statuses: list[str] = []
    first = at("start_epoch", 1, interrupt)
    second = at("end_training_session", 1, lambda context: statuses.append(context.status))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_spec(), first, second)
    assert second.events[-1] == "end_training_session"
    assert statuses == ["interrupted"]


def test_resume_between_epochs_fires_load_checkpoint_once(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=1, run_dir=tmp_path)
    plugin = RecordingPlugin()
    train(tiny_spec(), plugin, epochs=2, run_dir=tmp_path, resume=tmp_path)
    assert plugin.events == [
        "start_training_session",
        "load_checkpoint",
        "start_epoch",
        *TRAINING_LOOP,
        *VALIDATION_LOOP,
        "end_epoch",
        "save_checkpoint",
        "end_training_session",
    ]


def test_resume_inside_an_epoch_repeats_only_the_two_starts(tmp_path: Path) -> None:
    stop = at("end_training_batch", 2, lambda context: context.request_stop("now", when="batch"))
    train(tiny_spec(), stop, epochs=1, run_dir=tmp_path)
    positions: list[int] = []
    plugin = at("start_epoch", 1, lambda context: positions.append(context.batch_index))
    train(tiny_spec(), plugin, epochs=1, run_dir=tmp_path, resume=tmp_path)
    # The plugin has the events of the first session from its state, then its own.
    assert plugin.events == [
        "start_training_session",
        "start_epoch",
        *TRAINING_LOOP[:5],
        "load_checkpoint",
        "start_epoch",
        "start_training_loop",
        *TRAINING_LOOP[5:],
        *VALIDATION_LOOP,
        "end_epoch",
        "save_checkpoint",
        "end_training_session",
    ]
    assert positions == [2]


def test_resume_inside_validation_repeats_the_validation_alone(tmp_path: Path) -> None:
    stop = at("end_validation_batch", 1, lambda context: context.request_stop("now", when="batch"))
    train(tiny_spec(), stop, epochs=1, run_dir=tmp_path)
    plugin = RecordingPlugin()
    train(tiny_spec(), plugin, epochs=1, run_dir=tmp_path, resume=tmp_path)
    assert plugin.events == [
        "start_training_session",
        "start_epoch",
        *TRAINING_LOOP,
        "load_checkpoint",
        "start_epoch",
        *VALIDATION_LOOP,
        "end_epoch",
        "save_checkpoint",
        "end_training_session",
    ]


def test_plugins_are_called_in_the_order_in_which_they_were_added() -> None:
    order: list[str] = []
    plugins = [at("start_epoch", 1, lambda _context, name=name: order.append(name)) for name in "abc"]
    train(tiny_spec(), *plugins, epochs=1)
    assert order == ["a", "b", "c"]
