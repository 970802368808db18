"""What a hook of the user's may call to show something of its own; it does nothing without the plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from bz.context import TrainingContext
    from bz_plugin_tensorboard.plugin import TensorBoardPlugin

running: WeakKeyDictionary[TrainingContext, TensorBoardPlugin] = WeakKeyDictionary()
"""The plugin of each session that is under way."""


def add_scalar(tag: str, value: Any, context: TrainingContext) -> None:
    """Add a point to the curve `tag` of this session's run; see `TensorBoardPlugin.add_scalar`."""
    if context in running:
        running[context].add_scalar(tag, value, context)


def add_image(tag: str, image: Any, context: TrainingContext, *, layout: str = "CHW") -> None:
    """Add a picture to this session's run; see `TensorBoardPlugin.add_image`."""
    if context in running:
        running[context].add_image(tag, image, context, layout=layout)


def add_summary(summary: Any, context: TrainingContext) -> None:
    """Add anything else that TensorBoard shows to this session's run; see `TensorBoardPlugin.add_summary`."""
    if context in running:
        running[context].add_summary(summary, context)
