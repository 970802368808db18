"""From whatever a user puts into hyperparameters to what JSON can hold."""

from __future__ import annotations

import dataclasses
import math
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final

from bz.config.redaction import STARS, redact

MAX_DEPTH: Final = 20
MAX_TEXT_LENGTH: Final = 1000
MAX_ITEMS: Final = 100
MAX_DIGITS: Final = 300
"""Longer whole numbers are no number to most readers, and Python refuses to print very long ones."""


def plain_hyperparameters(hyperparameters: Mapping[str, Any]) -> Any:
    """Return a copy that is JSON, without secrets; what is no JSON becomes readable text."""
    return redact(to_json(hyperparameters))


def without_secrets(text: str, hyperparameters: Mapping[str, Any]) -> str:
    """Return the text of an error with stars in place of the secrets among the hyperparameters."""
    plain = to_json(hyperparameters)
    for secret in sorted(_secrets(plain, redact(plain)), key=len, reverse=True):
        text = text.replace(secret, STARS)
    return str(redact(text))


def _secrets(plain: Any, redacted: Any) -> Iterator[str]:
    """Yield each value that `redact` changed."""
    if isinstance(plain, dict):
        for key, item in plain.items():
            yield from _secrets(item, redacted[key])
    elif isinstance(plain, list):
        for item, without in zip(plain, redacted, strict=True):
            yield from _secrets(item, without)
    elif plain != redacted:
        yield str(plain)


def finite(value: float) -> float | None:
    """Return the number, or None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None


def to_json(value: Any, depth: int = 0) -> Any:
    """Return `value` made of None, bool, int, finite float, str, list and dict with text as keys.

    NaN and infinity become text, objects with fields become dicts, sets become sorted lists.
    """
    if depth > MAX_DEPTH:
        return "..."
    if value is None or isinstance(value, bool | int | float | str):
        return _plain_leaf(value)
    try:
        return _convert(value, depth)
    except Exception:  # noqa: BLE001 - a user's object answers questions about itself with the user's code
        return f"<{type(value).__qualname__}>"


def _plain_leaf(value: float | str | None) -> Any:
    """Return a value of a type that JSON knows, also when it is of a subclass, as np.float64 and enums are."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(str.__str__(value))
    if isinstance(value, int):
        return int(value) if abs(value) < 10**MAX_DIGITS else hex(value)
    return float(value) if math.isfinite(value) else str(float(value))


def _convert(value: Any, depth: int) -> Any:
    parts = _parts(value)
    if isinstance(parts, Mapping):
        return {_text(_describe(key)): to_json(item, depth + 1) for key, item in parts.items()}
    if parts is not None:
        return [to_json(item, depth + 1) for item in parts]
    number = _number(value)
    return to_json(number, depth + 1) if number is not None else _text(_describe(value))


def _parts(value: Any) -> Mapping[Any, Any] | Iterable[Any] | None:
    """Return what a container holds, or None for anything else."""
    if isinstance(value, Mapping | list | tuple):
        return value
    if isinstance(value, set | frozenset):
        return sorted(value, key=_describe)
    if isinstance(value, Namespace | SimpleNamespace):
        return vars(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if hasattr(type(value), "model_fields"):  # a pydantic model
        return dict(value)
    return _small_array(value)


def _small_array(value: Any) -> Iterable[Any] | None:
    """Return the rows of an array or tensor that is small enough to be read, else None."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or not shape or math.prod(shape) > MAX_ITEMS:
        return None
    rows: Iterable[Any] | None = value.tolist() if callable(getattr(value, "tolist", None)) else None
    return rows


def _number(value: Any) -> Any:
    """Return the Python number in a NumPy scalar or a tensor without dimensions, else None."""
    if getattr(value, "ndim", None) != 0 or not callable(getattr(value, "item", None)):
        return None
    number = value.item()
    return number if isinstance(number, bool | int | float) else None


def _describe(value: object) -> str:
    """Return readable text, the same in every process: without the address in memory of an object."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))
    return text if len(text) <= MAX_TEXT_LENGTH else text[:MAX_TEXT_LENGTH] + "..."


def _text(text: str) -> str:
    """Return text that every reader of UTF-8 takes: a file name may hold half a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
