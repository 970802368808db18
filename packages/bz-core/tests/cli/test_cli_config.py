from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema  # type: ignore[import-untyped] # its types are a package of their own
import pytest

if TYPE_CHECKING:
    from typer.testing import Result

STRICT_PLUGIN = '''
import torch
from bz.plugins import Plugin

class MailPlugin(Plugin):
    """Sends a mail."""
    def __init__(self, host: str, port: int = 25):
        open("written-by-the-constructor", "w").close()
    def end_epoch(self, context): ...
'''


def test_show_has_defaults_and_no_secrets(bz: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "canary-from-environment")
    Path("bz.json").write_text(
        '{"plugins": {"m": {"config": {"password": "canary", "again": {"token": "${MAIL_PASSWORD}"}}}}}'
    )
    shown = bz("config", "show", "--set", "training.epochs=3")
    assert shown.stdout.startswith("Settings from bz.json:\nSETTING")
    assert "training.epochs                    3\n" in shown.stdout
    as_json = bz("config", "show", "--json")
    settings = json.loads(as_json.stdout)
    assert settings["training"]["precision"] == "fp32"
    assert settings["plugins"]["m"]["config"] == {"password": "**********", "again": {"token": "${MAIL_PASSWORD}"}}
    assert "canary" not in shown.output + as_json.output


def test_show_without_a_file_shows_the_defaults(bz: Callable[..., Result]) -> None:
    assert bz("config", "show").stdout.startswith("No settings file; these are the defaults:\n")


def test_check_of_good_settings_says_so(bz: Callable[..., Result]) -> None:
    assert bz("config", "check").stdout == "There is no settings file; the defaults are fine.\n"
    Path("bz.json").write_text("{}")
    assert bz("config", "check").stdout == "bz.json is fine.\n"


def test_check_reports_every_fault_of_the_file(bz: Callable[..., Result]) -> None:
    Path("bz.json").write_text('{"trainig": {}, "training": {"epochs": 0}}')
    result = bz("config", "check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "bz.json: `training.epochs` must be at least 1, got 0.\n" in result.stderr
    assert "Did you mean `training`?" in result.stderr.replace("'", "`")
    as_json = bz("config", "check", "--json")
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["faults"] == result.stderr.splitlines()


def test_check_reports_the_faults_of_plugins_without_building_them(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, STRICT_PLUGIN)
    Path("bz.json").write_text('{"plugins": {"mail": {"config": {"port": "a"}}, "consol_out": {}}}')
    result = bz("config", "check")
    assert result.exit_code == 2
    *faults, unknown = result.stderr.splitlines()
    assert faults == [
        "bz.json: `plugins.mail.config.host` is required.",
        'bz.json: `plugins.mail.config.port` must be a whole number, got "a".',
    ]
    assert unknown.startswith("Unknown plugin 'consol_out'; installed: ")
    assert unknown.endswith(" Did you mean 'console_out'?")
    assert [path.name for path in Path().iterdir()] == ["bz.json"]


@pytest.mark.parametrize("command", [["config", "show"], ["config", "check"], ["plugins", "list"], ["train"]])
def test_a_file_that_was_asked_for_and_is_missing_is_one_sentence(
    bz: Callable[..., Result], command: list[str]
) -> None:
    result = bz(*command, "--config", "nowhere.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == '`--config`: there is no file "nowhere.json".\n'


def test_broken_json_names_line_and_column(bz: Callable[..., Result]) -> None:
    Path("bz.json").write_text('{\n  "training": {"epochs": 3,}\n}')
    result = bz("config", "check")
    assert result.exit_code == 2
    assert result.stderr.startswith("bz.json: line 2, column ")
    assert result.stderr.count("\n") == 1


def test_schema_accepts_good_settings_and_refuses_those_of_a_plugin(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, STRICT_PLUGIN)
    schema = json.loads(bz("config", "schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"training": {"epochs": 3}, "plugins": {"mail": {"config": {"host": "h"}}}})
    assert not validator.is_valid({"plugins": {"mail": {"config": {"host": "h", "prot": 3}}}})
    assert not validator.is_valid({"training": {"epoch": 3}})


def test_schema_goes_to_a_file(bz: Callable[..., Result]) -> None:
    result = bz("config", "schema", "--output", "bz.schema.json")
    assert result.stdout == "Wrote bz.schema.json.\n"
    assert json.loads(Path("bz.schema.json").read_text()) == json.loads(bz("config", "schema").stdout)
    result = bz("config", "schema", "--output", "nowhere/bz.schema.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "nowhere/bz.schema.json cannot be written: No such file or directory.\n"


@pytest.mark.parametrize("command", [["config", "check"], ["train"]], ids=" ".join)
def test_unknown_plugins_are_named_together_with_other_faults(bz: Callable[..., Result], command: list[str]) -> None:
    Path("bz.json").write_text('{"training": {"epochs": 0}, "plugins": {"consol_out": {}, "console_out": 3}}')
    result = bz(*command)
    assert result.exit_code == 2
    epochs, section, unknown = result.stderr.splitlines()
    assert epochs == "bz.json: `training.epochs` must be at least 1, got 0."
    assert section.startswith("bz.json: `plugins.console_out` must be an object")
    assert unknown.startswith("Unknown plugin 'consol_out'")


@pytest.mark.parametrize("text", ['{"plugins": []}', "[]", '{"plugins": {"a": {}, "a": {}}}', '{"plugins": 3, "x": 1}'])
def test_settings_without_plugins_to_look_into_have_only_their_own_faults(bz: Callable[..., Result], text: str) -> None:
    Path("bz.json").write_text(text)
    result = bz("config", "check")
    assert result.exit_code == 2
    assert all(line.startswith("bz.json: ") for line in result.stderr.splitlines())


def test_variable_names_the_settings_file_unless_the_option_does(
    bz: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        Path(f"{name}.json").write_text(f'{{"hyperparameters": {{"file": "{name}"}}}}')
    monkeypatch.setenv("BZ_CONFIG", "a.json")
    assert json.loads(bz("config", "show", "--json").stdout)["hyperparameters"] == {"file": "a"}
    shown = bz("config", "show", "--json", "--config", "b.json")
    assert json.loads(shown.stdout)["hyperparameters"] == {"file": "b"}


@pytest.mark.parametrize("epochs", [1, 0])
def test_one_plugin_under_two_names_is_a_fault(bz: Callable[..., Result], epochs: int) -> None:
    plugins = '{"console_out": {}, "bz-plugin-console": {}}'
    Path("bz.json").write_text(f'{{"training": {{"epochs": {epochs}}}, "plugins": {plugins}}}')
    result = bz("config", "check")
    assert result.exit_code == 2
    assert "name the same plugin; keep one of them." in result.stderr
