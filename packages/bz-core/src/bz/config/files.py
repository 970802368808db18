"""Finding and reading the settings file.

Commands that only list plugins come through here: neither pydantic nor torch is imported.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bz.config import parsing
from bz.config.wording import display_path, quote
from bz.errors import ConfigError, suggestion

MAX_SIZE_BYTES = 1024 * 1024
_NAMES = ("bz.json", "bz.toml")
_PYPROJECT = "pyproject.toml"


def find_settings_file(explicit: Path | None, directory: Path, environ: Mapping[str, str]) -> Path | None:
    """Return `explicit`, else `$BZ_CONFIG`, else the settings file of `directory`, or None if there is none.

    In `directory` the first of `bz.json`, `bz.toml` and a `pyproject.toml` with a `[tool.bz]` table counts.

    Raises:
        ConfigError: The file that was asked for does not exist, or `pyproject.toml` cannot be read.
    """
    if explicit is not None:
        return _existing(explicit, "--config")
    if environ.get("BZ_CONFIG"):
        return _existing(Path(environ["BZ_CONFIG"]), "BZ_CONFIG")
    for name in _NAMES:
        if (directory / name).exists():
            return directory / name
    pyproject = directory / _PYPROJECT
    return pyproject if pyproject.exists() and _tool_table(pyproject) is not None else None


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the settings as they are written in the file, before any check of their keys.

    Values are those of JSON: finite numbers, whole numbers of 64 bits, no dates.

    Raises:
        ConfigError: The file cannot be read, or is no settings file; with line and column where there is one.
    """
    if path.name == _PYPROJECT:
        table = _tool_table(path)
        if table is None:
            raise ConfigError(f"{display_path(path)}: there is no [tool.bz] table.", path=path)
        return table
    settings = _parse(path)
    if not isinstance(settings, dict):
        raise ConfigError(
            f'{display_path(path)}: settings must be an object such as {{"training": {{"epochs": 3}}}}, '
            f"got {quote(settings)}.",
            path=path,
        )
    return settings


def _existing(path: Path, option: str) -> Path:
    try:
        if path.exists():
            return path
    except OSError as error:
        raise ConfigError(f"`{option}`: {quote(str(path))}: {error.strerror}.", path=path, option=option) from error
    neighbours = [file.name for file in path.parent.glob("*") if file.suffix in {".json", ".toml"}]
    hint = suggestion(path.name, neighbours)
    raise ConfigError(f"`{option}`: there is no file {quote(str(path))}.{hint}", path=path, option=option)


def _tool_table(pyproject: Path) -> dict[str, Any] | None:
    text = read_text(pyproject)
    try:
        tools = parsing.parse_toml(text).get("tool")
        table = tools.get("bz") if isinstance(tools, dict) else None
        parsing.check_values(table)
    except parsing.ParseError as error:
        raise ConfigError(f"{display_path(pyproject)}: {error}", path=pyproject) from error
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{display_path(pyproject)}: `tool.bz` must be a table, got {quote(table)}.", path=pyproject)
    return table


def _parse(path: Path) -> Any:
    text = read_text(path)
    try:
        return parsing.parse(text, path.suffix)
    except parsing.ParseError as error:
        raise ConfigError(f"{display_path(path)}: {error}", path=path) from error


def read_text(path: Path) -> str:
    """Return the text of a settings file.

    Raises:
        ConfigError: It cannot be read, is larger than 1 MiB, or is not UTF-8 without a byte order mark.
    """
    try:
        return _decode(_read_bytes(path))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{display_path(path)}: the file cannot be read: {reason}.", path=path) from error
    except ValueError as error:
        raise ConfigError(f"{display_path(path)}: {error}", path=path) from error


def _read_bytes(path: Path) -> bytes:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("this is a folder; a settings file is JSON or TOML.")
    if status.st_size > MAX_SIZE_BYTES:
        raise ValueError(f"the file has {status.st_size:,} bytes; a settings file may have up to 1 MiB.")
    with path.open("rb") as file:
        content = file.read(MAX_SIZE_BYTES + 1)
    if len(content) > MAX_SIZE_BYTES:
        raise ValueError("the file is larger than 1 MiB, the most that settings may have.")
    return content


def _decode(content: bytes) -> str:
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("the file begins with a byte order mark; save it as UTF-8 without one.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: byte 0x{content[error.start]:02x} is not UTF-8.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"line {line}: there is a NUL character; is this a text file?")
    if not text.strip():
        raise ValueError("the file is empty; the smallest settings file is {}.")
    return text
