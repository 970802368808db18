# ruff: noqa: ANN001, ANN204, FBT001, FBT002 - the classes are those of the guide, which has no annotations
"""From the settings of one plugin to its instance."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field

from bz import ConfigError, PluginError
from bz.plugins import Plugin
from bz.plugins.settings import MissingSettingsError, build_plugin, describe_settings


class LoggingPlugin(Plugin):
    """As in the guide."""

    def __init__(self, log_file="training_log.json"):  # type: ignore[no-untyped-def]
        self.log_file = log_file


class CheckpointPlugin(Plugin):
    """As in the guide."""

    def __init__(self, save_dir="checkpoints", max_checkpoints=5, save_best_only=True):  # type: ignore[no-untyped-def]
        self.settings = (save_dir, max_checkpoints, save_best_only)


class EmailPlugin(Plugin):
    """As in the guide: all settings as one dict."""

    def __init__(self, email_config):  # type: ignore[no-untyped-def]
        self.email_config = email_config


class MyCustomPlugin(Plugin):
    """As in the guide: all settings as one dict, which may be left out."""

    def __init__(self, config=None):  # type: ignore[no-untyped-def]
        self.config = config or {}


class WithConfig(Plugin):
    """With a model of its own."""

    class Config(BaseModel):
        every: int = Field(default=5, ge=1, description="Epochs between two.")

    def __init__(self, every: int = 5) -> None:
        self.every = every


class AnyKeys(Plugin):
    def __init__(self, first: int, **others: Any) -> None:
        self.given = {"first": first, **others}


class Failing(Plugin):
    def __init__(self) -> None:
        raise OSError("no such device")


def faults(name: str, target: object, **settings: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        build_plugin(name, target, settings)
    return caught.value.faults


def build(target: object, **settings: Any) -> Any:
    return build_plugin("x", target, settings)


def test_arguments_of_the_constructor_are_settings() -> None:
    assert build(LoggingPlugin).log_file == "training_log.json"
    assert build(LoggingPlugin, log_file="mine.json").log_file == "mine.json"
    assert build(CheckpointPlugin, max_checkpoints=2).settings == ("checkpoints", 2, True)


def test_unknown_argument_is_refused_with_the_close_match() -> None:
    assert faults("logging", LoggingPlugin, logfile="x") == (
        "unknown key `plugins.logging.config.logfile`; accepted: log_file. Did you mean 'log_file'?",
    )


def test_type_of_an_argument_follows_from_its_default() -> None:
    assert faults("checkpoint", CheckpointPlugin, max_checkpoints="many") == (
        '`plugins.checkpoint.config.max_checkpoints` must be a whole number or a number, got "many".',
    )


def test_single_config_argument_takes_all_settings() -> None:
    assert build(EmailPlugin, smtp_server="host", smtp_port=25).email_config == {"smtp_server": "host", "smtp_port": 25}
    assert build(MyCustomPlugin, anything=1).config == {"anything": 1}
    assert build(MyCustomPlugin).config == {}
    with pytest.raises(MissingSettingsError, match=r"Plugin 'x' needs settings, and there are none."):
        build(EmailPlugin)


def test_own_model_is_used_and_refuses_unknown_keys() -> None:
    assert build(WithConfig, every=3).every == 3
    assert build(WithConfig).every == 5
    assert faults("x", WithConfig, evry=3, every=0) == (
        "`plugins.x.config.every` must be at least 1, got 0.",
        "unknown key `plugins.x.config.evry`; accepted: every. Did you mean 'every'?",
    )


def test_description_serves_schema_and_help() -> None:
    schema = describe_settings(WithConfig).model_json_schema()
    assert schema["properties"]["every"]["description"] == "Epochs between two."
    assert schema["additionalProperties"] is False
    assert list(describe_settings(CheckpointPlugin).model_json_schema()["properties"]) == [
        "save_dir",
        "max_checkpoints",
        "save_best_only",
    ]


def test_further_keywords_are_passed_on() -> None:
    assert build(AnyKeys, first=1, second=2).given == {"first": 1, "second": 2}


def test_failing_constructor_names_the_plugin() -> None:
    with pytest.raises(PluginError, match="Plugin 'x' cannot be built: OSError: no such device"):
        build(Failing)


def test_module_or_instance_has_no_settings() -> None:
    module = ModuleType("plain")
    assert build(module) is module
    instance = AnyKeys(1)
    assert build(instance) is instance
    assert faults("x", module, a=1) == ("unknown key `plugins.x.config.a`; there are no keys to set.",)


class Shadowing(Plugin):
    """Arguments that are also names of pydantic's own."""

    seen: ClassVar[dict[str, Any]] = {}

    def __init__(self, copy: int = 1, json: str = "x", model_config: int = 2, schema: bool = True) -> None:
        self.seen.update(copy=copy, json=json, model_config=model_config, schema=schema)


def test_arguments_may_have_any_name() -> None:
    build(Shadowing, copy=5, model_config=6)
    assert Shadowing.seen == {"copy": 5, "json": "x", "model_config": 6, "schema": True}
