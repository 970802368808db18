"""What is known of the runs that are there, read from the record in their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bz.config.wording import display_path, quote
from bz.errors import ConfigError, suggestion
from bz.lock import HAS_LOCKS, find_owner
from bz.naming import check_name

RECORD_NAME: Final = "run.json"
UNREADABLE: Final = "unreadable"
CRASHED: Final = "crashed"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a run.

    Attributes:
        name: Name of the folder.
        path: The folder.
        status: `running`, `completed`, `stopped`, `interrupted` or `failed`; `crashed` if it says that it is running
            and nobody is at it; `unreadable` without a good `run.json`.
        created_at: When it began, or None when that is not known.
        record: All of `run.json`; empty when it cannot be read.
    """

    name: str
    path: Path
    status: str
    created_at: datetime | None
    record: Mapping[str, Any]


def list_runs(root: Path) -> list[RunRecord]:
    """Return the runs under `root`, oldest first; a folder without a good `run.json` is there as `unreadable`."""
    try:
        folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{display_path(root)}: cannot be read: {reason}.", path=root) from error
    return sorted((_read(path) for path in folders), key=_age)


def read_run(root: Path, name: str) -> RunRecord:
    """Return one run.

    Raises:
        ConfigError: There is no such run under `root`.
    """
    check_name(name)
    runs = {run.name: run for run in list_runs(root)}
    if name in runs:
        return runs[name]
    names = list(runs)
    known = f"the latest: {', '.join(names[-3:])}" if names else "there are no runs yet"
    hint = suggestion(name, names)
    raise ConfigError(f"There is no run {quote(name)} in {display_path(root)}; {known}.{hint}", path=root)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of `run.json`, or an empty dict if it is missing or damaged."""
    try:
        record = json.loads((folder / RECORD_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _read(folder: Path) -> RunRecord:
    record = read_record(folder)
    status = record.get("status")
    if status == "running" and HAS_LOCKS and find_owner(folder) is None:
        status = CRASHED
    return RunRecord(
        name=folder.name,
        path=folder,
        status=status if isinstance(status, str) else UNREADABLE,
        created_at=_time(record.get("created_at")),
        record=record,
    )


def _age(run: RunRecord) -> tuple[datetime, str]:
    """Sort by time; a run that does not say when it began goes first."""
    return run.created_at or datetime.min.replace(tzinfo=UTC), run.name


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value)).astimezone()
    except (ValueError, OverflowError, OSError):
        return None
