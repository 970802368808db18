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
    is_left_to_closing = settings.on_completion and context.epoch >= context.epochs
    if not settings.every_epochs or context.epoch % settings.every_epochs or is_left_to_closing:
        return None
    headline = f"Training Epoch {context.epoch} of {context.epochs}"
    return Event(f"epoch {context.epoch}", headline, f"Epoch {context.epoch} of {context.epochs} is done.")


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
            sentence = "Training session completed successfully!"
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
