"""Averages the weights of a training run, validates with the average and saves it."""

from bz_plugin_averaging.plugin import AveragingPlugin

__all__ = ["AveragingPlugin"]
