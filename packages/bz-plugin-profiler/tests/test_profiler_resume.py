"""A resumed run overwrites no trace of before, and goes on with the samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from profiler_runs import SlowLoader, events, kill_at, marks, names, profiler, samples, stop_at, summary, train

from bz_plugin_profiler import ProfilerPlugin

if TYPE_CHECKING:
    import pytest


def test_stop_inside_the_range_is_followed_by_a_trace_of_the_rest(tmp_path: Path) -> None:
    train(profiler(steps="6-8"), stop_at(7), run_dir=tmp_path)
    before = (tmp_path / "profile" / "trace_6-7.json.gz").read_bytes()
    train(profiler(steps="6-8"), run_dir=tmp_path, resume=tmp_path)
    assert (tmp_path / "profile" / "trace_6-7.json.gz").read_bytes() == before
    assert marks(tmp_path / "profile" / "trace_8.json.gz") == ["ProfilerStep#8"]
    assert summary(tmp_path) == {"traces": ["trace_6-7.json.gz", "trace_8.json.gz"]}


def test_resume_behind_the_range_traces_nothing_and_keeps_the_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(profiler(steps="6-8"), stop_at(10), run_dir=tmp_path)
    before = (tmp_path / "profile" / "trace_6-8.json.gz").read_bytes()
    train(profiler(steps="6-8"), run_dir=tmp_path, resume=tmp_path)
    assert (tmp_path / "profile" / "trace_6-8.json.gz").read_bytes() == before
    assert names(tmp_path) == ["operators_6-8.txt", "summary.json", "trace_6-8.json.gz"]
    assert caplog.messages == []


def test_resume_traces_a_range_that_is_far_ahead(tmp_path: Path) -> None:
    train(profiler(steps="6-8, 20-21"), stop_at(10), run_dir=tmp_path)
    train(profiler(steps="6-8, 20-21"), run_dir=tmp_path, resume=tmp_path)
    assert marks(tmp_path / "profile" / "trace_20-21.json.gz") == ["ProfilerStep#20", "ProfilerStep#21"]
    forward_passes = [
        event for event in events(tmp_path / "profile" / "trace_20-21.json.gz") if event["name"] == "aten::mse_loss"
    ]
    assert len(forward_passes) == 2


def test_kill_inside_the_range_is_made_good(tmp_path: Path) -> None:
    kill_at(16, tmp_path)
    assert names(tmp_path) == ["devices.csv", "operators_6-8.txt", "trace_6-8.json.gz"]
    (tmp_path / "profile" / ".trace-left").mkdir()
    (tmp_path / "profile" / ".trace-left" / "trace_15-17.json").write_text("half", encoding="utf-8")
    plugin = ProfilerPlugin(steps="6-8, 15-17", devices_every="0.1 s")
    train(plugin, run_dir=tmp_path, resume=tmp_path, loader=SlowLoader(0.02))  # from step 15
    assert summary(tmp_path)["traces"] == ["trace_6-8.json.gz", "trace_16-17.json.gz"]
    assert marks(tmp_path / "profile" / "trace_16-17.json.gz") == ["ProfilerStep#16", "ProfilerStep#17"]
    assert summary(tmp_path)["data_wait"]["batches"] == 24
    elapsed = [float(row["elapsed_seconds"]) for row in samples(tmp_path) if row["device"] == "host"]
    assert elapsed == sorted(set(elapsed))
    assert not list((tmp_path / "profile").glob(".trace-*"))


def test_checkpoint_of_a_run_without_the_plugin_is_gone_on_from(tmp_path: Path) -> None:
    train(stop_at(10), run_dir=tmp_path)
    plugin = ProfilerPlugin(steps="15", devices_every="0.1 s")
    train(plugin, run_dir=tmp_path, resume=tmp_path)
    assert summary(tmp_path)["traces"] == ["trace_15.json.gz"]
    assert summary(tmp_path)["data_wait"]["batches"] == 14
