"""The JSON schema: what editors accept is what `load_config` accepts."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # its types are a package of their own
import pytest
from pydantic import BaseModel, ConfigDict

from bz.config import load_config, settings_schema
from bz.errors import ConfigError

GUIDE_EXAMPLE = """
{
  "plugins": {
    "console_out": {"enabled": true},
    "tensorboard": {"enabled": true},
    "logging_plugin": {
      "enabled": true,
      "config": {
        "log_file": "training_log.json"
      }
    },
    "email_plugin": {
      "enabled": true,
      "config": {
        "smtp_server": "smtp.gmail.com",
        "smtp_port": 587,
        "username": "your_email@gmail.com",
        "password": "your_app_password",
        "from_email": "your_email@gmail.com",
        "to_email": "recipient@example.com"
      }
    }
  }
}
"""
DESIGN_EXAMPLE = """
{
  "$schema": "bz.schema.json",
  "training": {"epochs": 10, "device": "auto", "precision": "fp32", "compile": false, "seed": 42,
               "checkpoint_interval": 1},
  "hyperparameters": {"lr": 0.001, "batch_size": 64, "model_name": "digits"},
  "metrics": {"accuracy": {"task": "multiclass", "num_classes": 10}},
  "plugins": {
    "console_out": {"enabled": true},
    "email_plugin": {"enabled": true, "config": {"smtp_server": "smtp.example.com", "password": "${SMTP_PASSWORD}"}}
  }
}
"""


class Server(BaseModel):
    model_config = ConfigDict(extra="forbid")
    host: str
    port: int = 25


class MailConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    server: Server
    others: list[Server] = []


SCHEMA = settings_schema({"mail": MailConfig.model_json_schema(), "console_out": {"type": "object"}, "unknown": None})


def is_valid(settings: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(settings))


def is_loaded(settings: Any, folder: Path) -> bool:
    path = folder / "bz.json"
    path.write_text(json.dumps(settings))
    try:
        load_config(path, environ={"SMTP_PASSWORD": "x"})
    except ConfigError:
        return False
    return True


def test_schema_is_a_schema_of_its_dialect() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("example", [GUIDE_EXAMPLE, DESIGN_EXAMPLE, "{}"])
def test_example_of_the_documents_is_valid_and_loads(example: str, tmp_path: Path) -> None:
    assert is_valid(json.loads(example))
    assert is_loaded(json.loads(example), tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"training": {"epochs": 0}},
        {"training": {"epochs": "3"}},
        {"training": {"epoch": 3}},
        {"training": {"device": "CUDA"}},
        {"training": {"precision": "fp8"}},
        {"training": {"seed": -1}},
        {"training": {"compile": 1}},
        {"epochs": 3},
        {"metrics": {"accuracy": 3}},
        {"plugins": {"other": {"enable": True}}},
        {"plugins": {"mail": {"config": 3}}},
        {"strict_plugins": "yes"},
        {"$schema": 3},
        [],
    ],
)
def test_schema_refuses_what_loading_refuses(settings: Any, tmp_path: Path) -> None:
    assert not is_valid(settings)
    assert not is_loaded(settings, tmp_path)


@pytest.mark.parametrize("name", ["mail", "mail_plugin", "mail-plugin", "bz-plugin-mail", "bz_plugin_mail"])
def test_plugin_config_is_checked_under_every_spelling_of_its_name(name: str) -> None:
    assert is_valid({"plugins": {name: {"config": {"server": {"host": "x"}, "others": [{"host": "y"}]}}}})
    assert not is_valid({"plugins": {name: {"config": {"server": {"hots": "x"}}}}})
    assert not is_valid({"plugins": {name: {"config": {"server": {"host": "x", "port": "25"}}}}})


def test_plugin_of_unknown_settings_may_have_any() -> None:
    assert is_valid({"plugins": {"unknown": {"config": {"a": 1}}}})
    assert not is_valid({"plugins": {"unknown": {"configuration": {}}}})


def test_definitions_of_two_plugins_do_not_meet() -> None:
    class Other(BaseModel):
        server: int

    other = Other.model_json_schema() | {"$defs": {"Server": {"type": "integer"}}}
    other["properties"]["server"] = {"$ref": "#/$defs/Server"}
    schema = settings_schema({"mail": MailConfig.model_json_schema(), "other": other})
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(
        {"plugins": {"mail": {"config": {"server": {"host": "x"}}}, "other": {"config": {"server": 3}}}}
    )


def test_every_core_setting_is_described() -> None:
    definitions = [SCHEMA, SCHEMA["$defs"]["TrainingSettings"], SCHEMA["$defs"]["PluginSettings"]]
    for definition in definitions:
        assert definition["additionalProperties"] is False
        for name, described in definition["properties"].items():
            assert re.fullmatch(r"[A-Z].*\.", described["description"], re.DOTALL), name
