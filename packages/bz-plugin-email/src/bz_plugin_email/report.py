"""The content of a mail, before it is text or HTML."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bz.context import TrainingContext
    from bz_plugin_email.event import Event
    from bz_plugin_email.record import EpochLosses, RunRecord

EPOCHS_SHOWN: Final = 10
_LONGEST_NAME: Final = 150
_LONGEST_TEXT: Final = 500
_JOINERS: Final = "\u200c\u200d"  # between the parts of one emoji, and inside words of some scripts


@dataclass(frozen=True, slots=True)
class Report:
    """What one mail says.

    Attributes:
        subject: Its subject.
        sentence: What happened.
        summary: Label and text of each line of the summary.
        losses: The losses of all finished epochs.
        best_epoch: The epoch to be marked among them, or None.
    """

    subject: str
    sentence: str
    summary: tuple[tuple[str, str], ...] = ()
    losses: tuple[EpochLosses, ...] = ()
    best_epoch: int | None = None


def write_report(event: Event, context: TrainingContext, record: RunRecord, scrub: Callable[[str], str]) -> Report:
    """Return what is to be said about an event; reads nothing from the device, which may be what failed.

    Args:
        event: What happened.
        context: Where the run is.
        record: The finished epochs.
        scrub: Takes the password out of a text, should it be in one.
    """
    model_name = one_line(scrub(str(context.hyperparameters.get("model_name", "Model"))), _LONGEST_NAME) or "Model"
    best = record.best
    # Type and message; the traceback, with the user's code and paths, stays in the log.
    error = one_line(scrub(context.error_text), _LONGEST_TEXT) if context.status == "failed" else ""
    summary = [("Error", error), *_epoch_lines(event, context, record), *_place_lines(context, record)]
    return Report(
        subject=f"{event.headline} - {model_name}",
        sentence=one_line(scrub(event.sentence), _LONGEST_TEXT),
        summary=tuple((label, one_line(scrub(text))) for label, text in summary if text),
        losses=tuple(record.losses),
        best_epoch=None if best is None else best.epoch,
    )


def _epoch_lines(event: Event, context: TrainingContext, record: RunRecord) -> list[tuple[str, str]]:
    which = "Final" if event.is_closing else "Last"
    return [
        ("Total epochs" if event.is_closing else "Epochs", _epochs(context, record)),
        ("Steps", _steps(context)),
        ("Training duration", str(timedelta(seconds=int(record.seconds)))),
        ("Best validation loss", _best_validation(record)),
        (f"{which} training loss", f"{record.values['training_loss']:.4f}" if record.losses else ""),
        ("Training metrics", _numbers(record.metrics("training"))),
        ("Validation metrics", _numbers(record.metrics("validation"))),
    ]


def _place_lines(context: TrainingContext, record: RunRecord) -> list[tuple[str, str]]:
    return [
        ("Started", _started(record)),
        ("Run folder", "" if context.run_dir is None else str(context.run_dir.absolute())),
        ("Last checkpoint", "" if context.checkpoint_path is None else str(context.checkpoint_path.absolute())),
        ("Machine", socket.gethostname()),
    ]


def _epochs(context: TrainingContext, record: RunRecord) -> str:
    done = record.losses[-1].epoch if record.losses else 0
    if done == context.epochs:
        return str(done)
    inside = f"; epoch {context.epoch} was under way, step {context.global_step:,}" if context.epoch > done else ""
    planned = "" if context.epochs is None else f" of {context.epochs}"
    return f"{done}{planned}{inside}"


def _steps(context: TrainingContext) -> str:
    """Return how far a run with a limit of steps is; empty for others."""
    if context.max_steps is None:
        return ""
    planned = f" of {context.max_steps:,}" if context.global_step < context.max_steps else ""
    return f"{context.global_step:,}{planned}"


def _best_validation(record: RunRecord) -> str:
    best = record.best_validation
    if best is None:
        return ""
    step = "" if best.step is None else f", step {best.step:,}"
    return f"{best.loss:.4f} (epoch {best.epoch}{step})"


def _started(record: RunRecord) -> str:
    sessions = f" ({record.num_sessions} sessions)" if record.num_sessions > 1 else ""
    return f"{record.started_at:%Y-%m-%d %H:%M:%S %z}{sessions}"


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def one_line(value: Any, longest: int = 1000) -> str:
    """Return a value as text that fits into a header: one line, printable, not longer than that.

    Line breaks, NUL, and characters that reorder a line become spaces.
    """
    text = str(value)[: 20 * longest].encode("utf-8", "replace").decode("utf-8")
    kept = "".join(char if char.isprintable() or char in _JOINERS else " " for char in text)
    line = " ".join(kept.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
