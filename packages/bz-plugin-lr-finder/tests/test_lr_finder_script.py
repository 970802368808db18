"""`find_learning_rate`, and the test with the settings of a training."""

from __future__ import annotations

import copy
import math
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bz import Trainer, TrainingSpec
from bz.config.models import TrainingSettings
from bz.errors import ConfigError, ScriptError, TrainingError
from bz.testing import tiny_spec
from bz.training.seeding import random_state
from bz_plugin_lr_finder import LRCurve, RangeTestConfig, find_learning_rate
from bz_plugin_lr_finder.finder import run_range_test

SHORT = RangeTestConfig(min_lr=1e-4, max_lr=0.1, steps=20)


class Counted(nn.Module):
    """Keeps something of each kind: a parameter, buffers that are saved and not, a value of its own."""

    kept: torch.Tensor
    lost: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("lost", torch.zeros(2), persistent=False)
        self.register_buffer("nothing", None)
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.kept += 1
        self.lost = self.lost + 1
        result: torch.Tensor = self.layers(inputs)
        return result

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


def regression() -> DataLoader[Any]:
    torch.manual_seed(0)
    inputs = torch.randn(240, 3)
    data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
    return DataLoader(data, batch_size=24, shuffle=True, generator=torch.Generator().manual_seed(7))


def everything(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any]) -> dict[str, Any]:
    """Return a copy of all that a test may change."""
    found = {
        "parameters": list(model.parameters()),
        "gradients": [parameter.grad for parameter in model.parameters()],
        "buffers": dict(model.named_buffers()),
        "extra": model.get_extra_state() if isinstance(model, Counted) else None,
        "modes": [module.training for module in model.modules()],
        "state": [optimizer.state[parameter] for parameter in model.parameters()],
        "groups": [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups],
        "random": random_state(),
        "order": loader.generator.get_state() if loader.generator is not None else None,
    }
    return copy.deepcopy(found)


def assert_same(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert (first.dtype, first.device) == (second.dtype, second.device)
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        assert_same(list(first.values()), list(second.values()))
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


@pytest.fixture
def trained() -> tuple[Counted, torch.optim.Optimizer, DataLoader[Any]]:
    """A model that was trained for an epoch, with an optimizer of two groups, in eval mode in one part."""
    loader, model = regression(), Counted()
    groups: list[dict[str, Any]] = [
        {"params": list(model.layers[0].parameters()), "lr": 0.001},
        {"params": list(model.layers[1:].parameters()), "lr": torch.tensor(0.01)},
    ]
    optimizer = torch.optim.AdamW(groups, foreach=False)
    Trainer().train(model, optimizer, nn.MSELoss(), loader, device="cpu")
    model.layers[1].eval()
    model.layers[0].weight.grad = torch.ones(8, 3)
    model.layers[0].bias.grad = None
    return model, optimizer, loader


def draw(context: Any, batch: Any) -> Any:
    """A step that draws from every generator."""
    inputs, targets = batch
    noise = random.random() + float(np.random.rand()) + torch.rand(())
    return context.loss_fn(context.model(inputs), targets) + 1e-6 * noise


def test_everything_is_put_back_bit_for_bit(
    trained: tuple[Counted, torch.optim.Optimizer, DataLoader[Any]],
) -> None:
    model, optimizer, loader = trained
    before, tensor = everything(*trained), optimizer.param_groups[1]["lr"]
    buffer = model.lost
    curve = find_learning_rate(model, optimizer, nn.MSELoss(), loader, training_step=draw, device="cpu")
    assert len(curve.losses) > 50
    assert_same(everything(*trained), before)
    assert optimizer.param_groups[1]["lr"] is tensor
    assert model.lost is buffer


def test_everything_is_put_back_after_an_error(
    trained: tuple[Counted, torch.optim.Optimizer, DataLoader[Any]],
) -> None:
    def fail(context: Any, batch: Any) -> Any:
        if context.global_step == 5:
            raise ArithmeticError("on purpose")
        return draw(context, batch)

    before = everything(*trained)
    with pytest.raises(ArithmeticError, match="on purpose"):
        find_learning_rate(trained[0], trained[1], nn.MSELoss(), trained[2], training_step=fail, device="cpu")
    assert_same(everything(*trained), before)


def test_training_after_the_test_is_the_training_without_it() -> None:
    def final_weights(*, is_tested: bool) -> list[torch.Tensor]:
        loader, model = regression(), Counted()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        if is_tested:
            find_learning_rate(model, optimizer, nn.MSELoss(), loader, device="cpu")
        Trainer().train(model, optimizer, nn.MSELoss(), loader, epochs=2, device="cpu")
        return [parameter.detach() for parameter in model.parameters()]

    assert_same(final_weights(is_tested=True), final_weights(is_tested=False))


def test_ctrl_c_ends_the_script_after_everything_is_put_back(
    trained: tuple[Counted, torch.optim.Optimizer, DataLoader[Any]],
) -> None:
    def interrupt(context: Any, batch: Any) -> Any:
        if context.global_step == 5:
            signal.raise_signal(signal.SIGINT)
        return draw(context, batch)

    before = everything(*trained)
    with pytest.raises(KeyboardInterrupt):
        find_learning_rate(trained[0], trained[1], nn.MSELoss(), trained[2], training_step=interrupt, device="cpu")
    assert_same(everything(*trained), before)


def test_suggestion_lowers_the_loss() -> None:
    loader = regression()
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    curve = find_learning_rate(model, optimizer, nn.MSELoss(), loader, device="cpu")
    assert curve.suggestion is not None
    assert 1e-7 < curve.suggestion < 10
    optimizer.param_groups[0]["lr"] = curve.suggestion
    result = Trainer().train(model, optimizer, nn.MSELoss(), loader, epochs=3, device="cpu")
    assert curve.losses[0] > 1
    assert result.training_loss < 0.1


def rates_seen(spec: TrainingSpec, settings: TrainingSettings | None = None) -> tuple[LRCurve, list[list[float]]]:
    """Run a short test; return its curve and the rates of all groups that each optimizer step was made with."""
    seen: list[list[float]] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        seen.append([float(group["lr"]) for group in optimizer.param_groups])

    assert isinstance(spec.optimizer, torch.optim.Optimizer)
    handle = spec.optimizer.register_step_pre_hook(note)
    try:
        return run_range_test(spec, settings or TrainingSettings(device="cpu"), SHORT), seen
    finally:
        handle.remove()


def test_each_step_has_the_rate_that_is_noted_with_its_loss() -> None:
    curve, seen = rates_seen(tiny_spec())
    assert [rate for [rate] in seen] == list(curve.learning_rates)
    assert (curve.learning_rates[0], len(curve.losses), curve.ending) == (1e-4, 20, "steps")
    assert curve.learning_rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("lower", [0.002, torch.tensor(0.002)], ids=["number", "tensor"])
def test_groups_keep_the_ratio_of_their_rates(lower: Any) -> None:
    spec = tiny_spec()
    first, *others = spec.model.parameters()
    groups = [{"params": [first], "lr": lower}, {"params": others, "lr": 0.02}]
    curve, seen = rates_seen(replace(spec, optimizer=torch.optim.SGD(groups, foreach=False)))
    assert [rates[1] for rates in seen] == list(curve.learning_rates)
    assert [rates[0] for rates in seen] == pytest.approx([rate / 10 for rate in curve.learning_rates])


def test_ratio_is_that_before_a_warm_up_began() -> None:
    spec = tiny_spec()
    first, *others = spec.model.parameters()
    groups = [{"params": [first], "lr": 0.002}, {"params": others, "lr": 0.02}]
    optimizer = torch.optim.SGD(groups)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    _, seen = rates_seen(replace(spec, optimizer=optimizer, lr_scheduler=scheduler))
    assert [rates[1] / rates[0] for rates in seen] == pytest.approx([10.0] * 20)


def test_rate_that_is_a_tensor_is_set_in_place() -> None:
    spec = tiny_spec()
    rate = torch.tensor(0.1)
    curve, seen = rates_seen(replace(spec, optimizer=torch.optim.Adam(spec.model.parameters(), lr=rate)))
    assert float(rate) == pytest.approx(0.1) == seen[-1][0]
    assert [rates[0] for rates in seen] == pytest.approx(list(curve.learning_rates))


@pytest.mark.parametrize("every", ["1 step", "1 epoch"])
def test_scheduler_of_the_script_does_not_act(every: str) -> None:
    spec = tiny_spec()
    assert isinstance(spec.optimizer, torch.optim.Optimizer)
    # Warm-up: all rates are 0 when the test begins.
    scheduler = torch.optim.lr_scheduler.LambdaLR(spec.optimizer, lambda step: step / 10)
    settings = TrainingSettings.model_validate({"device": "cpu", "scheduler_interval": every})
    curve, seen = rates_seen(replace(spec, lr_scheduler=scheduler), settings)
    assert [rate for [rate] in seen] == list(curve.learning_rates)
    assert scheduler.last_epoch == 0


def test_rate_that_a_step_sets_itself_is_refused() -> None:
    def step(context: Any, batch: Any) -> Any:
        context.optimizer.param_groups[0]["lr"] = 0.5
        return context.loss_fn(context.model(batch[0]), batch[1])

    with pytest.raises(TrainingError, match="Something else sets the learning rate during the test"):
        run_range_test(tiny_spec(training_step=step), TrainingSettings(device="cpu"), SHORT)


class WithoutLength:
    """Five batches, but nobody knows."""

    def __iter__(self) -> Iterator[Any]:
        for number in range(5):
            yield torch.full((4, 4), number / 5), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize("has_length", [True, False])
def test_accumulated_batches_make_one_step_and_one_point(*, has_length: bool) -> None:
    loader: Any = list(WithoutLength()) if has_length else WithoutLength()
    losses: list[float] = []

    def step(context: Any, batch: Any) -> Any:
        loss = context.loss_fn(context.model(batch[0]), batch[1])
        losses.append(float(loss.detach()))
        return loss

    spec = tiny_spec(training_loader=loader, training_step=step)
    curve, seen = rates_seen(spec, TrainingSettings(device="cpu", accumulate_batches=2))
    assert [rate for [rate] in seen] == list(curve.learning_rates)
    assert len(curve.losses) == 20
    # Of five batches each third step has one; seven epochs have 21 steps.
    windows = [range(2), range(2, 4), range(4, 5)]
    expected = [math.fsum(losses[5 * (step // 3) + i] for i in windows[step % 3]) / len(windows[step % 3])
                for step in range(20)]  # fmt: skip
    assert list(curve.losses) == pytest.approx(expected)
    assert curve.sizes == tuple([8.0, 8.0, 4.0][step % 3] for step in range(20))


def test_loss_of_a_step_is_the_mean_over_its_samples() -> None:
    batches = [(torch.ones(3, 4), torch.zeros(3).long()), (-torch.ones(1, 4), torch.zeros(1).long())]
    losses: list[float] = []

    def step(context: Any, batch: Any) -> Any:
        loss = context.loss_fn(context.model(batch[0]), batch[1])
        losses.append(float(loss.detach()))
        return loss

    spec = tiny_spec(training_loader=batches, training_step=step)
    curve = run_range_test(spec, TrainingSettings(device="cpu", accumulate_batches=2), SHORT)
    assert curve.losses[0] == pytest.approx((3 * losses[0] + losses[1]) / 4)


def test_batches_without_a_number_of_samples_count_alike() -> None:
    def step(context: Any, batch: Any) -> Any:
        return next(context.model.parameters()).sum() * batch

    curve = run_range_test(
        tiny_spec(training_loader=[1.0, 2.0], training_step=step), TrainingSettings(device="cpu"), SHORT
    )
    assert set(curve.sizes) == {1.0}


def test_limit_of_the_batches_counts() -> None:
    seen = set()

    def step(context: Any, batch: Any) -> Any:
        seen.add(float(batch[0][0, 0]))
        return context.loss_fn(context.model(batch[0]), batch[1])

    spec = tiny_spec(training_loader=list(WithoutLength()), training_step=step)
    run_range_test(spec, TrainingSettings(device="cpu", limit_train_batches=2), SHORT)
    assert sorted(seen) == pytest.approx([0.0, 0.2])


def test_limits_of_the_whole_training_do_not_end_the_test() -> None:
    settings = TrainingSettings.model_validate(
        {"device": "cpu", "epochs": 1, "max_steps": 2, "max_time": "1 s", "validate_first": True}
    )
    assert len(run_range_test(tiny_spec(), settings, SHORT).losses) == 20


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_of_the_training_is_that_of_the_test(precision: str) -> None:
    full = run_range_test(tiny_spec(), TrainingSettings(device="cpu"), SHORT)
    settings = TrainingSettings.model_validate({"device": "cpu", "precision": precision})
    mixed = run_range_test(tiny_spec(), settings, SHORT)
    assert len(mixed.losses) == 20
    assert mixed.losses != full.losses
    assert mixed.losses[0] == pytest.approx(full.losses[0], rel=0.02)


def test_gradients_that_are_never_finite_end_the_test() -> None:
    def step(context: Any, batch: Any) -> Any:
        weight = next(context.model.parameters()).flatten()[0]
        return 1.0 + (weight - weight).sqrt()  # the slope of a root is infinite at zero

    spec = tiny_spec(training_step=step)
    settings = TrainingSettings.model_validate({"device": "cpu", "precision": "fp16"})
    with pytest.raises(TrainingError, match="No optimizer step was made in 102 batches: the gradients are not finite"):
        run_range_test(spec, settings, SHORT)


def test_loss_that_becomes_nan_ends_the_curve_before_it() -> None:
    def step(context: Any, batch: Any) -> Any:
        loss = context.loss_fn(context.model(batch[0]), batch[1])
        return loss * float("nan") if context.global_step == 12 else loss

    curve = run_range_test(tiny_spec(training_step=step), TrainingSettings(device="cpu"), SHORT)
    assert (len(curve.losses), curve.ending) == (12, "nonfinite")


def test_loss_below_zero_diverges_when_it_is_far_above_its_lowest() -> None:
    losses = [-0.1, -1.0, -2.0, -1.5, -1.0, 1.0, 5.0, 9.0, *[0.0] * 20]

    def step(context: Any, _batch: Any) -> Any:
        weight = next(context.model.parameters())
        return losses[context.global_step] + 0 * weight.sum()

    config = RangeTestConfig(steps=20, smoothing=0.0, stop_factor=3.0)
    curve = run_range_test(tiny_spec(training_step=step), TrainingSettings(device="cpu"), config)
    assert list(curve.losses) == pytest.approx(losses[:7])
    assert curve.ending == "diverged"


def test_loss_that_rises_from_nearly_zero_has_not_diverged_below_its_beginning() -> None:
    losses = [1.0, 0.5, 1e-6, *[0.9] * 30]

    def step(context: Any, _batch: Any) -> Any:
        return losses[context.global_step] + 0 * next(context.model.parameters()).sum()

    config = RangeTestConfig(steps=20, smoothing=0.0)
    curve = run_range_test(tiny_spec(training_step=step), TrainingSettings(device="cpu"), config)
    assert (len(curve.losses), curve.ending) == (20, "steps")


def test_plugins_metrics_and_validation_of_the_spec_take_no_part() -> None:
    class Loud:
        def start_training_session(self, context: Any) -> None:
            raise AssertionError

    def validate(context: Any, batch: Any) -> Any:
        raise AssertionError

    curve = run_range_test(tiny_spec(plugins=[Loud()], validation_step=validate), TrainingSettings(device="cpu"), SHORT)
    assert len(curve.losses) == 20


def test_arguments_are_checked() -> None:
    spec = tiny_spec()
    assert isinstance(spec.optimizer, torch.optim.Optimizer)
    with pytest.raises(ConfigError, match=r"^find_learning_rate: `steps` must be at least 20, got 3\.$"):
        find_learning_rate(spec.model, spec.optimizer, spec.loss_fn, spec.training_loader, steps=3)
    with pytest.raises(ConfigError, match=r"^find_learning_rate: `precision` must be one of "):
        find_learning_rate(spec.model, spec.optimizer, spec.loss_fn, spec.training_loader, precision="fp8")


def test_optimizer_whose_rates_are_all_zero_gets_the_rate_of_the_test() -> None:
    spec = tiny_spec()
    curve, seen = rates_seen(replace(spec, optimizer=torch.optim.SGD(spec.model.parameters(), lr=0.0)))
    assert [rate for [rate] in seen] == list(curve.learning_rates)


def test_optimizer_without_a_rate_is_refused() -> None:
    spec = tiny_spec()
    optimizer = torch.optim.Adafactor(spec.model.parameters())
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(ScriptError, match="The optimizer Adafactor has the learning rate None in a parameter group"):
        find_learning_rate(spec.model, optimizer, spec.loss_fn, spec.training_loader)
