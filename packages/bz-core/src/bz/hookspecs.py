"""The hooks of bz, in the order in which they fire.

    start_training_session
      load_checkpoint                              only when resuming
      for each epoch:
        start_epoch
          start_training_loop
            start_training_batch, end_training_batch         per batch
          end_training_loop
          start_validation_loop                    only with a validation loader
            start_validation_batch, end_validation_batch     per batch
          end_validation_loop
        end_epoch
          save_checkpoint                          whenever a checkpoint was written
    end_training_session                           always, exactly once

A batch that ends the run (an error, a signal, `request_stop(when="batch")`) is followed by
`end_training_session` at once: the loop and the epoch it cut short are not reported as ended.

Hooks are notifications: what they return is ignored, what they raise is reported and never harms
the run. A hook may change the model, the optimizer and `context.extra` on purpose; random states,
train/eval mode, grad mode, default dtype and working directory are put back after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bz.context import TrainingContext

PROJECT: Final = "bz"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class LifecycleHooks:
    """The fourteen notifications of a training session, in firing order."""

    @hookspec
    def start_training_session(self, context: TrainingContext) -> None:
        """Before anything is trained; once.

        Valid: model, optimizer, loss_fn, device, hyperparameters, epochs, planned batches. The
        model is on its device. `context.epoch` is 0, also when the run will be resumed.
        """

    @hookspec
    def load_checkpoint(self, context: TrainingContext) -> None:
        """After a checkpoint was loaded, when resuming; once, after `start_training_session`.

        Valid: `context.checkpoint_path` (the file), and everything that the checkpoint restored:
        epoch, step, weights, and the state of this and every other plugin.
        """

    @hookspec
    def start_epoch(self, context: TrainingContext) -> None:
        """Before each epoch; `context.epoch` is its number, losses and counts are back to zero.

        On a resume inside an epoch it is called again, with `context.batch_index` at the position
        and the losses and counts of the batches already done.
        """

    @hookspec
    def start_training_loop(self, context: TrainingContext) -> None:
        """Before the training batches of each epoch; the model is in train mode."""

    @hookspec
    def start_training_batch(self, context: TrainingContext) -> None:
        """Before each training batch; `context.batch` is on the device, `context.batch_index` counts from 0."""

    @hookspec
    def end_training_batch(self, context: TrainingContext) -> None:
        """After the optimizer step of each training batch.

        Valid: batch, outputs, loss, and the gradients in `parameter.grad`. `context.loss` is a
        tensor on the device; turning it into a number waits for the device.
        """

    @hookspec
    def end_training_loop(self, context: TrainingContext) -> None:
        """After the training batches of each epoch; training loss and metrics are complete."""

    @hookspec
    def start_validation_loop(self, context: TrainingContext) -> None:
        """Before the validation batches; the model is in eval mode, gradients are off."""

    @hookspec
    def start_validation_batch(self, context: TrainingContext) -> None:
        """Before each validation batch; `context.batch_index` counts from 0 again."""

    @hookspec
    def end_validation_batch(self, context: TrainingContext) -> None:
        """After each validation batch; batch, outputs and loss are those of this batch."""

    @hookspec
    def end_validation_loop(self, context: TrainingContext) -> None:
        """After the validation batches; validation loss and metrics are complete."""

    @hookspec
    def end_epoch(self, context: TrainingContext) -> None:
        """After each epoch; all losses, counts and metrics of the epoch are there."""

    @hookspec
    def save_checkpoint(self, context: TrainingContext) -> None:
        """After a checkpoint is safely on disk, at `context.checkpoint_path`; also inside an epoch."""

    @hookspec
    def end_training_session(self, context: TrainingContext) -> None:
        """Last, exactly once, however the run ended: `context.status`, `error` and `stop_reason` say how."""


class StepHooks:
    """How a step is made; the first implementation that returns something wins.

    These are the user's code, not a notification: what they raise ends the run.
    """

    @hookspec(firstresult=True)
    def training_step(self, context: TrainingContext, batch: Any) -> Any:
        """Return the loss of one training batch: a scalar tensor with a graph, or a `bz.StepResult`.

        bz calls `backward` and steps the optimizer. None leaves the batch to the next
        implementation, last of all to the default step.
        """

    @hookspec(firstresult=True)
    def validation_step(self, context: TrainingContext, batch: Any) -> Any:
        """Return the loss of one validation batch, as `training_step` does; gradients are off."""


class WeightHooks:
    """Which weights the model is validated with; the first implementation that returns some wins.

    Guarded as notifications are: one that raises is reported, and the model is validated as it is.
    """

    @hookspec(firstresult=True)
    def evaluation_weights(self, context: TrainingContext) -> Mapping[str, Any] | None:
        """Return weights by the names of `model.state_dict()`, or None for those that were trained.

        Asked before each validation. The tensors are copied into the model before
        `start_validation_loop`, and the trained weights are put back after the last hook of the
        validation, however it ends. A plugin that keeps the same tensors under the key
        `evaluation_weights` of its `state_dict` makes them known to `bz validate`, `bz predict`
        and `bz export`.
        """


LIFECYCLE_HOOKS: Final = tuple(name for name in vars(LifecycleHooks) if not name.startswith("_"))
STEP_HOOKS: Final = tuple(name for name in vars(StepHooks) if not name.startswith("_"))
WEIGHT_HOOKS: Final = tuple(name for name in vars(WeightHooks) if not name.startswith("_"))
BATCH_HOOKS: Final = tuple(name for name in LIFECYCLE_HOOKS if name.endswith("_batch"))
