"""The settings of the profiler plugin."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bz.intervals import Interval
from bz_plugin_profiler.memory import Occasion
from bz_plugin_profiler.steps import Steps

SHORTEST_SECONDS: Final = 0.1


def _check_time(interval: Interval | None) -> Interval | None:
    if interval is not None and (interval.seconds is None or interval.seconds < SHORTEST_SECONDS):
        raise ValueError('must be a time of at least 0.1 s, such as "2 s" or "1 min", or null')
    return interval


class ProfilerConfig(BaseModel):
    """Settings of the profiler plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    profile_dir: str = Field(default="profile", min_length=1)
    """Folder of all that is written, relative to the run folder."""

    steps: Steps | None = Field(default="6-8", validate_default=True)
    """Which optimizer steps are traced, counted from 1: `6-8`, `100`, or `6-8, 500-502`; null for none."""

    record_shapes: bool = False
    """Whether traces hold the shapes of the operators' inputs."""

    profile_memory: bool = False
    """Whether traces hold what each operator allocates and frees."""

    with_stack: bool = False
    """Whether traces hold the calls of Python functions; slow."""

    memory_snapshot: Occasion | None = None
    """When a snapshot of a CUDA device's memory is written: `out_of_memory`, or `end` of the run; null for never."""

    data_wait: bool = True
    """Whether the time is taken in which the training waits for its data."""

    devices_every: Annotated[Interval | None, AfterValidator(_check_time)] = Field(
        default="2 s",
        validate_default=True,
    )
    """Time from one look at the load of CPU, memory and GPUs to the next, such as `10 s`; null for none."""
