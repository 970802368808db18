"""What makes a run exact: everything that the next step depends on, collected and put back.

The keys at the top of a state are those of the guide; what else a resume needs is under `bz`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from bz.errors import CheckpointError
from bz.training.data import EpochData
from bz.training.seeding import random_state, restore_random_state

if TYPE_CHECKING:
    from pathlib import Path

    from bz.intervals import Schedule
    from bz.plugins.manager import PluginManager
    from bz.progress import Progress, RunFacts
    from bz.spec import TrainingSpec
    from bz.training.metrics import MetricSet
    from bz.training.optimization import Optimization
    from bz.training.precision import Precision
    from bz.training.schedulers import Schedulers

logger = logging.getLogger(__name__)

FORMAT: Final = 2
DIFFERENCES_SHOWN: Final = 5

NextPart = Literal["batch", "validation", "closing_validation"]
"""What a run goes on with inside an epoch.

A `batch`; the `validation` that is due before it; or the `closing_validation` of the epoch.
"""


@dataclass
class RunState:
    """Collects and restores the state of a session.

    Attributes:
        spec: The live objects; `collect` returns a state that shares their tensors.
        facts: Settled facts about the run.
        progress: Where the run is.
        plugins: Whose states are kept.
        precision: Whose gradient scaler is kept.
        optimization: Whose gradients are kept, if they wait for more batches.
        schedulers: Those of the learning rate.
        metrics: The metric sets by phase, `training` and `validation`.
        history: One row for each epoch done, and for each validation inside one.
        schedules: What is due at intervals, by name.
        data: Position in the training data.
        validation_data: The same for validation.
    """

    spec: TrainingSpec
    facts: RunFacts
    progress: Progress
    plugins: PluginManager
    precision: Precision
    optimization: Optimization
    schedulers: Schedulers
    metrics: Mapping[str, MetricSet]
    history: list[dict[str, float]] = field(default_factory=list)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    data: EpochData = field(init=False)
    validation_data: EpochData = field(init=False)
    _warned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.data = EpochData(self.spec.training_loader)
        self.validation_data = EpochData(self.spec.validation_loader or ())

    def collect(
        self, moment: Mapping[str, Any] | None = None, extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the whole state.

        Args:
            moment: What `moment` returned earlier, when the run has to go on from there; else now.
            extra: What a plugin wants to find in the file.
        """
        moment = dict(moment or self.moment(batches_done=None))
        values = moment.pop("values")
        return {
            **values,
            "model_state_dict": self.spec.model.state_dict(),
            "optimizer_state_dict": _optimizer_state(self.spec.optimizer),
            "hyperparameters": to_plain(self.spec.hyperparameters, or_text=True),
            "bz": {
                "format": FORMAT,
                "loss_fn": self.spec.loss_fn.state_dict() if isinstance(self.spec.loss_fn, torch.nn.Module) else None,
                "lr_schedulers": self.schedulers.state_dict(),
                "grad_scaler": _state_of(self.precision.scaler),
                "accumulation": self.optimization.state_dict(),
                "settings": to_plain(self.facts.settings, or_text=True),
                "provenance": to_plain(self.facts.provenance, or_text=True),
                "extra": to_plain(extra or {}, or_text=True),
                **moment,
            },
        }

    def moment(self, *, batches_done: int | None, next_part: NextPart = "batch") -> dict[str, Any]:
        """Return all of the state that can change without an optimizer step.

        Args:
            batches_done: Position inside the epoch, or None between two epochs.
            next_part: What comes next inside the epoch.
        """
        progress = self.progress
        is_inside = batches_done is not None
        return {
            "values": self.values(),
            "global_step": progress.global_step,
            "batches_done": batches_done,
            "next_part": next_part,
            "seconds": progress.seconds_before + progress.seconds,
            "schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()},
            "random": random_state(),
            "data": self.data.state_dict(is_inside_epoch=is_inside),
            "validation_data": self.validation_data.state_dict(is_inside_epoch=False),
            "losses": {
                "training": [progress.training_loss.total, progress.training_loss.batch_count],
                "validation": [progress.validation_loss.total, progress.validation_loss.batch_count],
            },
            "metrics": {phase: metrics.state_dict() for phase, metrics in self.metrics.items()},
            "history": copy.deepcopy(self.history),
            "plugins": self._plugin_states(),
        }

    def values(self) -> dict[str, Any]:
        """Return what a checkpoint tells people: the epoch and what was measured in it so far."""
        progress = self.progress
        return {
            "epoch": progress.epoch,
            "validation_loss": progress.validation_loss.mean,
            "training_metrics": progress.training_metrics.values(),
            "validation_metrics": progress.validation_metrics.values(),
        }

    def _plugin_states(self) -> dict[str, Any]:
        states: dict[str, Any] = {}
        for name, state in self.plugins.state_dict().items():
            try:
                states[name] = to_plain(state)
            except TypeError as error:
                self._warn_once("the state of plugin %r holds %s; the checkpoint is written without it", name, error)
        return states

    def _warn_once(self, message: str, name: str, error: Exception) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(message, name, error)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put everything back; the random states last, so that nothing in between draws from them."""
        own = state["bz"]
        load_weights(self.spec, state)
        _load_optimizers(self.spec.optimizer, state["optimizer_state_dict"])
        for optimizer in self.spec.optimizers:
            # Else torch warns when the scheduler is stepped before a step of the optimizer in this process.
            optimizer._opt_called = own["global_step"] > 0  # type: ignore[attr-defined]  # noqa: SLF001
        self.schedulers.load_state_dict(own["lr_schedulers"])
        _load_state(self.precision.scaler, own["grad_scaler"])
        self.optimization.load_state_dict(own["accumulation"])
        for name, schedule in self.schedules.items():
            if name in own["schedules"]:
                schedule.load_state_dict(own["schedules"][name])
        self.progress.epoch = state["epoch"]
        self.progress.epochs_done = state["epoch"] - (own["batches_done"] is not None)
        self.progress.seconds_before = own["seconds"]
        self.progress.global_step = own["global_step"]
        self.progress.batch_index = self.progress.batches_done = own["batches_done"] or 0
        self.progress.training_loss.restore(*own["losses"]["training"])
        self.progress.validation_loss.restore(*own["losses"]["validation"])
        for phase, metrics in self.metrics.items():
            metrics.load_state_dict(own["metrics"][phase])
        self.history[:] = own["history"]
        self.plugins.load_state_dict(own["plugins"])
        self.data.load_state_dict(own["data"])
        self.validation_data.load_state_dict(own["validation_data"])
        restore_random_state(own["random"])


def check_checkpoint(spec: TrainingSpec, state: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint that does not belong to this model.

    Raises:
        CheckpointError: With the names and shapes, or the optimizers, that differ.
    """
    if state.get("bz", {}).get("format") != FORMAT:
        raise CheckpointError(f"The checkpoint {path} is of another version of bz.", path=path)
    differences = list(_differences(spec.model.state_dict(), state["model_state_dict"]))
    if differences:
        more = len(differences) - DIFFERENCES_SHOWN
        listed = "; ".join(differences[:DIFFERENCES_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(f"The checkpoint {path} is of another model: {listed}.", path=path)
    _check_optimizers(spec, state["optimizer_state_dict"], path)


def _differences(model: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor]) -> Iterator[str]:
    for name in sorted(model.keys() | saved.keys()):
        if name not in saved:
            yield f"it has no {name}"
        elif name not in model:
            yield f"the model has no {name}"
        elif model[name].shape != saved[name].shape:
            yield f"{name} is {tuple(saved[name].shape)} there and {tuple(model[name].shape)} here"


def _check_optimizers(spec: TrainingSpec, saved: Mapping[str, Any], path: Path) -> None:
    own = sorted(spec.optimizer) if isinstance(spec.optimizer, Mapping) else []
    names = [] if saved.keys() == {"state", "param_groups"} else sorted(saved)
    if own != names:
        raise CheckpointError(
            f"The checkpoint {path} has {_optimizers(names)}, the script has {_optimizers(own)}.", path=path
        )


def _optimizers(names: Sequence[str]) -> str:
    return f"the optimizers {', '.join(names)}" if names else "one optimizer"


def load_weights(spec: TrainingSpec, state: Mapping[str, Any]) -> None:
    """Give the model, and a loss function with weights, those of a checkpoint."""
    spec.model.load_state_dict(state["model_state_dict"])
    if isinstance(spec.loss_fn, torch.nn.Module):
        spec.loss_fn.load_state_dict(state["bz"]["loss_fn"] or {})


def _optimizer_state(optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
    """Return the state of the optimizer, or name to state where there are several."""
    if isinstance(optimizer, Mapping):
        return {name: one.state_dict() for name, one in optimizer.items()}
    return optimizer.state_dict()


def _load_optimizers(
    optimizer: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer], state: Mapping[str, Any]
) -> None:
    if isinstance(optimizer, Mapping):
        for name, one in optimizer.items():
            one.load_state_dict(state[name])
    else:
        optimizer.load_state_dict(dict(state))


def _state_of(part: Any) -> Any:
    return None if part is None else part.state_dict()


def _load_state(part: Any, state: Any) -> None:
    if part is not None and state is not None:
        part.load_state_dict(state)


def to_plain(value: Any, *, or_text: bool = False) -> Any:
    """Return a copy of `value` made of what `weights_only` reads: plain Python values and tensors.

    Args:
        value: Containers are followed to any depth; sets become lists, NumPy's numbers Python's.
        or_text: Whether anything else is written down as text, for people to read.

    Raises:
        TypeError: If there is something else in it, with its type.
    """
    if value is None or type(value) in {bool, int, float, str, bytes}:
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {to_plain(key, or_text=or_text): to_plain(item, or_text=or_text) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [to_plain(item, or_text=or_text) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy number
        return to_plain(value.item(), or_text=or_text)
    if or_text:
        return str(value)
    raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__}")
