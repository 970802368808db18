"""Finds a learning rate by the learning rate range test: `bz lr-find`, or `find_learning_rate` in a script."""

from bz_plugin_lr_finder.config import RangeTestConfig
from bz_plugin_lr_finder.curve import LRCurve
from bz_plugin_lr_finder.finder import find_learning_rate
from bz_plugin_lr_finder.plugin import LRFinderPlugin

__all__ = ["LRCurve", "LRFinderPlugin", "RangeTestConfig", "find_learning_rate"]
