from __future__ import annotations

import base64
import json
from urllib.parse import quote_plus

import pytest
from pydantic import SecretStr

from bz.cli.redactor import Redactor, find_secrets
from bz.config import redact

SECRET = 'canary "7 %&>>>~ß'


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        repr({"password": SECRET}),
        json.dumps({"password": SECRET}),
        f"https://user:{quote_plus(SECRET)}@host/",
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(b"url:" + SECRET.encode()).decode(),
        *(base64.b64encode(b"x" * n + SECRET.encode() + b"y").decode() for n in range(1, 4)),
    ],
)
def test_redactor_hides_every_form_of_a_secret(text: str) -> None:
    redacted = Redactor([SECRET])(text)
    assert "**********" in redacted
    assert "canary" not in redacted
    assert base64.b64encode(SECRET.encode()).decode().strip("=")[4:-4] not in redacted


def test_redactor_without_secrets_returns_the_text() -> None:
    assert Redactor()("loss 0.5") == "loss 0.5"


def test_redactor_hides_a_short_secret_only_where_it_stands_alone() -> None:
    assert Redactor(["42"])("seed 42, step 1420, 42") == "seed **********, step 1420, **********"


def test_find_secrets_goes_by_what_redaction_replaces() -> None:
    settings = {
        "lr": 0.1,
        "email": {"password": "p4ssw0rd", "port": 25, "url": "smtp://me:inner@host/x"},
        "keys": [{"api_key": 1234}, {"typed": SecretStr("by type")}],
        "token": None,
    }
    assert sorted(find_secrets(settings, redact(settings))) == ["1234", "by type", "inner", "p4ssw0rd"]
