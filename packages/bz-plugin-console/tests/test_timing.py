import pytest

from bz_plugin_console.timing import Forecast, Loop, Pace


def test_pace_keeps_the_interval() -> None:
    pace = Pace(0.2)
    pace.spend(10.0, 10.001)
    assert pace.due == pytest.approx(10.201)


def test_pace_of_something_slow_stays_below_its_share() -> None:
    pace = Pace(0.2, share=0.01)
    pace.spend(10.0, 10.5)
    assert pace.due == pytest.approx(60.5)


def test_rate_of_a_resumed_loop_counts_only_its_own_batches() -> None:
    loop = Loop("training", first_batch=100, total=200, started=5.0)
    assert loop.rate(120, now=7.0) == 10.0
    assert loop.rate(100, now=7.0) is None


def test_forecast_in_the_first_epoch_goes_by_the_part_that_is_done() -> None:
    forecast = Forecast()
    forecast.start_epoch(0.0, 0.0)
    assert forecast.seconds_left(0.0, 0.0, epochs_after=2) is None
    assert forecast.seconds_left(1.0, 0.25, epochs_after=2) == pytest.approx(11.0)


def test_forecast_afterwards_goes_by_the_last_epoch() -> None:
    forecast = Forecast()
    forecast.start_epoch(0.0, 0.0)
    assert forecast.end_epoch(60.0) == 60.0
    forecast.start_epoch(60.0, 0.0)
    assert forecast.end_epoch(70.0) == 10.0
    forecast.start_epoch(70.0, 0.0)
    assert forecast.seconds_left(75.0, 0.5, epochs_after=1) == pytest.approx(15.0)


def test_forecast_of_an_epoch_resumed_in_the_middle_expects_whole_ones_next() -> None:
    forecast = Forecast()
    forecast.start_epoch(0.0, 0.75)
    assert forecast.seconds_left(1.0, 0.85, epochs_after=0) == pytest.approx(1.5)
    assert forecast.end_epoch(2.5) == 2.5
    forecast.start_epoch(2.5, 0.0)
    assert forecast.seconds_left(2.5, 0.0, epochs_after=0) == pytest.approx(10.0)
