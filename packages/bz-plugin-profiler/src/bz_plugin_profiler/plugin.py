"""The plugin: hands what the hooks see to the clock, the tracer and the sampler."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Final

from bz.config import check_arguments
from bz.durable import make_folder, remove_leftovers, replacing
from bz.plugins import Plugin, hookimpl
from bz_plugin_profiler.config import ProfilerConfig
from bz_plugin_profiler.memory import MemoryHistory, Occasion
from bz_plugin_profiler.tracing import TraceContent, Tracer, remove_scratch, traces_in
from bz_plugin_profiler.waiting import WaitClock, WaitTotals, log_wait

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bz.context import TrainingContext
    from bz.intervals import Interval
    from bz_plugin_profiler.sampling import DeviceSampler
    from bz_plugin_profiler.steps import Steps

logger = logging.getLogger(__name__)

SAMPLES_NAME: Final = "devices.csv"
SUMMARY_NAME: Final = "summary.json"
DECIMALS: Final = 6


class ProfilerPlugin(Plugin):
    """Traces steps, takes the time that data is waited for, and looks at the load of the devices.

    Args:
        profile_dir: Folder of all that is written, relative to the run folder.
        steps: Which optimizer steps are traced, such as `6-8`; None for none.
        record_shapes: Whether traces hold the shapes of inputs.
        profile_memory: Whether traces hold allocations.
        with_stack: Whether traces hold the calls of Python functions.
        memory_snapshot: When a snapshot of a CUDA device's memory is written: `out_of_memory`, `end` or None.
        data_wait: Whether the wait for data is measured.
        devices_every: Time from one look at the devices to the next, such as `2 s`; None for none.

    Raises:
        ConfigError: If an argument is not accepted.
    """

    name: ClassVar[str] = "profiler"
    Config: ClassVar[type[BaseModel] | None] = ProfilerConfig

    def __init__(  # noqa: PLR0913 - the names of the settings
        self,
        profile_dir: str | Path = "profile",
        steps: Steps | str | int | None = "6-8",
        *,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        memory_snapshot: Occasion | None = None,
        data_wait: bool = True,
        devices_every: Interval | str | None = "2 s",
    ) -> None:
        self._settings = check_arguments(
            ProfilerConfig,
            "ProfilerPlugin",
            profile_dir=str(profile_dir),
            steps=steps,
            record_shapes=record_shapes,
            profile_memory=profile_memory,
            with_stack=with_stack,
            memory_snapshot=memory_snapshot,
            data_wait=data_wait,
            devices_every=devices_every,
        )
        self._forget()

    def _forget(self) -> None:
        """Begin a session about which nothing is known."""
        self._folder: Path | None = None
        self._clock: WaitClock | None = None
        self._tracer: Tracer | None = None
        self._sampler: DeviceSampler | None = None
        self._memory: MemoryHistory | None = None
        self._state: dict[str, Any] = {}

    def start_training_session(self, context: TrainingContext) -> None:
        """Begin; a resumed run waits until its position in the files is known."""
        self._forget()
        if context.resumed_from is None:
            self._begin(context)

    def load_checkpoint(self, context: TrainingContext) -> None:
        """Go on behind what the checkpoint knew of."""
        self._begin(context)

    def _begin(self, context: TrainingContext) -> None:
        settings = self._settings
        self._folder = context.output_path(settings.profile_dir)
        make_folder(self._folder)
        if context.run_dir is not None:  # a run folder is locked: nobody else is writing there
            remove_leftovers(self._folder)
            remove_scratch(self._folder)
        if settings.data_wait:
            self._clock = WaitClock(WaitTotals.from_state(self._state.get("data_wait", {})))
        if settings.steps is not None:
            content = TraceContent(
                record_shapes=settings.record_shapes,
                profile_memory=settings.profile_memory,
                with_stack=settings.with_stack,
            )
            self._tracer = Tracer(
                settings.steps, self._folder, context.device, content, first_step=context.global_step + 1
            )
        self._begin_memory_history(context)
        self._begin_sampling(self._folder)

    def _begin_memory_history(self, context: TrainingContext) -> None:
        occasion = self._settings.memory_snapshot
        if occasion is None:
            return
        if context.device.type != "cuda":
            logger.warning("`memory_snapshot` has no effect: it is of CUDA devices, this run is on %s", context.device)
            return
        self._memory = MemoryHistory(occasion)

    def _begin_sampling(self, folder: Path) -> None:
        if self._settings.devices_every is None:
            return
        from bz_plugin_profiler.samples import SampleFile
        from bz_plugin_profiler.sampling import DeviceSampler

        interval_seconds = self._settings.devices_every.seconds
        assert interval_seconds is not None
        position = self._state.get("devices", {})
        file = SampleFile(folder / SAMPLES_NAME, int(position.get("size_bytes", 0)))
        self._sampler = DeviceSampler(file, interval_seconds, float(position.get("elapsed_seconds", 0.0)))

    def start_training_loop(self, context: TrainingContext) -> None:  # noqa: ARG002 - every hook takes it
        """Begin to wait for the first batch."""
        if self._clock is not None:
            self._clock.begin_loop(perf_counter())

    @hookimpl(tryfirst=True)
    def start_training_batch(self, context: TrainingContext) -> None:
        """Read the clock; begin a trace if one is due."""
        step = context.global_step + 1
        if self._clock is not None:
            self._clock.begin_batch(perf_counter(), step)
        if self._tracer is not None and (self._tracer.is_running or step >= self._tracer.next_step):
            self._tracer.begin_batch(step)
            self._leave_out()

    @hookimpl(trylast=True)
    def end_training_batch(self, context: TrainingContext) -> None:
        """Read the clock; end the trace, and write it, if it is complete."""
        if self._clock is not None:
            self._clock.end_batch(perf_counter())
        if self._tracer is not None and self._tracer.is_running:
            self._tracer.end_batch(context.global_step)
            self._leave_out()

    def _leave_out(self) -> None:
        if self._clock is not None:
            self._clock.leave_out(perf_counter())

    def save_checkpoint(self, context: TrainingContext) -> None:  # noqa: ARG002 - every hook takes it
        """Leave the writing of a checkpoint out of the waiting."""
        self._leave_out()

    def start_validation_loop(self, context: TrainingContext) -> None:
        """Write the trace that is under way: validation is not in it."""
        self._close_trace(context)

    def end_validation_loop(self, context: TrainingContext) -> None:  # noqa: ARG002 - every hook takes it
        """Leave a validation between two training batches out of the waiting."""
        self._leave_out()

    def end_training_loop(self, context: TrainingContext) -> None:
        """Wait for nothing more, and write the trace that is under way."""
        if self._clock is not None:
            self._clock.end_loop()
        self._close_trace(context)

    def end_epoch(self, context: TrainingContext) -> None:  # noqa: ARG002 - every hook takes it
        """Report what the thread met, such as a full disk."""
        if self._sampler is not None:
            self._sampler.check()

    def end_training_session(self, context: TrainingContext) -> None:
        """End everything, however the run ended, and write and log what it comes to."""
        if self._folder is None:
            return
        folder, self._folder = self._folder, None
        with ExitStack() as stack:  # each is done, whatever becomes of the others
            stack.callback(self._close_waiting, context)
            stack.callback(self._write_summary, folder)
            stack.callback(self._close_sampling)
            stack.callback(self._close_memory_history, context, folder)
            stack.callback(self._close_tracing, context)

    def _close_tracing(self, context: TrainingContext) -> None:
        self._close_trace(context)
        if self._tracer is None:
            return
        tracer, self._tracer = self._tracer, None
        if context.status == "completed" and tracer.has_steps_left:
            logger.warning(
                "the run ended after step %d; what `steps` names behind it (%s) was not traced",
                context.global_step,
                self._settings.steps,
            )

    def _close_trace(self, context: TrainingContext) -> None:
        if self._tracer is not None:
            self._tracer.close(context.global_step)

    def _close_memory_history(self, context: TrainingContext, folder: Path) -> None:
        if self._memory is None:
            return
        memory, self._memory = self._memory, None
        path = folder / f"memory_step_{context.global_step}.pickle"
        if memory.close(path, context.error):
            logger.info("memory snapshot: %s, to be opened in https://pytorch.org/memory_viz", path)

    def _close_sampling(self) -> None:
        if self._sampler is None:
            return
        sampler, self._sampler = self._sampler, None
        try:
            sampler.stop()
        finally:
            self._state["devices"] = sampler.position()
            self._state["descriptions"] = sampler.descriptions

    def _close_waiting(self, context: TrainingContext) -> None:
        if self._clock is None:
            return
        clock, self._clock = self._clock, None
        self._state["data_wait"] = clock.totals.state_dict()
        log_wait(clock.totals, is_copied=context.device.type != "cpu")

    def _write_summary(self, folder: Path) -> None:
        summary: dict[str, Any] = {"traces": traces_in(folder)}
        if self._clock is not None:
            totals = self._clock.totals
            values = totals.state_dict() | {"share": totals.share}
            summary["data_wait"] = {name: round(value, DECIMALS) for name, value in values.items()}
        samples = folder / SAMPLES_NAME
        if self._settings.devices_every is not None and samples.is_file():
            from bz_plugin_profiler.samples import summarize

            values = summarize(samples)
            descriptions = self._state.get("descriptions", {})
            summary["devices"] = {
                key: {"description": descriptions.get(key), **ranges} for key, ranges in values.items()
            }
        with replacing(folder / SUMMARY_NAME) as file:
            file.write(json.dumps(summary, indent=2, allow_nan=False).encode() + b"\n")

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far, and where a resumed run cuts the samples."""
        state = dict(self._state)
        if self._clock is not None:
            state["data_wait"] = self._clock.totals.state_dict()
        if self._sampler is not None:
            state["devices"] = self._sampler.position()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `load_checkpoint` will need."""
        self._state = dict(state)
