"""What every plugin owes a run, as a pytest class to inherit from."""

from __future__ import annotations

import contextlib
import copy
import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bz.plugins.manager import PluginManager
from bz.plugins.registration import check_plugin, hook_methods, misspelt_hooks
from bz.plugins.settings import describe_settings
from bz.testing.specs import tiny_spec, train
from bz.training.state import to_plain

if TYPE_CHECKING:
    from pathlib import Path


class PluginConformance:
    """Inherit, define `make_plugin`, and pytest checks the contract on tiny real runs."""

    def make_plugin(self) -> Any:
        """Return a new instance, ready to run; called several times a test."""
        raise NotImplementedError("define make_plugin in your subclass")

    @pytest.fixture(autouse=True)
    def _own_folder(self, tmp_path: Path) -> Any:
        with contextlib.chdir(tmp_path):
            yield

    def test_hooks_are_accepted(self) -> None:
        """It implements hooks, has none misspelt, and no parameter that bz would not pass."""
        plugin = self.make_plugin()
        check_plugin(plugin, "plugin")
        assert hook_methods(plugin)
        assert misspelt_hooks(plugin) == {}

    def test_settings_are_described(self) -> None:
        """Each setting has a description, for `bz plugins show`, the schema and the documentation."""
        model = describe_settings(type(self.make_plugin()))
        assert [name for name, field in model.model_fields.items() if not field.description] == []

    def test_run_has_no_failures(self, tmp_path: Path) -> None:
        """A run with and one without validation end well, in strict mode."""
        for spec in (tiny_spec(), tiny_spec(validation_loader=None)):
            result = train(spec, self.make_plugin(), run_dir=tmp_path, strict_plugins=True)
            assert (result.status, result.missing_files) == ("completed", ())

    def test_weights_are_bit_equal_with_and_without_it(self, tmp_path: Path) -> None:
        """It draws no random number and toggles no mode: nothing had to be put back either."""
        with_plugin, without = tiny_spec(), tiny_spec()
        torch.manual_seed(1)
        train(without)
        torch.manual_seed(1)
        records = _warnings_of(lambda: train(with_plugin, self.make_plugin(), run_dir=tmp_path))
        for mine, expected in zip(with_plugin.model.parameters(), without.model.parameters(), strict=True):
            assert torch.equal(mine, expected)
        assert [record for record in records if "put it back" in record] == []

    def test_state_goes_through_a_checkpoint(self, tmp_path: Path) -> None:
        """Its state is made of plain values and tensors, and another instance goes on from it."""
        plugin = self.make_plugin()
        train(tiny_spec(), plugin, run_dir=tmp_path)
        state = _state_of(plugin)
        _assert_equal(to_plain(state), state)
        other = self.make_plugin()
        if hasattr(other, "load_state_dict"):
            other.load_state_dict(copy.deepcopy(state))
        _assert_equal(_state_of(other), state)

    def test_failure_of_the_run_is_survived(self, tmp_path: Path) -> None:
        """When the user's step raises, its hooks still end without an error."""

        def failing_step(_context: Any, _batch: Any) -> Any:
            raise RuntimeError("the user's step")

        manager = PluginManager()
        name = manager.add(self.make_plugin())
        records = _warnings_of(lambda: _run_to_failure(failing_step, manager, tmp_path))
        assert [record for record in records if f"plugin {name!r} failed" in record] == []


def _run_to_failure(step: Any, manager: PluginManager, run_dir: Path) -> None:
    from bz.training.trainer import Trainer

    spec = tiny_spec()
    with pytest.raises(RuntimeError, match="the user's step"):
        Trainer(manager).train(
            spec.model, spec.optimizer, spec.loss_fn, spec.training_loader, training_step=step, run_dir=run_dir
        )


def _assert_equal(one: Any, other: Any) -> None:
    """Compare plain values and tensors, bit by bit; a NaN equals another."""
    assert repr(_without_tensors(one)) == repr(_without_tensors(other))


def _without_tensors(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.shape, value.tolist())
    if isinstance(value, dict):
        return {key: _without_tensors(item) for key, item in value.items()}
    return [_without_tensors(item) for item in value] if isinstance(value, list | tuple) else value


def _state_of(plugin: Any) -> Any:
    return plugin.state_dict() if hasattr(plugin, "state_dict") else {}


def _warnings_of(action: Any) -> list[str]:
    """Return the messages that bz logs while `action` runs."""
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Handler(logging.WARNING)
    logging.getLogger("bz").addHandler(handler)
    try:
        action()
    finally:
        logging.getLogger("bz").removeHandler(handler)
    return messages
