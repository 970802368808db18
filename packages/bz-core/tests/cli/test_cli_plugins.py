from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typer.testing import Result

BROKEN = "import a_module_that_is_not_there"
GOOD = '''
from bz.plugins import Plugin
from pydantic import BaseModel, SecretStr

class MailConfig(BaseModel, use_attribute_docstrings=True):
    """Settings."""
    host: str
    """Server that takes the mail."""
    port: int = 25
    """Its port."""
    password: SecretStr | None = None
    undescribed: float = 1.5

class MailPlugin(Plugin):
    """Sends a mail at the end."""
    Config = MailConfig
    def __init__(self, **settings):
        raise AssertionError("looking at a plugin does not build it")
    def end_training_session(self, context): ...
    def end_epochs(self, context): ...
'''


def test_list_shows_name_package_version_state_and_why(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, BROKEN, version="1.2")
    install("bz-plugin-tracker", {"tracker": "tracker_module:T"}, BROKEN, metadata="Keywords: bz-opt-in\n")
    install("bz-plugin-old", {"old": "old_module:T"}, BROKEN, metadata="Requires-Dist: bz-core<0.1\n")
    Path("bz.json").write_text('{"plugins": {"gone": {}, "mail": {"enabled": false}}}')
    result = bz("plugins", "list", "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["mail"] == {
        "name": "mail",
        "package": "bz-plugin-mail",
        "version": "1.2",
        "state": "off",
        "why": "disabled in the settings",
    }
    assert (rows["tracker"]["state"], rows["tracker"]["why"]) == ("off", "runs only when the settings name it")
    assert (rows["old"]["state"], rows["old"]["why"]) == ("incompatible", "needs bz-core <0.1, this is 0.1.0")
    assert rows["gone"]["state"] == "missing"
    assert result.exit_code == 0


def test_list_in_a_pipe_is_plain(
    bz_process: Callable[..., CompletedProcess[str]], install: Callable[..., None]
) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, BROKEN)
    done = bz_process("plugins", "list", BZ_PLUGINS="mail")
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["NAME", "PACKAGE", "VERSION", "STATE", "WHY"]
    (mail,) = [line for line in lines if line.startswith("mail ")]
    assert mail[header.index("WHY") :] == "asked for"
    assert mail.split() == ["mail", "bz-plugin-mail", "0.1.0", "on", "asked", "for"]
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


def test_list_names_what_a_removal_left_behind(
    bz: Callable[..., Result], install: Callable[..., None], site_dir: Path
) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"})
    next(site_dir.glob("*.dist-info/METADATA")).unlink()
    result = bz("plugins", "list")
    (mail,) = [line for line in result.stdout.splitlines() if line.startswith("mail ")]
    assert mail.split()[:4] == ["mail", "unknown", "unknown", "on"]
    assert result.exit_code == 0


@pytest.mark.parametrize("section", ["[]", '{"console_out": true}'])
def test_list_with_settings_it_cannot_read_is_one_sentence(bz: Callable[..., Result], section: str) -> None:
    Path("bz.json").write_text(f'{{"plugins": {section}}}')
    result = bz("plugins", "list")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        'bz.json: `plugins` must be like {"console_out": {"enabled": true}}; see: bz config check\n'
    )


def test_show_describes_hooks_and_settings_without_building_the_plugin(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, GOOD)
    assert bz("plugins", "show", "bz-plugin-mail").stdout == (
        "mail, from bz-plugin-mail 0.1.0\n"
        "Sends a mail at the end.\n"
        "Hooks: end_training_session\n"
        "\n"
        "SETTING      TYPE              DEFAULT   DESCRIPTION\n"
        "host         str               required  Server that takes the mail.\n"
        "port         int               25        Its port.\n"
        "password     SecretStr | None  None\n"
        "undescribed  float             1.5\n"
    )


def test_show_json_has_the_schema(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, GOOD)
    shown = json.loads(bz("plugins", "show", "mail", "--json").stdout)
    assert shown["hooks"] == ["end_training_session"]
    assert shown["settings"][0] == {
        "name": "host",
        "type": "str",
        "default": None,
        "description": "Server that takes the mail.",
    }
    assert shown["schema"]["required"] == ["host"]


def test_show_of_an_unknown_plugin_names_the_close_match(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, GOOD)
    result = bz("plugins", "show", "mial")
    assert result.exit_code == 2
    assert "Unknown plugin 'mial'; installed: " in result.stderr
    assert result.stderr.endswith("Did you mean 'mail'?\n")


def test_show_of_a_name_that_two_packages_have_asks_for_one(
    bz: Callable[..., Result], install: Callable[..., None]
) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, GOOD)
    install("other-mail", {"mail": "other_module:MailPlugin"}, GOOD)
    result = bz("plugins", "show", "mail")
    assert result.exit_code == 2
    assert (
        result.stderr == "Plugin 'mail' is in the packages bz-plugin-mail and other-mail; name one of the packages.\n"
    )
    assert bz("plugins", "show", "other-mail").exit_code == 0


def test_check_reports_what_the_author_should_repair(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, GOOD)
    result = bz("plugins", "check", "mail")
    first, *problems = result.stdout.splitlines()
    assert first.startswith("bz-plugin-mail 0.1.0: Plugin 'mail' works. Its import took ")
    assert problems == [
        "bz-plugin-mail 0.1.0: Method 'end_epochs' is no hook; did you mean 'end_epoch'?",
        "bz-plugin-mail 0.1.0: Its setting 'password' has no description; write a docstring under it.",
        "bz-plugin-mail 0.1.0: Its setting 'undescribed' has no description; write a docstring under it.",
    ]
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (BROKEN, "cannot be imported: ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("import os; os._exit(7)", "ends its process when it is imported: exit code 7."),
        ("import os; os.kill(os.getpid(), 9)", "ends its process when it is imported: signal 9."),
        ("import time; time.sleep(60)", "takes longer than 1 seconds to import."),
        ("X = 1", "cannot be imported: AttributeError: module 'bad_module' has no attribute 'Bad'"),
        (
            "from bz.plugins import Plugin\nclass Bad(Plugin):\n    def end_epoch(self, context, extra): ...",
            "end_epoch has a parameter 'extra'; accepted: context.",
        ),
    ],
    ids=["import error", "exits", "exits hard", "killed", "hangs", "no such class", "wrong parameter"],
)
def test_check_of_a_broken_plugin_is_one_sentence_and_exit_code_1(
    bz: Callable[..., Result], install: Callable[..., None], module: str, sentence: str
) -> None:
    install("bz-plugin-bad", {"bad": "bad_module:Bad"}, module)
    result = bz("plugins", "check", "bad", "--timeout", "1" if "sleep" in module else "60")
    assert result.exit_code == 1
    assert result.stdout.startswith("bz-plugin-bad 0.1.0: Plugin 'bad'")
    assert sentence in result.stdout
    assert "Traceback" not in result.output


def test_check_ignores_what_the_plugin_prints(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, "print('hello')\n" + GOOD)
    (shown,) = json.loads(bz("plugins", "check", "mail", "--json").stdout)
    assert (shown["error"], shown["name"]) == (None, "mail")


def test_enable_and_disable_edit_the_settings_file(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, GOOD)
    assert bz("plugins", "disable", "mail").stdout == "Switched mail off in bz.json, which is new.\n"
    assert json.loads(Path("bz.json").read_text()) == {"plugins": {"mail": {"enabled": False}}}
    assert bz("plugins", "enable", "bz-plugin-mail").stdout == "Switched mail on in bz.json.\n"
    assert json.loads(Path("bz.json").read_text()) == {"plugins": {"mail": {"enabled": True}}}


def test_disable_uses_the_name_that_the_settings_have(bz: Callable[..., Result], install: Callable[..., None]) -> None:
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, GOOD)
    Path("bz.toml").write_text("# mine\n[plugins.mail_plugin]\nenabled = true # yes\n")
    assert bz("plugins", "disable", "mail").stdout == "Switched mail_plugin off in bz.toml.\n"
    assert Path("bz.toml").read_text() == "# mine\n[plugins.mail_plugin]\nenabled = false # yes\n"


def test_a_plugin_that_is_gone_can_be_disabled_and_not_enabled_unknown(bz: Callable[..., Result]) -> None:
    Path("bz.json").write_text('{"plugins": {"gone": {}}}')
    assert bz("plugins", "disable", "gone").exit_code == 0
    result = bz("plugins", "enable", "consol_out")
    assert result.exit_code == 2
    assert "Did you mean 'console_out'?" in result.stderr


@pytest.mark.parametrize(
    ("constructor", "last_line"),
    [
        ("def __init__(self): ...", "It has no settings."),
        ("def __init__(self, email_config): ...", "It takes any settings."),
        ("def __init__(self, to: list[SecretStr] = ()): ...", "to       list[SecretStr]  ()"),
        ("def __init__(self, writer: Thread = None): ...", "writer   Thread  None"),
    ],
)
def test_show_of_settings_that_come_from_the_constructor(
    bz: Callable[..., Result], install: Callable[..., None], constructor: str, last_line: str
) -> None:
    module = f"""
        from threading import Thread
        from bz.plugins import Plugin
        from pydantic import SecretStr

        class MailPlugin(Plugin):
            {constructor}
            def end_epoch(self, context): ...
    """
    install("bz-plugin-mail", {"mail": "mail_module:MailPlugin"}, module)
    result = bz("plugins", "show", "mail")
    assert result.stdout.splitlines()[-1].replace("threading.", "") == last_line
