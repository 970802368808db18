"""Writing checkpoints off the training thread, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bz.errors import CheckpointError
from bz.training.checkpoint import write_checkpoint


class Written(NamedTuple):
    """A write that came to its end, on disk or with an error.

    Attributes:
        path: The file.
        error: Why it is not on disk, or None.
        done: What `submit` was given, to be called on the training thread.
    """

    path: Path
    error: CheckpointError | None
    done: Callable[[], None]


class BackgroundWriter:
    """Writes in a thread of its own; the caller goes on as soon as the state is copied.

    One write is in flight: a second `submit` waits for the first, so memory holds one copy of the
    state at most.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._outcome: list[Written | BaseException] = []

    def submit(self, state: Mapping[str, Any], path: Path, done: Callable[[], None]) -> None:
        """Copy `state` to memory of its own and begin to write it; nothing else may be in flight."""
        assert self._thread is None, "collect the write before"
        copied = _copy_to_cpu(state)
        self._thread = threading.Thread(target=self._write, args=(copied, path, done), name="bz-checkpoint")
        self._thread.start()

    def _write(self, state: dict[str, Any], path: Path, done: Callable[[], None]) -> None:
        try:
            write_checkpoint(state, path)
        except CheckpointError as error:
            self._outcome.append(Written(path, error, done))
        except BaseException as error:  # noqa: BLE001 - raised again on the training thread
            self._outcome.append(error)
        else:
            self._outcome.append(Written(path, None, done))

    def collect(self, *, wait: bool) -> Written | None:
        """Return the write that is finished, or None.

        Args:
            wait: Whether to wait for one that is in flight.

        Raises:
            BaseException: Whatever the thread raised besides a CheckpointError.
        """
        if self._thread is None or (self._thread.is_alive() and not wait):
            return None
        self._thread.join()
        self._thread = None
        outcome = self._outcome.pop()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def _copy_to_cpu(value: Any) -> Any:
    """Return a copy that shares no tensor and no container with `value`."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copy_to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy_to_cpu(item) for item in value)
    return value
