"""A plugin can never harm a run: whatever it raises, draws or toggles."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from bz import PluginError, Trainer, TrainingContext
from bz.hookspecs import LIFECYCLE_HOOKS
from bz.testing import RecordingPlugin, tiny_spec, train

if TYPE_CHECKING:
    from bz.plugins import Plugin

EXCEPTIONS = [
    RuntimeError("broken"),
    SystemExit(3),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopIteration(),
    MemoryError(),
    RecursionError(),
    BaseExceptionGroup("several", [ValueError("one"), SystemExit(2)]),
]


class Raising(RecordingPlugin):
    """Raises in every hook, or in one."""

    name = "raising"

    def __init__(self, error: BaseException, hook: str | None = None) -> None:
        super().__init__(self._raise)
        self._error = error
        self._hook = hook

    def _raise(self, hook: str, _context: TrainingContext) -> None:
        if self._hook in {None, hook}:
            raise self._error


def train_two_sessions(plugins: list[Plugin], run_dir: Path) -> list[torch.Tensor]:
    """Train, stop in the middle, resume: every hook fires. Return the final weights."""

    def stop(hook: str, context: TrainingContext) -> None:
        if hook == "end_training_batch" and context.global_step == 4:
            context.request_stop("half way", when="batch")

    train(tiny_spec(), *plugins, RecordingPlugin(stop), epochs=2, run_dir=run_dir)
    spec = tiny_spec()
    train(spec, *plugins, RecordingPlugin(), epochs=2, run_dir=run_dir, resume=run_dir)
    return [parameter.detach().clone() for parameter in spec.model.parameters()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    """The weights of the same run without the plugin."""
    return train_two_sessions([], tmp_path_factory.mktemp("expected"))


def assert_bit_equal(weights: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert all(torch.equal(*pair) for pair in zip(weights, expected, strict=True))


@pytest.mark.parametrize("hook", LIFECYCLE_HOOKS)
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_exception_in_any_hook_changes_nothing(
    hook: str, error: BaseException, tmp_path: Path, expected: list[torch.Tensor]
) -> None:
    plugin = Raising(error, hook)
    assert_bit_equal(train_two_sessions([plugin], tmp_path), expected)
    assert hook in plugin.events


def test_exception_leaves_the_other_plugins_their_events() -> None:
    before, after, alone = RecordingPlugin(), RecordingPlugin(), RecordingPlugin()
    train(tiny_spec(), before, Raising(RuntimeError("broken")), after)
    train(tiny_spec(), alone)
    assert before.events == after.events == alone.events


def test_failure_is_logged_once_with_plugin_hook_epoch_and_step(caplog: pytest.LogCaptureFixture) -> None:
    train(tiny_spec(), Raising(RuntimeError("no\nluck"), "end_training_loop"), epochs=2)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    expected = "plugin 'raising' failed in end_training_loop (epoch 1, step 3): RuntimeError: no luck"
    assert [record.getMessage() for record in errors] == [expected]
    assert errors[0].exc_info is not None


def test_three_failures_in_a_row_quarantine_all_but_the_last_hook(caplog: pytest.LogCaptureFixture) -> None:
    plugin = Raising(RuntimeError("broken"), "end_training_batch")
    result = train(tiny_spec(), plugin, epochs=2)
    assert plugin.events.count("end_training_batch") == 3
    assert plugin.events[-2:] == ["end_training_batch", "end_training_session"]
    assert result.plugin_usage[0].is_quarantined
    assert "plugin 'raising' failed 3 times in a row in end_training_batch and is no longer called" in caplog.messages


def test_failures_with_successes_between_do_not_quarantine() -> None:
    def fail_twice_of_three(_hook: str, context: TrainingContext) -> None:
        if context.global_step % 3:
            raise RuntimeError("now and then")

    plugin = RecordingPlugin(fail_twice_of_three)
    result = train(tiny_spec(), plugin, epochs=3)
    assert not result.plugin_usage[0].is_quarantined
    assert result.plugin_usage[0].failures > 0


def test_strict_mode_ends_the_run_at_the_first_failure() -> None:
    plugin = Raising(RuntimeError("broken"), "start_epoch")
    message = r"Stopped because plugin 'raising' failed in start_epoch \(epoch 1, step 0\): RuntimeError: broken"
    with pytest.raises(PluginError, match=message):
        train(tiny_spec(), plugin, strict_plugins=True)
    assert plugin.events == ["start_training_session", "start_epoch", "end_training_session"]


def test_required_plugin_that_failed_is_named_in_the_result() -> None:
    class Required(Raising):
        required = True

    result = train(tiny_spec(), Required(RuntimeError("broken"), "end_epoch"))
    assert result.status == "completed"
    assert result.missing_files == ("Plugin 'raising' is required and failed.",)


class Disturbing(RecordingPlugin):
    """Leaves every trace that it can, in every hook."""

    name = "disturbing"

    def __init__(self, home: Path) -> None:
        super().__init__(self._disturb)
        self._home = home

    def _disturb(self, _hook: str, context: TrainingContext) -> None:
        random.random()
        random.gauss(0, 1)
        np.random.randn(3)
        torch.rand(3)
        context.model.train(not context.model.training)
        next(iter(context.model.children())).train(not context.model.training)
        torch.set_grad_enabled(not torch.is_grad_enabled())
        torch.set_default_dtype(torch.float64)
        os.chdir(self._home)


class Noisy(torch.utils.data.Dataset[Any]):
    """Augments with the shared random numbers of Python and NumPy."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = [random.random(), random.gauss(0, 1), np.random.randn(), np.random.rand()]
        return torch.tensor(noise, dtype=torch.float32) + index, torch.tensor(index % 3)


def train_noisy(*plugins: Plugin) -> tuple[list[torch.Tensor], list[Any]]:
    random.seed(1)
    np.random.seed(1)
    spec = tiny_spec(training_loader=torch.utils.data.DataLoader(Noisy(), 4, shuffle=True))
    train(spec, *plugins)
    return list(spec.model.parameters()), [random.random(), np.random.randn(), torch.rand(1)]


def test_plugin_that_disturbs_everything_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    weights, numbers = train_noisy(Disturbing(elsewhere), RecordingPlugin())
    expected_weights, expected_numbers = train_noisy()
    assert_bit_equal(weights, expected_weights)
    assert numbers == expected_numbers
    assert Path.cwd() == tmp_path
    assert torch.get_default_dtype() == torch.float32
    message = (
        "plugin 'disturbing' changed the state of torch's random, state of Python's random, state of NumPy's random, "
        "train/eval mode of the model, grad mode, default dtype, working directory in start_epoch; bz put it back"
    )
    assert caplog.messages.count(message) == 1


def test_plugin_that_draws_in_one_batch_among_others_leaves_no_trace() -> None:
    def draw(hook: str, context: TrainingContext) -> None:
        if hook == "end_training_batch" and context.global_step == 2:
            random.gauss(0, 1)
            np.random.randn()

    weights, numbers = train_noisy(RecordingPlugin(), RecordingPlugin(draw))
    expected_weights, expected_numbers = train_noisy()
    assert_bit_equal(weights, expected_weights)
    assert numbers == expected_numbers


def test_failure_of_the_last_hook_in_strict_mode_leaves_a_result() -> None:
    spec, trainer = tiny_spec(), Trainer(strict_plugins=True)
    trainer.add_plugin(Raising(RuntimeError("broken"), "end_training_session"))
    with pytest.raises(PluginError, match="failed in end_training_session"):
        trainer.train(spec.model, spec.optimizer, spec.loss_fn, spec.training_loader, device="cpu")
    assert trainer.result is not None
    assert (trainer.result.status, trainer.result.global_step) == ("completed", 3)


def test_second_run_of_a_trainer_begins_anew() -> None:
    plugin, trainer = Raising(RuntimeError("broken"), "end_training_batch"), Trainer()
    trainer.add_plugin(plugin)
    for _ in range(2):
        spec = tiny_spec()
        result = trainer.train(spec.model, spec.optimizer, spec.loss_fn, spec.training_loader, device="cpu", epochs=2)
        assert result.plugin_usage[0].failures == 3
    assert plugin.events.count("end_training_batch") == 6


def test_usage_counts_calls_and_failures_and_shares() -> None:
    result = train(tiny_spec(), Raising(RuntimeError("broken"), "end_epoch"), epochs=2)
    (usage,) = result.plugin_usage
    assert (usage.name, usage.calls, usage.failures) == ("raising", 2 + 2 * 16, 2)
    assert 0 < usage.seconds < result.seconds
