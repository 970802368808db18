"""Plots a training run: curves as pictures while it goes on, a report in one page at the end."""

from bz_plugin_visualization.plugin import VisualizationPlugin

__all__ = ["VisualizationPlugin"]
