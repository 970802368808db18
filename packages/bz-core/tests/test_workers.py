"""Processes that load data for a run end with it."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from bz.testing import RecordingPlugin, tiny_spec, train

if TYPE_CHECKING:
    from bz import TrainingContext


def persistent_loader() -> DataLoader[Any]:
    data = TensorDataset(torch.randn(12, 4), torch.randint(0, 3, (12,)))
    return DataLoader(data, 4, shuffle=True, num_workers=1, persistent_workers=True)


def stop(hook: str, context: TrainingContext) -> None:
    if hook == "end_training_batch":
        context.request_stop("for the test", when="batch")


def fail(context: TrainingContext, batch: Any) -> Any:
    raise ValueError("for the test")


@pytest.mark.parametrize("is_stopped", [False, True])
def test_persistent_workers_end_with_the_run(is_stopped: bool) -> None:  # noqa: FBT001 - a parameter of the test
    spec = tiny_spec(training_loader=persistent_loader(), validation_loader=persistent_loader())
    result = train(spec, *([RecordingPlugin(stop)] if is_stopped else []))
    assert (result.status == "stopped") == is_stopped
    assert multiprocessing.active_children() == []


def test_persistent_workers_end_with_a_run_that_fails() -> None:
    spec = tiny_spec(training_loader=persistent_loader(), training_step=fail)
    with pytest.raises(ValueError, match="for the test"):
        train(spec)
    assert multiprocessing.active_children() == []


def test_loader_can_be_used_after_the_run() -> None:
    loader = persistent_loader()
    for _ in range(2):
        assert train(tiny_spec(training_loader=loader)).status == "completed"
    assert len(list(loader)) == 3
    loader._iterator = None
