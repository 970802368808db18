"""The trainer: runs one session from its first hook to its last.

start_training_session
load_checkpoint                        when resuming
for each epoch:
start_epoch
start_training_loop,   the training loop,   end_training_loop
start_validation_loop, the validation loop, end_validation_loop      with a validation loader
end_epoch
the learning rate scheduler is stepped, checkpoints are written (save_checkpoint)
end_training_session                   always, exactly once
"""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Unpack

from bz.config.faults import check_arguments
from bz.config.models import TrainingOptions, TrainingSettings
from bz.errors import ConfigError
from bz.plugins.manager import PluginManager
from bz.provenance import versions
from bz.spec import LRSchedule, Metric, Scheduler, TrainingSpec
from bz.training.seeding import seed_everything
from bz.training.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch

    from bz.spec import StepFunction
    from bz.training.checkpoint import FoundCheckpoint
    from bz.training.result import TrainingResult

logger = logging.getLogger(__name__)


class Trainer:
    """Trains models, with the plugins that were added to it and no others.

    Args:
        plugins: The plugins to begin with; none by default.
        strict_plugins: Whether the first failure of a plugin ends the run.

    Attributes:
        result: What the last run came to, also when it failed; None before the first.
    """

    def __init__(self, plugins: PluginManager | None = None, *, strict_plugins: bool = False) -> None:
        self.plugins = plugins if plugins is not None else PluginManager(strict=strict_plugins)
        self.result: TrainingResult | None = None

    def add_plugin(self, plugin: object, name: str | None = None) -> None:
        """Add a plugin; plugins are called in the order in which they were added.

        Args:
            plugin: A `bz.plugins.Plugin`, a module, or any object with functions marked `hookimpl`.
            name: Its name in logs and reports, by default its own.

        Raises:
            PluginError: If it would not do what its author expects, such as a class in place of an instance.
        """
        self.plugins.add(plugin, name)

    def train(  # noqa: PLR0913 - each argument is an own choice of the user's
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer],
        loss_fn: Callable[..., torch.Tensor] | None,
        training_loader: Iterable[Any],
        validation_loader: Iterable[Any] | EllipsisType | None = None,
        *,
        metrics: Mapping[str, Metric] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        lr_scheduler: Scheduler | LRSchedule | Sequence[Scheduler | LRSchedule] | None = None,
        training_step: StepFunction | None = None,
        validation_step: StepFunction | None = None,
        manual_optimization: bool = False,
        run_dir: str | Path | None = None,
        resume: str | Path | None = None,
        **settings: Unpack[TrainingOptions],
    ) -> TrainingResult:
        """Train a model and return what came of it.

        Args:
            model: Moved to the device and trained in place.
            optimizer: Built over the parameters of `model`; several by name, for a `training_step` that steps them.
            loss_fn: Called as `loss_fn(outputs, targets)`; None if the model or a step computes the loss.
            training_loader: Iterable of batches, walked once an epoch.
            validation_loader: The same for validation; None, or a literal `...`, for no validation.
            metrics: Name to metric, each updated with `(outputs, targets)` of every batch.
            hyperparameters: What the run was made with; for plugins and checkpoints.
            lr_scheduler: A scheduler of torch, a `bz.LRSchedule` that says when it is stepped, or a list of these.
            training_step: Computes the loss of a batch in place of the default step.
            validation_step: The same for validation.
            manual_optimization: Whether the `training_step` steps the optimizer itself.
            run_dir: Folder that plugins and checkpoints write to; None for the working directory, without
                checkpoints.
            resume: A checkpoint, or a run folder, to go on from.
            settings: Any setting of the section `training` by its name, as in `epochs=3` or `precision="bf16"`;
                `docs/settings.md` lists them. `checkpoint_interval` is 1 with a `run_dir` and 0 without by default,
                and a `seed` is applied here, when the model exists already.

        Raises:
            ConfigError: If an argument is not accepted.
            CheckpointError: If there is nothing to resume from, or it belongs to another model.
            KeyboardInterrupt: After the session was ended properly because of SIGINT.
            SystemExit: The same for SIGTERM, with code 143.
            Exception: Whatever the model, a loader or a step raised, after the session was ended.
        """
        if settings.get("checkpoint_interval") and run_dir is None:
            raise ConfigError("`checkpoint_interval` needs a `run_dir` to write to.", option="checkpoint_interval")
        settings["device"] = str(settings.get("device", "auto"))
        settings.setdefault("checkpoint_interval", int(run_dir is not None))
        checked = check_arguments(TrainingSettings, "Trainer.train", **settings)
        if checked.seed is not None:
            seed_everything(checked.seed)
        spec = TrainingSpec(
            model=model,
            optimizer=optimizer,
            loss_fn=loss_fn,
            training_loader=training_loader,
            validation_loader=None if isinstance(validation_loader, EllipsisType) else validation_loader,
            metrics=metrics,
            lr_scheduler=lr_scheduler,
            hyperparameters=hyperparameters or {},
            training_step=training_step,
            validation_step=validation_step,
            manual_optimization=manual_optimization,
        )
        result = self.run(spec, checked, run_dir=run_dir, resume=resume)
        _pass_signal_on(result)
        return result

    def run(  # noqa: PLR0913 - what the command line hands over
        self,
        spec: TrainingSpec,
        settings: TrainingSettings,
        *,
        run_dir: str | Path | None = None,
        resume: str | Path | FoundCheckpoint | None = None,
        record: Mapping[str, Any] | None = None,
        redact: Callable[[str], str] = str,
        provenance: Mapping[str, Any] | None = None,
        startup_seconds: float = 0.0,
    ) -> TrainingResult:
        """Train what `spec` describes; an interrupted run returns too, with `result.signal`.

        Args:
            spec: The live objects; its plugins are added to those of the trainer.
            settings: How to train; `seed` is not applied here, since the model exists already.
            run_dir: As in `train`.
            resume: As in `train`, or a checkpoint that was read already.
            record: Resolved settings without secrets, for plugins and checkpoints.
            redact: Takes the secrets of the settings out of a text, for what plugins say of an error.
            startup_seconds: How long the program ran before, for the account of the time.
            provenance: What the run is made with, for checkpoints; by default the versions of bz, Python and torch.

        Raises:
            ConfigError, CheckpointError, Exception: As in `train`.
        """
        for plugin in spec.plugins:
            self.add_plugin(plugin)
        folder = Path(run_dir) if run_dir is not None else None
        session = Session(
            spec,
            settings,
            self.plugins,
            run_dir=folder,
            record=record or {},
            redact=redact,
            provenance=provenance or {"versions": versions()},
            startup_seconds=startup_seconds,
        )
        try:
            return session.run(Path(resume) if isinstance(resume, str) else resume)
        finally:
            self.result = session.result


def _pass_signal_on(result: TrainingResult) -> None:
    """End the script as the signal would have, now that the session is closed."""
    if result.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if result.signal is not None:
        raise SystemExit(128 + result.signal)
