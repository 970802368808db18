"""What is a secret in the settings, and its replacement wherever settings are written or shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

STARS = "**********"

_SECRET_WORDS = frozenset(
    {"auth", "authorization", "bearer", "credential", "credentials", "dsn", "passphrase", "passwd", "password"}
    | {"passwords", "passcode", "pwd", "secret", "secrets", "token", "webhook", "apikey", "connectionstring"}
)
_SECRET_PAIRS = frozenset(
    {"access key", "account key", "api key", "api keys", "auth key", "connection string", "encryption key"}
    | {"license key", "pass phrase", "pass word", "private key", "secret key", "signing key", "ssh key"}
    | {"api tokens", "access tokens", "auth tokens", "webhook url"}
)
# A tokenizer's special tokens are hyperparameters, and a word after the secret one turns it into
# something about the secret: how long a password must be, for how many seconds a token is valid.
_TEXT_TOKENS = frozenset({"bos", "cls", "decoder", "eos", "eot", "mask", "pad", "per", "sep", "start", "unk"})
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@")
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def redact(value: Any, *, keep_references: bool = False) -> Any:
    """Return a copy of `value` with stars in place of every secret.

    A secret is a pydantic `SecretStr` or `SecretBytes`, any text or number under a key such as
    `password`, `api_key` or `smtpToken`, and the password inside a URL.

    Args:
        value: Anything made of mappings, lists and plain values.
        keep_references: Keep text that is just `${NAME}`, for settings as they were written.
    """
    if isinstance(value, Mapping):
        return {key: _redact_item(str(key), item, keep_references=keep_references) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, keep_references=keep_references) for item in value]
    if hasattr(value, "get_secret_value"):
        return STARS
    return _URL_PASSWORD.sub(rf"\1:{STARS}@", value) if isinstance(value, str) else value


def _redact_item(key: str, value: Any, *, keep_references: bool) -> Any:
    if is_secret_key(key):
        return _hide(value, keep_references=keep_references)
    return redact(value, keep_references=keep_references)


def _hide(value: Any, *, keep_references: bool) -> Any:
    """Replace every leaf, except those that say no more than whether there is a secret."""
    if isinstance(value, Mapping):
        return {key: _hide(item, keep_references=keep_references) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(item, keep_references=keep_references) for item in value]
    if value is None or isinstance(value, bool) or value == "":
        return value
    if keep_references and isinstance(value, str) and _REFERENCE.fullmatch(value):
        return value
    return STARS


def is_secret_key(key: str) -> bool:
    """Whether what stands under `key` is a secret, going by the last words of the key."""
    words = re.split(r"[\W_]+", _CAMEL_CASE.sub("_", key).lower().strip("_"))
    if words[-1] == "token" and len(words) > 1 and words[-2] in _TEXT_TOKENS:
        return False
    return words[-1] in _SECRET_WORDS or " ".join(words[-2:]) in _SECRET_PAIRS
