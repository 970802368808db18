"""How a fault names a key and shows a value: always on one line, never a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bz.config.redaction import is_secret_key, redact

_PLAIN_KEY = re.compile(r"[\w$-]+", re.ASCII)
_MAX_VALUE_LENGTH = 80


class Fault(NamedTuple):
    """One thing that is wrong in the settings.

    Attributes:
        keys: Where it is; a number is a position in a list.
        text: The whole sentence, on one line, except for the file or option that it came from.
    """

    keys: tuple[str | int, ...]
    text: str


def quote(value: Any) -> str:
    """Return `value` as JSON, on one line and cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    if not text.isprintable():
        text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}..."


def key_path(keys: Sequence[str | int]) -> str:
    """Return `keys` as in `plugins.email.config.recipients[0]`; a key with other characters is quoted."""
    path = ""
    for key in keys:
        if isinstance(key, int):
            path += f"[{key}]"
        else:
            path += ("." if path else "") + (key if _PLAIN_KEY.fullmatch(key) else quote(key))
    return path


def show_value(keys: Sequence[str | int], value: Any, *, is_secret: bool = False) -> str:
    """Return the value found at `keys` for a message, with stars for a secret."""
    if is_secret or any(is_secret_key(key) for key in keys if isinstance(key, str)):
        return quote(redact({"secret": value})["secret"])
    return quote(redact(value))


def display_path(path: Path) -> str:
    """Return `path` as a person would write it: relative to the working directory if it lies below."""
    try:
        shown = path.absolute().relative_to(Path.cwd())
    except (OSError, ValueError):  # the working directory is gone, or the path lies elsewhere
        shown = path
    return str(shown) if str(shown).isprintable() else quote(str(shown))
