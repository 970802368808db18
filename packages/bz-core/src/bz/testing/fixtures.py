"""Pytest fixtures for plugin authors: `pytest_plugins = ["bz.testing.fixtures"]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bz.testing.recording import RecordingPlugin
from bz.testing.specs import tiny_spec

if TYPE_CHECKING:
    from bz.spec import TrainingSpec


@pytest.fixture
def bz_spec() -> TrainingSpec:
    """A tiny training spec: three training and two validation batches an epoch."""
    return tiny_spec()


@pytest.fixture
def bz_recorder() -> RecordingPlugin:
    """A plugin that records every hook that fires."""
    return RecordingPlugin()
