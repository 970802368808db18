"""What the mails of a run tell, kept from epoch to epoch and across a resume."""

from __future__ import annotations

import math
import uuid
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bz.context import TrainingContext


class EpochLosses(NamedTuple):
    """The mean losses of one epoch; the second is that of its last validation, None without one."""

    epoch: int
    training: float
    validation: float | None


class BestValidation(NamedTuple):
    """The lowest validation loss: where it was, inside an epoch with the step."""

    loss: float
    epoch: int
    step: int | None


class RunRecord:
    """The finished epochs of a run.

    Args:
        started_at: When the run began.

    Attributes:
        run_id: The same in all sessions of a run, and different in any other run.
        started_at: When its first session began.
        losses: Those of each finished epoch.
        values: Loss and metrics of the last finished epoch, under `training_` and `validation_`; the
            latter may be those of a later validation already.
        best_validation: The lowest validation loss of all validations, NaN never is; None without any.
        passed: The conditions that were met already.
        num_sessions: How often the run was begun or resumed.
    """

    def __init__(self, started_at: datetime) -> None:
        self.run_id = uuid.uuid4().hex
        self.started_at = started_at
        self.losses: list[EpochLosses] = []
        self.values: dict[str, float] = {}
        self.best_validation: BestValidation | None = None
        self.passed: list[str] = []
        self.num_sessions = 1
        self._earlier_seconds = 0.0
        self._session_began = perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent in all sessions."""
        return self._earlier_seconds + perf_counter() - self._session_began

    @property
    def best(self) -> EpochLosses | None:
        """The epoch with the lowest validation loss, in a run without one training loss; NaN never is."""
        validated = [(one.validation, one) for one in self.losses if one.validation is not None]
        candidates = validated or [(one.training, one) for one in self.losses]
        numbers = [candidate for candidate in candidates if not math.isnan(candidate[0])]
        return min(numbers, key=lambda candidate: candidate[0])[1] if numbers else None

    def add_epoch(self, context: TrainingContext) -> None:
        """Take the values of the epoch that ended; waits for the device."""
        self.values = {"training_loss": context.training_loss, **_named("training_", context.training_metrics)}
        self._add_validation(context, None)
        losses = EpochLosses(context.epoch, self.values["training_loss"], self.values.get("validation_loss"))
        self.losses.append(losses)

    def add_validation(self, context: TrainingContext) -> None:
        """Take the values of a validation inside the epoch; waits for the device."""
        self._add_validation(context, context.global_step)

    def _add_validation(self, context: TrainingContext, step: int | None) -> None:
        if not context.validation_batch_count:
            return
        loss = context.validation_loss
        self.values |= {"validation_loss": loss, **_named("validation_", context.validation_metrics)}
        if not math.isnan(loss) and (self.best_validation is None or loss < self.best_validation.loss):
            self.best_validation = BestValidation(loss, context.epoch, step)

    def metrics(self, phase: str) -> dict[str, float]:
        """Return the metrics of `training` or `validation` in the last finished epoch, without the loss."""
        prefix = f"{phase}_"
        named = {name.removeprefix(prefix): value for name, value in self.values.items() if name.startswith(prefix)}
        return {name: value for name, value in named.items() if name != "loss"}

    def state_dict(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return {
            "run_id": self.run_id,
            "started_at": self.started_at.isoformat(),
            "losses": [list(one) for one in self.losses],
            "values": dict(self.values),
            "best_validation": None if self.best_validation is None else list(self.best_validation),
            "passed": list(self.passed),
            "num_sessions": self.num_sessions,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a record; the session that is under way becomes one more of that run."""
        self.run_id = state["run_id"]
        self.started_at = datetime.fromisoformat(state["started_at"])
        self.losses = [EpochLosses(*one) for one in state["losses"]]
        self.values = dict(state["values"])
        best = state.get("best_validation")
        self.best_validation = None if best is None else BestValidation(*best)
        self.passed = list(state["passed"])
        self.num_sessions = state["num_sessions"] + 1
        self._earlier_seconds = state["seconds"]


def _named(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in metrics.items()}
