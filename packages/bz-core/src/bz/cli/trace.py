"""What a rehearsed run did, step by step, and the first thing in which two runs differ."""

import hashlib
import math
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bz.plugins import Plugin

if TYPE_CHECKING:
    from bz.context import TrainingContext

KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
"""The signal that no process can catch; on Windows `os.kill` ends a process at once with any."""

LONG_ENOUGH: Final = "the rehearsal is long enough"
"""Why a rehearsal was stopped."""

_NO_PART_OF_IT: Final = frozenset({"bz/settings", "bz/provenance", "bz/extra", "bz/plugins", "bz/seconds"})
"""About the process, or about what plugins have written, which may hold times; neither decides the next step."""

_FIRST: Final = ("model_state_dict", "optimizer_state_dict", "lr_schedulers", "grad_scaler", "history", "losses")
"""Parts of a state in which a difference says most; the others follow."""


class Step(NamedTuple):
    """One training step.

    Attributes:
        epoch: Its epoch, from 1.
        batch: Its batch, from 1.
        number: Optimizer steps done after it.
        loss: The bits of the loss.
        data: Digest of the batch.
        attempt: How often the run had been killed by then.
    """

    epoch: int
    batch: int
    number: int
    loss: str
    data: str
    attempt: int = 0

    def __str__(self) -> str:
        return f"step {self.number} (epoch {self.epoch}, batch {self.batch})"


class TraceWriter(Plugin):
    """Writes down each step, and kills its own process or stops the run where it is told to.

    Args:
        path: Where the steps go; one line each, at once, so that a kill takes none away.
        attempt: How often the run was killed before.
        kill_after: The step after which the process is killed, or None.
        stop_after: The step after which the run ends.
    """

    name = "trace_writer"

    def __init__(self, path: Path, attempt: int, kill_after: int | None, stop_after: int) -> None:
        self._path = path
        self._attempt = attempt
        self._kill_after = kill_after
        self._stop_after = stop_after

    def end_training_batch(self, context: "TrainingContext") -> None:
        """Write the step."""
        number = context.global_step
        loss = float(context.loss).hex() if context.loss is not None else ""
        line = f"{context.epoch} {context.batch_index + 1} {number} {loss} {digest(context.batch)} {self._attempt}\n"
        with self._path.open("a") as file:
            file.write(line)
        if number == self._kill_after:
            os.kill(os.getpid(), KILL)
        if number >= self._stop_after:
            context.request_stop(LONG_ENOUGH, when="batch")


def read_trace(path: Path) -> list[Step]:
    """Return the steps in the order in which they were made; a resumed run repeats some."""
    rows = (line.split(" ") for line in path.read_text().splitlines())
    return [Step(int(row[0]), int(row[1]), int(row[2]), row[3], row[4], int(row[5])) for row in rows]


def digest(batch: Any) -> str:
    """Return a digest of all tensors, numbers and texts in a batch; what else is in it counts by its type."""
    content = hashlib.sha256()
    for part in _parts(batch):
        content.update(part)
    return content.hexdigest()[:16]


def _parts(value: Any) -> Iterator[bytes]:
    import torch

    if isinstance(value, torch.Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield _raw(value).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key).encode()
            yield from _parts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, str | int | float | bytes | None):
        yield repr(value).encode()
    else:
        yield type(value).__name__.encode()


def _raw(tensor: Any) -> Any:
    """Return the bytes of a dense tensor, on the CPU."""
    import torch

    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)


def first_other_step(steps: list[Step], reference: list[Step]) -> tuple[Step, Step] | None:
    """Return the first step that is not as in the reference, and that of the reference; None if all are equal."""
    expected = {step.number: step for step in reference}
    for step in steps:
        if step.number in expected and step._replace(attempt=0) != expected[step.number]:
            return step, expected[step.number]
    return None


def first_difference(state: Mapping[str, Any], reference: Mapping[str, Any]) -> str | None:
    """Return where two checkpoints differ, as in `model_state_dict/3.weight`; None if they are equal to the bit."""
    return next(_differences(_sorted(state), _sorted(reference), ""), None)


def _sorted(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state with the parts in front that say most."""
    own = dict(state["bz"])
    in_front = {key: state[key] for key in _FIRST if key in state}
    own = {key: own[key] for key in _FIRST if key in own} | own
    return {**in_front, "bz": own, **{key: value for key, value in state.items() if key not in {*in_front, "bz"}}}


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if path in _NO_PART_OF_IT:
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = list(one) if one.keys() == other.keys() else [*one, *(key for key in other if key not in one)]
        for key in keys:
            below = f"{path}/{key}" if path else str(key)
            if key in one and key in other:
                yield from _differences(one[key], other[key], below)
            elif path != "bz/random" and below not in _NO_PART_OF_IT:  # NumPy is there once it was imported
                yield below
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _differences(first, second, f"{path}/{index}")
    elif not _is_equal(one, other):
        yield path


def _is_equal(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        is_alike = one.dtype == other.dtype and one.shape == other.shape
        return is_alike and torch.equal(_raw(one), _raw(other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)
