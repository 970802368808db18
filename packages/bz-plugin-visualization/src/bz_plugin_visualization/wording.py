"""Numbers, durations and foreign values, as they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MINUTE, HOUR, DAY = 60, 3600, 86400
TOO_SMALL, THOUSAND, TOO_LARGE = 0.001, 1000, 1_000_000
FEW: Final = 10
MAX_TEXT_LENGTH: Final = 1000
MAX_DEPTH: Final = 8
MAX_DIGITS: Final = 300


def number(value: float) -> str:
    """Return a loss or metric in about eight characters: `0.1234`, `12,345.6`, `1.23e-05`, `nan`."""
    size = abs(value)
    if 0 < size < TOO_SMALL or size >= TOO_LARGE:
        return f"{value:.2e}"
    return f"{value:,.1f}" if size >= THOUSAND else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units: `4.2 s`, `41 s`, `1 min 23 s`, `3 h 12 min`, `2 d 5 h`."""
    whole = round(seconds)
    if whole < FEW:
        return f"{seconds:.1f} s" if whole else f"{seconds:.2f} s"
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def counted(count: int, noun: str) -> str:
    """Return `1 epoch`, `2,000 epochs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def epoch_ranges(epochs: Sequence[int], limit: int = 5) -> str:
    """Return ascending numbers as ranges: `3`, `3 and 7`, `3, 7 to 9 and 12`; those beyond the limit are counted."""
    starts = [epochs[0], *(after for before, after in pairwise(epochs) if after != before + 1)]
    ends = [*(before for before, after in pairwise(epochs) if after != before + 1), epochs[-1]]
    ranges = [f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in zip(starts, ends, strict=True)]
    if len(ranges) > limit:
        ranges = [*ranges[:limit], f"{len(ranges) - limit:,} more places"]
    return " and ".join([", ".join(ranges[:-1]), ranges[-1]] if len(ranges) > 1 else ranges)


def one_line(text: str, limit: int) -> str:
    """Return text without line breaks and control codes, its middle left out where it is longer than `limit`."""
    joined = " ".join(text.split())
    printable = "".join(character if character.isprintable() else "?" for character in joined)
    if len(printable) <= limit:
        return printable
    tail = (limit - 1) // 2
    return f"{printable[: limit - 1 - tail]}…{printable[len(printable) - tail :]}"


def flat(values: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield name and text for each value of nested mappings, the names joined by dots."""
    for key, value in values.items():
        name = f"{prefix}{_described(key)}"
        if isinstance(value, Mapping) and value and depth < MAX_DEPTH:
            yield from flat(value, f"{name}.", depth + 1)
        else:
            yield name, in_words(value, depth)


def in_words(value: Any, depth: int = 0) -> str:
    """Return any value as text of bounded length; text stays as it is."""
    text = _in_words(value, depth)
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}…"


def _in_words(value: Any, depth: int) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        return hex(value)  # Python refuses to write very long numbers in decimals
    if isinstance(value, Mapping) and value and depth < MAX_DEPTH:
        return "{" + _joined(f"{_described(key)}: {in_words(item, depth + 1)}" for key, item in value.items()) + "}"
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth < MAX_DEPTH:
        return _joined(in_words(item, depth + 1) for item in value) or "-"
    return _described(value)


def _joined(parts: Iterable[str]) -> str:
    """Join until it is long enough, so that a list of a million items costs no more than it shows."""
    text = ""
    for part in parts:
        text += f", {part}" if text else part
        if len(text) > MAX_TEXT_LENGTH:
            break
    return text


def _described(value: object) -> str:
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else str(float(value))
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a user's object answers with the user's code
        return f"<{type(value).__qualname__}>"
