"""From losses to optimizer steps: gradient scaling, accumulation over batches, clipping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from bz.errors import ConfigError
from bz.training.batches import count_samples

if TYPE_CHECKING:
    from bz.config.models import TrainingSettings
    from bz.progress import Progress
    from bz.spec import TrainingSpec
    from bz.training.precision import Precision

Weight = float | torch.Tensor


class _Steps:
    """Steps optimizers: unscales, clips, steps, and says whether a step was made.

    With `fp16` the scaler leaves a step out when a gradient overflowed; a hook of the optimizer
    tells without waiting for the device once more.
    """

    def __init__(
        self, spec: TrainingSpec, settings: TrainingSettings, progress: Progress, precision: Precision
    ) -> None:
        self._progress = progress
        self._scaler = precision.scaler
        self._max_norm, self._max_value = settings.clip_grad_norm, settings.clip_grad_value
        self._clips = self._max_norm is not None or self._max_value is not None
        self._was_tried = self._was_stepped = False
        self._hooks = [one.register_step_post_hook(self._note_step) for one in spec.optimizers if self._scaler]

    def close(self) -> None:
        """Take the hooks off the optimizers."""
        for hook in self._hooks:
            hook.remove()

    def _note_step(self, *_: object) -> None:
        self._was_stepped = True

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`."""
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients of the optimizer's parameters, and step it."""
        if self._clips:
            if self._scaler is not None:
                self._scaler.unscale_(optimizer)
            self._clip(list(parameters_of(optimizer)))
        self._was_tried = True
        if self._scaler is None:
            optimizer.step()
            self._was_stepped = True
        else:
            self._scaler.step(optimizer)

    def _clip(self, parameters: list[torch.Tensor]) -> None:
        if self._max_norm is not None:
            self._progress.grad_norm = clip_grad_norm_(parameters, self._max_norm)
        if self._max_value is not None:
            clip_grad_value_(parameters, self._max_value)

    def finish(self) -> bool:
        """End the steps of one batch; return whether there was one."""
        was_stepped = self._was_stepped
        if self._scaler is not None and self._was_tried:
            self._scaler.update()
        self._was_tried = self._was_stepped = False
        return was_stepped


class _WithoutWindow:
    """Keeps nothing from batch to batch."""

    is_window_open = False

    def skip(self, _index: int) -> bool:
        """Leave this batch out."""
        return False

    def flush(self) -> bool:
        """Make no step: none is left when the batches have ended."""
        return False

    def state_dict(self) -> dict[str, Any] | None:
        """Return None: no gradients wait for more batches."""
        return None

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Take nothing over."""

    def close(self) -> None:
        """Leave the optimizers as they were found."""


class PlainOptimization(_WithoutWindow):
    """One optimizer step for each batch, nothing else: the loop that everybody writes."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def compute_gradients(self, loss: torch.Tensor, _weight: Weight | None, _batch: Any, _index: int) -> None:
        """Compute the gradients of this batch."""
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types

    def make_step(self, _index: int) -> bool:
        """Make a step with them."""
        self._optimizer.step()
        return True


class WindowedOptimization:
    """One optimizer step for each window of batches, with the gradient of all their samples together.

    A loss is the mean over the items of its batch, so it counts with their number: by default the
    samples, else `StepResult.weight`. The first batch says how many items a batch has; where the
    window turns out to hold another number, because a batch is smaller or the epoch ends, the
    gradients are corrected before the step. So they equal those of one big batch, and windows of
    equal batches are computed as `(loss / num_batches).backward()` would.

    Args:
        spec: Whose optimizer is stepped.
        settings: `accumulate_batches` and the clipping.
        progress: Gets the norm of the gradients.
        precision: Whose gradient scaler is used.
        training_batches: Batches of an epoch, if that is known; else the last window is closed by `flush`.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        settings: TrainingSettings,
        progress: Progress,
        precision: Precision,
        training_batches: int | None,
    ) -> None:
        (self._optimizer,) = spec.optimizers
        self._steps = _Steps(spec, settings, progress, precision)
        self._window = settings.accumulate_batches
        self._training_batches = training_batches
        self._expected: Weight = 0.0
        self._actual: Weight = 0.0
        self.is_window_open = False

    def compute_gradients(self, loss: torch.Tensor, weight: Weight | None, batch: Any, index: int) -> None:
        """Add the gradients of this batch."""
        weight = self._known_weight(weight, loss, batch)
        if not self.is_window_open:
            self._optimizer.zero_grad()
            self._expected, self._actual = weight * self._window_size(index), 0.0
            self.is_window_open = True
        self._actual = self._actual + weight
        self._steps.backward(loss if self._window == 1 else loss * (weight / self._expected))

    def make_step(self, index: int) -> bool:
        """Make the step if the batch is the last of its window; return whether one was made."""
        return self._is_last(index) and self.flush()

    def _known_weight(self, weight: Weight | None, loss: torch.Tensor, batch: Any) -> Weight:
        if self._window == 1:
            return 1.0
        if weight is None:
            return float(count_samples(batch))
        if isinstance(weight, torch.Tensor):  # of integers or in half precision, it would round the gradients
            return weight.to(torch.promote_types(loss.dtype, torch.float32))
        return weight

    def _window_size(self, index: int) -> int:
        size = self._window - index % self._window
        return size if self._training_batches is None else min(size, self._training_batches - index)

    def _is_last(self, index: int) -> bool:
        return (index + 1) % self._window == 0 or index + 1 == self._training_batches

    def skip(self, index: int) -> bool:
        """Leave this batch out; return whether its window ended with a step."""
        return self._is_last(index) and self.flush()

    def flush(self) -> bool:
        """Make the step that is still to be made, if there is one; return whether it was made."""
        if not self.is_window_open:
            return False
        self.is_window_open = False
        self._correct()
        self._steps.step(self._optimizer)
        return self._steps.finish()

    def _correct(self) -> None:
        """Scale the gradients where the window held another number of items than expected."""
        if isinstance(self._actual, float) and self._actual == self._expected:
            return
        factor = self._expected / self._actual
        for parameter in parameters_of(self._optimizer):
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the gradients that wait for more batches, in the order of the optimizer's parameters, or None."""
        if not self.is_window_open:
            return None
        gradients = [parameter.grad for parameter in parameters_of(self._optimizer)]
        return {"expected": self._expected, "actual": self._actual, "gradients": gradients}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on inside a window; what a gradient is added to is copied."""
        self.is_window_open = state is not None
        if state is None:
            return
        self._expected, self._actual = state["expected"], state["actual"]
        for parameter, gradient in zip(parameters_of(self._optimizer), state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)

    def close(self) -> None:
        """Leave the optimizer as it was found."""
        self._steps.close()


class ManualOptimization(_WithoutWindow):
    """The user's step computes gradients and steps its optimizers itself; a batch counts as one step."""

    def __init__(
        self, spec: TrainingSpec, settings: TrainingSettings, progress: Progress, precision: Precision
    ) -> None:
        self._steps = _Steps(spec, settings, progress, precision)
        self._device_type = precision.device_type

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`."""
        with self._outside_autocast():
            self._steps.backward(loss)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients of the optimizer's parameters, and step it."""
        with self._outside_autocast():
            self._steps.step(optimizer)

    @contextmanager
    def _outside_autocast(self) -> Iterator[None]:
        """Leave the autocast of the step, as code between forward passes does; the next one casts the weights anew."""
        with torch.autocast(self._device_type, enabled=False):
            yield
        torch.clear_autocast_cache()

    def compute_gradients(self, loss: torch.Tensor, weight: Weight | None, batch: Any, index: int) -> None:
        """Leave that to the user's step, which has done it."""

    def make_step(self, _index: int) -> bool:
        """Count what the user's step has done."""
        self._steps.finish()
        return True

    def close(self) -> None:
        """Leave the optimizers as they were found."""
        self._steps.close()


Optimization = PlainOptimization | WindowedOptimization | ManualOptimization


def make_optimization(
    spec: TrainingSpec,
    settings: TrainingSettings,
    progress: Progress,
    precision: Precision,
    training_batches: int | None,
) -> Optimization:
    """Return how the losses of a run become optimizer steps.

    Raises:
        ConfigError: If a setting has no effect because the script steps its optimizers itself.
    """
    if spec.steps_itself:
        _check_manual(settings)
        return ManualOptimization(spec, settings, progress, precision)
    clips = settings.clip_grad_norm is not None or settings.clip_grad_value is not None
    if settings.accumulate_batches == 1 and precision.scaler is None and not clips:
        return PlainOptimization(*spec.optimizers)
    return WindowedOptimization(spec, settings, progress, precision, training_batches)


def _check_manual(settings: TrainingSettings) -> None:
    if settings.accumulate_batches != 1:
        name, value = "accumulate_batches", str(settings.accumulate_batches)
    elif settings.on_nonfinite == "skip":
        name, value = "on_nonfinite", repr(settings.on_nonfinite)
    else:
        return
    message = f"`training.{name}` {value} has no effect where the training_step optimizes by itself; leave it out."
    raise ConfigError(message, option=f"training.{name}")


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Yield the parameters of all groups."""
    for group in optimizer.param_groups:
        yield from group["params"]
