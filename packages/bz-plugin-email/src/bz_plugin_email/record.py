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
    """The mean losses of one epoch; the second is None without validation."""

    epoch: int
    training: float
    validation: float | None

    @property
    def decisive(self) -> float:
        """The loss by which epochs are compared."""
        return self.training if self.validation is None else self.validation


class RunRecord:
    """The finished epochs of a run.

    Args:
        started_at: When the run began.

    Attributes:
        run_id: The same in all sessions of a run, and different in any other run.
        started_at: When its first session began.
        losses: Those of each finished epoch.
        values: Loss and metrics of the last finished epoch, under `training_` and `validation_`.
        passed: The conditions that were met already.
        num_sessions: How often the run was begun or resumed.
    """

    def __init__(self, started_at: datetime) -> None:
        self.run_id = uuid.uuid4().hex
        self.started_at = started_at
        self.losses: list[EpochLosses] = []
        self.values: dict[str, float] = {}
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
        """The epoch with the lowest validation loss, else training loss; NaN never is."""
        candidates = [one for one in self.losses if not math.isnan(one.decisive)]
        return min(candidates, key=lambda one: one.decisive, default=None)

    def add_epoch(self, context: TrainingContext) -> None:
        """Take the values of the epoch that ended; waits for the device."""
        self.values = {"training_loss": context.training_loss, **_named("training_", context.training_metrics)}
        if context.validation_batch_count:
            self.values |= {
                "validation_loss": context.validation_loss,
                **_named("validation_", context.validation_metrics),
            }
        losses = EpochLosses(context.epoch, self.values["training_loss"], self.values.get("validation_loss"))
        self.losses.append(losses)

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
        self.passed = list(state["passed"])
        self.num_sessions = state["num_sessions"] + 1
        self._earlier_seconds = state["seconds"]


def _named(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in metrics.items()}
