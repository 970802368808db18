"""Turns the first signal to end into a wish to stop; the second one acts as if bz were not there.

SIGINT comes from a person, SIGTERM and SIGUSR1 from a scheduler whose time is nearly up.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Interrupts:
    """Holds the signal handlers while a session runs; puts the former ones back afterwards.

    Signals can only be handled in the main thread: elsewhere this does nothing.

    Args:
        on_signal: Called with the first signal, in the main thread, between two bytecodes.

    Attributes:
        received: The first signal, or None.
    """

    def __init__(self, on_signal: Callable[[signal.Signals], None]) -> None:
        self.received: signal.Signals | None = None
        self._on_signal = on_signal
        self._former: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in _SIGNALS if _is_free(number)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._former = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked loader worker: the main process ends it
        if self.received is not None:
            self._put_back()
            signal.raise_signal(number)
            return
        self._silence_dying_workers()
        self.received = signal.Signals(number)
        self._on_signal(self.received)

    def _silence_dying_workers(self) -> None:
        """Keep torch from raising, anywhere in the program, when the same signal has ended a loader's workers."""
        if hasattr(signal, "SIGCHLD") and callable(signal.getsignal(signal.SIGCHLD)):
            self._former[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _take_note_of_nothing)


def _take_note_of_nothing(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal that nobody has to hear of."""


def _is_free(number: signal.Signals) -> bool:
    """Return whether bz may handle a signal: one that the script handles itself, or ignores, stays with the script."""
    return signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}
