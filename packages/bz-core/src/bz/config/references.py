"""`${NAME}` in the settings: replaced by what the environment says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bz.config.wording import Fault, key_path
from bz.errors import suggestion

_REFERENCE = re.compile(r"(?P<escaped>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<malformed>\$\{)")

Keys = tuple[str | int, ...]


def has_reference(text: object) -> bool:
    """Whether `text` is a string that reads the environment."""
    return isinstance(text, str) and any(match["name"] for match in _REFERENCE.finditer(text))


def expand(value: Any, environ: Mapping[str, str], faults: list[Fault], keys: Keys = ()) -> Any:
    """Return a copy of `value` in which every `${NAME}` is replaced, and `$${` stands for a plain `${`.

    What cannot be replaced is appended to `faults` and stays as it is.
    """
    if isinstance(value, dict):
        return {key: expand(item, environ, faults, (*keys, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, environ, faults, (*keys, index)) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    faults.extend(Fault(keys, f"`{key_path(keys)}` {text}") for text in _faults(value, environ))
    return _REFERENCE.sub(lambda match: _replacement(match, environ), value)


def _replacement(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["escaped"]:
        return "${"
    return environ.get(match["name"], match[0]) if match["name"] else match[0]


def _faults(text: str, environ: Mapping[str, str]) -> list[str]:
    found = []
    for match in _REFERENCE.finditer(text):
        name = match["name"]
        if match["malformed"]:
            found.append("holds a '${' without a variable's name and '}'; write '$${' for the two characters alone.")
        elif name and name not in environ:
            found.append(f"reads the environment variable {name}, which is not set.{suggestion(name, environ)}")
        elif name and not _is_text(environ[name]):
            found.append(f"reads the environment variable {name}, which is not UTF-8 text.")
    return found


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)
