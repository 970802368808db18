"""What a mail is about, and when there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bz.context import TrainingContext
    from bz_plugin_email.condition import Condition
    from bz_plugin_email.config import EmailNotificationConfig


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens once in a run.

    Attributes:
        key: What tells it from the other events of the run; the same when a resumed run repeats it.
        headline: Beginning of the subject.
        sentence: What happened.
        is_closing: Whether the session is over.
    """

    key: str
    headline: str
    sentence: str
    is_closing: bool = False


def epoch_event(context: TrainingContext, settings: EmailNotificationConfig) -> Event | None:
    """Return the event of an epoch that is due for a progress mail."""
    is_last = context.epoch == context.epochs or context.stop_reason is not None
    if not settings.every_epochs or context.epoch % settings.every_epochs or (is_last and settings.on_completion):
        return None
    epoch = f"Epoch {context.epoch}" if context.epochs is None else f"Epoch {context.epoch} of {context.epochs}"
    step = "" if context.max_steps is None else f", step {context.global_step:,} of {context.max_steps:,}"
    return Event(f"epoch {context.epoch}", f"Training {epoch}", f"{epoch} is done{step}.")


def condition_event(condition: Condition, value: float) -> Event:
    """Return the event of a bound that was passed."""
    return Event(f"when {condition}", f"Training Reached {condition}", f"{condition.name} is now {value:.4g}.")


def closing_event(context: TrainingContext, settings: EmailNotificationConfig) -> Event | None:
    """Return the event of the end of a session, or None if no mail is wanted about an end of that kind.

    A completion is the same event however often the finished run is resumed; each failure and each
    interruption is one of its own.
    """
    place = f"{context.epoch} {context.global_step}"
    reason = f": {context.stop_reason}" if context.stop_reason else ""
    match context.status:
        case "completed" if settings.on_completion:
            sentence = f"Training session completed{reason}." if reason else "Training session completed successfully!"
            return Event(f"completed {place}", "Training Complete", sentence, is_closing=True)
        case "stopped" if settings.on_completion:
            sentence = f"Training session was stopped{reason}."
            return Event(f"stopped {place}", "Training Stopped", sentence, is_closing=True)
        case "interrupted" if settings.on_interruption:
            key = f"interrupted {place} {context.started_at.isoformat()}"
            sentence = f"Training session was interrupted{reason}."
            return Event(key, "Training Interrupted", sentence, is_closing=True)
        case "failed" if settings.on_failure:
            key = f"failed {place} {context.started_at.isoformat()}"
            return Event(key, "Training Failed", "Training session failed.", is_closing=True)
    return None
