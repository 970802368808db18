"""The mistakes in a plugin that would otherwise pass in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bz import PluginError, TrainingContext
from bz.plugins import Plugin, hookimpl
from bz.plugins.manager import PluginManager, plugin_name
from bz.plugins.registration import misspelt_hooks
from bz.testing import tiny_spec, train


class Default(Plugin):
    def end_epoch(self, context: Any = None) -> None: ...


class OtherName(Plugin):
    def end_epoch(self, ctx: Any) -> None: ...


class Keywords(Plugin):
    def end_epoch(self, **kwargs: Any) -> None: ...


class Generator(Plugin):
    def end_epoch(self, context: Any) -> Iterator[None]:
        yield


class Coroutine(Plugin):
    async def end_epoch(self, context: Any) -> None: ...


class Wrapper:
    @hookimpl(wrapper=True)
    def end_epoch(self, context: Any) -> Iterator[None]:
        yield


class UnknownHook:
    @hookimpl
    def on_epoch_end(self, context: Any) -> None: ...


class NoHooks(Plugin):
    pass


REFUSED: dict[str, tuple[object, str]] = {
    "class": (Default, "Plugin 'x' is the class Default; register an instance: Default()."),
    "default": (Default(), "Plugin 'x': end_epoch gives 'context' a default, and would be called without it"),
    "other name": (OtherName(), "Plugin 'x': end_epoch has a parameter 'ctx'; accepted: context."),
    "keywords": (Keywords(), "Plugin 'x': end_epoch takes **kwargs: 'Any', which bz never fills"),
    "generator": (Generator(), "Plugin 'x': end_epoch contains 'yield', so calling it would do nothing"),
    "coroutine": (Coroutine(), "Plugin 'x': end_epoch is 'async', so calling it would do nothing"),
    "wrapper": (Wrapper(), "Plugin 'x': end_epoch is a hook wrapper; bz calls each plugin by itself"),
    "unknown": (UnknownHook(), "Plugin 'x' marks 'on_epoch_end' as a hook, which bz does not have. Did you mean"),
    "no plugin": (3, "Plugin 'x' is a int and implements no hook; register an instance of a bz.plugins.Plugin."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_trap_is_refused_with_what_to_write(case: str) -> None:
    plugin, message = REFUSED[case]
    with pytest.raises(PluginError, match=re.escape(message)):
        PluginManager().add(plugin, "x")


def test_plugin_without_hooks_is_accepted() -> None:
    assert PluginManager().add(NoHooks()) == "no_hooks"


def test_plugin_added_twice_is_refused() -> None:
    manager, plugin = PluginManager(), NoHooks()
    manager.add(plugin)
    with pytest.raises(PluginError, match=re.escape("Plugin 'no_hooks' was added twice; add it once.")):
        manager.add(plugin)


@pytest.mark.parametrize(
    ("written", "hook"),
    [
        ("end_epochs", "end_epoch"),
        ("on_epoch_end", "end_epoch"),
        ("on_train_batch_end", "end_training_batch"),
        ("on_validation_batch_start", "start_validation_batch"),
        ("begin_epoch", "start_epoch"),
        ("start_trainning_loop", "start_training_loop"),
        ("save_checkpoints", "save_checkpoint"),
    ],
)
def test_method_that_looks_like_a_hook_is_reported(written: str, hook: str, caplog: pytest.LogCaptureFixture) -> None:
    plugin = type("Misspelt", (Plugin,), {written: lambda self, context: None})()
    assert misspelt_hooks(plugin) == {written: hook}
    PluginManager().add(plugin)
    assert caplog.messages == [f"plugin 'misspelt' has a method {written!r}, which is no hook; did you mean {hook!r}?"]


@pytest.mark.parametrize("written", ["send", "_end_epochs", "load", "epoch", "plot_losses", "summary", "config"])
def test_method_that_looks_like_no_hook_is_not_reported(written: str) -> None:
    assert misspelt_hooks(type("Fine", (Plugin,), {written: lambda self, context: None})()) == {}


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("EmailNotificationPlugin", "email_notification"),
        ("MyPlugin", "my"),
        ("Plugin", "plugin"),
        ("HTTPLog", "httplog"),
    ],
)
def test_name_is_made_from_the_class(class_name: str, name: str) -> None:
    assert plugin_name(type(class_name, (Plugin,), {})()) == name


def test_second_plugin_of_a_name_gets_a_number() -> None:
    manager = PluginManager()
    assert [manager.add(NoHooks()) for _ in range(3)] == ["no_hooks", "no_hooks_2", "no_hooks_3"]


def test_order_is_tryfirst_then_as_added_then_trylast() -> None:
    order: list[str] = []

    class Late(Plugin):
        @hookimpl(trylast=True)
        def start_epoch(self, context: TrainingContext) -> None:
            order.append("late")

    class Early:
        @hookimpl(tryfirst=True)
        def start_epoch(self) -> None:
            order.append("early")

    class Plain(Plugin):
        def __init__(self, name: str) -> None:
            self.own_name = name

        def start_epoch(self, context: TrainingContext) -> None:
            order.append(self.own_name)

    train(tiny_spec(), Late(), Plain("first"), Early(), Plain("second"), epochs=1, strict_plugins=True)
    assert order == ["early", "first", "second", "late"]


def test_functions_of_a_module_are_hooks(tmp_path: Path) -> None:
    module = ModuleType("train")
    exec("events = []\ndef end_epoch(context): events.append(context.epoch)\ndef helper(): ...", vars(module))
    train(tiny_spec(), module, epochs=2, strict_plugins=True)
    assert module.events == [1, 2]


def test_hook_may_leave_out_the_context() -> None:
    calls: list[None] = []

    class Short(Plugin):
        def end_epoch(self) -> None:
            calls.append(None)

    train(tiny_spec(), Short(), epochs=2, strict_plugins=True)
    assert len(calls) == 2
