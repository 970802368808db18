"""Takes known secrets out of a text, whatever they were encoded as."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

MASK: Final = "**********"

# A shorter secret is a word that innocent text has too ("no", "42"): it is hidden only where it stands alone.
_SHORT: Final = 4


class Redactor:
    """Replaces secrets by asterisks; without secrets it returns its argument."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(_pattern, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        """Return the text with asterisks in place of secrets."""
        return self._pattern.sub(MASK, text) if self._pattern else text


def _pattern(form: str) -> str:
    escaped = re.escape(form)
    return rf"(?<!\w){escaped}(?!\w)" if len(form) < _SHORT else escaped


def _forms(secret: str) -> Iterator[str]:
    """Yield the secret as it looks in plain text, in a `repr`, in JSON, in a URL and in base64."""
    yield secret
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield quote(secret, safe="")
    yield quote_plus(secret)
    if len(secret) >= _SHORT:
        yield from _base64_forms(secret.encode())


def _base64_forms(secret: bytes) -> Iterator[str]:
    r"""Yield the whole base64 text and the parts of it that do not depend on what stands before and after the secret.

    Three bytes become four characters, so a secret inside a longer text has three looks, one per position (SMTP sends
    `\0user\0password` in one piece).
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(secret).decode()
        for offset in range(3):
            start, end = -(-8 * offset // 6), 8 * (offset + len(secret)) // 6
            yield encode(bytes(offset) + secret)[start:end].decode()


def find_secrets(settings: Any, redacted: Any) -> Iterator[str]:
    """Yield what stands in `settings` where `redacted`, the same with secrets replaced, has asterisks."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from find_secrets(value, redacted[key])
    elif isinstance(settings, list | tuple):
        for value, without in zip(settings, redacted, strict=True):
            yield from find_secrets(value, without)
    elif settings != redacted:
        yield from _hidden_part(str(getattr(settings, "get_secret_value", lambda: settings)()), str(redacted))


def _hidden_part(text: str, redacted: str) -> Iterator[str]:
    """Yield the part of a text that became asterisks: the password of a URL, or all of it."""
    before, _, after = redacted.partition(MASK)
    is_part = text.startswith(before) and text.endswith(after) and MASK not in after
    yield text[len(before) : len(text) - len(after)] if is_part else text


def redact_texts(value: Any, redactor: Callable[[str], str]) -> Any:
    """Return a copy of nested plain values with the redactor applied to every text in it."""
    if isinstance(value, Mapping):
        return {key: redact_texts(item, redactor) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_texts(item, redactor) for item in value]
    return redactor(value) if isinstance(value, str) else value
