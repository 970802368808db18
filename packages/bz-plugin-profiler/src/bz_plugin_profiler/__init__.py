"""Shows where the time and the memory of a training run go."""

from bz_plugin_profiler.plugin import ProfilerPlugin

__all__ = ["ProfilerPlugin"]
