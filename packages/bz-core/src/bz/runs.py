"""The folder of one run, `runs/<name>`, and the record in it, `run.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

from bz.config.redaction import redact
from bz.config.wording import display_path
from bz.config.writing import write_atomically
from bz.durable import make_folder, sync_folder
from bz.errors import ConfigError
from bz.lock import LOCK_NAME, hold
from bz.naming import check_name
from bz.provenance import file_digest, git_state, versions
from bz.records import CRASHED, RECORD_NAME, read_record

LOG_NAME: Final = "bz.log"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder that one run writes into; made by `create`, so no two runs share one."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str | None = None) -> RunFolder:
        """Make the folder `name` under `root`, or one named by date and time.

        Raises:
            ConfigError: The name is not accepted or taken, or the folder cannot be made.
        """
        if name is not None:
            check_name(name)
        try:
            make_folder(root)
            folder = cls(_make_named(root, name) if name is not None else _make_dated(root))
            sync_folder(root)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            fault = f"{display_path(root)}: the folder of the run cannot be made: {reason}."
            raise ConfigError(fault, path=root) from error
        return folder

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def record_path(self) -> Path:
        """Where `run.json` is."""
        return self.path / RECORD_NAME

    @property
    def log_path(self) -> Path:
        """Where the log of the run goes."""
        return self.path / LOG_NAME

    def start(self, facts: Mapping[str, Any], *, resumed_from: Path | None = None) -> None:
        """Write the record of a run that begins now.

        Args:
            facts: What `describe_run` returned.
            resumed_from: The checkpoint that it goes on from, of another run or of none.
        """
        now = _now()
        about = {"name": self.name, "status": "running", "created_at": now}
        session = {"started_at": now} | ({"resumed_from": resumed_from} if resumed_from else {})
        self.write({**about, **facts, "sessions": [session]})

    def go_on(self, facts: Mapping[str, Any], *, resumed_from: Path, lost_seconds: float | None = None) -> None:
        """Write that a run is taken up again: what it was made with is replaced, its sessions are kept.

        Args:
            facts: What `describe_run` returned.
            resumed_from: The checkpoint.
            lost_seconds: How long the last session had worked, if it died without saying so.
        """
        record = read_record(self.path)
        sessions = _sessions(record)
        if lost_seconds is not None and sessions:
            sessions[-1] = {**sessions[-1], "status": CRASHED, "seconds": lost_seconds}
        kept = {key: value for key, value in record.items() if key not in {"finished_at", "reason"}}
        begun = {"started_at": _now(), "resumed_from": resumed_from}
        about = {"name": self.name, "created_at": _now()} | kept | {"status": "running"}
        self.write({**about, **facts, "sessions": [*sessions, begun]})

    def finish(self, status: str, **results: Any) -> None:
        """Add how the run ended.

        Args:
            status: `completed`, `stopped`, `interrupted` or `failed`.
            results: `seconds` (of this session; the record sums them up), `epochs` (done), `global_step`,
                `training_loss`, `validation_loss`, `training_metrics`, `validation_metrics` and `reason`, as far as
                they are known.
        """
        now = _now()
        sessions = _sessions(read_record(self.path)) or [{}]
        about = {key: value for key, value in results.items() if key in {"seconds", "reason"}}
        sessions[-1] = {**sessions[-1], "finished_at": now, "status": status, **about}
        if "seconds" in results:
            results["seconds"] = sum(one["seconds"] for one in sessions if isinstance(one.get("seconds"), int | float))
        self.update(status=status, finished_at=now, **results, sessions=sessions)

    def write(self, record: Mapping[str, Any]) -> None:
        """Replace `run.json`, durably and at once; NaN and infinity become null, secrets in the settings stars.

        Raises:
            OSError: It was not written; the record before is still there.
        """
        settings = redact(record.get("settings", {}), keep_references=True)
        plain = _plain({**record, "settings": settings})
        write_atomically(self.record_path, json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def update(self, **values: Any) -> None:
        """Change some values of `run.json` and keep the others."""
        self.write(read_record(self.path) | values)


def describe_run(
    *,
    script: Path,
    settings: Mapping[str, Any],
    seed: int | None,
    plugins: Mapping[str, str],
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a run is made with, as it stands in `run.json`.

    Args:
        script: The `train.py` of the run.
        settings: What `Config.record()` returns.
        seed: The seed that is used, also where the settings have none.
        plugins: Version of each plugin that runs, by name.
        options: What the command line asked for, without secrets, for a resume to ask for it again.
    """
    git = git_state(script.absolute().parent)
    facts = {
        "script": script.absolute(),
        "script_sha256": file_digest(script),
        "options": options or {},
        "settings": redact(settings, keep_references=True),
        "seed": seed,
        "versions": versions() | {"plugins": dict(plugins)},
    }
    described: dict[str, Any] = _plain(facts | ({"git": git} if git else {}))
    return described


def set_aside(folder: Path) -> Path:
    """Rename the folder of a run to the first of `NAME.1`, `NAME.2`, ... that is free, and return where it is now.

    Raises:
        ConfigError: Somebody works in it, or it cannot be renamed.
    """
    aside = next(path for number in count(1) if not (path := folder.with_name(f"{folder.name}.{number}")).exists())
    with hold(folder):
        try:
            folder.rename(aside)
        except OSError as error:
            raise ConfigError(f"{display_path(folder)} cannot be renamed: {error.strerror}.", path=folder) from error
        (aside / LOCK_NAME).unlink(missing_ok=True)
    return aside


def _make_named(root: Path, name: str) -> Path:
    folder = root / name
    try:
        folder.mkdir()
    except FileExistsError:
        fault = (
            f"`--name`: {display_path(folder)} exists already, and a run never overwrites another; take another name, "
            f"go on with that run (`--resume {folder.name}`), or begin anew and keep it aside (`--fresh`)."
        )
        raise ConfigError(fault, path=folder, option="--name") from None
    return folder


def _make_dated(root: Path) -> Path:
    """Make the first of `2026-11-23_07-15-42`, `2026-11-23_07-15-42-2`, ... that is not there yet."""
    stem = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        folder = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("count() ends")


def _sessions(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    sessions = record.get("sessions")
    return [one for one in sessions if isinstance(one, dict)] if isinstance(sessions, list) else []


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in value]
        case datetime():
            return value.isoformat(timespec="seconds")
        case _:
            return str(value)
