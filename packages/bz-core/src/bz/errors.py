"""Every error that bz raises on purpose.

    BzError
    ├── ConfigError        settings or usage: a wrong key, value, option or file      (exit code 2)
    ├── ScriptError        train.py: missing, failing, or without what bz needs       (exit code 2)
    ├── PluginError        one plugin: cannot be imported, built or registered        (exit code 2)
    ├── CheckpointError    one checkpoint: damaged, of another model, not writable
    └── TrainingError      found while training: a batch or a loss bz cannot work on  (exit code 1)

A message is complete by itself: what is wrong, the value, what is accepted, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class BzError(Exception):
    """Base of all errors that bz raises on purpose."""


class ConfigError(BzError):
    """Something is wrong in the settings or in how a command was called.

    Attributes:
        faults: One complete sentence for each thing that is wrong; never empty.
        path: The file at fault, or None when the fault is not in a file.
        option: The setting or command-line option at fault, such as `training.epochs`.
    """

    def __init__(self, message: str, *, path: Path | None = None, option: str | None = None) -> None:
        super().__init__(message)
        self.faults: tuple[str, ...] = (message,)
        self.path = path
        self.option = option

    @classmethod
    def join(cls, errors: Iterable[ConfigError]) -> ConfigError:
        """Return one error that reports the faults of all `errors`, each on its own line."""
        errors = tuple(errors)
        faults = tuple(fault for error in errors for fault in error.faults)
        joined = cls("\n".join(faults), path=errors[0].path, option=errors[0].option)
        joined.faults = faults
        return joined


class ScriptError(BzError):
    """The user's training script cannot be used; its own exception, if any, is the `__cause__`."""


class PluginError(BzError):
    """One plugin cannot be imported, built, registered or, in strict mode, run.

    Attributes:
        plugin: The name of the plugin at fault.
    """

    def __init__(self, message: str, *, plugin: str) -> None:
        super().__init__(message)
        self.plugin = plugin


class CheckpointError(BzError):
    """A checkpoint cannot be written, read or used.

    Attributes:
        path: The checkpoint file at fault.
    """

    def __init__(self, message: str, *, path: Path) -> None:
        super().__init__(message)
        self.path = path


class TrainingError(BzError):
    """The data, the step or the loss of a run in progress is not what bz can work on."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the closest of `known`, or an empty string if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def describe_error(error: BaseException) -> str:
    """Return type and message of an exception in one line, with `?` for what a terminal would not print."""
    try:
        text = "".join(char if char.isprintable() else "?" for char in " ".join(str(error).split()))
    except Exception:  # noqa: BLE001 - an exception of a plugin or a script may not even print
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
