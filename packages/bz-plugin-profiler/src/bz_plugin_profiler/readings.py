"""What the machine says about itself: psutil for the host, NVML for NVIDIA's GPUs. torch is not asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, Protocol

import psutil
import pynvml

logger = logging.getLogger(__name__)

MIB: Final = 2**20
MILLIWATTS: Final = 1000


class Reading(NamedTuple):
    """State of one device; None for what it does not tell.

    Attributes:
        utilization_percent: Host: of all its cores. GPU: share of the time in which a kernel ran.
        memory_used_mib: Memory in use, by whomever.
        process_memory_mib: Host: resident memory of this process and its children; shared pages count in each.
        temperature_celsius: GPU only.
        power_watts: GPU only.
    """

    utilization_percent: float | None = None
    memory_used_mib: float | None = None
    process_memory_mib: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


class Device(Protocol):
    """Something that can be read."""

    key: str
    description: str

    def read(self) -> Reading:
        """Return its state now."""


class Host:
    """The machine: its cores and its memory."""

    key = "host"

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.description = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / MIB:.0f} MiB"
        psutil.cpu_percent()  # the first one has nothing to compare with

    def read(self) -> Reading:
        """Return its state; the cores' since the last call."""
        memory = psutil.virtual_memory()
        return Reading(
            utilization_percent=psutil.cpu_percent(),
            memory_used_mib=(memory.total - memory.available) / MIB,
            process_memory_mib=sum(map(_resident_bytes, self._processes())) / MIB,
        )

    def _processes(self) -> list[Any]:
        return [self._process, *self._process.children(recursive=True)]


def _resident_bytes(process: Any) -> int:
    with suppress(psutil.Error):  # it has ended, or is another user's
        return int(process.memory_info().rss)
    return 0


class NvidiaGpu:
    """One GPU.

    Args:
        index: Its number in the order of NVML and `nvidia-smi`.
        nvml: The module pynvml, initialised.
    """

    def __init__(self, index: int, nvml: Any) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.key = f"gpu{index}"
        self.description = str(nvml.nvmlDeviceGetName(self._handle))

    def read(self) -> Reading:
        """Return its state; what this model does not support is None."""
        nvml, handle = self._nvml, self._handle
        return Reading(
            utilization_percent=self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            memory_used_mib=self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used, MIB),
            temperature_celsius=self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            power_watts=self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle), MILLIWATTS),
        )

    def _ask(self, question: Callable[[], float], unit: int = 1) -> float | None:
        try:
            return question() / unit
        except self._nvml.NVMLError:
            return None


@contextmanager
def open_devices(nvml: Any = pynvml) -> Iterator[list[Device]]:
    """Give the host and the GPUs that there are; none without NVIDIA's driver.

    Args:
        nvml: The module pynvml, or one like it.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        logger.debug("no statistics of GPUs: %s", error)
        yield [Host()]
        return
    try:
        yield [Host(), *_gpus(nvml)]
    finally:
        nvml.nvmlShutdown()


def _gpus(nvml: Any) -> Iterator[NvidiaGpu]:
    """Yield the GPUs that answer."""
    for index in range(nvml.nvmlDeviceGetCount()):
        with suppress(nvml.NVMLError):
            yield NvidiaGpu(index, nvml)
