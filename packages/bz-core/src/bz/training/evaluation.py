"""A model as a checkpoint has it, used and not trained: no hook fires and nothing is written.

Model, data, steps, precision and metrics are prepared by the same code as for a training session,
and the validation is the same loop, so its numbers are equal to those of the session, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bz.context import TrainingContext
from bz.errors import CheckpointError, TrainingError
from bz.intervals import Interval
from bz.plugins.manager import PluginManager
from bz.progress import LossTotal, Progress
from bz.training.backends import backends
from bz.training.data import EpochData
from bz.training.device import move_to_device, resolve_device
from bz.training.loop import ValidationLoop
from bz.training.metrics import MetricSet, check_metrics
from bz.training.precision import Precision
from bz.training.predictions import Predictor, forward
from bz.training.preparation import gather_facts, prepare_model, prepare_spec
from bz.training.state import check_checkpoint, load_weights
from bz.training.step import make_step, step_of_script
from bz.training.weights import check_weights, swapped_weights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bz.config.models import TrainingSettings
    from bz.spec import TrainingSpec
    from bz.training.checkpoint import FoundCheckpoint
    from bz.training.predictions import Column
    from bz.training.step import StepFunction


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a validation came to.

    Attributes:
        batches: Batches of the validation loader.
        loss: Their mean loss.
        metrics: Name to value.
        seconds: How long it took, without preparing the model.
    """

    batches: int
    loss: float
    metrics: dict[str, float]
    seconds: float


def as_validated(settings: TrainingSettings, limit_batches: int | None) -> TrainingSettings:
    """Return the settings of a run with its validation switched on; `limit_batches` replaces its own limit."""
    limit = limit_batches or settings.limit_validation_batches or None
    changes = {"validation_interval": Interval.parse("1 epoch"), "validate_first": False}
    return settings.model_copy(update={**changes, "limit_validation_batches": limit})


class Evaluation:
    """Uses a spec as a session validates it.

    Args:
        spec: Whose model, data and steps are used; its optimizer is not touched.
        settings: Those of the run.
        plugins: Whose `validation_step` counts, and nothing else of them.
        record: Resolved settings without secrets.

    Attributes:
        spec: The spec, with the loaders that the settings leave of it.

    Raises:
        ConfigError: If the device is not there or a metric is none.
        ScriptError: If a loader is empty or no loader.
    """

    def __init__(
        self, spec: TrainingSpec, settings: TrainingSettings, plugins: PluginManager, record: Mapping[str, Any]
    ) -> None:
        self._settings = settings
        self._plugins = plugins
        self._device = device = resolve_device(settings.device)
        facts = replace(gather_facts(spec, settings, device), settings=record)
        self.spec = spec = prepare_spec(spec, settings)
        check_metrics(spec.metrics or {})
        metrics = {phase: MetricSet(spec.metrics or {}, device) for phase in ("training", "validation")}
        self._progress = Progress(metrics["training"], metrics["validation"])
        self._metrics = metrics["validation"]
        self._precision = Precision(settings.precision, device)
        self._state: dict[str, Any] = {}
        self._context = TrainingContext(
            spec, facts, self._progress, collect_state=lambda: self._state, collect_usage=plugins.usage
        )
        prepare_model(spec, settings, device)

    @contextmanager
    def using(self, found: FoundCheckpoint, weights: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
        """Have the model as a checkpoint has it, in eval mode and without gradients, until the block ends.

        Args:
            found: Whose weights, position and states of plugins are taken over.
            weights: Weights to have in place of those of the same name, until the block ends.

        Raises:
            CheckpointError: If it is of another model, with the names and shapes that differ.
        """
        self._load(found)
        try:
            check_weights(self.spec.model, weights or {})
        except ValueError as error:
            message = f"The evaluation weights in {found.path} are of another model: {error}."
            raise CheckpointError(message, path=found.path) from error
        self.spec.model.eval()
        with torch.no_grad(), backends(self._settings), swapped_weights(self.spec.model, weights):
            yield

    def _load(self, found: FoundCheckpoint) -> None:
        check_checkpoint(self.spec, found.state, found.path)
        load_weights(self.spec, found.state)
        self._state = found.state
        self._plugins.load_state_dict(found.state["bz"]["plugins"])
        self._progress.epoch = found.state["epoch"]
        self._progress.global_step = found.state["bz"]["global_step"]
        self._progress.checkpoint_path = found.path

    def validate(self) -> Measured:
        """Measure the model on the validation loader; only inside `using`.

        Raises:
            TrainingError: If the loader gives no batches.
        """
        assert self.spec.validation_loader is not None
        started = time.perf_counter()
        self._progress.validation_loss = LossTotal()
        self._metrics.reset()
        loop = ValidationLoop(
            context=self._context,
            progress=self._progress,
            hooks=PluginManager().bind(),
            step=make_step(self.spec, self.steps(), self._precision),
            metrics=self._metrics,
        )
        loop.run(self._batches(self.spec.validation_loader, self._settings.limit_validation_batches))
        loss = self._progress.validation_loss
        if not loss.batch_count:
            raise TrainingError("The validation_loader gave no batches.")
        return Measured(
            batches=loss.batch_count,
            loss=loss.mean,
            metrics=self._metrics.values(),
            seconds=time.perf_counter() - started,
        )

    def predict(self, loader: Iterable[Any], limit: int | None = None) -> Iterator[dict[str, Column]]:
        """Yield what the model predicts for each batch of a loader, no more than `limit`; only inside `using`.

        Raises:
            TrainingError: If the loader gives no batches, or nothing can be written of one.
        """
        predictor, index = Predictor(self.steps(), self._precision), -1
        for index, batch in enumerate(self._batches(loader, limit)):
            self._progress.batch_index = index
            self._progress.batch = batch = move_to_device(batch, self._device)  # noqa: PLW2901 - the same batch
            yield predictor.columns(self._context, batch)
        if index < 0:
            raise TrainingError("The loader gave no batches.")

    def example_batch(self) -> Any:
        """Return the first batch of the validation loader, without one of the training loader, on the device.

        Raises:
            TrainingError: If the loader gives no batches.
        """
        loader = self.spec.validation_loader or self.spec.training_loader
        for batch in self._batches(loader, 1):
            return move_to_device(batch, self._device)
        raise TrainingError("The loader gave no batches.")

    def call(self, batch: Any) -> None:
        """Have the model called as for a prediction, in full precision; what comes of it is dropped."""
        for step in self.steps():
            if step(self._context, batch) is not None:
                return
        forward(self.spec.model, batch)

    def steps(self) -> list[StepFunction]:
        """Return the steps of the user's own: that of the script, then those of plugins."""
        name, own = "validation_step", self.spec.validation_step
        return [*([step_of_script(own, name)] if own else []), *self._plugins.step_functions(name)]

    def _batches(self, loader: Iterable[Any], limit: int | None) -> Iterator[Any]:
        return EpochData(loader).begin(self._progress.epoch, limit)
