"""Shows training runs in TensorBoard."""

from bz_plugin_tensorboard.drawing import add_image, add_scalar, add_summary
from bz_plugin_tensorboard.plugin import TensorBoardPlugin

__all__ = ["TensorBoardPlugin", "add_image", "add_scalar", "add_summary"]
