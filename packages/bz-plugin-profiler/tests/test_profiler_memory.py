"""Snapshots of a CUDA device's memory."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from profiler_runs import events, names, profiler, train

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("occasion", ["end", "out_of_memory"])
def test_snapshot_without_cuda_is_said_to_have_no_effect(
    tmp_path: Path, occasion: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(profiler(memory_snapshot=occasion), run_dir=tmp_path)
    assert caplog.messages == ["`memory_snapshot` has no effect: it is of CUDA devices, this run is on cpu"]
    assert names(tmp_path) == ["summary.json"]


def test_nothing_is_said_when_no_snapshot_is_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(profiler(), run_dir=tmp_path)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@needs_cuda
def test_snapshot_at_the_end_holds_the_allocations(tmp_path: Path) -> None:
    train(profiler(memory_snapshot="end"), run_dir=tmp_path, device="cuda")
    with (tmp_path / "profile" / "memory_step_24.pickle").open("rb") as file:
        assert {"segments", "device_traces"} <= set(pickle.load(file))


class TooLarge(torch.nn.Module):
    """Asks for more memory than any device has."""

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**50, device=outputs.device).sum()


@needs_cuda
def test_snapshot_is_written_when_the_memory_does_not_suffice(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        train(profiler(memory_snapshot="out_of_memory"), run_dir=tmp_path, device="cuda", loss_fn=TooLarge())
    assert names(tmp_path) == ["memory_step_0.pickle", "summary.json"]


@needs_cuda
def test_no_snapshot_is_written_when_the_memory_suffices(tmp_path: Path) -> None:
    train(profiler(memory_snapshot="out_of_memory"), run_dir=tmp_path, device="cuda")
    assert names(tmp_path) == ["summary.json"]


@needs_cuda
def test_trace_holds_the_kernels_of_the_device(tmp_path: Path) -> None:
    train(profiler(steps="6-8"), run_dir=tmp_path, device="cuda")
    assert any(event.get("cat") == "kernel" for event in events(tmp_path / "profile" / "trace_6-8.json.gz"))
    text = (tmp_path / "profile" / "operators_6-8.txt").read_text(encoding="utf-8")
    assert text.startswith("Steps 6-8: operators by their own time on the cuda device")
