"""Runs a learning rate range test with bz's own trainer."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from bz.config import check_arguments
from bz.errors import ScriptError, TrainingError
from bz_plugin_lr_finder.config import RangeTestConfig
from bz_plugin_lr_finder.plugin import LRFinderPlugin
from bz_plugin_lr_finder.rates import GroupRates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from bz.config.models import TrainingSettings
    from bz.spec import StepFunction, TrainingSpec
    from bz_plugin_lr_finder.curve import LRCurve

_NOT_OF_THE_TEST: Final = (
    "max_steps",
    "max_time",
    "compile",  # takes longer than it saves in some hundred steps
    "limit_validation_batches",
    "validation_interval",
    "validate_first",
    "scheduler_interval",
    "scheduler_monitor",
    "async_checkpoint",
)
"""Settings of a training that are left at their defaults."""

_EPOCHS: Final = 1_000_000_000
"""More than there can be: the plugin ends the test."""


def find_learning_rate(  # noqa: PLR0913 - each argument is an own choice of the user's
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[..., torch.Tensor] | None,
    training_loader: Iterable[Any],
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int = 100,
    mode: Literal["exponential", "linear"] = "exponential",
    smoothing: float = 0.8,
    stop_factor: float = 4.0,
    training_step: StepFunction | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    accumulate_batches: int = 1,
) -> LRCurve:
    """Return the losses over growing learning rates, and what they suggest.

    Afterwards the model (weights, buffers, gradients, mode, device), the optimizer, the random states and the
    generators of the loader are as they were, bit for bit; for the time of the test there is a copy of them.

    Args:
        model: Trained for some steps, and put back.
        optimizer: Built over the parameters of `model`. Its groups keep the ratio of their learning rates; the
            highest one is the rate of the curve.
        loss_fn: As in `Trainer.train`.
        training_loader: Iterable of batches; walked again where it has fewer than the test needs.
        min_lr: Learning rate of the first step.
        max_lr: Learning rate of the last step.
        steps: Optimizer steps, 20 or more.
        mode: Whether the learning rate grows by the same factor or by the same amount.
        smoothing: Weight of the earlier losses in the running mean.
        stop_factor: The test ends when the smoothed loss is so many times its lowest value.
        training_step: As in `Trainer.train`.
        hyperparameters: As in `Trainer.train`.
        device: As in `Trainer.train`.
        precision: As in `Trainer.train`.
        accumulate_batches: Batches that make one step; the loss of a step is their mean.

    Raises:
        ConfigError: If an argument is not accepted.
        ScriptError: If the optimizer has no learning rate, or there are several optimizers.
        TrainingError: If no test was possible, as with a loader that gives its batches only once.
        KeyboardInterrupt: After everything was put back, because of SIGINT.
        SystemExit: The same for SIGTERM, with code 143.
        Exception: Whatever the model, the loader or a step raised, after everything was put back.
    """
    from bz.config.models import TrainingSettings
    from bz.spec import TrainingSpec
    from bz.training.device import resolve_device
    from bz_plugin_lr_finder.snapshot import kept_as_they_are

    culprit = "find_learning_rate"
    config = check_arguments(
        RangeTestConfig, culprit, min_lr=min_lr, max_lr=max_lr, steps=steps, mode=mode, smoothing=smoothing,
        stop_factor=stop_factor,
    )  # fmt: skip
    settings = check_arguments(
        TrainingSettings, culprit, device=str(device), precision=precision, accumulate_batches=accumulate_batches
    )
    spec = TrainingSpec(
        model=model,
        optimizer=optimizer,
        loss_fn=loss_fn,
        training_loader=training_loader,
        training_step=training_step,
        hyperparameters=hyperparameters or {},
    )
    check_optimizer(spec)
    with kept_as_they_are(model, optimizer, training_loader, resolve_device(settings.device)):
        return run_range_test(spec, settings, config)


def run_range_test(spec: TrainingSpec, settings: TrainingSettings, config: RangeTestConfig) -> LRCurve:
    """Run the test; the model and the optimizer are then of no use for anything else.

    Args:
        spec: What is trained; its schedulers, metrics, validation and plugins take no part.
        settings: Device, precision, accumulation, clipping and limits of the batches are those of the training.
        config: The test.

    Raises:
        ConfigError, ScriptError, TrainingError, KeyboardInterrupt, SystemExit: As in `find_learning_rate`.
    """
    from bz.training.trainer import Trainer

    check_optimizer(spec)
    plugin = LRFinderPlugin(config, accumulate_batches=settings.accumulate_batches)
    trainer = Trainer(strict_plugins=True)
    trainer.add_plugin(plugin)
    alone = replace(spec, lr_scheduler=None, metrics=None, validation_loader=None, validation_step=None, plugins=())
    result = trainer.run(alone, settings_of_the_test(settings))
    if result.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if result.signal is not None:
        raise SystemExit(128 + result.signal)
    if plugin.fault is not None:
        raise TrainingError(plugin.fault)
    return plugin.curve


def settings_of_the_test(settings: TrainingSettings) -> TrainingSettings:
    """Return the settings of a training without those that have no place in a test."""
    defaults = type(settings)()
    left_out = {name: getattr(defaults, name) for name in _NOT_OF_THE_TEST}
    return settings.model_copy(
        update={**left_out, "epochs": _EPOCHS, "checkpoint_interval": 0, "on_nonfinite": "ignore"}
    )


def check_optimizer(spec: TrainingSpec) -> float:
    """Return the learning rate that the optimizer was built with, the highest of its groups.

    Raises:
        ScriptError: If there is not one optimizer, stepped by bz, that has one.
    """
    if len(spec.optimizers) > 1:
        raise ScriptError(f"lr-find needs one optimizer, and here are {len(spec.optimizers)}; test each by itself.")
    if spec.steps_itself:
        raise ScriptError(
            "lr-find needs one optimizer that bz steps; here the training_step steps it itself (manual_optimization)."
        )
    [optimizer] = spec.optimizers
    return GroupRates(optimizer).base
