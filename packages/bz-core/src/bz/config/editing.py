"""Switching a plugin on or off in the settings file, which keeps its comments and its layout."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from bz.config import parsing
from bz.config.files import read_settings_file, read_text
from bz.config.wording import display_path, key_path, quote
from bz.config.writing import write_atomically
from bz.errors import ConfigError

_SPACE = re.compile(r"\s*")
_decoder = json.JSONDecoder()


def set_plugin_enabled(path: Path, name: str, enabled: bool) -> None:  # noqa: FBT001 - the last of three plain values
    """Write `enabled` for the plugin into the settings file, and change nothing else in it.

    Args:
        path: `bz.json`, `bz.toml` or `pyproject.toml`. A JSON or TOML file that does not exist is created.
        name: The plugin, spelled as in the file where it is there already.
        enabled: What to write.

    Raises:
        ConfigError: The file is no settings file, cannot be written, or has a layout that has to be edited by hand.
    """
    is_new = not path.exists()
    before = {} if is_new else read_settings_file(path)
    after = _with_enabled(path, before, name, enabled=enabled)
    if after == before:
        return
    is_toml = path.suffix == ".toml"
    keys = (*(("tool", "bz") if path.name == "pyproject.toml" else ()), "plugins", name, "enabled")
    text = "" if is_new else read_text(path)
    if is_new and not is_toml:
        text = json.dumps(after, indent=2, ensure_ascii=False) + "\n"
    else:
        text = edit_toml(text, keys, enabled) if is_toml else edit_json(text, keys, enabled)
    _check(path, text, after, keys)
    try:
        write_atomically(path, text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{display_path(path)}: the file cannot be written: {reason}.", path=path) from error


def _with_enabled(path: Path, settings: dict[str, Any], name: str, *, enabled: bool) -> dict[str, Any]:
    """Return a copy of the settings with the change."""
    after = copy.deepcopy(settings)
    group = after
    for keys in (("plugins",), ("plugins", name)):
        group = group.setdefault(keys[-1], {})
        if not isinstance(group, dict):
            fault = f"`{key_path(keys)}` must be an object, got {quote(group)}."
            raise ConfigError(f"{display_path(path)}: {fault}", path=path, option=key_path(keys))
    group["enabled"] = enabled
    return after


def _check(path: Path, text: str, expected: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Refuse to write a text that does not say exactly what it should."""
    try:
        found = parsing.parse_toml(text) if path.suffix == ".toml" else parsing.parse_json(text)
        for key in keys[:-3]:
            found = found[key]
    except (parsing.ParseError, KeyError):
        found = None
    if found != expected:
        raise ConfigError(
            f"{display_path(path)}: its layout cannot be kept; set `{key_path(keys)}` by hand.",
            path=path,
            option=key_path(keys),
        )


class _Member(NamedTuple):
    """One key of a JSON object: the white space before it, and where its value starts and ends."""

    gap: str
    start: int
    end: int


def edit_json(text: str, keys: tuple[str, ...], value: Any) -> str:
    """Return a valid JSON text with `value` at `keys`; missing objects are added behind the last key."""
    start, end = _skip_space(text, 0), len(text)
    for depth, key in enumerate(keys):
        members = _scan_object(text, start)
        if key not in members:
            return _insert(text, start, members, _nested(keys[depth:], value))
        start, end = members[key].start, members[key].end
    return text[:start] + json.dumps(value) + text[end:]


def _nested(keys: tuple[str, ...], value: Any) -> str:
    """Return `"a": {"b": value}` for the keys a and b."""
    for key in reversed(keys):
        value = {key: value}
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _insert(text: str, start: int, members: dict[str, _Member], new: str) -> str:
    if not members:
        end = _skip_space(text, start + 1)
        return text[: start + 1] + new + text[end:]
    last = list(members.values())[-1]
    return f"{text[: last.end]},{last.gap or ' '}{new}{text[last.end :]}"


def _scan_object(text: str, start: int) -> dict[str, _Member]:
    """Return the members of the object whose brace is at `start`, in order."""
    members: dict[str, _Member] = {}
    after_comma = start + 1
    position = _skip_space(text, after_comma)
    while text[position] != "}":
        gap = text[after_comma:position]
        key, position = _decoder.raw_decode(text, position)
        value_start = _skip_space(text, _skip_space(text, position) + 1)
        _, value_end = _decoder.raw_decode(text, value_start)
        members[key] = _Member(gap, value_start, value_end)
        position = _skip_space(text, value_end)
        if text[position] == ",":
            after_comma = position + 1
            position = _skip_space(text, after_comma)
    return members


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def edit_toml(text: str, keys: tuple[str, ...], value: Any) -> str:
    """Return a TOML text with `value` at `keys`; missing tables are added at the end."""
    import tomlkit
    from tomlkit.items import InlineTable

    document = tomlkit.parse(text)
    group: Any = document
    for key in keys[:-1]:
        if key not in group:
            is_super = key == "plugins"
            table = tomlkit.inline_table() if isinstance(group, InlineTable) else tomlkit.table(is_super)
            group.append(key, table)
        group = group[key]
    group[keys[-1]] = value
    return tomlkit.dumps(document)
