"""What is different between a run as it was and the same run as it goes on, one sentence each."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bz.cli import output

_DIGITS: Final = 8
"""Of a commit or a digest: enough to tell two apart."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two records of `describe_run`; what the first one does not know is passed over."""
    yield from _changes(_section(before, "settings"), _section(now, "settings"))
    for change in _changes(_section(before, "versions"), _section(now, "versions"), absent="none"):
        yield f"version of {change.replace('plugins.', 'plugin ', 1)}"
    yield from _git_changes(_section(before, "git"), _section(now, "git"))
    yield from _script_changes(before, now)


def _section(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = record.get(name)
    return section if isinstance(section, Mapping) else {}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], absent: str = "not set") -> Iterator[str]:
    if not before:
        return
    old, new = _flat(before), _flat(now)
    for key in [*old, *(key for key in new if key not in old)]:
        was, is_now = old.get(key, absent), new.get(key, absent)
        if was != is_now:
            yield f"{key}: {was} → {is_now}"


def _flat(section: Mapping[str, Any]) -> dict[str, str]:
    """Return nested values by their path; an empty section has none."""
    return {key: value for key, value in output.flatten(section) if value != "{}"}


def _git_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if not before or not now:
        return
    if before.get("commit") != now.get("commit"):
        yield f"git commit: {_short(before.get('commit'))} → {_short(now.get('commit'))}"
    if before.get("is_dirty") != now.get("is_dirty"):
        was, is_now = ("yes" if one.get("is_dirty") else "no" for one in (before, now))
        yield f"uncommitted changes: {was} → {is_now}"


def _script_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before.get("script") and before.get("script") != now.get("script"):
        yield f"script: {before['script']} → {now.get('script')}"
    old, new = before.get("script_sha256"), now.get("script_sha256")
    if old and old != new:
        name = Path(str(now.get("script"))).name
        yield f"content of {name}: SHA-256 {_short(old)} → {_short(new)}"


def _short(text: Any) -> str:
    return str(text)[:_DIGITS]
