"""`--set training.epochs=3`: what one such option says, and its way into the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bz.config.parsing import ParseError, check_values, parse_json
from bz.config.redaction import STARS, is_secret_key
from bz.config.wording import Fault, key_path, quote

_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
_JSON_START = re.compile(r'[\[{"]')
_LOOSE_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?|\.\d)[\d_]*([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Override:
    """One `--set` option.

    Attributes:
        keys: The keys on the left of the first `=`.
        value: The JSON value on the right; the text itself if it is none.
        source: How a message names the option; a secret is shown as stars.
    """

    keys: tuple[str, ...]
    value: Any
    source: str


def parse_override(text: str) -> Override:
    """Return what `text` sets.

    Raises:
        ValueError: It is not of the form KEY=VALUE, or the value looks like JSON and is not; the message is
            one sentence.
    """
    left, equals, right = text.partition("=")
    keys = tuple(key.strip() for key in left.split("."))
    if not equals:
        raise ValueError(f"`--set`: {quote(text)} has no '='; write it as --set training.epochs=3.")
    if not all(keys):
        raise ValueError(f"`--set`: {quote(left)} is no key; write it as --set training.epochs=3.")
    shown = STARS if any(map(is_secret_key, keys)) else right
    source = f"`--set {_one_line(f'{left}={shown}')}`"
    try:
        value = _parse_value(right.strip())
        check_values([*keys, value])
    except ParseError as error:
        raise ValueError(f"{source}: {error}") from error
    return Override(keys, value, source)


def apply_override(settings: dict[str, Any], override: Override) -> Fault | None:
    """Put the value into `settings`, in place; return what stands in its way, if anything."""
    group = settings
    for depth, key in enumerate(override.keys[:-1], start=1):
        group = group.setdefault(key, {})
        if not isinstance(group, dict):
            keys = override.keys[:depth]
            return Fault(keys, f"`{key_path(keys)}` is {quote(group)} in the settings, which has no keys to set.")
    group[override.keys[-1]] = override.value
    return None


def find_source(
    keys: Sequence[str | int], overrides: Sequence[Override], settings: Mapping[str, Any], file: str
) -> str:
    """Return where the value at `keys` came from: the last override that set it, else the file.

    Args:
        keys: The key at fault.
        overrides: Those that were applied, in order.
        settings: What the file says, without the overrides.
        file: How a message names the file.
    """
    for override in reversed(overrides):
        length = min(len(keys), len(override.keys))
        is_above = tuple(keys[:length]) == override.keys[:length]
        if is_above and (length == len(override.keys) or not _has(settings, keys)):
            return override.source
    return file


def _has(settings: Any, keys: Sequence[str | int]) -> bool:
    for key in keys:
        if not isinstance(settings, Mapping) or key not in settings:
            return False
        settings = settings[key]
    return True


def _parse_value(text: str) -> Any:
    if text in _PYTHON_WORDS:
        raise ParseError(f"write {_PYTHON_WORDS[text]}, or '\"{text}\"' if it is meant as text.")
    try:
        return parse_json(text)
    except ParseError as error:
        if _JSON_START.match(text) or not _is_syntax(error):
            raise
    if _LOOSE_NUMBER.fullmatch(text):
        raise ParseError(f"write the number as in JSON, such as 0.01, or as '\"{text}\"' if it is meant as text.")
    return text


def _is_syntax(error: ParseError) -> bool:
    """Whether the text is no JSON at all, not JSON with a value that is refused."""
    return isinstance(error.__cause__, ValueError)


def _one_line(text: str) -> str:
    return text if text.isprintable() else quote(text)
