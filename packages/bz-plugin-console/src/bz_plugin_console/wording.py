"""Numbers, durations and foreign text, as they are shown."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3600, 86400
TOO_SMALL, THOUSAND, TOO_LARGE = 0.001, 1000, 1_000_000
FEW = 10


def number(value: float) -> str:
    """Return a loss or metric in about eight characters: `0.1234`, `12,345.6`, `1.23e-05`, `nan`."""
    size = abs(value)
    if 0 < size < TOO_SMALL or size >= TOO_LARGE:
        return f"{value:.2e}"
    return f"{value:,.1f}" if size >= THOUSAND else f"{value:.4f}"


def rate(per_second: float | None) -> str:
    """Return a throughput: `4.20`, `12,345`, or `-` when there is none yet."""
    if per_second is None:
        return "-"
    return f"{per_second:.2f}" if per_second < FEW else f"{per_second:,.0f}"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units: `4.2 s`, `41 s`, `1 min 23 s`, `3 h 12 min`, `2 d 5 h`."""
    whole = round(seconds)
    if whole < 1:
        return f"{seconds:.2f} s"
    if whole < FEW:
        return f"{seconds:.1f} s"
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def one_line(text: str, limit: int = 300) -> str:
    """Return foreign text without line breaks and control codes, cut at `limit` characters."""
    joined = " ".join(text.split())
    printable = "".join(character if character.isprintable() else "?" for character in joined)
    return printable if len(printable) <= limit else printable[: limit - 3] + "..."


def encodable(text: str, encoding: str | None) -> str:
    """Return the text with `?` for each character that the output cannot show."""
    name = encoding or "ascii"
    return text.encode(name, "replace").decode(name)
