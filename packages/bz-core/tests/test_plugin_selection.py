"""Which plugins run, decided from metadata and settings alone."""

from __future__ import annotations

from typing import Any

import pytest

from bz import ConfigError
from bz.plugins.discovery import DiscoveredPlugin, canonical_name, is_same_plugin
from bz.plugins.selection import PluginRequest, choose_plugins

INSTALLED = (
    DiscoveredPlugin("console_out", "bz-plugin-console", "0.1.0", "a:A"),
    DiscoveredPlugin("email", "bz-plugin-email", "0.1.0", "b:B", opt_in=True),
    DiscoveredPlugin("tensorboard", "bz-plugin-tensorboard", "0.1.0", "c:C"),
)


def states(settings: dict[str, Any] | None = None, request: PluginRequest | None = None) -> dict[str, tuple[str, str]]:
    choices = choose_plugins(INSTALLED, settings or {}, request or PluginRequest())
    return {choice.name: (choice.state, choice.reason) for choice in choices}


@pytest.mark.parametrize("written", ["email", "email_plugin", "bz-plugin-email", "Email-Plugin", "bz_plugin_email"])
def test_spellings_of_one_plugin_name_it(written: str) -> None:
    assert canonical_name(written) == "email"
    assert is_same_plugin(written, INSTALLED[1])
    assert states({written: {}})["email"] == ("on", "named in the settings")


def test_package_names_its_plugin_also_when_they_are_called_differently() -> None:
    assert states({"bz-plugin-console": {"enabled": False}})["console_out"] == ("off", "disabled in the settings")


def test_installed_means_on_except_for_those_that_talk_to_a_network() -> None:
    assert states() == {
        "console_out": ("on", "installed"),
        "email": ("off", "runs only when the settings name it"),
        "tensorboard": ("on", "installed"),
    }


def test_order_is_that_of_the_settings_and_then_by_name() -> None:
    assert list(states({"tensorboard": {}})) == ["tensorboard", "console_out", "email"]
    assert list(states({"email": {}, "bz-plugin-console": {}})) == ["email", "console_out", "tensorboard"]


def test_command_line_wins_over_the_settings() -> None:
    settings = {"console_out": {"enabled": False}, "email": {}}
    assert states(settings, PluginRequest(only=("console_out",))) == {
        "console_out": ("on", "asked for"),
        "email": ("off", "only console_out asked for"),
        "tensorboard": ("off", "only console_out asked for"),
    }
    assert states(settings, PluginRequest(without=("email",)))["email"] == ("off", "left out as asked")
    assert set(states(settings, PluginRequest(none=True)).values()) == {("off", "no plugins were asked for")}


def test_environment_fills_in_what_the_command_line_leaves_open() -> None:
    environ = {"BZ_PLUGINS": "email, console_out", "BZ_DISABLE_PLUGINS": "tensorboard,"}
    assert PluginRequest().or_environment(environ) == (("email", "console_out"), ("tensorboard",), False)
    assert PluginRequest(only=("x",)).or_environment(environ).only == ("x",)
    assert PluginRequest(none=True).or_environment(environ) == PluginRequest(none=True)


def test_unknown_plugin_in_the_settings_is_missing_with_the_close_match() -> None:
    assert states({"tensorbord": {}})["tensorbord"] == (
        "missing",
        "Unknown plugin 'tensorbord'; installed: console_out, email, tensorboard. Did you mean 'tensorboard'?",
    )


def test_known_plugin_that_is_not_installed_says_what_to_install() -> None:
    assert states({"logging_plugin": {}})["logging_plugin"] == (
        "missing",
        "Plugin 'logging_plugin' is not installed; install it with: pip install bz-plugin-logging",
    )
    assert states({"logging_plugin": {"enabled": False}})["logging_plugin"][0] == "off"


def test_unknown_plugin_on_the_command_line_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        states(request=PluginRequest(only=("mail",), without=("tensorbord",)))
    assert caught.value.faults == (
        "Unknown plugin 'mail'; installed: console_out, email, tensorboard. Did you mean 'email'?",
        "Unknown plugin 'tensorbord'; installed: console_out, email, tensorboard. Did you mean 'tensorboard'?",
    )


def test_two_keys_for_one_plugin_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`plugins.email` and `plugins.email_plugin` name the same plugin"):
        states({"email": {}, "email_plugin": {}})
