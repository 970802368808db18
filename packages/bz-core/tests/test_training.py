"""What comes out of training: the weights of a loop written by hand, losses, metrics, and clear errors."""

from __future__ import annotations

import math
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bz import ConfigError, ScriptError, StepResult, Trainer, TrainingContext, TrainingError, TrainingSpec
from bz.config import TrainingSettings
from bz.plugins import Plugin, hookimpl
from bz.testing import DeviceReads, RecordingPlugin, tiny_spec, train
from bz.training.device import move_to_device, resolve_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def train_by_hand(spec: TrainingSpec, epochs: int) -> list[float]:
    """Train as everybody writes it; return the mean training loss of each epoch."""
    means = []
    for _ in range(epochs):
        spec.model.train()
        losses = []
        for inputs, targets in spec.training_loader:
            assert spec.loss_fn is not None
            loss = spec.loss_fn(spec.model(inputs), targets)
            spec.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            spec.optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return means


def weights(spec: TrainingSpec) -> list[Any]:
    return [parameter.tolist() for parameter in spec.model.parameters()]


def test_weights_and_losses_equal_those_of_a_loop_by_hand() -> None:
    by_hand, with_bz = tiny_spec(validation_loader=None), tiny_spec(validation_loader=None)
    torch.manual_seed(1)
    losses = train_by_hand(by_hand, epochs=3)
    torch.manual_seed(1)
    result = train(with_bz, epochs=3)
    assert weights(with_bz) == weights(by_hand)
    assert [row["training_loss"] for row in result.history] == losses


@pytest.mark.parametrize("reads", ["start_training_batch", "end_training_batch", "end_epoch"])
def test_losses_are_the_same_however_often_they_are_read(reads: str) -> None:
    def read(hook: str, context: TrainingContext) -> None:
        if hook == reads:
            assert isinstance(context.training_loss_total, float)

    torch.manual_seed(1)
    unread = train(tiny_spec())
    torch.manual_seed(1)
    assert train(tiny_spec(), RecordingPlugin(read)).history == unread.history


def test_validation_changes_no_weights_and_runs_in_eval_mode() -> None:
    def look(hook: str, context: TrainingContext) -> None:
        if hook == "end_validation_batch":
            assert not context.model.training
            assert not torch.is_grad_enabled()
            seen.append(context.validation_batch_count)

    seen: list[int] = []
    spec, without = tiny_spec(), tiny_spec(validation_loader=None)
    torch.manual_seed(1)
    train(spec, RecordingPlugin(look), epochs=1, strict_plugins=True)
    torch.manual_seed(1)
    train(without, epochs=1)
    assert weights(spec) == weights(without)
    assert seen == [1, 2]


def test_context_shows_the_numbers_of_the_guide() -> None:
    rows: list[tuple[Any, ...]] = []

    class Reader(Plugin):
        def end_epoch(self, context: TrainingContext) -> None:
            training_loss = context.training_loss_total / context.training_batch_count
            validation_loss = context.validation_loss_total / context.validation_batch_count
            rows.append((context.epoch, training_loss, validation_loss, context.training_metrics.copy()))

        def start_epoch(self, context: TrainingContext) -> None:
            assert (context.training_batch_count, context.validation_batch_count) == (0, 0)
            assert math.isnan(context.training_loss)

    result = train(tiny_spec(), Reader(), epochs=2, strict_plugins=True)
    expected: list[tuple[Any, ...]] = [
        (row["epoch"], row["training_loss"], row["validation_loss"], {}) for row in result.history
    ]
    assert rows == expected


class Accuracy:
    def __init__(self) -> None:
        self.right, self.count = 0.0, 0

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        assert not preds.requires_grad
        self.right += float((preds.argmax(1) == target).sum())
        self.count += len(target)

    def compute(self) -> torch.Tensor:
        return torch.tensor(self.right / self.count)

    def reset(self) -> None:
        self.right, self.count = 0.0, 0


def test_metrics_are_computed_for_training_and_validation_apart() -> None:
    metric = Accuracy()
    result = train(tiny_spec(metrics={"accuracy": metric}), epochs=2)
    assert sorted(result.history[0]) == [
        "epoch",
        "global_step",
        "training_accuracy",
        "training_loss",
        "validation_accuracy",
        "validation_loss",
    ]
    assert result.training_metrics["accuracy"] * 12 == pytest.approx(round(result.training_metrics["accuracy"] * 12))
    assert metric.count == 0, "the user's own metric is left alone"


def test_torchmetrics_fits_as_it_is() -> None:
    from torchmetrics.classification import MulticlassAccuracy

    own = train(tiny_spec(metrics={"accuracy": Accuracy()}), epochs=2).history
    theirs = train(tiny_spec(metrics={"accuracy": MulticlassAccuracy(num_classes=3, average="micro")}), epochs=2)
    assert theirs.history == [pytest.approx(row) for row in own]


def test_what_is_no_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="Metric 'accuracy' is the class Accuracy; a metric is an object with"):
        train(tiny_spec(metrics={"accuracy": Accuracy}))
    with pytest.raises(ConfigError, match="Metric 'accuracy' is a float; a metric is an object with update"):
        train(tiny_spec(metrics={"accuracy": 0.5}))


def test_scheduler_is_stepped_once_an_epoch() -> None:
    spec = tiny_spec()
    spec.lr_scheduler = torch.optim.lr_scheduler.StepLR(spec.optimizer, step_size=1, gamma=0.5)
    train(spec, epochs=3)
    assert spec.optimizer.param_groups[0]["lr"] == 0.1 * 0.5**3


def test_plateau_scheduler_is_given_the_validation_loss() -> None:
    spec = tiny_spec()
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(spec.optimizer)
    spec.lr_scheduler = scheduler
    result = train(spec, epochs=1)
    assert scheduler.best == result.validation_loss


class WithLoss(nn.Module):
    """Takes keywords and computes its own loss, as models of the transformers package do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.linear(features)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_mapping_batches_go_to_the_model_as_keywords() -> None:
    model = WithLoss()
    batch = {"features": torch.ones(2, 4), "labels": torch.zeros(2, dtype=torch.long)}
    spec = tiny_spec(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=None,
        training_loader=[batch] * 3,
        validation_loader=None,
        metrics={"accuracy": Accuracy()},
    )
    result = train(spec, epochs=2)
    assert result.history[1]["training_loss"] < result.history[0]["training_loss"]
    assert result.training_metrics == {"accuracy": 1.0}


def test_own_step_of_a_plugin_takes_the_place_of_the_default() -> None:
    class Doubling:
        @hookimpl
        def training_step(self, context: TrainingContext, batch: Any) -> StepResult | None:
            if context.batch_index == 2:
                return None
            inputs, targets = batch
            outputs = context.model(inputs)
            assert context.loss_fn is not None
            return StepResult(context.loss_fn(outputs, targets) * 0 + 7, outputs, targets)

    losses: list[float] = []

    def look(hook: str, context: TrainingContext) -> None:
        if hook == "end_training_batch":
            assert context.loss is not None
            losses.append(float(context.loss))

    train(tiny_spec(), Doubling(), RecordingPlugin(look), epochs=1, strict_plugins=True)
    assert losses[:2] == [7.0, 7.0]
    assert losses[2] != 7.0


@pytest.mark.parametrize("name", ["training_step", "validation_step"])
def test_step_of_the_script_that_returns_nothing_is_explained(name: str) -> None:
    steps: dict[str, Any] = {name: lambda _context, _batch: None}
    with pytest.raises(TrainingError, match=f"The {name} returned nothing; let it end with `return loss`."):
        train(tiny_spec(**steps))


BAD_BATCHES: dict[str, tuple[Any, str]] = {
    "tensor": (torch.ones(2, 4), r"A batch is a tensor of shape \(2, 4\); bz trains on pairs"),
    "three": ((torch.ones(2), torch.ones(2), torch.ones(2)), "A batch is a tuple of 3 items; bz trains on pairs"),
    "text": ("abc", "A batch is a str; bz trains on pairs"),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_batch_that_is_neither_pair_nor_mapping_is_explained(name: str) -> None:
    batch, message = BAD_BATCHES[name]
    with pytest.raises(TrainingError, match=message):
        train(tiny_spec(training_loader=[batch]))


def test_model_without_loss_on_a_mapping_is_explained() -> None:
    spec = tiny_spec(training_loader=[{"input": torch.ones(2, 4)}], validation_loader=None)
    with pytest.raises(TrainingError, match="The batch is a mapping and the model's output, a Tensor, has no `loss`"):
        train(spec)


LOSSES: dict[str, tuple[Callable[..., Any], str]] = {
    "per sample": (nn.CrossEntropyLoss(reduction="none"), r"The loss has shape \(4,\); it must be a scalar"),
    "number": (lambda outputs, _targets: 3.0, "The loss is a float; it must be a scalar tensor."),
    "nothing": (lambda outputs, _targets: None, "The loss is a NoneType; it must be a scalar tensor."),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_that_is_no_scalar_is_explained(name: str) -> None:
    loss_fn, message = LOSSES[name]
    with pytest.raises(TrainingError, match=message):
        train(tiny_spec(loss_fn=loss_fn))


def test_loss_of_one_element_is_taken_as_a_scalar() -> None:
    result = train(tiny_spec(loss_fn=lambda outputs, _targets: outputs.sum().reshape(1)), epochs=1)
    assert result.global_step == 3


def test_no_loss_function_is_explained() -> None:
    with pytest.raises(TrainingError, match="There is no loss_fn; give one, or write training_step"):
        train(tiny_spec(loss_fn=None))


def test_empty_loader_is_explained_before_the_session_starts() -> None:
    plugin = RecordingPlugin()
    empty = DataLoader(TensorDataset(torch.ones(3, 4), torch.ones(3)), 4, drop_last=True)
    with pytest.raises(ScriptError, match="The training_loader is empty: it has no batches; look at its dataset"):
        train(tiny_spec(training_loader=empty), plugin)
    with pytest.raises(ScriptError, match="The validation_loader is empty"):
        train(tiny_spec(validation_loader=[]), plugin)
    assert plugin.events == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": 3}, "The model is a int; it must be a torch.nn.Module."),
        ({"model": nn.Linear}, "The model is the class Linear; it must be a torch.nn.Module."),
        (
            {"optimizer": torch.optim.SGD},
            "The optimizer is the class SGD; it must be a torch.optim.Optimizer, built over",
        ),
        ({"loss_fn": "mse"}, "The loss_fn is a str; it must be callable as loss_fn"),
        ({"loss_fn": nn.MSELoss}, "The loss_fn is the class MSELoss; it must be callable as loss_fn"),
    ],
)
def test_part_that_is_not_what_its_name_says_is_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        train(tiny_spec(**changes))


def test_loader_that_cannot_be_walked_is_explained() -> None:
    with pytest.raises(ScriptError, match=r"The training_loader is a int; it must be iterable, as a DataLoader is."):
        train(tiny_spec(training_loader=3))


def test_one_shot_iterator_is_explained_in_its_second_epoch() -> None:
    def batches() -> Iterator[Any]:
        yield torch.ones(2, 4), torch.zeros(2, dtype=torch.long)

    with pytest.raises(
        TrainingError, match=r"The training_loader gave no batches in epoch 2; it must be iterable again"
    ):
        train(tiny_spec(training_loader=batches()))


def test_wrong_arguments_of_train_are_explained_together() -> None:
    with pytest.raises(ConfigError) as caught:
        train(tiny_spec(), epochs=0, precision="fp8")
    assert caught.value.faults == (
        "Trainer.train: `epochs` must be at least 1, got 0.",
        "Trainer.train: `precision` must be one of 'fp32', 'bf16' or 'fp16', got \"fp8\".",
    )


def test_checkpoint_interval_without_a_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`checkpoint_interval` needs a `run_dir` to write to."):
        train(tiny_spec(), checkpoint_interval=1)


def test_device_that_is_not_there_is_named() -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    for name in ("cuda", "cuda:3", "nonsense", "cpu:9"):
        with pytest.raises(
            ConfigError, match=rf"`training.device` is '{name}', which is not there; available: auto, cpu"
        ):
            resolve_device(name)
    assert resolve_device("auto") == torch.device("cpu")


def test_seed_makes_two_runs_equal() -> None:
    first, second = tiny_spec(), tiny_spec()
    train(first, seed=5)
    torch.rand(3)
    train(second, seed=5)
    assert weights(first) == weights(second)


def test_bf16_equals_autocast_by_hand() -> None:
    by_hand, with_bz = tiny_spec(validation_loader=None), tiny_spec(validation_loader=None)
    torch.manual_seed(1)
    by_hand.model.train()
    for inputs, targets in by_hand.training_loader:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = by_hand.loss_fn(by_hand.model(inputs), targets)  # type: ignore[misc]  # it has one
        by_hand.optimizer.zero_grad()
        loss.backward()
        by_hand.optimizer.step()
    torch.manual_seed(1)
    train(with_bz, epochs=1, precision="bf16")
    assert weights(with_bz) == weights(by_hand)


def test_fp16_scaler_goes_through_a_resume(tmp_path: Path) -> None:
    whole = train(tiny_spec(), epochs=3, precision="fp16", seed=1)
    train(tiny_spec(), epochs=1, precision="fp16", seed=1, run_dir=tmp_path)
    resumed = train(tiny_spec(), epochs=3, precision="fp16", run_dir=tmp_path, resume=tmp_path)
    assert resumed.history == whole.history


class Pair(NamedTuple):
    inputs: Any
    targets: Any


@dataclass
class Sample:
    inputs: Any
    name: str


def test_nested_batches_move_to_the_device_as_what_they_are() -> None:
    tensor = torch.ones(2)
    batch = {"a": [tensor, (tensor, "text")], "b": Pair(tensor, 3), "c": Sample(tensor, "x"), "d": None}
    moved = move_to_device(batch, torch.device("meta"))
    assert moved["a"][0].device.type == moved["a"][1][0].device.type == "meta"
    assert moved["a"][1][1] == "text"
    assert isinstance(moved["b"], Pair)
    assert moved["b"].inputs.device.type == "meta"
    assert isinstance(moved["c"], Sample)
    assert (moved["c"].inputs.device.type, moved["c"].name) == ("meta", "x")
    assert moved["d"] is None
    assert tensor.device.type == "cpu"


def test_result_of_a_failed_run_is_kept_by_the_trainer() -> None:
    spec = tiny_spec(loss_fn=nn.CrossEntropyLoss(reduction="none"))
    trainer = Trainer()
    with pytest.raises(TrainingError):
        trainer.train(spec.model, spec.optimizer, spec.loss_fn, spec.training_loader, device="cpu")
    assert trainer.result is not None
    assert (trainer.result.status, trainer.result.global_step) == ("failed", 0)


def test_error_text_is_one_line_without_the_secrets_of_the_settings() -> None:
    def failing_step(_context: TrainingContext, _batch: Any) -> None:
        raise ValueError("no access\nwith hunter2")

    seen: list[str] = []

    def look(hook: str, context: TrainingContext) -> None:
        if hook in {"start_epoch", "end_training_session"}:
            seen.append(context.error_text)

    trainer = Trainer()
    trainer.add_plugin(RecordingPlugin(look))
    spec = tiny_spec(training_step=failing_step)
    with pytest.raises(ValueError, match="no access"):
        trainer.run(spec, TrainingSettings(device="cpu"), redact=lambda text: text.replace("hunter2", "***"))
    assert seen == ["", "ValueError: no access with ***"]


def test_outputs_of_a_batch_are_gone_when_the_next_forward_pass_begins() -> None:
    alive: list[int] = []
    outputs: list[weakref.ref[torch.Tensor]] = []

    def count_alive(*_: object) -> None:
        alive.append(sum(one() is not None for one in outputs))

    def keep(_module: object, _inputs: object, output: torch.Tensor) -> None:
        outputs.append(weakref.ref(output))

    spec = tiny_spec()
    spec.model.register_forward_pre_hook(count_alive)
    spec.model.register_forward_hook(keep)
    train(spec, epochs=2)
    assert len(alive) > 4
    assert set(alive) == {0}


@pytest.mark.parametrize("stands_for_device", [False, True])
def test_step_that_returns_the_same_tensor_each_time_has_the_loss_of_each_batch(*, stands_for_device: bool) -> None:
    returned, losses = torch.zeros(()), []

    def replay(context: TrainingContext, batch: Any) -> torch.Tensor:
        loss = nn.functional.cross_entropy(context.model(batch[0]), batch[1])
        losses.append(loss.item())
        return returned.copy_(loss.detach())

    spec = tiny_spec(training_step=replay, manual_optimization=True, validation_step=replay)
    with DeviceReads() if stands_for_device else nullcontext():
        result = train(spec, epochs=1)
    training = losses[: len(list(spec.training_loader))]
    assert result.training_loss == sum(training) / len(training)
    assert result.validation_loss == sum(losses[len(training) :]) / len(losses[len(training) :])
    assert len(set(losses)) > 4


@pytest.mark.parametrize("manual", [False, True])
def test_loss_that_hooks_see_has_no_graph(*, manual: bool) -> None:
    seen: list[bool] = []

    class Look(Plugin):
        def end_training_batch(self, context: TrainingContext) -> None:
            assert context.loss is not None
            seen.append(context.loss.requires_grad)

    def step(context: TrainingContext, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(context.model(batch[0]), batch[1])

    train(tiny_spec(training_step=step, manual_optimization=manual), Look(), epochs=1)
    assert set(seen) == {False}
