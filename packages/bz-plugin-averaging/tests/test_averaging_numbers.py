"""The numbers are those of a loop by hand with torch's `AveragedModel`, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from averaging_runs import (
    BATCHES,
    DECAY,
    EPOCHS,
    averaged,
    averaging_spec,
    run,
    same,
    torch_average,
    train_by_hand,
)
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from bz_plugin_averaging import AveragingPlugin
from bz_plugin_averaging.average import WeightAverage

CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"method": "ema", "decay": DECAY}, {"after_step": lambda step: True}),
    ({"method": "ema", "decay": DECAY, "every": "2 steps"}, {"after_step": lambda step: step % 2 == 0}),
    ({"method": "ema", "decay": DECAY, "start": "5 steps"}, {"after_step": lambda step: step >= 5}),
    ({"method": "ema", "decay": DECAY, "start": "1 epoch"}, {"after_step": lambda step: step >= BATCHES}),
    ({"method": "ema", "decay": DECAY, "every": "1 epoch"}, {"after_epoch": lambda epoch: True}),
    ({"method": "swa"}, {"after_epoch": lambda epoch: True}),
    ({"method": "swa", "every": 2}, {"after_epoch": lambda epoch: epoch % 2 == 0}),
    ({"method": "swa", "start": "2 epochs"}, {"after_epoch": lambda epoch: epoch >= 2}),
    ({"method": "swa", "start": "4 steps"}, {"after_epoch": lambda epoch: epoch * BATCHES >= 4}),
    ({"method": "swa", "every": "1 step"}, {"after_step": lambda step: True}),
    ({"method": "swa", "start": "5 steps", "every": "2 steps"}, {"after_step": lambda step: step in {6, 8, 10, 12}}),
]


@pytest.mark.parametrize(("settings", "moments"), CASES, ids=[str(settings) for settings, _ in CASES])
def test_weights_trained_and_averaged_equal_those_of_a_loop_by_hand(
    settings: dict[str, Any], moments: dict[str, Any]
) -> None:
    plugin = AveragingPlugin(**settings, output=None)
    _, spec = run(plugin)
    by_hand = train_by_hand(settings["method"], **moments)
    assert same(spec.model.state_dict(), by_hand.trained)
    assert same(averaged(plugin), by_hand.averaged)
    assert not same(by_hand.trained, by_hand.averaged)


@pytest.mark.parametrize(("settings", "moments"), CASES, ids=[str(settings) for settings, _ in CASES])
def test_validation_is_that_of_the_averaged_weights(settings: dict[str, Any], moments: dict[str, Any]) -> None:
    result, _ = run(AveragingPlugin(**settings, output=None))
    by_hand = train_by_hand(settings["method"], **moments)
    assert [row["validation_loss"] for row in result.history] == by_hand.validation_losses
    assert [row["validation_loss"] for row in run()[0].history] != by_hand.validation_losses


def test_buffers_are_averaged_when_asked_for_and_counters_never() -> None:
    plugin = AveragingPlugin("ema", DECAY, buffers=True, output=None)
    _, spec = run(plugin)
    by_hand = train_by_hand("ema", after_step=lambda step: True, use_buffers=True)
    assert same(averaged(plugin), by_hand.averaged, but="num_batches_tracked")
    assert not torch.equal(averaged(plugin)["1.running_mean"], spec.model.state_dict()["1.running_mean"])
    assert averaged(plugin)["1.num_batches_tracked"].item() == EPOCHS * BATCHES
    assert averaged(plugin)["1.num_batches_tracked"].dtype == torch.int64


def test_buffers_are_taken_as_they_are_at_the_time() -> None:
    plugin = AveragingPlugin("swa", every="3 epochs", output=None)
    _, spec = run(plugin)
    assert averaged(plugin)["1.num_batches_tracked"].item() == 3 * BATCHES
    assert spec.model.state_dict()["1.num_batches_tracked"].item() == EPOCHS * BATCHES


@pytest.mark.parametrize("method", ["ema", "swa"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_average_in_any_dtype_equals_that_of_averaged_model(method: str, dtype: torch.dtype) -> None:
    model = nn.ParameterDict({"weight": torch.randn(5, 3, dtype=dtype), "other": torch.randn(4)})
    expected = AveragedModel(model, multi_avg_fn=torch_average(method))
    average = WeightAverage(model, torch_average(method), with_buffers=False)
    for _ in range(7):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        expected.update_parameters(model)
        average.add()
    assert same(average.weights, expected.module.state_dict())


def test_tied_weights_stay_one_and_have_both_names() -> None:
    model: Any = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embedding"].weight
    average = WeightAverage(model, torch_average("ema"), with_buffers=False)
    for _ in range(2):
        average.add()
        nn.init.ones_(model["head"].weight)
    average.add()
    assert list(average.weights) == list(model.state_dict())
    assert average.weights["embedding.weight"] is average.weights["head.weight"]


def test_model_that_cannot_be_copied_is_averaged() -> None:
    model: Any = nn.Sequential(weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2))
    model.register_buffer("scale", model[1].weight.sum())  # with a graph behind it: copy.deepcopy refuses it
    model.register_buffer("passing", torch.zeros(1), persistent=False)
    average = WeightAverage(model, torch_average("ema"), with_buffers=True)
    average.add()
    average.add()
    assert same(average.weights, {name: value.detach() for name, value in model.state_dict().items()})
    assert not any(value.requires_grad for value in average.weights.values())


def test_names_of_a_compiled_model_are_those_of_its_state() -> None:
    model = nn.Linear(2, 2)
    model.compile(backend="eager")
    model(torch.ones(1, 2))
    average = WeightAverage(model, torch_average("ema"), with_buffers=True)
    assert list(average.weights) == ["weight", "bias"]


def test_tensor_that_the_model_replaces_is_followed() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, torch_average("ema"), with_buffers=False)
    average.add()
    model.running_mean = torch.full((2,), 5.0)
    model.weight = nn.Parameter(torch.full((2,), 2.0))
    average.add()
    assert average.weights["running_mean"].tolist() == [5.0, 5.0]
    assert average.weights["weight"].tolist() == pytest.approx([1.3, 1.3])


@pytest.mark.parametrize("method", ["ema", "swa"])
def test_nothing_waits_for_the_device(method: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to("meta")  # whose values nobody can read
    average = WeightAverage(model, torch_average(method), with_buffers=True)
    with _Operations() as operations:
        for _ in range(3):
            average.add()
    assert operations.moves == []


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Notes each operation that brings a tensor from one device to another."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.moves: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "device" in (kwargs or {}) and "_to_copy" in str(func):
            self.moves.append(str(func))
        return func(*args, **(kwargs or {}))


def test_one_call_averages_all_weights_of_a_kind() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(10)], nn.Linear(2, 2, dtype=torch.float64))
    calls: list[int] = []
    average = WeightAverage(model, lambda own, live, count: calls.append(len(own)), with_buffers=False)
    average.add()
    average.add()
    assert calls == [20, 2]


def test_frozen_weights_stay_what_they_are() -> None:
    plugin = AveragingPlugin("ema", DECAY, output=None)
    _, spec = run(plugin)
    assert torch.equal(averaged(plugin)["0.bias"], averaging_spec().model.state_dict()["0.bias"])
    assert torch.equal(averaged(plugin)["0.bias"], spec.model.state_dict()["0.bias"])
