"""What `bz doctor` looks at: the machine, torch, the disk, the plugins, the settings and the runs."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from bz.cli.config import faults_of, find_settings
from bz.cli.wording import counted, size_of
from bz.errors import BzError

State = Literal["ok", "warn", "fail"]

OLDEST_TORCH: Final = (2, 10)
COPIES: Final = 3
"""Rolling checkpoints on disk while the next one is written: two that are kept, and the new one."""

_LITTLE_MEMORY: Final = 10**9
_LITTLE_DISK: Final = 10**9


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        subject: What.
        state: `ok`, `warn` (bz works, look at it) or `fail` (a training would not work).
        text: What was found, in a sentence.
    """

    subject: str
    state: State
    text: str


def examine(config: Path | None, script: Path | None, runs_dir: Path) -> Iterator[Finding]:
    """Yield everything that was found.

    Args:
        config: The settings file, or None to look for one.
        script: A script to build the model of, for the size of a checkpoint; None to run nothing.
        runs_dir: Where the runs are.
    """
    yield from _environment()
    yield from _torch_and_devices()
    yield from _disk(script, runs_dir)
    yield from _plugins(config)
    yield from _settings(config)
    yield from _runs(runs_dir)


def _environment() -> Iterator[Finding]:
    from bz.plugins.discovery import core_version

    yield Finding("bz", "ok", f"bz {core_version()}.")
    yield Finding("python", "ok", f"{platform.python_implementation()} {platform.python_version()}.")
    yield Finding("system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}.")
    usable, there = _usable_cores(), os.cpu_count() or 1
    of = "" if usable == there else f" of {there}, which is all that this process may use"
    yield Finding("cores", "ok", f"{counted(usable, 'core')}{of}.")
    free = _free_memory()
    if free is not None:
        yield Finding("memory", "warn" if free < _LITTLE_MEMORY else "ok", f"{size_of(free)} of memory are free.")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int | None:
    """Return the bytes that new processes can have, or None where the system does not say so in a file."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _torch_and_devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "fail", f"torch cannot be imported: {' '.join(str(error).split())}.")
        return
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        text = f"torch {torch.__version__} is too old: before 2.10 a checkpoint could run code when it is read."
        yield Finding("torch", "fail", text)
    else:
        yield Finding("torch", "ok", f"torch {torch.__version__}.")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        yield Finding("device", "ok", "There is no accelerator; training runs on the CPU.")
        return
    for index in range(torch.accelerator.device_count()):
        yield _device(f"{accelerator.type}:{index}")


def _device(name: str) -> Finding:
    """Compute something there: a driver that does not fit is found by nothing else."""
    import torch

    try:
        total = float((torch.ones(8, device=name) * 2).sum())
    except RuntimeError as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        return Finding("device", "fail", f"{name} does not compute: {first_line}.")
    if total != 16.0:  # noqa: PLR2004 - eight times two
        return Finding("device", "fail", f"{name} computes wrongly: eight times two is {total:g} there.")
    return Finding("device", "ok", f"{name} works.")


def _disk(script: Path | None, runs_dir: Path) -> Iterator[Finding]:
    place = next(path for path in (runs_dir.absolute(), *runs_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        yield Finding("disk", "fail", f"{place} cannot be written.")
        return
    try:
        size, source = _checkpoint_size(script, runs_dir)
    except BzError as error:
        yield Finding("script", "fail", " ".join(str(error).split()))
        size, source = None, ""
    if size is None:
        note = "how large a checkpoint will be is not known before there is one"
        yield Finding("disk", "warn" if free < _LITTLE_DISK else "ok", f"{size_of(free)} are free; {note}.")
        return
    needed = COPIES * size
    state: State = "ok" if free >= needed else "warn" if free >= size else "fail"
    each = f"{COPIES} checkpoints of {size_of(size)} ({source})"
    text = f"{size_of(free)} are free; a run needs {size_of(needed)} for {each}."
    yield Finding("disk", state, text)


def _checkpoint_size(script: Path | None, runs_dir: Path) -> tuple[int | None, str]:
    """Return the bytes of a checkpoint and how that is known."""
    if script is not None:
        return _estimate(script), f"an estimate from the parameters and the optimizer of {script.name}"
    found = [file for file in runs_dir.glob("*/state/epoch_*.pth") if file.is_file()]
    if not found:
        return None, ""
    newest = max(found, key=lambda file: file.stat().st_mtime)
    return newest.stat().st_size, f"as in the run {newest.parent.parent.name}"


def _estimate(script: Path) -> int:
    """Return what model and optimizer hold; of an optimizer that has made no step, its usual two values a parameter."""
    from bz.script import load_script

    spec = load_script(script, {}).spec
    parameters = sum(_bytes(value) for value in spec.model.parameters())
    buffers = sum(_bytes(value) for value in spec.model.buffers())
    return parameters + buffers + parameters * _states_per_parameter(spec.optimizer)


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _states_per_parameter(optimizer: Any) -> int:
    if type(optimizer).__name__ == "SGD":
        return int(any(group.get("momentum") for group in optimizer.param_groups))
    return 2


def _plugins(config: Path | None) -> Iterator[Finding]:
    from concurrent.futures import ThreadPoolExecutor

    from bz.cli.inspection import inspect_plugin
    from bz.cli.plugins import choose

    try:
        choices = choose(config)
    except BzError:  # the settings cannot be read, which is reported as such
        choices = choose(None) if config is None else ()
    installed = [choice for choice in choices if choice.plugin is not None]
    with ThreadPoolExecutor() as pool:
        inspections = list(pool.map(inspect_plugin, [choice.plugin for choice in installed if choice.plugin]))
    for choice, found in zip(installed, inspections, strict=True):
        subject, origin = f"plugin {choice.name}", f"{choice.package} {choice.version}"
        if found.error is not None:
            # One that only happens to be installed is left out of a run; one that was named ends it.
            yield Finding(subject, "fail" if choice.is_named else "warn", f"{origin}: {found.error}")
        elif found.problems:
            yield Finding(subject, "warn", f"{origin}: {' '.join(found.problems)}")
        else:
            why = f" ({choice.reason})" if choice.reason else ""
            yield Finding(subject, "ok", f"{origin} can be used; it is {choice.state}{why}.")


def _settings(config: Path | None) -> Iterator[Finding]:
    try:
        path = find_settings(config)
        faults: Sequence[str] = list(faults_of(path, []))
    except BzError as error:
        path, faults = config, [str(error)]
    for fault in faults:
        yield Finding("settings", "fail", fault)
    if not faults:
        text = f"{path} is fine." if path else "There is no settings file; the defaults are fine."
        yield Finding("settings", "ok", text)


def _runs(runs_dir: Path) -> Iterator[Finding]:
    from bz.cli.finding import UNFINISHED
    from bz.records import list_runs

    try:
        unfinished = [run for run in list_runs(runs_dir) if run.status in UNFINISHED]
    except BzError as error:
        yield Finding("runs", "fail", str(error))
        return
    if unfinished:
        named = ", ".join(f"{run.name} ({run.status})" for run in unfinished[-3:])
        number = counted(len(unfinished), "run")
        yield Finding("runs", "warn", f"{number} can go on with `bz train --resume NAME`; the newest: {named}.")
