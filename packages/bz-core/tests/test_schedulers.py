"""When learning rate schedulers are stepped, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from bz import ConfigError, LRSchedule, TrainingContext
from bz.testing import RecordingPlugin, tiny_spec, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def rates_per_batch() -> tuple[RecordingPlugin, list[float]]:
    rates: list[float] = []

    def look(hook: str, context: TrainingContext) -> None:
        if hook == "end_training_batch":
            rates.append(round(context.learning_rates["lr"], 6))

    return RecordingPlugin(look), rates


def halving(spec: Any) -> StepLR:
    return StepLR(spec.optimizer, step_size=1, gamma=0.5)


@pytest.mark.parametrize(
    ("schedule", "settings", "expected"),
    [
        (halving, {}, [0.1, 0.1, 0.1, 0.05, 0.05, 0.05]),
        (halving, {"scheduler_interval": "1 step"}, [0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003125]),
        (lambda spec: LRSchedule(halving(spec), every="2 steps"), {}, [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]),
        (lambda spec: LRSchedule(halving(spec), every="2 epochs"), {}, [0.1] * 6),
        (lambda spec: LRSchedule(halving(spec), every=1), {"scheduler_interval": "1 step"}, [0.1] * 3 + [0.05] * 3),
        (lambda spec: LRSchedule(halving(spec), every="1 step"), {"accumulate_batches": 3}, [0.1] * 3 + [0.05] * 3),
    ],
)
def test_scheduler_is_stepped_at_its_interval(
    schedule: Callable[[Any], Any], settings: dict[str, Any], expected: list[float]
) -> None:
    spec = tiny_spec()
    spec.lr_scheduler = schedule(spec)
    plugin, rates = rates_per_batch()
    train(spec, plugin, epochs=2, **settings)
    assert rates == expected


def test_several_schedulers_are_stepped_each_at_its_own_interval() -> None:
    spec = tiny_spec()
    rise = LambdaLR(spec.optimizer, lambda step: 1.0 + step)
    fall = halving(spec)
    spec.lr_scheduler = [LRSchedule(rise, every="1 step"), fall]
    train(spec, epochs=1)
    assert (rise.last_epoch, fall.last_epoch) == (3, 1)


@pytest.mark.parametrize("every", ["10 min", "0 steps", 0, "often"])
def test_interval_that_is_no_number_of_epochs_or_steps_is_refused(every: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        LRSchedule(halving(tiny_spec()), every=every)


class Constant:
    """A metric that says what it was told to."""

    def __init__(self, value: float) -> None:
        self.value = value

    def update(self, preds: Any, target: Any) -> None: ...

    def compute(self) -> float:
        return self.value

    def reset(self) -> None: ...


def plateau(spec: Any) -> ReduceLROnPlateau:
    return ReduceLROnPlateau(spec.optimizer, mode="max", factor=0.1, patience=0)


@pytest.mark.parametrize("settings", [{"scheduler_monitor": "validation_score"}, {}])
def test_plateau_is_given_what_it_watches(settings: dict[str, Any]) -> None:
    spec = tiny_spec(metrics={"score": Constant(0.5)})
    scheduler = plateau(spec)
    spec.lr_scheduler = scheduler if settings else LRSchedule(scheduler, monitor="validation_score")
    plugin, rates = rates_per_batch()
    train(spec, plugin, epochs=3, **settings)
    assert scheduler.best == 0.5
    assert rates[::3] == [0.1, 0.1, 0.01]


def test_plateau_is_left_alone_in_epochs_without_validation() -> None:
    spec = tiny_spec(metrics={"score": Constant(0.5)})
    spec.lr_scheduler = LRSchedule(plateau(spec), monitor="validation_score")
    train(spec, epochs=5, validation_interval="2 epochs")
    assert spec.lr_scheduler.scheduler.last_epoch == 2  # type: ignore[attr-defined]  # torch's own name


def test_plateau_that_watches_what_is_not_measured_is_explained() -> None:
    spec = tiny_spec()
    spec.lr_scheduler = plateau(spec)
    text = "watches 'validation_acc', which is not measured; measured are training_loss, validation_loss"
    with pytest.raises(ConfigError, match=text):
        train(spec, epochs=2, scheduler_monitor="validation_acc")


@pytest.mark.parametrize("every", ["1 step", "2 steps", "1 epoch"])
def test_schedulers_go_on_exactly_from_every_step(every: str, tmp_path: Path) -> None:
    def spec() -> Any:
        made = tiny_spec()
        made.lr_scheduler = [LRSchedule(halving(made), every=every), LRSchedule(plateau(made), every="1 epoch")]
        return made

    whole, rates = rates_per_batch()
    train(spec(), whole, epochs=3)
    for stop_at in range(1, 9):

        def stop(hook: str, context: TrainingContext, step: int = stop_at) -> None:
            if hook == "end_training_batch" and context.global_step == step:
                context.request_stop("enough", when="batch")

        run_dir = tmp_path / str(stop_at)
        train(spec(), RecordingPlugin(stop), epochs=3, run_dir=run_dir)
        resumed, rest = rates_per_batch()
        train(spec(), resumed, epochs=3, run_dir=run_dir, resume=run_dir)
        assert rest == rates[stop_at:]
