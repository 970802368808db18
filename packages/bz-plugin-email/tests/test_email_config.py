"""Settings: what is accepted, and one sentence for what is not."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from bz.errors import ConfigError
from bz.plugins import EmailNotificationPlugin as ResolvedPlugin
from bz.plugins.settings import build_plugin
from bz_plugin_email import EmailNotificationPlugin
from bz_plugin_email.condition import Condition
from bz_plugin_email.config import EmailNotificationConfig, read_settings

GUIDE = {
    "smtp_server": "smtp.gmail.com",
    "smtp_port": 587,
    "username": "your_email@gmail.com",
    "password": "your_app_password",
    "from_email": "your_email@gmail.com",
    "to_email": "recipient@example.com",
}


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        EmailNotificationPlugin(GUIDE | changes)
    text = "".join(traceback.format_exception(caught.value))
    assert "your_app_password" not in text
    return str(caught.value).removeprefix("EmailNotificationPlugin: ")


def test_guide_dict_is_accepted_by_position_and_by_keyword_and_as_settings() -> None:
    assert ResolvedPlugin is EmailNotificationPlugin
    EmailNotificationPlugin(GUIDE)
    EmailNotificationPlugin(email_config=GUIDE)
    assert isinstance(build_plugin("email", EmailNotificationPlugin, GUIDE), EmailNotificationPlugin)


def test_port_follows_security_unless_it_is_given() -> None:
    open_settings = {key: value for key, value in GUIDE.items() if key not in {"smtp_port", "username", "password"}}
    ports = [read_settings(open_settings | {"security": security}).port for security in ("starttls", "tls", "none")]
    assert ports == [587, 465, 25]
    assert read_settings(open_settings | {"smtp_port": 2525, "security": "none"}).port == 2525


@pytest.mark.parametrize(
    "written",
    ["a@example.com, Bob <b@example.com>", ["a@example.com", "b@example.com"], ["a@example.com,b@example.com"]],
)
def test_recipients_are_text_with_commas_or_a_list(written: Any) -> None:
    settings = read_settings(GUIDE | {"to_email": written})
    assert [address.addr_spec for address in settings.recipients] == ["a@example.com", "b@example.com"]


def test_recipient_written_twice_gets_one_mail() -> None:
    settings = read_settings(GUIDE | {"to_email": ["a@example.com", "b@example.com", "a@example.com"]})
    assert [address.addr_spec for address in settings.recipients] == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"security": "none"},
            (
                "`email_config.security` must be 'starttls' or 'tls' with a password, which would otherwise be sent in "
                'clear, got "none".'
            ),
        ),
        ({"security": "ssl"}, "`email_config.security` must be one of 'starttls', 'tls' or 'none', got \"ssl\"."),
        ({"password": None}, "`email_config` has a `username` without a `password`; give both or neither."),
        ({"username": None}, "`email_config` has a `password` without a `username`; give both or neither."),
        (
            {"smtp_server": "smtp.gmail.com:587"},
            '`email_config.smtp_server` must be a host name, without a port, or an address, got "smtp.gmail.com:587".',
        ),
        ({"smtp_port": 70000}, "`email_config.smtp_port` must be at most 65535, got 70000."),
        (
            {"to_email": "ada"},
            (
                "`email_config.to_email` must be a mail address such as 'name@example.com' or "
                "'Name <name@example.com>', got \"ada\"."
            ),
        ),
        ({"from_email": "a@example.com, b@example.com"}, "must be one mail address"),
        ({"to_email": "a@example.com\nBcc: eve@example.com"}, "without line breaks and control characters"),
        ({"to_email": []}, "`email_config.to_email` must have at least 1 item"),
        ({"to_email": "jürgen@example.com"}, "must be a mail address in ASCII letters"),
        ({"timeout_seconds": 0}, "`email_config.timeout_seconds` must be greater than 0.0, got 0."),
        ({"every_epochs": -1}, "`email_config.every_epochs` must be at least 0, got -1."),
        ({"when": "accuracy > 0.9"}, "must be a name that begins with `training_` or `validation_`"),
        ({"when": "validation_accuracy is good"}, "as in 'validation_accuracy > 0.97'"),
        ({"ca_file": "/nowhere/ca.pem"}, "must be a file with certificates in PEM form (No such file or directory)"),
        ({"pasword": "x"}, "Did you mean 'password'?"),
        ({"password": "pässword"}, "has a `username` or `password` outside ASCII"),
    ],
)
def test_wrong_setting_gets_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    text = refused(**changes)
    assert sentence in text
    assert len(text.splitlines()) == 1


def test_file_without_certificates_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    assert "must be a file with certificates in PEM form" in refused(ca_file=str(file))


def test_certificates_without_tls_are_refused(authority: Any) -> None:
    text = refused(ca_file=str(authority.file), security="none", username=None, password=None)
    assert "has a `ca_file`, which has no effect with `security` 'none'" in text


def test_several_faults_are_reported_together() -> None:
    assert len(refused(smtp_port=0, timeout_seconds="soon", to_email="ada").splitlines()) == 3


def test_something_else_than_a_dict_is_refused() -> None:
    with pytest.raises(ConfigError, match="`email_config` must be a dict"):
        EmailNotificationPlugin("smtp.gmail.com")  # type: ignore[arg-type]  # that is what is tested


def test_password_is_not_in_the_settings_as_text() -> None:
    settings = EmailNotificationConfig.model_validate(GUIDE)
    assert "your_app_password" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("text", "value", "is_met"),
    [
        ("validation_accuracy > 0.97", 0.97, False),
        ("validation_accuracy >= 0.97", 0.97, True),
        ("validation_accuracy<1e-3", 0.0001, True),
        (" validation_accuracy <= .5 ", 0.6, False),
        ("validation_accuracy > -1", float("nan"), False),
    ],
)
def test_condition_is_read_and_compared(text: str, value: float, is_met: bool) -> None:  # noqa: FBT001 - a table
    assert Condition.parse(text).is_met({"validation_accuracy": value}) is is_met


def test_condition_on_a_value_that_is_not_there_is_not_met() -> None:
    assert not Condition.parse("validation_f1 > 0").is_met({"validation_accuracy": 1.0})
