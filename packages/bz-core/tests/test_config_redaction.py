"""What counts as a secret."""

from typing import Any

import pytest
from pydantic import SecretStr

from bz.config.redaction import redact

STARS = "**********"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "smtp_password",
        "smtpPassword",
        "PASSWORD",
        "token",
        "api-token",
        "api_key",
        "apiKey",
        "apikey",
        "secret",
        "client_secret",
        "aws_secret_access_key",
        "private_key",
        "credentials",
        "webhook_url",
        "passwd",
    ],
)
def test_secret_key_hides_text_numbers_and_what_is_inside(key: str) -> None:
    assert redact({key: "x"}) == {key: STARS}
    assert redact({key: 1234}) == {key: STARS}
    assert redact({"a": [{key: {"value": "x", "on": True}}]}) == {"a": [{key: {"value": STARS, "on": True}}]}


@pytest.mark.parametrize(
    "key",
    [
        "pad_token",
        "loss_per_token",
        "max_tokens",
        "tokenizer",
        "key",
        "monkey",
        "password_length",
        "token_count",
        "lr",
        "",
        "_",
        "author",
    ],
)
def test_ordinary_key_stays(key: str) -> None:
    assert redact({key: "x"}) == {key: "x"}


def test_secret_type_is_hidden_under_any_key() -> None:
    assert redact({"a": SecretStr("x")}) == {"a": STARS}


def test_password_in_a_url_is_hidden_and_the_rest_stays() -> None:
    assert redact("see https://me:pass@host/a:b@c") == f"see https://me:{STARS}@host/a:b@c"
    assert redact("redis://:pass@host") == f"redis://:{STARS}@host"
    assert redact("https://host:80/x") == "https://host:80/x"


def test_nothing_behind_a_secret_key_stays_visible_as_such() -> None:
    assert redact({"password": None, "token": ""}) == {"password": None, "token": ""}


def test_reference_is_kept_only_when_asked_for() -> None:
    settings: dict[str, Any] = {"password": "${PW}", "token": "x${PW}"}
    assert redact(settings) == {"password": STARS, "token": STARS}
    assert redact(settings, keep_references=True) == {"password": "${PW}", "token": STARS}


def test_redact_leaves_its_argument_alone() -> None:
    settings = {"a": {"password": "x"}}
    redact(settings)
    assert settings == {"a": {"password": "x"}}
