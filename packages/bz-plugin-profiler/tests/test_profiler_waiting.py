"""How long the training waits for its data."""

from __future__ import annotations

import logging
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler_runs import SlowLoader, profiler, stop_at, summary, train

from bz.plugins import Plugin
from bz_plugin_profiler.waiting import WaitClock, WaitTotals

if TYPE_CHECKING:
    import pytest


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the plugin's warnings; the core has one about loaders that are no DataLoader."""
    own = [record for record in caplog.records if record.name.startswith("bz_plugin_profiler")]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


def test_slow_data_dominates_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(profiler(data_wait=True), loader=SlowLoader(0.02, 30), run_dir=tmp_path)
    wait = summary(tmp_path)["data_wait"]
    assert wait["batches"] == 60
    assert wait["wait_seconds"] >= 60 * 0.02
    assert wait["share"] > 0.5
    [line] = [message for message in caplog.messages if message.startswith("waiting for data took")]
    assert f"{100 * wait['share']:.0f} % of the training loops" in line
    [advice] = warnings_in(caplog)
    assert "num_workers" in advice
    assert "persistent_workers=True" in advice
    assert "pin_memory" not in advice  # the batches stay on the CPU


class SlowStart(SlowLoader):
    """Waits before its first batch only, as a loader does that starts workers."""

    def __iter__(self) -> Any:
        loader = SlowLoader(self.seconds, 1)
        yield from loader
        yield from self.batches[1:]


def test_slow_start_of_each_epoch_is_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(profiler(data_wait=True), loader=SlowStart(0.6), run_dir=tmp_path)
    wait = summary(tmp_path)["data_wait"]
    assert wait["first_batches_seconds"] >= 1.2
    assert wait["longest_before_step"] in {1, 13}
    [advice] = warnings_in(caplog)
    assert "persistent_workers=True" in advice
    assert "num_workers" not in advice


def test_data_at_hand_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(profiler(data_wait=True), run_dir=tmp_path)
    assert summary(tmp_path)["data_wait"]["batches"] == 24
    assert warnings_in(caplog) == []


def test_data_wait_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(profiler(), loader=SlowLoader(0.02), run_dir=tmp_path)
    assert "data_wait" not in summary(tmp_path)
    assert [message for message in caplog.messages if "waiting" in message] == []


def test_resume_goes_on_with_the_sums(tmp_path: Path) -> None:
    train(profiler(data_wait=True), stop_at(7), loader=SlowLoader(0.02), run_dir=tmp_path)
    before = summary(tmp_path)["data_wait"]
    train(profiler(data_wait=True), loader=SlowLoader(0.02), run_dir=tmp_path, resume=tmp_path)
    after = summary(tmp_path)["data_wait"]
    assert (before["batches"], after["batches"]) == (7, 24)
    assert after["wait_seconds"] >= before["wait_seconds"] + 17 * 0.02


class SlowState(Plugin):
    """Makes each checkpoint slow."""

    def state_dict(self) -> dict[str, Any]:
        time.sleep(0.3)
        return {}


def test_checkpoints_are_no_waiting(tmp_path: Path) -> None:
    result = train(profiler(data_wait=True), SlowState(), run_dir=tmp_path, epochs=1, checkpoint_interval="3 steps")
    assert result.seconds > 1.2
    assert summary(tmp_path)["data_wait"]["wait_seconds"] < 1.0


def test_validation_inside_an_epoch_is_no_waiting(tmp_path: Path) -> None:
    slow = SlowLoader(0.15, 2)
    result = train(profiler(data_wait=True), run_dir=tmp_path, epochs=1, validation=slow, validation_interval="3 steps")
    assert result.seconds > 1.2
    assert summary(tmp_path)["data_wait"]["wait_seconds"] < 1.0


def test_clock_adds_up_waits_and_steps() -> None:
    clock = WaitClock(WaitTotals())
    clock.begin_loop(10.0)
    clock.begin_batch(13.0, 1)  # 3 s for the first
    clock.leave_out(13.5)  # a trace was begun
    clock.end_batch(14.5)
    clock.leave_out(20.0)  # a checkpoint was written
    clock.begin_batch(21.0, 2)
    clock.end_batch(22.0)
    clock.begin_batch(26.0, 3)
    clock.end_batch(27.0)
    clock.end_loop()
    clock.leave_out(100.0)
    totals = clock.totals
    assert totals == WaitTotals(
        batches=3,
        wait_seconds=8.0,
        step_seconds=3.0,
        first_batches_seconds=3.0,
        longest_seconds=4.0,
        longest_before_step=3,
    )
    assert totals.share == 8 / 11


def test_totals_go_through_a_state() -> None:
    totals = WaitTotals(batches=3, wait_seconds=8.0, longest_before_step=3)
    assert WaitTotals.from_state(totals.state_dict()) == totals
    assert WaitTotals.from_state({}) == WaitTotals()
    assert WaitTotals().share == 0.0


def test_longest_waits_are_in_order() -> None:
    clock, longest = WaitClock(WaitTotals()), []
    clock.begin_loop(0.0)
    for step, (began, ended) in enumerate(pairwise([0.0, 3.0, 4.0, 9.0]), 1):
        clock.leave_out(began)
        clock.begin_batch(ended, step)
        longest.append(clock.totals.longest_before_step)
    assert longest == [1, 1, 3]
