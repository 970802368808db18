"""The thread that looks at the devices."""

from __future__ import annotations

import math
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Final

import psutil

from bz_plugin_profiler.readings import Device, open_devices

if TYPE_CHECKING:
    from bz_plugin_profiler.samples import SampleFile

THREAD_NAME: Final = "bz-profiler-devices"
PAUSE_PER_COST: Final = 100
"""Pause after a sample at least this many times as long as the sample took: at most 1 % of one core."""
LEAST_SECONDS: Final = 0.05
"""Between a sample and the one at the end; the load of a shorter time says nothing."""
JOIN_SECONDS: Final = 10.0


class DeviceSampler:
    """Writes a row for each device at an interval, from a daemon thread of its own.

    Args:
        file: Where the rows go; closed by `stop`.
        interval_seconds: From one sample to the next; longer where a sample is costly.
        elapsed_before: Seconds that the run had behind it when this session began.

    Attributes:
        descriptions: Device to what it is; filled by the thread.
    """

    def __init__(self, file: SampleFile, interval_seconds: float, elapsed_before: float) -> None:
        self.descriptions: dict[str, str] = {}
        self._file = file
        self._interval_seconds = interval_seconds
        self._zero = perf_counter() - elapsed_before
        self._is_over = threading.Event()
        self._error: OSError | psutil.Error | None = None
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    def position(self) -> dict[str, float]:
        """Return how long the file is, and how long the run has taken."""
        size_bytes = self._file.size_bytes
        return {"size_bytes": size_bytes, "elapsed_seconds": perf_counter() - self._zero}

    def check(self) -> None:
        """Raise, once, what ended the thread before its time.

        Raises:
            OSError: If the rows could not be written, or the system not be asked.
            psutil.Error: The same.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def stop(self) -> None:
        """Take a last sample, end the thread and close the file.

        Raises:
            OSError: If the rows could not be written.
            psutil.Error: If the system could not be asked.
        """
        self._is_over.set()
        self._thread.join(JOIN_SECONDS)
        self._file.close()
        self.check()

    def _run(self) -> None:
        try:
            with open_devices() as devices:
                self.descriptions.update({device.key: device.description for device in devices})
                self._sample_until_the_end(devices)
        except (OSError, psutil.Error) as error:
            self._error = error

    def _sample_until_the_end(self, devices: list[Device]) -> None:
        pause, sampled_at, is_over = self._interval_seconds, -math.inf, False
        while not is_over:
            is_over = self._is_over.wait(pause)
            began = perf_counter()
            if began - sampled_at >= LEAST_SECONDS:
                self._file.add(began - self._zero, [(device.key, device.read()) for device in devices])
                sampled_at = began
            pause = max(self._interval_seconds, PAUSE_PER_COST * (perf_counter() - began))
