"""Traces of a few steps, by torch.profiler.

The profiler is alive from the step before the traced ones, which takes the cost of its start, to
the end of the last. What it does to end (it waits for the device, and sorts its events) happens there and
nowhere else. A trace never reaches over the end of a training loop: validation is not in it.
"""

from __future__ import annotations

import gzip
import logging
import math
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bz.durable import make_folder, replacing
from bz_plugin_profiler.steps import range_name

if TYPE_CHECKING:
    import torch

    from bz_plugin_profiler.steps import Steps

logger = logging.getLogger(__name__)

SCRATCH_PREFIX: Final = ".trace-"
OPERATORS_LISTED: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContent:
    """What a trace holds besides the operators, as torch.profiler calls it."""

    record_shapes: bool = False
    profile_memory: bool = False
    with_stack: bool = False


class Tracer:
    """Traces the batches of the steps that were asked for.

    Args:
        steps: Which.
        folder: Where the traces go; made when there is one.
        device: What is traced besides the CPU.
        content: What traces hold besides the operators.
        first_step: First step that this session makes.

    Attributes:
        next_step: First step that begins with something to do; infinity when all is done.
    """

    def __init__(
        self, steps: Steps, folder: Path, device: torch.device, content: TraceContent, *, first_step: int = 1
    ) -> None:
        self.next_step = _first_of_interest(steps, first_step)
        self._steps = steps
        self._folder = folder
        self._device = device
        self._content = content
        self._profiler: torch.profiler.profile | None = None
        self._window = range(0)
        self._mark: Any = None
        self._traced: list[int] = []

    @property
    def is_running(self) -> bool:
        """Whether the profiler is alive."""
        return self._profiler is not None

    @property
    def has_steps_left(self) -> bool:
        """Whether there are steps to trace that have not come."""
        return self.next_step < math.inf

    def begin_batch(self, step: int) -> None:
        """Trace the batch that begins, if it is of a step to be traced.

        Args:
            step: Number of the step that it belongs to.
        """
        if self._profiler is None and step >= self.next_step:
            self._prepare(step)
        if self._profiler is not None and step in self._window:
            self._begin_mark(self._profiler, step)

    def _prepare(self, step: int) -> None:
        window = self._steps.next_range(step)
        self.next_step = math.inf if window is None else _first_of_interest(self._steps, window.stop)
        if window is not None:
            profiler = _make_profiler(self._device, self._content)
            profiler.prepare_trace()
            self._profiler, self._window, self._traced = profiler, window, []

    def _begin_mark(self, profiler: torch.profiler.profile, step: int) -> None:
        """Mark the batch in the trace, under the name that viewers know steps by."""
        from torch.profiler import record_function

        if not self._traced:
            profiler.start_trace()
        if step not in self._traced:
            self._traced.append(step)
        self._mark = record_function(f"ProfilerStep#{step}")
        self._mark.__enter__()

    def end_batch(self, steps_done: int) -> None:
        """End the mark of the batch, and the trace if the next batch is not of its steps.

        Args:
            steps_done: Optimizer steps of the run so far.

        Raises:
            OSError: If the trace cannot be written.
        """
        self._end_mark()
        if self._profiler is not None and steps_done + 1 >= self._window.stop:
            self.close(steps_done)

    def _end_mark(self) -> None:
        mark, self._mark = self._mark, None
        if mark is not None:
            mark.__exit__(None, None, None)

    def close(self, steps_done: int) -> None:
        """End the trace and write what is in it; what is left of its steps gets a trace of its own.

        Raises:
            OSError: If it cannot be written.
        """
        self._end_mark()
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            return
        self.next_step = _first_of_interest(self._steps, steps_done + 1)
        if not self._traced:
            profiler.start_trace()  # one that was prepared cannot be stopped
        profiler.stop_trace()
        if self._traced:
            self._write(profiler, range_name(self._traced[0], self._traced[-1]))

    def _write(self, profiler: torch.profiler.profile, steps: str) -> None:
        make_folder(self._folder)
        path = self._folder / f"trace_{steps}.json.gz"
        _write_trace(profiler, path)
        with replacing(self._folder / f"operators_{steps}.txt") as file:
            file.write(_operator_table(profiler, steps, by_shape=self._content.record_shapes).encode())
        logger.info("traced %s: %s, to be opened in https://ui.perfetto.dev", _in_words(steps), path)


def _first_of_interest(steps: Steps, step: int) -> float:
    """Return the step before the next one to be traced, or the present one if that comes first; infinity for none."""
    window = steps.next_range(step)
    return math.inf if window is None else max(step, window.start - 1)


def _in_words(steps: str) -> str:
    return f"steps {steps}" if "-" in steps else f"step {steps}"


def _make_profiler(device: torch.device, content: TraceContent) -> torch.profiler.profile:
    from torch.profiler import ProfilerActivity, profile, supported_activities

    supported = supported_activities()  # type: ignore[no-untyped-call]
    of_device = [activity for activity in supported if activity.name == device.type.upper()]
    # Each is used for one trace, so that there is nothing to keep; torch 2.10 warns of losing it all the same.
    return profile(activities={ProfilerActivity.CPU, *of_device}, acc_events=True, **asdict(content))


def _write_trace(profiler: torch.profiler.profile, path: Path) -> None:
    """Write the trace as compressed JSON.

    torch writes it uncompressed, and does not raise when the disk refuses: it only leaves no file.
    """
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=path.parent) as scratch:
        plain = Path(scratch, path.stem)
        profiler.export_chrome_trace(str(plain))
        if not plain.is_file():
            raise OSError(f"torch could not write the trace {str(path)!r}; is the disk full?")
        with plain.open("rb") as source, replacing(path) as file, gzip.open(file, "wb") as packed:
            shutil.copyfileobj(source, packed)


def _operator_table(profiler: torch.profiler.profile, steps: str, *, by_shape: bool) -> str:
    """Return the operators that took the most time of their own, on the device if it was traced, as text."""
    where = "cpu" if profiler.use_device is None else "device"
    averages = profiler.key_averages(group_by_input_shape=by_shape)
    table = averages.table(sort_by=f"self_{where}_time_total", row_limit=OPERATORS_LISTED)
    title = f"{_in_words(steps).capitalize()}: operators by their own time on the {profiler.use_device or 'cpu'} device"
    return f"{title}, at most {OPERATORS_LISTED}\n{table}"


def traces_in(folder: Path) -> list[str]:
    """Return the names of the traces in a folder, in the order of their steps."""
    names = [path.name for path in folder.glob("trace_*.json.gz")]
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def remove_scratch(folder: Path) -> None:
    """Remove what a killed process left of a trace; nobody else may be writing to the folder."""
    for path in folder.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
