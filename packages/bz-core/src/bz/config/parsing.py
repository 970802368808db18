"""Text to plain values: JSON as strict as its standard, TOML, and the few things that neither may hold."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from bz.config.wording import key_path, quote

MAX_DEPTH = 50
_INTEGER_LIMIT = 2**63
_MAX_INTEGER_DIGITS = 19
_TOML_POSITION = re.compile(r"(?P<what>.*) \(at (?P<where>.*)\)", re.DOTALL)
_TRAILING_COMMA = re.compile(r",\s*[}\]]")
# What people write where JSON expects something else, by the text at the position of the fault.
_JSON_HINTS = (
    (re.compile(r"'"), "JSON takes double quotes"),
    (re.compile(r"//|#|/\*"), "JSON has no comments; bz.toml may have them"),
    (re.compile(r"(True|False|None)\b"), "JSON writes true, false and null"),
)


class ParseError(Exception):
    """What is wrong with the text, as the part of a sentence after the name of the file."""


def parse(text: str, suffix: str) -> Any:
    """Return what a file with this suffix holds: `.toml` is TOML, `.json` or none is JSON.

    Raises:
        ParseError: It is not, or it holds a value that settings cannot have.
    """
    if suffix == ".toml":
        tables = parse_toml(text)
        check_values(tables)
        return tables
    if suffix in {"", ".json"}:
        return parse_json(text)
    raise ParseError(f"a name that ends in {quote(suffix)} is not accepted; settings are .json or .toml.")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text that has no duplicate keys and no NaN or Infinity."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise ParseError(_json_fault(error)) from error
    except RecursionError as error:
        raise ParseError(f"the values are nested deeper than {MAX_DEPTH} levels.") from error
    check_values(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text; what they hold is for `check_values`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParseError(_toml_fault(error)) from error
    except RecursionError as error:
        raise ParseError(f"the values are nested deeper than {MAX_DEPTH} levels.") from error
    except ValueError as error:
        raise ParseError("there is a number with too many digits or a date that does not exist.") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ParseError(f"the key {quote(key)} stands twice in the same object.")
        unique[key] = value
    return unique


def _whole_number(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_INTEGER_DIGITS:
        raise ParseError(f"the number {digits[:12]}... has {len(digits)} digits; whole numbers must fit into 64 bits.")
    return int(digits)


def _json_fault(error: json.JSONDecodeError) -> str:
    comma = _TRAILING_COMMA.match(error.doc, max(0, error.doc.rfind(",", 0, error.pos + 1)))
    if comma and error.pos < comma.end():  # Python 3.13 finds the comma, earlier versions what comes after it
        error = json.JSONDecodeError(error.msg, error.doc, comma.start())
        return f"line {error.lineno}, column {error.colno}: not JSON: nothing follows this comma; remove it."
    rest = error.doc[error.pos :]
    hint = next((f"; {hint}" for pattern, hint in _JSON_HINTS if pattern.match(rest)), "")
    found = f", got {quote(rest[0])}" if rest else ", got the end of the file"
    what = error.msg[0].lower() + error.msg[1:]
    return f"line {error.lineno}, column {error.colno}: not JSON: {what.removesuffix(' at')}{found}{hint}."


def _toml_fault(error: tomllib.TOMLDecodeError) -> str:
    match = _TOML_POSITION.fullmatch(str(error))
    what, where = match.group("what", "where") if match else (str(error), "")
    what = what[0].lower() + what[1:] if what else "cannot be parsed"
    where = where.replace("end of document", "at the end")
    return f"{where}: not TOML: {what}." if where else f"not TOML: {what}."


def check_values(root: Any) -> None:
    """Refuse what JSON has no form for: dates, numbers that are infinite or large, and deep nesting."""
    for keys, value in _walk(root):
        if fault := _value_fault(value):
            raise ParseError(f"`{key_path(keys)}` {fault}." if keys else f"the value {fault}.")


def _walk(root: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield every value with its keys, and every key as a value of its own."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), root)]
    while pending:
        keys, value = pending.pop()
        yield keys, value
        if len(keys) > MAX_DEPTH:
            raise ParseError(f"the values are nested deeper than {MAX_DEPTH} levels.")
        if isinstance(value, dict):
            pending.extend((((*keys, key), item) for key, item in value.items()))
            pending.extend((keys, key) for key in value)
        elif isinstance(value, list):
            pending.extend((((*keys, index), item) for index, item in enumerate(value)))


def _value_fault(value: Any) -> str | None:
    match value:
        case None | bool() | dict() | list():
            return None
        case int():
            return None if -_INTEGER_LIMIT <= value < _INTEGER_LIMIT else "must fit into 64 bits, as a whole number"
        case float():
            return None if math.isfinite(value) else f"must be a finite number, got {value}"
        case str():
            return "holds half of a surrogate pair, which is no text" if _is_broken(value) else None
        case _:
            return f"is a date or time; write it as text, {quote(str(value))}"


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
