"""Numbers and durations as people read them aloud."""

import math
from collections.abc import Mapping
from typing import Any, Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_BRIEF: Final = 10
_THOUSAND: Final = 1000


def number(value: Any) -> str:
    """Return a loss or a metric with four significant digits; a dash where there is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        return "-"
    return f"{value:.4g}"


def named_numbers(values: Mapping[str, Any] | None) -> str:
    """Return metrics as in `accuracy 0.9812, recall 0.9784`; a dash where there are none."""
    return ", ".join(f"{name} {number(value)}" for name, value in (values or {}).items()) or "-"


def duration(seconds: Any) -> str:
    """Return a time as in `3.2 s`, `48 s`, `2 min 5 s` or `1 h 20 min`; a dash where there is none."""
    if not isinstance(seconds, int | float):
        return "-"
    if seconds < _BRIEF:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def counted(count: int, noun: str) -> str:
    """Return as in `1 epoch`, `3 epochs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size_of(num_bytes: float) -> str:
    """Return the size of a file or of memory as in `410 bytes`, `1.2 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < _THOUSAND:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= _THOUSAND
    return f"{num_bytes:.3g} TB"
