"""A plugin that writes down which hooks fired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bz.hookspecs import LIFECYCLE_HOOKS
from bz.plugins.base import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from bz.context import TrainingContext


class RecordingPlugin(Plugin):
    """Implements every lifecycle hook and records its name, in `events`.

    Args:
        on_event: Called with the hook's name and the context after each event was recorded; may
            raise, to see what a failing plugin does.
    """

    name = "recording"

    def __init__(self, on_event: Callable[[str, TrainingContext], object] | None = None) -> None:
        self.events: list[str] = []
        self._on_event = on_event

    def record(self, hook: str, context: TrainingContext) -> None:
        """Write down one event."""
        self.events.append(hook)
        if self._on_event is not None:
            self._on_event(hook, context)

    def state_dict(self) -> dict[str, Any]:
        """Return the events, so that a resumed run has those from before."""
        return {"events": list(self.events)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the events of the checkpoint."""
        self.events = list(state["events"])


def _recorder(hook: str) -> Callable[[RecordingPlugin, TrainingContext], None]:
    def record(self: RecordingPlugin, context: TrainingContext) -> None:
        self.record(hook, context)

    record.__name__ = hook
    record.__doc__ = f"Record `{hook}`."
    return record


for _hook in LIFECYCLE_HOOKS:
    setattr(RecordingPlugin, _hook, _recorder(_hook))
