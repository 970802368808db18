"""The tools that are compared, a module each.

A module has `WAYS`: the name of a row, and what trains a task at each level. The levels:

    bare         nothing but the training; what a tool does besides is switched off as its documentation says
    metrics      running loss and accuracy, taken in at every step as the tool does it
    everything   that, a progress bar, TensorBoard (every 50 steps where it can be chosen) and a checkpoint at the end
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, Literal

from harness.workloads import Task

Level = Literal["bare", "metrics", "everything"]
Ways = Mapping[str, Mapping[Level, Callable[[Task], object]]]

LEVELS: Final[tuple[Level, ...]] = ("bare", "metrics", "everything")
LOGGED_EVERY: Final = 50
"""Steps between two points in TensorBoard; the default of several tools."""


class ToolMissingError(Exception):
    """A tool cannot be measured here; the text says which and why."""


@dataclass(frozen=True)
class Tool:
    """Where a tool is found.

    Attributes:
        module: Of this package.
        needs: The module that must be there.
        distribution: What it is installed as.
    """

    module: str
    needs: str
    distribution: str

    @property
    def title(self) -> str:
        """Its name and version, if it is installed."""
        return f"{self.distribution} {version(self.distribution)}"

    def ways(self) -> Ways:
        """Import it, and return its rows.

        Raises:
            ToolMissingError: If it is not installed, or not with what it needs.
        """
        if importlib.util.find_spec(self.needs) is None:
            raise ToolMissingError(f"{self.distribution} (not installed)")
        try:
            ways: Ways = importlib.import_module(self.module).WAYS
        except Exception as error:  # whatever other people's packages raise when something they need is not there
            raise ToolMissingError(f"{self.distribution} (cannot be imported: {error})") from error
        return ways


TOOLS: Final = {
    "hand": Tool("tools.by_hand", "tqdm", "torch"),
    "bz": Tool("tools.with_bz", "bz", "bz-core"),
    "ignite": Tool("tools.with_ignite", "ignite", "pytorch-ignite"),
    "poutyne": Tool("tools.with_poutyne", "poutyne", "poutyne"),
    "skorch": Tool("tools.with_skorch", "skorch", "skorch"),
    "accelerate": Tool("tools.with_accelerate", "accelerate", "accelerate"),
    "torchtnt": Tool("tools.with_torchtnt", "torchtnt", "torchtnt"),
    "lightning": Tool("tools.with_lightning", "lightning", "lightning"),
    "fastai": Tool("tools.with_fastai", "fastai", "fastai"),
    "keras": Tool("tools.with_keras", "keras", "keras"),
}
