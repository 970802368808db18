"""From losses to optimizer steps: what hooks see, what is refused, what a checkpoint keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bz import CheckpointError, ConfigError, LRSchedule, ScriptError, StepResult, TrainingContext, TrainingError
from bz.testing import RecordingPlugin, tiny_spec, train
from bz.training.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def layer(model: nn.Module, index: int) -> Any:
    return list(model.children())[index]


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def look_at(hook: str, value: Callable[[TrainingContext], Any]) -> tuple[RecordingPlugin, list[Any]]:
    """Return a plugin that notes a value at each call of one hook, and where it notes it."""
    seen: list[Any] = []
    return RecordingPlugin(lambda fired, context: seen.append(value(context)) if fired == hook else None), seen


def two_optimizers(spec: Any) -> dict[str, torch.optim.Optimizer]:
    return {
        "first": torch.optim.SGD(layer(spec.model, 0).parameters(), lr=0.1),
        "second": torch.optim.SGD(layer(spec.model, 3).parameters(), lr=0.2),
    }


def manual_step(context: TrainingContext, batch: Any) -> torch.Tensor:
    inputs, targets = batch
    assert context.loss_fn is not None
    loss = context.loss_fn(context.model(inputs), targets)
    for optimizer in context.optimizer.values():
        optimizer.zero_grad()
    context.backward(loss)
    for optimizer in context.optimizer.values():
        context.step_optimizer(optimizer)
    return loss


def test_accumulation_counts_steps_and_closes_the_window_with_the_epoch() -> None:
    plugin, steps = look_at("end_training_batch", lambda context: context.global_step)
    result = train(tiny_spec(), plugin, epochs=2, accumulate_batches=2)
    assert steps == [0, 1, 2, 2, 3, 4]
    assert result.global_step == 4


def test_accumulation_over_a_loader_without_length_makes_the_last_step_after_the_loop() -> None:
    spec = tiny_spec()
    batches = list(spec.training_loader)

    class Stream:
        def __iter__(self) -> Any:
            return iter(batches)

    plugin, steps = look_at("end_training_loop", lambda context: context.global_step)
    streamed, listed = tiny_spec(training_loader=Stream()), tiny_spec(training_loader=batches)
    train(streamed, plugin, epochs=2, accumulate_batches=2, seed=1)
    train(listed, epochs=2, accumulate_batches=2, seed=1)
    assert steps == [2, 4]
    for one, other in zip(streamed.model.parameters(), listed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_a_skipped_batch_are_left_out_of_its_window() -> None:
    spec, clean = tiny_spec(), tiny_spec()
    good, bad, last = list(spec.training_loader)
    options: dict[str, Any] = {"epochs": 1, "on_nonfinite": "skip", "seed": 1, "validation_interval": 0}
    for one, batches in ((spec, [good, (bad[0] * torch.nan, bad[1]), last]), (clean, [good, last])):
        one.training_loader = batches
        layer(one.model, 2).p = 0.0
        result = train(one, accumulate_batches=3, **options)
        assert result.global_step == 1
    for one_weight, other in zip(spec.model.parameters(), clean.model.parameters(), strict=True):
        torch.testing.assert_close(one_weight, other)


def test_batch_of_unknown_size_is_explained() -> None:
    spec = tiny_spec(training_loader=[["text"]], validation_loader=None)
    spec.training_step = lambda context, _: context.model(torch.ones(1, 4)).sum()
    with pytest.raises(TrainingError, match=r"How many samples a list holds is not known.*weight="):
        train(spec, epochs=1, accumulate_batches=2)


def test_weight_of_a_step_takes_the_place_of_the_number_of_samples() -> None:
    spec = tiny_spec(training_loader=[["text"], ["more"]], validation_loader=None)
    layer(spec.model, 2).p = 0.0
    scale = {"text": 1.0, "more": 3.0}

    def step(context: TrainingContext, batch: Any) -> StepResult:
        inputs = torch.ones(1, 4) * scale[batch[0]]
        return StepResult(context.model(inputs).sum(), weight=scale[batch[0]])

    spec.training_step = step
    plugin, gradients = look_at("end_training_batch", lambda context: layer(context.model, 3).bias.grad.tolist())
    train(spec, plugin, epochs=1, accumulate_batches=2)
    assert gradients[1] == [1.0, 1.0, 1.0]  # (1 x 1 + 3 x 1) / 4: the derivative of each sum is 1


def test_norm_of_the_gradients_is_that_before_clipping() -> None:
    plugin, norms = look_at("end_training_batch", lambda context: (context.grad_norm, _norm(context.model)))
    train(tiny_spec(), plugin, epochs=1, clip_grad_norm=0.01)
    for before, after in norms:
        assert before > 0.01
        assert float(after) == pytest.approx(0.01, rel=1e-3)


def test_norm_of_the_gradients_is_there_without_clipping() -> None:
    plugin, norms = look_at("end_training_batch", lambda context: (context.grad_norm, _norm(context.model)))
    train(tiny_spec(), plugin, epochs=1)
    assert [float(norm) for norm, _ in norms] == [pytest.approx(float(own)) for _, own in norms]


def test_norm_of_the_gradients_is_none_before_there_are_any() -> None:
    plugin, norms = look_at("start_training_session", lambda context: context.grad_norm)
    train(tiny_spec(), plugin, epochs=1)
    assert norms == [None]


def _norm(model: nn.Module) -> torch.Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def test_learning_rates_have_the_names_of_groups_and_optimizers() -> None:
    spec = tiny_spec()
    grouped = torch.optim.SGD(
        [{"params": layer(spec.model, 0).parameters(), "lr": 0.3}, {"params": layer(spec.model, 3).parameters()}]
    )
    seen = []
    for optimizer, step in ((spec.optimizer, None), (grouped, None), (two_optimizers(spec), manual_step)):
        spec.optimizer, spec.training_step = optimizer, step
        plugin, rates = look_at("start_epoch", lambda context: context.learning_rates)
        train(spec, plugin, epochs=1)
        seen += rates
    assert seen == [{"lr": 0.1}, {"group_0": 0.3, "group_1": 0.001}, {"first": 0.1, "second": 0.2}]


def test_several_optimizers_are_stepped_by_the_step_and_saved_by_name(tmp_path: Path) -> None:
    spec = tiny_spec(training_step=manual_step)
    spec.optimizer = two_optimizers(spec)
    result = train(spec, epochs=2, run_dir=tmp_path)
    assert result.global_step == 6
    assert list(find_checkpoint(tmp_path).state["optimizer_state_dict"]) == ["first", "second"]


def test_several_optimizers_without_a_step_are_refused() -> None:
    spec = tiny_spec()
    spec.optimizer = two_optimizers(spec)
    with pytest.raises(ScriptError, match=r"has no training_step\(context, batch\)"):
        train(spec, epochs=1)


@pytest.mark.parametrize(
    ("setting", "text"),
    [({"accumulate_batches": 2}, "`training.accumulate_batches` 2 has no effect"),
     ({"on_nonfinite": "skip"}, "`training.on_nonfinite` 'skip' has no effect")],
)  # fmt: skip
def test_setting_without_effect_on_a_step_that_optimizes_is_refused(setting: dict[str, Any], text: str) -> None:
    spec = tiny_spec(training_step=manual_step)
    spec.optimizer = two_optimizers(spec)
    with pytest.raises(ConfigError, match=text):
        train(spec, epochs=1, **setting)


def test_checkpoint_with_other_optimizers_is_refused_with_their_names(tmp_path: Path) -> None:
    train(tiny_spec(), epochs=1, run_dir=tmp_path)
    spec = tiny_spec(training_step=manual_step)
    spec.optimizer = two_optimizers(spec)
    with pytest.raises(CheckpointError, match="has one optimizer, the script has the optimizers first, second"):
        train(spec, epochs=2, run_dir=tmp_path, resume=tmp_path)


def test_optimizing_in_a_run_that_bz_optimizes_is_explained() -> None:
    def step(context: TrainingContext, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = context.model(batch[0]).sum()
        context.backward(loss)
        return loss

    with pytest.raises(TrainingError, match="set manual_optimization = True"):
        train(tiny_spec(training_step=step), epochs=1)


def test_clipping_applies_to_steps_of_ones_own() -> None:
    spec = tiny_spec(training_step=manual_step)
    spec.optimizer = two_optimizers(spec)
    largest = lambda context: max(float(p.grad.abs().max()) for p in context.model.parameters())  # noqa: E731
    plugin, values = look_at("end_training_batch", largest)
    train(spec, plugin, epochs=1, clip_grad_value=0.001)
    assert values == 3 * [pytest.approx(0.001)]


def test_step_that_overflowed_in_fp16_is_neither_counted_nor_scheduled() -> None:
    spec = tiny_spec(validation_loader=None)
    scheduler = torch.optim.lr_scheduler.StepLR(spec.optimizer, step_size=1, gamma=0.5)
    spec.lr_scheduler = LRSchedule(scheduler, every="1 step")
    loss_fn = nn.CrossEntropyLoss()
    calls = iter(range(99))
    spec.loss_fn = lambda outputs, targets: loss_fn(outputs, targets) * (1e38 if next(calls) == 0 else 1.0)
    result = train(spec, epochs=1, precision="fp16", on_nonfinite="ignore")
    assert result.global_step == 2
    assert scheduler.get_last_lr() == [0.1 * 0.5**2]


class Margin(nn.Module):
    """A loss with a weight of its own, as in metric learning."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs * self.scale, targets)


def test_weights_of_the_loss_function_go_through_a_resume(tmp_path: Path) -> None:
    def spec() -> Any:
        margin = Margin()
        made = tiny_spec(loss_fn=margin)
        made.optimizer = torch.optim.SGD([*made.model.parameters(), *margin.parameters()], lr=0.1)
        return made

    whole, resumed = spec(), spec()
    train(whole, epochs=3, seed=1)
    train(spec(), epochs=1, seed=1, run_dir=tmp_path)
    train(resumed, epochs=3, run_dir=tmp_path, resume=tmp_path)
    assert resumed.loss_fn.scale.tolist() == whole.loss_fn.scale.tolist() != [1.0, 1.0, 1.0]


def test_worst_difference_of_accumulation_to_one_batch_is_a_rounding_error() -> None:
    torch.manual_seed(3)
    data = TensorDataset(torch.randn(75, 4, dtype=torch.float64), torch.randint(0, 3, (75,)))
    gradients = []
    for batch_size, window in ((32, 1), (8, 4)):
        torch.manual_seed(4)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        plugin, seen = look_at(
            "end_training_batch",
            lambda context: (context.global_step, [gradient(p) for p in context.model.parameters()]),
        )
        spec = tiny_spec(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            training_loader=DataLoader(data, batch_size),
            validation_loader=None,
        )
        train(spec, plugin, epochs=1, accumulate_batches=window)
        gradients.append(dict(reversed(seen)))  # those of the batch that made the step, the first with its number
    assert gradients[0].keys() == gradients[1].keys() - {0} == {1, 2, 3}
    for step, expected in gradients[0].items():
        for one, other in zip(gradients[1][step], expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
