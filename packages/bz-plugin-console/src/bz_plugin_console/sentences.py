"""What is said at the beginning of the session and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bz_plugin_console.wording import duration, number, one_line

if TYPE_CHECKING:
    from bz.context import TrainingContext
    from bz.progress import TimeUsage
    from bz_plugin_console.summary import Best


def opening_sentence(context: TrainingContext) -> str:
    """Return what is trained, on what, and how much of it."""
    batches = "" if context.training_batches is None else f" of {context.training_batches:,} batches"
    size = "" if context.batch_size is None else f", {context.batch_size:,} samples each"
    steps = "" if context.max_steps is None else f"at most {context.max_steps:,} steps in "
    epochs = "epochs" if context.epochs is None else f"{context.epochs} epoch{'' if context.epochs == 1 else 's'}"
    model = one_line(type(context.model).__name__)
    return f"training {model} on {context.device}: {steps}{epochs}{batches}{size}"


def closing_sentence(context: TrainingContext, earlier_seconds: float) -> str:
    """Return how the session ended, where, and after what time.

    Args:
        context: The session, ended.
        earlier_seconds: Time spent in this run before it was resumed.
    """
    time = duration(earlier_seconds + context.elapsed_seconds)
    if earlier_seconds:
        time += f" ({duration(context.elapsed_seconds)} since the resume)"
    place = f"epoch {context.epoch}" + ("" if context.epochs is None else f" of {context.epochs}")
    match context.status:
        case "completed" if context.stop_reason:
            return f"completed at {place}, step {context.global_step:,}, in {time}: {context.stop_reason}"
        case "completed":
            return f"completed {context.epoch} epoch{'' if context.epoch == 1 else 's'} in {time}"
        case "stopped":
            return f"stopped at {place} after {time}: {one_line(context.stop_reason or 'no reason given')}"
        case "failed":
            return f"failed at {place} after {time}: {context.error_text}"
        case status:
            return f"{status} at {place} after {time}"


def best_sentence(best: Best) -> str:
    """Return which epoch was the best one, inside it at which step, and by what."""
    step = "" if best.step is None else f", step {best.step:,}"
    return f"best epoch {best.epoch}{step}: {best.name} {number(best.value)}"


def time_sentence(usage: TimeUsage) -> str:
    """Return where the time of the session went, as in `time: 8.1 s, of it forward 41 %, backward 38 %`."""
    return f"time: {duration(usage.total)}, of it {usage.describe_shares()}"
